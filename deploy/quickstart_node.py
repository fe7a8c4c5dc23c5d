"""The node that the quickstart runs, seen from outside: started, asked and stopped by the installed `keycache` command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

COMMAND = Path(sys.executable).with_name("keycache")
"""The installed command of the environment that runs this."""

START_LIMIT = 60.0
"""Seconds. A node answers within one or two; a small machine that is busy otherwise gets its time."""

STOP_LIMIT = 30.0
"""Seconds that calls in flight may take to finish."""


class QuickstartError(Exception):
    """What went wrong and what to do, for the person who started it."""


class Interrupts:
    """Makes the first Ctrl-C, SIGTERM or SIGHUP a KeyboardInterrupt, and ignores the others: clearing away is not interrupted again.

    A handler of ours, not SIG_IGN, which the node would inherit and then not hear that it is to stop.
    """

    def __init__(self) -> None:
        self._arrived = False
        self._held = False

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    @contextmanager
    def held(self) -> Iterator[None]:
        """An interrupt that arrives inside comes at the end."""
        arrived_before, self._held = self._arrived, True
        try:
            yield
        finally:
            self._held = False
        if self._arrived and not arrived_before:
            raise KeyboardInterrupt

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        first, self._arrived = not self._arrived, True
        if first and not self._held:
            raise KeyboardInterrupt


class Node:
    """One `keycache serve` as a child process, in a session of its own so that Ctrl-C reaches only us and we stop it in order."""

    def __init__(self, data_dir: Path, interrupts: Interrupts) -> None:
        self.data_dir = data_dir
        self._interrupts = interrupts
        self._started = False
        self._log = data_dir / "node.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    def start(self) -> None:
        """Returns once the node takes calls. Raises QuickstartError, with the node's own words."""
        announced = self.data_dir / "run.json"
        announced.unlink(missing_ok=True)
        # 1. the child exists, 2. Ctrl-C, 3. it would have been assigned: nobody would stop it.
        with self._log.open("ab") as log, self._interrupts.held():
            self._process = subprocess.Popen(
                [COMMAND, "serve"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_LIMIT
        while not _is_announced(announced):
            if (code := self._process.poll()) is not None:
                self._process = None  # nothing is left to be stopped
                raise QuickstartError(f"The node ended at once, with exit code {code}:\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise QuickstartError(f"The node did not start within {START_LIMIT:.0f} s:\n{self._last_words()}")
            time.sleep(0.02)
        self._started = True

    def answers(self) -> bool:
        """Whether a node runs on the directory now, whoever started it."""
        if not (self.data_dir / "run.json").exists():
            return False
        try:
            self.call("status")
        except QuickstartError:
            return False
        return True

    def call(self, *arguments: str) -> dict[str, Any]:
        """The answer of one `keycache ... --json`. Exit code 1 is an answer too: something was refused or not found."""
        done = self._run(*arguments, "--json")
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            answer = None
        if done.returncode > 1 or not isinstance(answer, dict):
            words = (done.stderr or done.stdout).strip()
            raise QuickstartError(
                f"'keycache {arguments[0]}' failed with exit code {done.returncode}:\n{words}\n{self._last_words()}"
            )
        return answer

    def text(self, *arguments: str) -> str:
        """What one `keycache ...` printed. Raises QuickstartError."""
        done = self._run(*arguments)
        if done.returncode:
            raise QuickstartError(f"'keycache {arguments[0]}' failed with exit code {done.returncode}:\n{done.stderr.strip()}")
        return done.stdout

    def stop(self) -> None:
        """By its own pid. Raises QuickstartError when it had to be killed or ended with an error."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise QuickstartError(
                f"The node did not stop within {STOP_LIMIT:.0f} s and was killed:\n{self._last_words()}"
            ) from None
        # Before it has started a node may end in any way.
        self._process = None
        if code != 0 and self._started:
            raise QuickstartError(f"The node stopped with exit code {code}:\n{self._last_words()}")

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def _environment(self) -> dict[str, str]:
        """Ours, without settings that are meant for another node."""
        kept = "KEYCACHE_TRACEBACK"
        own = {name: value for name, value in os.environ.items() if not name.startswith("KEYCACHE_") or name == kept}
        return {**own, "KEYCACHE_DATA_DIR": str(self.data_dir)}

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace").splitlines() if self._log.exists() else []
        return "\n".join(lines[-15:])


def _is_announced(path: Path) -> bool:
    try:
        return "grpc" in json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
