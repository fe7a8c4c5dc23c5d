"""What the contract suites need of an implementation. A further one is added to LOGS, SHARED_LOGS, REPLICAS or OUTBOXES, and nowhere
else."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from keycache.domain.log import Committed, Transaction
from keycache.domain.names import ClusterIdentity
from keycache.domain.ports import EntryLog, Outbox, Presence, Replica
from keycache.etcd.client import EtcdClient
from keycache.etcd.log import EtcdLog
from keycache.store import open_store
from keycache.store.database import Database
from keycache.store.local_log import LocalLog
from keycache.store.memory import MemoryLog, MemoryOutbox, MemoryReplica
from keycache.store.outbox import SqliteOutbox
from keycache.store.replica import SqliteReplica
from support.etcd import fresh_name, shared_etcd


@dataclass(frozen=True, slots=True, kw_only=True)
class LogUnderTest:
    """`compact`: make the log forget its history up to now, as far as it can; a later revision may be made on the way.
    `most_operations`: of one transaction."""

    log: EntryLog
    compact: Callable[[], Awaitable[None]]
    most_operations: int = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedUnderTest:
    """A log that nodes share, bound to nothing and founded by nobody yet. `wipe`: somebody empties it, and gives it that identity unless
    it is empty. `expire`: the lease of that key is over."""

    log: EntryLog
    presence: Presence
    compact: Callable[[], Awaitable[None]]
    wipe: Callable[[str], Awaitable[None]]
    expire: Callable[[str], Awaitable[None]]


@asynccontextmanager
async def memory_log(folder: Path) -> AsyncIterator[LogUnderTest]:
    log = MemoryLog()

    async def compact() -> None:
        log.compact()

    yield LogUnderTest(log=log, compact=compact)
    await log.close()


@asynccontextmanager
async def shared_memory_log(folder: Path) -> AsyncIterator[SharedUnderTest]:
    log = MemoryLog(shared=True)

    async def compact() -> None:
        log.compact()

    async def wipe(identity: str) -> None:
        log.wipe(identity)

    async def expire(key: str) -> None:
        log.expire(key)

    yield SharedUnderTest(log=log, presence=log, compact=compact, wipe=wipe, expire=expire)
    await log.close()


@asynccontextmanager
async def shared_etcd_log(folder: Path) -> AsyncIterator[SharedUnderTest]:
    etcd = shared_etcd()
    name = fresh_name()
    log = EtcdLog(EtcdClient(etcd.endpoints), name)

    async def compact() -> None:
        await asyncio.to_thread(etcd.compact)

    async def wipe(identity: str) -> None:
        await asyncio.to_thread(etcd.etcdctl, "del", "--prefix", f"/keycache/{name}/")
        if identity:
            await asyncio.to_thread(etcd.etcdctl, "put", f"/keycache/{name}/identity", identity)

    async def expire(key: str) -> None:
        document = json.loads(await asyncio.to_thread(etcd.etcdctl, "get", f"/keycache/{name}/{key}", "-w", "json"))
        await asyncio.to_thread(etcd.etcdctl, "lease", "revoke", f"{document['kvs'][0]['lease']:x}")

    yield SharedUnderTest(log=log, presence=log, compact=compact, wipe=wipe, expire=expire)
    await log.close()


def founded(
    shared: Callable[[Path], AbstractAsyncContextManager[SharedUnderTest]], most_operations: int
) -> Callable[[Path], AbstractAsyncContextManager[LogUnderTest]]:
    """A shared log, ready for use."""

    @asynccontextmanager
    async def open_it(folder: Path) -> AsyncIterator[LogUnderTest]:
        async with shared(folder) as one:
            identity = ClusterIdentity(secrets.token_hex(16))
            assert isinstance(await one.log.found(identity, {}), Committed)
            one.log.bind(identity)
            yield LogUnderTest(log=one.log, compact=one.compact, most_operations=most_operations)

    return open_it


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


SHARED_LOGS: dict[str, Callable[[Path], AbstractAsyncContextManager[SharedUnderTest]]] = {
    "memory": shared_memory_log,
    "etcd": shared_etcd_log,
}
LOGS: dict[str, Callable[[Path], AbstractAsyncContextManager[LogUnderTest]]] = {
    "memory": memory_log,
    "memory, shared": founded(shared_memory_log, 1500),
    "sqlite": sqlite_log,
    "etcd": founded(shared_etcd_log, 128),
}
REPLICAS: dict[str, Callable[[Path], AbstractContextManager[Replica]]] = {"memory": memory_replica, "sqlite": sqlite_replica}
OUTBOXES: dict[str, Callable[[Path, int], AbstractContextManager[Outbox]]] = {"memory": memory_outbox, "sqlite": sqlite_outbox}
