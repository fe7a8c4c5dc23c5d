"""A real node, and the real command run against it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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


def start(data_dir: Path, **settings: str) -> Node:
    """Start `keycache serve` on free ports and wait until it says where. `settings`: as in KEYCACHE_SECTION__NAME."""
    defaults = {
        "LISTEN__GRPC": "127.0.0.1:0",
        "LISTEN__METRICS": "127.0.0.1:0",
        "WORKERS__COUNT": "1",
        "TRUST__SYSTEM_ANCHORS": "no",
        "MAIL__MANAGED_DOMAINS": "ours.example",
    }
    chosen = {f"KEYCACHE_{name}": value for name, value in {**defaults, **settings}.items()}
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "log").open("ab") as log:
        process = subprocess.Popen(
            [EXECUTABLE, "serve", "--data-dir", data_dir], env={**OWN_ENVIRONMENT, **chosen}, stdout=log, stderr=log
        )
    deadline = time.monotonic() + 60
    while not (data_dir / "run.json").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"The node did not start:\n{(data_dir / 'log').read_text()}")
        time.sleep(0.05)
    return Node(data_dir, process)


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


def spawn(*arguments: object, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run the installed command in a process of its own."""
    return subprocess.run(
        [EXECUTABLE, *(str(one) for one in arguments)],
        input=stdin,
        env={**OWN_ENVIRONMENT, **environ},
        capture_output=True,
        timeout=60,
        check=False,
    )
