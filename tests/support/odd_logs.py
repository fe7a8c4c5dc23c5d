"""Entry logs in memory that fail, lag or repeat themselves as real ones do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from keycache.domain.errors import LogUnavailable
from keycache.domain.log import Batch, CommitResult, Page, Transaction
from keycache.domain.names import Revision
from keycache.store.memory import MemoryLog


class CountingLog(MemoryLog):
    """Counts what it is asked, and cuts listings into small pages."""

    def __init__(self, identity: str = "", *, page_size: int = 2, shared: bool = False) -> None:
        super().__init__(identity, shared=shared)
        self.lists = 0
        self.watches: list[Revision] = []
        self.commits = 0
        self._page_size = page_size

    async def list(self, *, page_size: int = 1000, keys_only: bool = False) -> AsyncGenerator[Page, None]:
        self.lists += 1
        async for page in super().list(page_size=self._page_size, keys_only=keys_only):
            yield page

    async def watch(self, *, after: Revision) -> AsyncGenerator[Batch, None]:
        self.watches.append(after)
        async for batch in super().watch(after=after):
            yield batch

    async def commit(self, transaction: Transaction) -> CommitResult:
        result = await super().commit(transaction)
        self.commits += 1
        return result


class BreakingLog(CountingLog):
    """The next `failures` listings break off after their first page."""

    failures = 0

    async def list(self, *, page_size: int = 1000, keys_only: bool = False) -> AsyncGenerator[Page, None]:
        number = 0
        async for page in super().list(page_size=page_size, keys_only=keys_only):
            number += 1
            if number == 2 and self.failures > 0:
                self.failures -= 1
                raise LogUnavailable("The entry log does not answer.")
            yield page


class StallingLog(CountingLog):
    """Listings wait before their second page until `go`; `stalled` tells that one does."""

    def __init__(self, identity: str = "") -> None:
        super().__init__(identity)
        self.stalled = asyncio.Event()
        self.go = asyncio.Event()

    async def list(self, *, page_size: int = 1000, keys_only: bool = False) -> AsyncGenerator[Page, None]:
        number = 0
        async for page in super().list(page_size=page_size, keys_only=keys_only):
            number += 1
            if number == 2:
                self.stalled.set()
                await self.go.wait()
            yield page


class RepeatingLog(CountingLog):
    """Every watch gives each batch twice, and everything from the beginning with each: as after a lost connection."""

    async def watch(self, *, after: Revision) -> AsyncGenerator[Batch, None]:
        async for batch in super().watch(after=after):
            yield batch
            yield batch
            async for whole in MemoryLog.watch(self, after=Revision(0)):
                yield whole
                break


class InterposedLog(CountingLog):
    """Calls `before` once, just before the next commit of a transaction that deletes: the point where races are lost."""

    def __init__(self, identity: str = "") -> None:
        super().__init__(identity)
        self.before: Callable[[], object] | None = None

    async def commit(self, transaction: Transaction) -> CommitResult:
        if transaction.deletes and self.before is not None:
            act, self.before = self.before, None
            outcome = act()
            if asyncio.iscoroutine(outcome):
                await outcome
        return await super().commit(transaction)


class RestorableLog(CountingLog):
    """Shared, and may be taken back to an older state, as etcd is by a restored snapshot: same identity, lower revisions."""

    def __init__(self, identity: str = "") -> None:
        super().__init__(identity, shared=True)

    def snapshot(self) -> tuple[Any, ...]:
        return self._identity, dict(self._records), self._head, self._compacted

    async def restore(self, snapshot: tuple[Any, ...], *, unnoticed: bool = False) -> None:
        """It is stopped for it, which ends every watch; `unnoticed`: but for those that hold on."""
        if not unnoticed:
            self.interrupt()
            for _ in range(20):
                await asyncio.sleep(0)
            self.resume()
        self._identity, records, self._head, self._compacted = snapshot
        self._records = dict(records)

    async def pass_by(self, revision: Revision) -> None:
        """Others write until the head is beyond that revision; what came before now is held no more."""
        while self._head <= revision:
            await self.put("members/other", b"x")
        self.compact()
        self._wake()

    async def put(self, key: str, value: bytes) -> Revision:
        """Written by another node, however this one is bound."""
        self._head = Revision(self._head + 1)
        self._records[key] = (self._head, value)
        self._wake()
        return self._head
