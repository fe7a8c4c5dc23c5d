"""Workers that a hostile mail has taken over, or that are simply broken: `rogue_worker.py KIND PARENT MEMORY CPU MESSAGE`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from keycache.harvest.budget import Budget
from keycache.sandbox import child
from keycache.sandbox.frames import LENGTH, frame
from keycache.v1 import sandbox_pb2


class Rogue(child.Worker):
    """Does to every task with an answer what `kind` says."""

    kind = ""

    def do(self, task: sandbox_pb2.WorkerTask) -> sandbox_pb2.WorkerAnswer | None:
        if task.WhichOneof("task") == "trust":
            if self.kind == "distrustful":
                raise ValueError("no such trust")
            return super().do(task)
        match self.kind:
            case "spinning":
                while True:
                    pass
            case "hoarding":
                hoard = [b"x" * 2**20]
                while True:
                    hoard += [part + b"y" for part in hoard]
            case "failing":
                raise ValueError("a secret of the mail")
            case "panicking":
                raise SystemExit("a secret of the mail")
            case "crashing":
                os.abort()
            case "curious":
                return sandbox_pb2.WorkerAnswer(certificates=sandbox_pb2.CertificateList(der=_powers()))
            case "strange":
                return sandbox_pb2.WorkerAnswer(key=sandbox_pb2.WorkerAnswer().key)
            case "contradictory":
                return sandbox_pb2.WorkerAnswer(examination=sandbox_pb2.Examination(direction="DIRECTION_INBOUND"))  # type: ignore[arg-type]
            case "inventive":
                return sandbox_pb2.WorkerAnswer(
                    examination=sandbox_pb2.Examination(direction=1, verdict="ALL_IS_WELL", sender="a@b.example")  # type: ignore[arg-type]
                )
            case "babbling":
                os.write(3, frame(b"\xff" * 100))
            case "boundless":
                os.write(3, LENGTH.pack(0xFFFFFFFF) + b"\x00" * 1000)
            case "silent":
                os.write(3, frame(b""))
        return super().do(task)


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
