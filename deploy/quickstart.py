"""A first look at Keycache, in some seconds: what `deploy/quickstart` runs once .venv is there.

A node is started on a data directory and free ports of its own. It is handed the mails of `sample_mails` over gRPC by the
`keycache` command, as an administrator would, and asked for the senders' keys. Two tables show what came of it, and what came of it
is compared with what should have: the exit code is 0 only if all is as `sample_mails` says. Then the node is stopped and
a directory that was made for it removed, also after Ctrl-C. With --keep the node runs on.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import quickstart_report
from sample_mails import MANAGED_DOMAIN, SampleMail, Samples, sample_mails, write

from keycache.clock import SystemClock

COMMAND = Path(sys.executable).with_name("keycache")
"""The installed command of the environment that runs this."""

START_LIMIT = 60.0
"""Seconds. A node answers within one or two; a small machine that is busy otherwise gets its time."""

STOP_LIMIT = 30.0
"""Seconds that calls in flight may take to finish."""

CONFIG_HEAD = "# Written by deploy/quickstart."
"""How a directory of an earlier quickstart is known from one of somebody else's node."""

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class QuickstartError(Exception):
    """What went wrong and what to do, for the person who started it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`data_dir` None: one that is made and removed again. `began`: seconds since 1970 at which the person pressed return."""

    keep: bool
    data_dir: Path | None
    began: float | None


class Node:
    """One `keycache serve` as a child process, in a session of its own so that Ctrl-C reaches only us and we stop it in order."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._log = data_dir / "node.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    def start(self) -> None:
        """Returns once the node takes calls. Raises QuickstartError, with the node's own words."""
        announced = self.data_dir / "run.json"
        announced.unlink(missing_ok=True)
        with self._log.open("ab") as log:
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
        done = subprocess.run(
            [COMMAND, *arguments, "--json"],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
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
        if code != 0:
            raise QuickstartError(f"The node stopped with exit code {code}:\n{self._last_words()}")

    def _environment(self) -> dict[str, str]:
        """Ours, without settings that are meant for another node."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("KEYCACHE_")}
        return {**own, "KEYCACHE_DATA_DIR": str(self.data_dir)}

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace").splitlines() if self._log.exists() else []
        return "\n".join(lines[-15:])


def _is_announced(path: Path) -> bool:
    try:
        return "grpc" in json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False


def main() -> int:
    options = _options(sys.argv[1:])
    begin = SystemClock().now().timestamp() if options.began is None else options.began
    for one in _INTERRUPTS:
        signal.signal(one, _interrupt)
    try:
        wrong = _quickstart(options)
    except QuickstartError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("quickstart: interrupted; everything is cleared away", file=sys.stderr)
        return 130
    for difference in wrong:
        print(f"quickstart: {difference}", file=sys.stderr)
    took = SystemClock().now().timestamp() - begin
    print(f"{'Not all is as it should be' if wrong else 'All as it should be'}; {took:.1f} s.")
    return 1 if wrong else 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Once. Clearing away is not interrupted again."""
    for one in _INTERRUPTS:
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt


def _options(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="deploy/quickstart", description="Try Keycache out with sample mail.")
    parser.add_argument("--keep", action="store_true", help="let the node run on and print the commands to go on with")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="the node's directory, which is then not removed")
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    data_dir = given.data_dir.absolute() if given.data_dir else None
    return Options(keep=given.keep, data_dir=data_dir, began=given.began)


def _quickstart(options: Options) -> list[str]:
    """What came out differently from what it should be, as sentences."""
    samples = sample_mails(SystemClock().now())
    with _directory(options) as data_dir, _running(data_dir, samples, keep=options.keep) as node:
        harvested = [
            result
            for direction in ("inbound", "outbound")
            for result in _harvest(node, [mail for mail in samples.mails if mail.direction == direction], direction)
        ]
        found = node.call("lookup", *(mail.sender for mail in samples.mails))["results"]
        quickstart_report.show(samples, harvested, found)
        wrong = quickstart_report.differences(samples, harvested, found)
        if options.keep:
            print(_ways_on(node))
    return wrong


def _harvest(node: Node, mails: Sequence[SampleMail], direction: str) -> list[dict[str, Any]]:
    files = [str(_mail_dir(node.data_dir) / f"{mail.name}.eml") for mail in mails]
    results: list[dict[str, Any]] = node.call("harvest", "--direction", direction, *files)["results"]
    return results


def _mail_dir(data_dir: Path) -> Path:
    return data_dir / "sample-mail"


@contextmanager
def _directory(options: Options) -> Iterator[Path]:
    """The data directory. One that was made here is removed again, except when a node runs on in it."""
    if options.data_dir is not None:
        yield _own_directory(options.data_dir)
        return
    made = Path(tempfile.mkdtemp(prefix="keycache-quickstart-"))
    done = False
    try:
        yield made
        done = True
    finally:
        if not (done and options.keep):
            shutil.rmtree(made, ignore_errors=True)


def _own_directory(data_dir: Path) -> Path:
    """`data_dir`, made if need be. Raises QuickstartError if it is somebody else's: the configuration there would be overwritten."""
    config = data_dir / "keycache.toml"
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        ours = config.read_text("utf-8").startswith(CONFIG_HEAD) if config.exists() else not any(data_dir.iterdir())
    except OSError as error:
        raise QuickstartError(f"{error}. Name a directory that you may write to: --data-dir DIR") from error
    if not ours:
        raise QuickstartError(f"{data_dir} is neither empty nor of an earlier quickstart. Name another one: --data-dir DIR")
    return data_dir


@contextmanager
def _running(data_dir: Path, samples: Samples, *, keep: bool) -> Iterator[Node]:
    """A node that trusts the samples' CA; stopped again, unless `keep` and all went well."""
    node = Node(data_dir)
    if node.answers():
        raise QuickstartError(f"A node runs on {data_dir} already. Stop it first, or name another directory: --data-dir DIR")
    write(samples, _mail_dir(data_dir))
    _configure(data_dir)
    done = False
    try:
        node.start()
        yield node
        done = True
    finally:
        if not (done and keep):
            node.stop()


def _configure(data_dir: Path) -> None:
    """Free ports, our domain, the samples' CA and no other."""
    anchor = json.dumps(str(_mail_dir(data_dir) / "ca.pem"))
    (data_dir / "keycache.toml").write_text(
        f"""{CONFIG_HEAD}
[listen]
grpc = "127.0.0.1:0"
metrics = "127.0.0.1:0"

[mail]
managed_domains = ["{MANAGED_DOMAIN}"]

[trust]
anchors = [{anchor}]
system_anchors = false
""",
        "utf-8",
    )


def _ways_on(node: Node) -> str:
    keycache = f"{shlex.quote(str(COMMAND))} --data-dir {shlex.quote(str(node.data_dir))}"
    mail = shlex.quote(str(_mail_dir(node.data_dir) / "smime-forged.eml"))
    return f"""
The node runs on. To go on:
  {keycache} status
  {keycache} list
  {keycache} explain --direction inbound {mail}
  {keycache} issuers list
  {keycache} settings show
  {keycache} --help
  kill {node.pid}   # stops it; its data stay in {node.data_dir}
"""


if __name__ == "__main__":
    sys.exit(main())
