"""Two nodes on one log, each with a line of its own to it that can be cut, as etcd's would be by a network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from keycache.cache import KeyCache
from keycache.domain.entry import Entry
from keycache.domain.errors import KeycacheError, LogUnavailable, RecordTooLarge
from keycache.domain.log import ABSENT, Batch, CommitResult, Committed, Page, Survey, Transaction
from keycache.domain.names import ClusterIdentity, Revision
from keycache.replication.replicator import RETRY_SECONDS, LinkState
from keycache.store.memory import MemoryLog
from support.node import Node

OPERATIONS = 128
"""etcd takes no more in one list of a transaction (FACTS 3)."""

LONGEST_WAIT = timedelta(seconds=RETRY_SECONDS[-1])

Step = Callable[[Transaction], Awaitable[None]]


async def nothing(_transaction: Transaction) -> None:
    return None


class Line:
    """The `EntryLog` port over a shared log. `cut`: nothing comes through. `failing`: what a commit raises instead. `before` and
    `after`: what happens just before and after a commit is carried out, that is, while its caller waits. `largest`: bytes of a
    transaction's records that are taken. `asked`: how often anything was tried; `commits`: what was carried
    out."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.failing: KeycacheError | None = None
        self.before: Step = nothing
        self.after: Step = nothing
        self.largest = 1 << 30
        self.asked = 0
        self.commits: list[Transaction] = []
        self._broken = asyncio.Event()

    def cut(self) -> None:
        self._broken.set()

    def mend(self) -> None:
        self._broken = asyncio.Event()

    @property
    def is_shared(self) -> bool:
        return self.log.is_shared

    @property
    def identity(self) -> ClusterIdentity:
        return self.log.identity

    def bind(self, identity: ClusterIdentity) -> None:
        self.log.bind(identity)

    async def survey(self, keys: Sequence[str] = (), *, since: Revision = ABSENT) -> Survey:
        self._check()
        return await self.log.survey(keys, since=since)

    async def found(
        self, identity: ClusterIdentity, puts: Mapping[str, bytes], *, instead_of: ClusterIdentity | None = None
    ) -> CommitResult:
        self._check()
        return await self.log.found(identity, puts, instead_of=instead_of)

    async def head(self) -> Revision:
        self._check()
        return await self.log.head()

    async def list(self, *, page_size: int = 1000, keys_only: bool = False) -> AsyncGenerator[Page, None]:
        self._check()
        async for page in self.log.list(page_size=page_size, keys_only=keys_only):
            yield page

    async def watch(self, *, after: Revision) -> AsyncGenerator[Batch, None]:
        self._check()
        cut = self._broken
        broken = asyncio.ensure_future(cut.wait())
        batches = self.log.watch(after=after)
        coming: asyncio.Future[Any] | None = None
        try:
            while True:
                coming = asyncio.ensure_future(anext(batches))
                await asyncio.wait((coming, broken), return_when=asyncio.FIRST_COMPLETED)
                if cut.is_set():
                    raise LogUnavailable("etcd does not answer any more.")
                yield coming.result()
        finally:
            broken.cancel()
            if coming is not None:
                coming.cancel()
                await asyncio.wait((coming,))
            await batches.aclose()

    async def commit(self, transaction: Transaction) -> CommitResult:
        self._check()
        if self.failing is not None:
            raise self.failing
        assert len(transaction.compare) < OPERATIONS
        assert len(transaction.puts) + len(transaction.deletes) <= OPERATIONS
        size = sum(map(len, transaction.puts.values()))
        if size > self.largest:
            raise RecordTooLarge(f"A record of {size:,} bytes; the log takes {self.largest:,}.")
        await self.before(transaction)
        result = await self.log.commit(transaction)
        if isinstance(result, Committed):
            self.commits.append(transaction)
        await self.after(transaction)
        self._check()
        return result

    async def close(self) -> None:
        self.cut()

    def _check(self) -> None:
        self.asked += 1
        if self._broken.is_set():
            raise LogUnavailable("etcd does not answer.", hint="Wait until it is back.")


class Once:
    """A step that happens once and then no more; on `line`, before or after a commit."""

    def __init__(self, act: Callable[[], Awaitable[Any]]) -> None:
        self._act: Callable[[], Awaitable[Any]] | None = act

    async def __call__(self, _transaction: Transaction) -> None:
        act, self._act = self._act, None
        if act is not None:
            await act()


async def inline(function: Callable[..., Any], *arguments: Any) -> Any:
    """An `Offload` without a thread, so that every step has its place. Only a listing, which draws its pages from the event loop,
    needs one."""
    return await asyncio.to_thread(function, *arguments) if function.__name__ == "replace" else function(*arguments)


def shared_log() -> MemoryLog:
    """Nobody's yet: the first node begins it, with its settings."""
    return MemoryLog(shared=True)


class Member(Node):
    """A node of a cluster. Unless `delivers`, nothing leaves the outbox until a test calls `deliver`."""

    def __init__(
        self, log: MemoryLog, *, delivers: bool = False, adapt: Callable[[KeyCache], None] = lambda _cache: None, **parts: Any
    ) -> None:
        def adapted(cache: KeyCache) -> None:
            if not delivers:
                cache.delivery._link_up = lambda: False
            adapt(cache)

        self.line = Line(log)
        super().__init__(log=self.line, offload=inline, adapt=adapted, **parts)

    async def mended(self) -> None:
        """The line is whole again, and this node follows the log, to its end."""
        await idle()  # the replicator notices the cut, and waits
        self.line.mend()
        self.clock.advance(LONGEST_WAIT)
        await self.until(LinkState.FOLLOWING)
        await self.cache.replicator.reach(await self.line.log.head())

    async def deliver(self) -> None:
        """All that can be."""
        while await self.cache.delivery.deliver():
            pass

    def waiting(self) -> list[Entry]:
        return [one.entry for one in self.outbox.first(10_000)]

    def answered(self, address: str) -> list[str]:
        """Fingerprints that the edge would answer, the short way or the long one; checks that both say the same."""
        found, short = self.served(address), self.cache.lookups.serve(address)
        assert (found != []) == (isinstance(short, tuple) or bool(short.keys))
        return found


async def idle() -> None:
    """Let everything that can go on go on."""
    for _ in range(50):
        await asyncio.sleep(0)


@asynccontextmanager
async def cluster(*entries: Entry, delivers: bool = False, **first: Any) -> AsyncIterator[tuple[Member, Member]]:
    """Two nodes that hold these entries. `first`: of the first one, as in Member."""
    log = shared_log()
    a, b = Member(log, delivers=delivers, **first), Member(log, delivers=delivers)
    async with contextlib.AsyncExitStack() as stack:
        for node in (a, b):
            stack.push_async_callback(node.stop)
            await node.start()
        await a.seed(*entries)
        await b.settle()
        yield a, b
