"""A worker: reads tasks on its standard input, answers on its standard output, and ends with its parent.

`python -m keycache.sandbox.child PARENT MEMORY CPU IMPORT MESSAGE`: the parent's process id, bytes of address space and seconds of
processor time a task may use, the same seconds for an import, and bytes a message may have.

Rules:
- Limits are set before the first byte of a mail is read: no writing of files, no core dumps, no new processes or privileges, few
  descriptors, bounded memory and processor time.
- Standard output carries frames only: it is moved aside, so that whatever a library prints is lost.
- An answer never holds a text that a parser's error made of mail content: of an unforeseen error only its type is told.
- A trust base that cannot be taken over ends the worker: it must never judge by an older one than the node believes.
- After an unforeseen error that may have left things half-done (no memory, a panic) the worker answers and ends.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import BinaryIO

from keycache.codec import decode, key_from_wire, key_to_wire, moment
from keycache.domain.examination import TrustBase
from keycache.domain.names import EmailAddress
from keycache.harvest import material, openpgp, pipeline
from keycache.harvest.budget import Budget
from keycache.harvest.paths import PathJudge
from keycache.sandbox import convert
from keycache.sandbox.frames import LENGTH, MEMORY, frame
from keycache.v1 import sandbox_pb2

_DESCRIPTORS = 32
"""Four pipes, and modules that are loaded late, one file each."""

_ANSWERS = 3
"""The descriptor that answers are written to."""

# Numbers of prctl(2).
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


class Worker:
    """`judge` answers by the trust base last received; before that, no issuer is trusted."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._judge = PathJudge(TrustBase())

    def do(self, task: sandbox_pb2.WorkerTask) -> sandbox_pb2.WorkerAnswer | None:
        """None: this task has no answer."""
        now = moment(task.now)
        match task.WhichOneof("task"):
            case "trust":
                self._judge = PathJudge(convert.trust_from_wire(task.trust))
                return None
            case "examine":
                examination = pipeline.examine(
                    task.examine.message,
                    convert.envelope_from_wire(task.examine.envelope),
                    convert.policy_from_wire(task.examine.policy),
                    self._judge,
                    now,
                    self._budget,
                )
                return sandbox_pb2.WorkerAnswer(examination=convert.examination_to_wire(examination))
            case "read_material":
                addresses = tuple(EmailAddress(text) for text in task.read_material.addresses)
                findings = material.read_material(task.read_material.blob, addresses, self._judge, now)
                listed = sandbox_pb2.FindingList(findings=[convert.finding_to_wire(finding) for finding in findings])
                return sandbox_pb2.WorkerAnswer(findings=listed)
            case "merge":
                merged = openpgp.merge(key_from_wire(task.merge.known), key_from_wire(task.merge.seen), now)
                return sandbox_pb2.WorkerAnswer(key=key_to_wire(merged))
            case "certificates":
                ders = material.certificates(task.certificates.blob)
                return sandbox_pb2.WorkerAnswer(certificates=sandbox_pb2.CertificateList(der=ders))
            case _:
                return sandbox_pb2.WorkerAnswer(error="UnknownTask")


def is_import(task: sandbox_pb2.WorkerTask) -> bool:
    """An administrator's file of keys; a mail processor asks for addresses."""
    return task.WhichOneof("task") == "read_material" and not task.read_material.addresses


def serve(worker: Worker, tasks: BinaryIO, answers: BinaryIO, cpu_seconds: int, import_seconds: int) -> int:
    """Until the input ends. Returns the exit status."""
    while True:
        head = tasks.read(LENGTH.size)
        if len(head) < LENGTH.size:
            return 0
        _allow_processor_time(cpu_seconds)
        answer: sandbox_pb2.WorkerAnswer | None
        answered, status = True, None
        try:
            length = LENGTH.unpack(head)[0]
            payload = tasks.read(length)
            if len(payload) < length:
                return 0
            task = decode(sandbox_pb2.WorkerTask, payload)
            del payload
            if is_import(task):
                _allow_processor_time(import_seconds)
            answered = task.WhichOneof("task") != "trust"
            answer = worker.do(task)
        except MemoryError:
            answer, status = sandbox_pb2.WorkerAnswer(error=MEMORY), 3
        except Exception as error:  # noqa: BLE001 -- parsers of hostile bytes fail in ways nobody listed; each must end in a verdict
            answer = sandbox_pb2.WorkerAnswer(error=type(error).__name__)
        except BaseException as error:  # noqa: BLE001 -- a panic of a Rust parser is no Exception; what it left behind is unknown
            answer, status = sandbox_pb2.WorkerAnswer(error=type(error).__name__), 4
        if answer is not None and not answered:
            return 5
        if answer is not None:
            answers.write(frame(answer.SerializeToString()))
            answers.flush()
        if status is not None:
            return status


def confine(parent: int, memory: int) -> None:
    """Give up all that parsing does not need. Ends the process if the parent is gone already."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number, value in ((_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(number, value, 0, 0, 0):
            sys.exit(f"prctl({number}): {os.strerror(ctypes.get_errno())}: a worker does not read mail without its limits")
    if os.getppid() != parent:  # it died before the line above took effect
        sys.exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person's Ctrl-C is for the node, which ends its workers in order
    os.umask(0o077)
    os.chdir("/")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    space = _address_space() + memory
    resource.setrlimit(resource.RLIMIT_AS, (space, space))


def _address_space() -> int:
    """Bytes of address space this process has now (proc(5), statm)."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 -- pathlib is not otherwise needed here
        return int(statm.read().split()[0]) * resource.getpagesize()


def _allow_processor_time(seconds: int) -> None:
    """The soft limit counts from the process's start, so it moves on with every task. Beyond it SIGXCPU ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + seconds
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def _only_pipes() -> BinaryIO:
    """Where answers go. Standard output and error lead nowhere; whatever else the node left open is closed."""
    os.dup2(1, _ANSWERS)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.closerange(_ANSWERS + 1, 65_536 if allowed == resource.RLIM_INFINITY else allowed)
    return os.fdopen(_ANSWERS, "wb")


def main(arguments: list[str], make: Callable[[Budget], Worker] = Worker) -> int:
    """Until the input ends; the exit status. `make`: what does the tasks."""
    parent, memory, cpu_seconds, import_seconds, message_bytes = (int(argument) for argument in arguments)
    answers = _only_pipes()
    worker = make(Budget(message_bytes=message_bytes))
    confine(parent, memory)
    answers.write(frame(b""))
    answers.flush()
    try:
        return serve(worker, sys.stdin.buffer, answers, cpu_seconds, import_seconds)
    except BrokenPipeError:
        return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # without finalisers: a parser's may hang or crash after a mail did harm
