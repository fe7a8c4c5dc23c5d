"""What the contract suites need of an implementation. A further one is added to LOGS, REPLICAS or OUTBOXES, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from keycache.domain.log import Transaction
from keycache.domain.ports import EntryLog, Outbox, Replica
from keycache.store import open_store
from keycache.store.database import Database
from keycache.store.local_log import LocalLog
from keycache.store.memory import MemoryLog, MemoryOutbox, MemoryReplica
from keycache.store.outbox import SqliteOutbox
from keycache.store.replica import SqliteReplica


@dataclass(frozen=True, slots=True, kw_only=True)
class LogUnderTest:
    """`compact`: make the log forget its history up to now, as far as it can; a later revision may be made on the way."""

    log: EntryLog
    compact: Callable[[], Awaitable[None]]


@asynccontextmanager
async def memory_log(folder: Path) -> AsyncIterator[LogUnderTest]:
    log = MemoryLog()

    async def compact() -> None:
        log.compact()

    yield LogUnderTest(log=log, compact=compact)
    await log.close()


@asynccontextmanager
async def sqlite_log(folder: Path) -> AsyncIterator[LogUnderTest]:
    """Keeps two tombstones: with five deletions more, the history before them is gone."""
    store = open_store(folder)
    log = LocalLog(store.database, keep_tombstones=2)

    async def compact() -> None:
        for number in range(6):
            await log.commit(Transaction(compare={}, puts={f"compact/{number}": b"x"}))
            await log.commit(Transaction(compare={}, puts={}, deletes=(f"compact/{number}",)))

    try:
        yield LogUnderTest(log=log, compact=compact)
    finally:
        await log.close()
        store.close()


@contextmanager
def memory_replica(folder: Path) -> Iterator[Replica]:
    yield MemoryReplica()


@contextmanager
def sqlite_replica(folder: Path) -> Iterator[Replica]:
    folder.mkdir(exist_ok=True)
    database = Database.open(folder / "replica.db")
    try:
        yield SqliteReplica(database)
    finally:
        database.close()


@contextmanager
def memory_outbox(folder: Path, limit: int) -> Iterator[Outbox]:
    yield MemoryOutbox(limit=limit)


@contextmanager
def sqlite_outbox(folder: Path, limit: int) -> Iterator[Outbox]:
    folder.mkdir(exist_ok=True)
    database = Database.open(folder / "outbox.db")
    try:
        yield SqliteOutbox(database, limit=limit)
    finally:
        database.close()


LOGS: dict[str, Callable[[Path], AbstractAsyncContextManager[LogUnderTest]]] = {"memory": memory_log, "sqlite": sqlite_log}
REPLICAS: dict[str, Callable[[Path], AbstractContextManager[Replica]]] = {"memory": memory_replica, "sqlite": sqlite_replica}
OUTBOXES: dict[str, Callable[[Path, int], AbstractContextManager[Outbox]]] = {"memory": memory_outbox, "sqlite": sqlite_outbox}
