"""Workers that a hostile mail has taken over, or that are simply broken: `rogue_worker.py KIND PARENT MEMORY CPU IMPORT MESSAGE`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from keycache.harvest.budget import Budget
from keycache.sandbox import child
from keycache.sandbox.frames import LENGTH, frame
from keycache.v1 import entry_pb2, sandbox_pb2


def _spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def _hoard() -> None:
    hoard = [b"x" * 2**20]
    while True:
        hoard += [part + b"y" for part in hoard]


def _fail() -> None:
    raise ValueError("a secret of the mail")


def _panic() -> None:
    raise SystemExit("a secret of the mail")


def _examination(**fields: object) -> sandbox_pb2.WorkerAnswer:
    return sandbox_pb2.WorkerAnswer(examination=sandbox_pb2.Examination(direction=1, **fields))  # type: ignore[arg-type]


ACTS: dict[str, Callable[[], sandbox_pb2.WorkerAnswer | int | None]] = {
    "spinning": lambda: _spin(1e9),
    "slow": lambda: _spin(0.5),
    "hoarding": _hoard,
    "failing": _fail,
    "panicking": _panic,
    "crashing": os.abort,
    "curious": lambda: sandbox_pb2.WorkerAnswer(certificates=sandbox_pb2.CertificateList(der=_powers())),
    "strange": lambda: sandbox_pb2.WorkerAnswer(key=entry_pb2.Key()),
    "contradictory": _examination,
    "inventive": lambda: _examination(verdict="ALL_IS_WELL", sender="a@b.example"),
    "babbling": lambda: os.write(3, frame(b"\xff" * 100)),
    "boundless": lambda: os.write(3, LENGTH.pack(0xFFFFFFFF) + b"\x00" * 1000),
    "silent": lambda: os.write(3, frame(b"")),
}


class Rogue(child.Worker):
    """Does to every task with an answer what `kind` says, or what the message says ("obedient")."""

    kind = ""

    def do(self, task: sandbox_pb2.WorkerTask) -> sandbox_pb2.WorkerAnswer | None:
        if task.WhichOneof("task") == "trust":
            if self.kind == "distrustful":
                raise ValueError("no such trust")
            return super().do(task)
        kind = task.examine.message.decode() if self.kind == "obedient" else self.kind
        done = ACTS[kind]() if kind in ACTS else None
        return done if isinstance(done, sandbox_pb2.WorkerAnswer) else super().do(task)


def _powers() -> list[bytes]:
    """What this process can do that it should not be able to."""
    found: list[str] = []
    for power, attempt in {
        "write": lambda: Path("/tmp/keycache-rogue").write_bytes(b"x"),
        "fork": lambda: os._exit(0) if os.geteuid() and not os.fork() else os.geteuid() or 1 / 0,
        "descriptors": lambda: [os.fstat(fd) for fd in range(4, 64)],
        "secret": lambda: os.environ["KEYCACHE_TEST_SECRET"],
    }.items():
        try:
            attempt()
            found.append(power)
        except (OSError, KeyError, ZeroDivisionError):
            continue
    return [one.encode() for one in found]


if __name__ == "__main__":
    Rogue.kind = sys.argv[1]
    if Rogue.kind == "stillborn":
        sys.exit(1)
    if Rogue.kind == "rude":
        os.write(1, frame(b"hello"))
    os._exit(child.main(sys.argv[2:], lambda budget: Rogue(Budget(message_bytes=budget.message_bytes))))
