"""How the suites of the log speak."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from keycache.domain.log import Batch, Committed, Event, Page, Transaction
from keycache.domain.names import Revision
from keycache.domain.ports import EntryLog


def put(compare: dict[str, Revision] | None = None, **puts: bytes) -> Transaction:
    return Transaction(compare=compare or {}, puts=puts)


def delete(*keys: str, compare: dict[str, Revision] | None = None) -> Transaction:
    return Transaction(compare=compare or {}, puts={}, deletes=keys)


async def committed(log: EntryLog, transaction: Transaction) -> Revision:
    result = await log.commit(transaction)
    assert isinstance(result, Committed)
    return result.revision


async def listed(log: EntryLog, page_size: int = 1000) -> list[Page]:
    return [page async for page in log.list(page_size=page_size)]


async def heard(watch: AsyncIterator[Batch]) -> Batch:
    """The next batch that tells something."""
    async with asyncio.timeout(10):
        async for batch in watch:
            if batch.events:
                return batch
    raise AssertionError("the watch ended")


async def heard_until(watch: AsyncIterator[Batch], revision: Revision) -> list[tuple[Revision, Event]]:
    events: list[tuple[Revision, Event]] = []
    async with asyncio.timeout(10):
        async for batch in watch:
            events.extend(batch.events)
            if batch.revision >= revision:
                return events
    raise AssertionError("the watch ended")


async def state_of(log: EntryLog) -> dict[str, tuple[bytes, Revision]]:
    return {record.key: (record.value, record.mod_revision) for page in await listed(log) for record in page.records}
