"""Keeps the replica equal to the log: list and replace where it must, else watch and apply. The ONLY writer of the replica.

Ordering duties: rows and cursor go in ONE transaction (the replica sees to it); the view is told AFTER the replica holds the
change; waiters wake AFTER the view is told, so that who waited for a revision sees all of its effects.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from keycache.domain.entry import Protocol
from keycache.domain.errors import ForeignLog, LogCompacted, LogUnavailable, StoreCorrupt, StoreError, Unavailable
from keycache.domain.log import ABSENT, Batch, Page
from keycache.domain.names import Revision
from keycache.domain.ports import Clock, Cursor, DocumentChange, EntryChange, EntryLog, Replica, ReplicaChange
from keycache.replication.reducer import reduce_events, reduce_records
from keycache.replication.view import View

RETRY_SECONDS = (0.1, 0.5, 2.0, 5.0)
"""Back-off while the log cannot be reached, or the replica not be written; the last one repeats."""

WATCHER_BACKLOG = 10_000
"""Changes a slow reader of `changes` may be behind before it is told that it lost some."""

Offload = Callable[..., Awaitable[Any]]
"""Runs `fn(*args)` in a thread of its own: the store's writer thread, or `asyncio.to_thread` for the fake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One change as this node applied it. LOST: the reader was too slow or the replica was listed anew; read anew what you need."""

    kind: Literal["STARTED", "UPDATED", "REMOVED", "LOST"]
    revision: int
    protocol: Protocol | None = None
    fingerprint: str = ""
    addresses: tuple[str, ...] = ()


class Replicator:
    """`run` forever in a task; `ready` is set once the replica has caught up with the log's head as it was at start."""

    def __init__(self, *, log: EntryLog, replica: Replica, view: View, clock: Clock, offload: Offload) -> None:
        self._log = log
        self._replica = replica
        self._view = view
        self._clock = clock
        self._offload = offload
        self._applied: Revision = ABSENT
        self._moved = asyncio.Condition()
        self._readers: set[_Reader] = set()
        self.ready = asyncio.Event()

    @property
    def applied(self) -> Revision:
        """The newest revision that lookups on this node see."""
        return self._applied

    async def run(self) -> None:
        """Raises ForeignLog when the log is another one than the replica was filled from; survives everything that may pass."""
        self._resume()
        attempt, compacted, reached = 0, False, self._applied
        while True:
            try:
                if compacted or self._replica.cursor() is None:
                    await self._relist()
                    compacted = False
                await self._follow()
            except LogCompacted:
                compacted = True
            except (LogUnavailable, StoreError) as error:
                # A full disk may take the log's half of a write and not ours: lookups go on, and so do we once there is room. But a
                # node that cannot even begin says so by ending, and what is damaged is served no longer.
                if isinstance(error, StoreCorrupt) or (isinstance(error, StoreError) and not self.ready.is_set()):
                    raise
                if self._applied != reached:
                    attempt, reached = 0, self._applied
                await self._clock.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                attempt += 1

    async def reach(self, revision: int, *, timeout_seconds: float = 5.0) -> None:
        """Wait until that revision is applied here. Raises Unavailable when it takes too long."""
        if self._applied >= revision:
            return
        try:
            async with asyncio.timeout(timeout_seconds), self._moved:
                await self._moved.wait_for(lambda: self._applied >= revision)
        except TimeoutError:
            raise Unavailable(
                f"This node has applied revision {self._applied}, not yet {revision}.",
                hint="Try again, or ask without min_revision.",
            ) from None

    async def changes(self) -> AsyncIterator[Watched]:
        """Every change of an entry from now on."""
        reader = _Reader()
        self._readers.add(reader)
        try:
            yield Watched(kind="STARTED", revision=self._applied)
            while True:
                yield await reader.next()
        finally:
            self._readers.discard(reader)

    def _resume(self) -> None:
        """A replica of another log is never overwritten here (DESIGN 2.1): that takes the restart check and a person."""
        cursor = self._replica.cursor()
        if cursor is None:
            return
        if cursor.identity != self._log.identity:
            raise ForeignLog(
                f"The replica was filled from log {cursor.identity}, but this log is {self._log.identity}.",
                hint="Nothing was changed. If the data directory was copied from another node, start with an empty one and "
                "import an export.",
            )
        self._applied = cursor.revision
        self._view.load()

    async def _relist(self) -> None:
        """Pages flow from the log into the one transaction of the replica as it asks for them: memory holds one page."""
        async with contextlib.aclosing(_Pull(self._log.list(), asyncio.get_running_loop())) as pull:
            revision = await pull.start()
            cursor = Cursor(identity=self._log.identity, revision=revision)
            await self._offload(self._replica.replace, pull, cursor)
        self._view.load()
        await self._advance(revision)
        for reader in self._readers:
            reader.lose(revision)

    async def _follow(self) -> None:
        head = await self._log.head()
        await self._maybe_ready(head)
        async with contextlib.aclosing(self._log.watch(after=self._applied)) as batches:
            async for batch in batches:
                await self._apply(batch)
                await self._maybe_ready(head)

    async def _apply(self, batch: Batch) -> None:
        if batch.revision <= self._applied:
            return
        changes = tuple(reduce_events(batch.events))
        cursor = Cursor(identity=self._log.identity, revision=batch.revision)
        await self._offload(self._replica.apply, changes, cursor)
        documents = [change.key for change in changes if isinstance(change, DocumentChange)]
        if documents:
            self._view.touched(documents)
        await self._advance(batch.revision)
        self._tell(changes)

    async def _advance(self, revision: Revision) -> None:
        self._applied = revision
        async with self._moved:
            self._moved.notify_all()

    async def _maybe_ready(self, head: Revision) -> None:
        if self._applied >= head:
            self.ready.set()

    def _tell(self, changes: Sequence[ReplicaChange]) -> None:
        if not self._readers:
            return
        for change in changes:
            if isinstance(change, EntryChange):
                watched = Watched(
                    kind="REMOVED" if change.entry is None else "UPDATED",
                    revision=change.revision,
                    protocol=change.protocol,
                    fingerprint=change.fingerprint.text,
                    addresses=() if change.entry is None else tuple(a.text for a in change.entry.key.addresses),
                )
                for reader in self._readers:
                    reader.put(watched)


class _Abandoned(Exception):
    """The listing ends before its end; what was drawn of it must be rolled back."""


class _Pull:
    """Lets the thread that writes the replica draw the pages that the event loop reads.

    A listing that is closed early RAISES in that thread. Ending there would pass for a whole listing, and the replica would drop
    every entry that had not come yet.
    """

    def __init__(self, pages: AsyncGenerator[Page, None], loop: asyncio.AbstractEventLoop) -> None:
        self._first: Page | None = None
        self._pages = pages
        self._loop = loop
        self._drawing: asyncio.Task[Page | None] | None = None
        self._closed = False

    async def start(self) -> Revision:
        """The revision of the listing."""
        self._first = await anext(self._pages)
        return self._first.revision

    async def aclose(self) -> None:
        self._closed = True
        if self._drawing is not None:
            self._drawing.cancel()
            await asyncio.wait((self._drawing,))
        await self._pages.aclose()

    def __iter__(self) -> Iterator[Sequence[ReplicaChange]]:
        return self

    def __next__(self) -> Sequence[ReplicaChange]:
        page, self._first = self._first, None
        if page is None:
            try:
                page = asyncio.run_coroutine_threadsafe(self._following(), self._loop).result()
            except concurrent.futures.CancelledError:
                raise _Abandoned from None
        if page is None:
            raise StopIteration
        return tuple(reduce_records(page.records))

    async def _following(self) -> Page | None:
        if self._closed:
            raise _Abandoned
        self._drawing = asyncio.current_task()
        try:
            return await anext(self._pages, None)
        finally:
            self._drawing = None


class _Reader:
    """A bounded queue for one reader: full, it is emptied and LOST takes its place."""

    def __init__(self) -> None:
        self._queue: deque[Watched] = deque()
        self._filled = asyncio.Event()

    def put(self, watched: Watched) -> None:
        if len(self._queue) >= WATCHER_BACKLOG:
            self.lose(watched.revision)
        else:
            self._queue.append(watched)
            self._filled.set()

    def lose(self, revision: int) -> None:
        self._queue.clear()
        self._queue.append(Watched(kind="LOST", revision=revision))
        self._filled.set()

    async def next(self) -> Watched:
        while not self._queue:
            self._filled.clear()
            await self._filled.wait()
        return self._queue.popleft()
