"""A listing of the log on its way into the one transaction of the replica that takes it."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncGenerator, Iterator, Sequence

from keycache.domain.log import Page
from keycache.domain.names import Revision
from keycache.domain.ports import ReplicaChange
from keycache.replication.reducer import reduce_records


class Abandoned(Exception):
    """The listing ends before its end; what was drawn of it must be rolled back."""


class Pull:
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
                raise Abandoned from None
        if page is None:
            raise StopIteration
        return tuple(reduce_records(page.records))

    async def _following(self) -> Page | None:
        if self._closed:
            raise Abandoned
        self._drawing = asyncio.current_task()
        try:
            return await anext(self._pages, None)
        finally:
            self._drawing = None
