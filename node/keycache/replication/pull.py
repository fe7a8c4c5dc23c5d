"""A listing of the log on its way into the one transaction of the replica that takes it."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncGenerator, Iterator, Sequence

from keycache.domain.log import Page
from keycache.domain.names import Revision
from keycache.domain.ports import ReplicaChange
from keycache.replication.reducer import reduce_records

PAGES_AHEAD = 2
"""Pages that are read before they are written: one that waits and one that is being made, some 5 MB each."""


class Abandoned(Exception):
    """The listing ends before its end; what was drawn of it must be rolled back."""


class Pull:
    """Lets the thread that writes the replica draw the changes of pages that the event loop reads, PAGES_AHEAD of it: while SQLite
    writes one page, the next one comes in and is reduced.

    A listing that is closed early RAISES in that thread. Ending there would pass for a whole listing, and the replica would drop
    every entry that had not come yet.
    """

    def __init__(self, pages: AsyncGenerator[Page, None], loop: asyncio.AbstractEventLoop) -> None:
        self._pages = pages
        self._loop = loop
        self._room = asyncio.Semaphore(PAGES_AHEAD)
        self._drawn: queue.SimpleQueue[tuple[ReplicaChange, ...] | Exception | None] = queue.SimpleQueue()
        self._drawing: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> Revision:
        """The revision of the listing."""
        first = await anext(self._pages)
        self._drawing = self._loop.create_task(self._draw(first))
        return first.revision

    async def aclose(self) -> None:
        self._closed = True
        if self._drawing is not None:
            self._drawing.cancel()
            await asyncio.wait((self._drawing,))
        await self._pages.aclose()

    async def _draw(self, first: Page) -> None:
        """The changes of each page; after them None, or what ended the listing before its end."""
        end: Exception | None = Abandoned()
        page: Page | None = first
        try:
            while page is not None:
                await self._room.acquire()
                self._drawn.put(await asyncio.to_thread(_reduced, page))
                page = await anext(self._pages, None)
            end = None
        except Exception as error:  # noqa: BLE001 -- the writing thread raises it
            end = error
        finally:
            self._drawn.put(end)

    # On the writing thread.
    def __iter__(self) -> Iterator[Sequence[ReplicaChange]]:
        return self

    def __next__(self) -> Sequence[ReplicaChange]:
        if self._closed:
            raise Abandoned
        drawn = self._drawn.get()
        if isinstance(drawn, tuple):
            self._loop.call_soon_threadsafe(self._room.release)
            return drawn
        self._drawn.put(drawn)  # it stays the end
        if drawn is None:
            raise StopIteration
        raise drawn


def _reduced(page: Page) -> tuple[ReplicaChange, ...]:
    return tuple(reduce_records(page.records))
