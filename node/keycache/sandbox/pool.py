"""The parsers, in processes of their own: implements `domain.ports.Examiner`.

Rules:
- A worker does one task at a time. If it dies, overruns or answers nonsense, that one task gets a verdict, and a fresh worker
  takes its place; the node never fails for a mail.
- A worker judges S/MIME paths by the trust base in force when its task is handed to it, never by an older one.
- Workers are started when there is work, the one last used is used first: a quiet node has one, a busy one has them all.
- Callers wait while too many bytes wait for workers; nothing is refused.
- Only when no worker can be started at all do callers get Unavailable.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from keycache.codec import key_from_wire, key_to_wire, timestamp
from keycache.domain.entry import Key, Protocol
from keycache.domain.errors import InvalidInput, Unavailable
from keycache.domain.examination import DirectionPolicy, Envelope, Examination, Finding, TrustBase
from keycache.domain.merge import join_keys
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.budget import DEFAULT, Budget, refuse_size
from keycache.sandbox import convert
from keycache.sandbox.frames import MEMORY
from keycache.sandbox.jobs import Failed, Job, Unable, expect, no_workers, settle, stopping
from keycache.sandbox.limits import MIB, SandboxLimits
from keycache.sandbox.process import COMMAND, WorkerLost, WorkerProcess
from keycache.sandbox.room import Room
from keycache.v1 import sandbox_pb2

T = TypeVar("T")

_BACKOFF_FROM = 3
"""Losses in a row that are made good at once; a burst of hostile mail is no reason to slow down, a worker that cannot live is."""

_BACKOFF_FIRST, _BACKOFF_MOST = 0.1, 5.0
"""Seconds, doubling in between."""

_GIVE_UP_AFTER = 3
"""Failed starts in a row after which waiting callers are told instead of kept."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class PoolState:
    """For status and metrics. `replaced`: workers lost since start; `failed`: tasks that ended with them."""

    workers: int = 0
    busy: int = 0
    waiting: int = 0
    held_bytes: int = 0
    replaced: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Slot:
    """One place for a worker. `offer`: set while the slot waits for a job."""

    number: int
    offer: asyncio.Future[Job[Any]] | None = None
    worker: WorkerProcess | None = None
    losses: int = 0
    failed_starts: int = 0


class WorkerPool:
    """`async with WorkerPool(...)`, or `start` and `close` from one task. Starting is immediate: it starts no process."""

    def __init__(
        self, limits: SandboxLimits | None = None, budget: Budget = DEFAULT, *, command: Sequence[str] = COMMAND
    ) -> None:
        self._command = command
        self._limits = limits or SandboxLimits()
        self._budget = budget
        self._slots = [_Slot(number) for number in range(max(self._limits.workers, 1))]
        self._idle: list[_Slot] = []
        self._pending: deque[Job[Any]] = deque()
        self._room = Room(self._limits.waiting_bytes)
        self._trust: bytes | None = None
        self._trust_version = 0
        self._group: asyncio.TaskGroup | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._replaced = 0
        self._failed = 0

    # Life ------------------------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self.close()

    async def start(self) -> None:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._tasks = [self._group.create_task(self._serve(slot)) for slot in reversed(self._slots)]
        self._tasks.append(self._group.create_task(self._warm()))

    async def close(self) -> None:
        """Ends the workers. What is still waiting gets Unavailable; drain the callers first."""
        self._closed = True
        self._fail_pending(stopping())
        self._room.close(stopping())
        for task in self._tasks:
            task.cancel()
        group, self._group = self._group, None
        if group is not None:
            await group.__aexit__(None, None, None)

    @property
    def state(self) -> PoolState:
        alive = [slot for slot in self._slots if slot.worker is not None and slot.worker.alive]
        return PoolState(
            workers=len(alive),
            busy=sum(slot.offer is None for slot in alive),
            waiting=len(self._pending),
            held_bytes=self._room.held_bytes,
            replaced=self._replaced,
            failed=self._failed,
        )

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that live."""
        return tuple(slot.worker.pid for slot in self._slots if slot.worker is not None and slot.worker.alive)

    # Examiner --------------------------------------------------------------------------------------------------------------------

    def trust(self, base: TrustBase) -> None:
        self._trust = sandbox_pb2.WorkerTask(trust=convert.trust_to_wire(base)).SerializeToString()
        self._trust_version += 1

    async def examine(self, message: bytes, envelope: Envelope, policy: DirectionPolicy, now: datetime) -> Examination:
        refused = refuse_size(len(message), envelope, self._budget)
        if refused is not None:
            return refused

        def make() -> bytes:
            task = sandbox_pb2.ExamineTask(
                message=message, envelope=convert.envelope_to_wire(envelope), policy=convert.policy_to_wire(policy)
            )
            return sandbox_pb2.WorkerTask(now=timestamp(now), examine=task).SerializeToString()

        def read(answer: sandbox_pb2.WorkerAnswer) -> Examination:
            expect(answer, "examination")
            return convert.examination_from_wire(answer.examination)

        try:
            return await self._run(make, read, len(message))
        except Failed as failed:
            verdict = Verdict.PARSER_LIMIT if failed.limit else Verdict.UNREADABLE_MESSAGE
            return Examination(direction=envelope.stated, sender=None, message_id="", verdict=verdict, detail=failed.detail)

    async def read_material(self, blob: bytes, addresses: Sequence[EmailAddress], now: datetime) -> tuple[Finding, ...]:
        protocol = Protocol.OPENPGP if b"PGP" in blob[:4096] or blob[:1] >= b"\x80" else Protocol.SMIME
        if len(blob) > self._budget.message_bytes:
            detail = f"The file has {len(blob):,} bytes; the limit is {self._budget.message_bytes:,}. Split it."
            return (Finding(protocol=protocol, key=None, verdict=Verdict.KEY_TOO_LARGE, detail=detail),)

        def make() -> bytes:
            task = sandbox_pb2.ReadMaterialTask(blob=blob, addresses=[address.text for address in addresses])
            return sandbox_pb2.WorkerTask(now=timestamp(now), read_material=task).SerializeToString()

        def read(answer: sandbox_pb2.WorkerAnswer) -> tuple[Finding, ...]:
            expect(answer, "findings")
            return tuple(convert.finding_from_wire(finding) for finding in answer.findings.findings)

        extra = 0.0 if addresses else self._limits.import_wall_seconds - self._limits.wall_seconds
        try:
            return await self._run(make, read, len(blob), max(extra, 0.0))
        except Failed as failed:
            verdict = Verdict.PARSER_LIMIT if failed.limit else Verdict.MALFORMED_KEY
            return (Finding(protocol=protocol, key=None, verdict=verdict, detail=failed.detail),)

    async def certificates(self, blob: bytes) -> tuple[bytes, ...]:
        """As the port says; none from what cannot be read."""
        if len(blob) > self._budget.message_bytes:
            return ()

        def make() -> bytes:
            task = sandbox_pb2.CertificatesTask(blob=blob)
            return sandbox_pb2.WorkerTask(certificates=task).SerializeToString()

        def read(answer: sandbox_pb2.WorkerAnswer) -> tuple[bytes, ...]:
            expect(answer, "certificates")
            return tuple(answer.certificates.der)

        try:
            return await self._run(make, read, len(blob))
        except Failed:
            return ()

    async def merge(self, known: Key, seen: Key, now: datetime) -> Key:
        """As the port says. Where a worker cannot do it, the known material stays, with the facts of both: a revocation that
        `seen` brings holds even then."""

        def make() -> bytes:
            task = sandbox_pb2.MergeTask(known=key_to_wire(known), seen=key_to_wire(seen))
            return sandbox_pb2.WorkerTask(now=timestamp(now), merge=task).SerializeToString()

        def read(answer: sandbox_pb2.WorkerAnswer) -> Key:
            expect(answer, "key")
            merged = key_from_wire(answer.key)
            if (merged.protocol, merged.fingerprint) != (known.protocol, known.fingerprint):
                raise InvalidInput("Merging two copies of a key cannot give another key.")
            return merged

        try:
            return await self._run(make, read, len(known.material) + len(seen.material))
        except Failed:
            return join_keys(seen, known)

    # Queue -----------------------------------------------------------------------------------------------------------------------

    async def _run(
        self,
        make: Callable[[], bytes],
        read: Callable[[sandbox_pb2.WorkerAnswer], T],
        size: int,
        extra_seconds: float = 0.0,
    ) -> T:
        """Raises Failed, Unavailable."""
        await self._room.enter(size)
        try:
            future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            self._dispatch(Job(make=make, read=read, future=future, extra_seconds=extra_seconds))
            return await future
        finally:
            self._room.leave(size)

    def _dispatch(self, job: Job[Any]) -> None:
        if self._closed:
            raise stopping()
        while self._idle:
            offer = self._idle.pop().offer
            if offer is not None and not offer.done():
                offer.set_result(job)
                return
        self._pending.append(job)

    def _fail_pending(self, error: Unavailable) -> None:
        while self._pending:
            settle(self._pending.popleft(), error)

    # Workers ---------------------------------------------------------------------------------------------------------------------

    async def _warm(self) -> None:
        """Have the first worker ready before the first mail."""
        await asyncio.sleep(self._limits.warm_seconds)
        if not self.pids:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._dispatch(Job(make=None, read=lambda _: None, future=future))

    async def _serve(self, slot: _Slot) -> None:
        job: Job[Any] | None = None
        try:
            while True:
                job = await self._next(slot)
                if slot.worker is not None and not slot.worker.alive:
                    await self._lose(slot, "A parser worker ended while it had nothing to do.")
                if slot.worker is None and not await self._start(slot, job):
                    continue
                if job.make is not None and not job.future.done():
                    await self._work(slot, job)
        finally:
            if slot.offer is not None and slot.offer.done() and not slot.offer.cancelled():
                job = slot.offer.result()  # handed over in the very moment of closing
            if job is not None:
                settle(job, stopping())
            if slot.worker is not None:
                await slot.worker.stop()

    async def _next(self, slot: _Slot) -> Job[Any]:
        if self._pending:
            return self._pending.popleft()
        slot.offer = asyncio.get_running_loop().create_future()
        self._idle.append(slot)
        job = await slot.offer
        slot.offer = None
        return job

    async def _work(self, slot: _Slot, job: Job[Any]) -> None:
        worker = slot.worker
        assert worker is not None
        assert job.make is not None
        try:
            extra = await self._bring_trust(worker)
            result = await worker.ask(job.make(), job.read, extra_seconds=extra + job.extra_seconds)
        except WorkerLost as lost:
            settle(job, Failed(str(lost), limit=True))
            self._failed += 1
            await self._lose(slot, str(lost))
        except Unable as unable:
            detail = (
                f"It took more than {self._limits.memory_bytes // MIB} MiB of memory."
                if unable.error == MEMORY
                else f"A parser failed on it ({unable.error}). Please report this."
            )
            settle(job, Failed(detail, limit=unable.error == MEMORY))
            # It may end by itself now, or be half broken: the next mail is not to suffer for this one.
            self._failed += 1
            await self._lose(slot, detail)
        else:
            if not job.future.done():
                job.future.set_result(result)
            slot.losses = 0
            if worker.is_worn():
                slot.worker = None
                await worker.stop()
        if slot.worker is None:
            await self._start(slot, None)

    async def _bring_trust(self, worker: WorkerProcess) -> float:
        """The trust base in force. Returns the seconds that taking it over may add to the task behind it."""
        if worker.trust_version == self._trust_version or self._trust is None:
            return 0.0
        worker.trust_version = self._trust_version
        await worker.send(self._trust)
        return self._limits.start_seconds

    async def _start(self, slot: _Slot, job: Job[Any] | None) -> bool:
        """Until there is a worker; slower and slower while they die in a row.

        A `job` that waits for it goes to another worker when this one does not start, or is told (False) when there is none.
        """
        while slot.worker is None:
            beyond = max(slot.losses, slot.failed_starts) - _BACKOFF_FROM
            if beyond >= 0:
                await asyncio.sleep(min(_BACKOFF_FIRST * 2 ** min(beyond, 10), _BACKOFF_MOST))
            try:
                slot.worker = await WorkerProcess.start(self._limits, self._budget, self._command)
                slot.failed_starts = 0
            except WorkerLost as lost:
                slot.failed_starts += 1
                _log.error("no parser worker: %s", lost)
                if self.pids and job is not None:
                    self._dispatch(job)
                    return False
                if slot.failed_starts >= _GIVE_UP_AFTER and not self.pids:
                    self._fail_pending(no_workers(str(lost)))
                    if job is not None:
                        settle(job, no_workers(str(lost)))
                        return False
        return True

    async def _lose(self, slot: _Slot, reason: str) -> None:
        worker, slot.worker = slot.worker, None
        slot.losses += 1
        self._replaced += 1
        _log.warning("parser worker replaced: %s", reason)
        if worker is not None:
            await worker.kill()
