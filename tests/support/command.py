"""A real node, and the real command run against it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXECUTABLE = Path(sys.executable).parent / "keycache"
OWN_ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("KEYCACHE_", "COLUMNS", "NO_COLOR"))
}


@dataclass(frozen=True)
class Node:
    """A running node: what it keeps and its process."""

    data_dir: Path
    process: subprocess.Popen[bytes]

    @property
    def run_file(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.data_dir / "run.json").read_bytes())
        return document

    @property
    def is_ready(self) -> bool:
        """Whether this very process said where it listens: one that was killed leaves its run.json behind."""
        return (self.data_dir / "run.json").exists() and self.run_file["pid"] == self.process.pid


NO_CHANGES: Mapping[str, str] = {}


def start(
    data_dir: Path,
    *,
    environ: Mapping[str, str] = NO_CHANGES,
    log_file: Path | None = None,
    inside: Sequence[str] = (),
    options: Sequence[object] = (),
    **settings: str,
) -> Node:
    """Start `keycache serve` on free ports and wait until it says where. `settings`: as in KEYCACHE_SECTION__NAME. `environ`: of the
    process, beside our own. `log_file`: None is DATA_DIR/log. `inside`: of the host it runs on (`support.network`).
    `options`: of `serve`."""
    defaults = {
        "LISTEN__GRPC": "127.0.0.1:0",
        "LISTEN__METRICS": "127.0.0.1:0",
        "WORKERS__COUNT": "1",
        "TRUST__SYSTEM_ANCHORS": "no",
        "MAIL__MANAGED_DOMAINS": "ours.example",
    }
    chosen = {f"KEYCACHE_{name}": value for name, value in {**defaults, **settings}.items()}
    data_dir.mkdir(parents=True, exist_ok=True)
    log_file = log_file or data_dir / "log"
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [*inside, EXECUTABLE, "serve", "--data-dir", data_dir, *(str(one) for one in options)],
            env={**OWN_ENVIRONMENT, **environ, **chosen},
            stdout=log,
            stderr=log,
        )
    node = Node(data_dir, process)
    deadline = time.monotonic() + 60
    while not node.is_ready:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise AssertionError(f"The node did not start:\n{log_file.read_text()}")
        time.sleep(0.05)
    return node


def stop(node: Node) -> int:
    """SIGTERM; the exit code."""
    node.process.send_signal(signal.SIGTERM)
    try:
        return node.process.wait(60)
    except subprocess.TimeoutExpired:
        node.process.kill()
        raise


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.err == "", self.err
        return json.loads(self.out)


Command = Callable[..., Result]


def spawn(
    *arguments: object, stdin: bytes = b"", inside: Sequence[str] = (), **environ: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the installed command in a process of its own. `inside`: of the host it runs on."""
    return subprocess.run(
        [*inside, EXECUTABLE, *(str(one) for one in arguments)],
        input=stdin,
        env={**OWN_ENVIRONMENT, **environ},
        capture_output=True,
        timeout=60,
        check=False,
    )
