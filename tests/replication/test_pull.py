"""Pages come in ahead of the thread that writes them, a few at most, and whatever ends a listing early is raised in that thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from keycache.domain.errors import LogUnavailable
from keycache.domain.log import Page, Record
from keycache.domain.names import Revision
from keycache.domain.ports import DocumentChange
from keycache.replication.pull import PAGES_AHEAD, Abandoned, Pull

R = Revision(7)


class Listing:
    """Pages of one record each; raises `failure` after the last. `made` counts them."""

    def __init__(self, count: int, failure: Exception | None = None) -> None:
        self.made = 0
        self._count = count
        self._failure = failure

    async def pages(self) -> AsyncGenerator[Page, None]:
        for number in range(self._count):
            self.made += 1
            yield Page(revision=R, records=(Record(key=f"x/{number}", value=b"x", mod_revision=R),))
        if self._failure is not None:
            raise self._failure


async def begun(listing: Listing) -> Pull:
    pull = Pull(listing.pages(), asyncio.get_running_loop())
    assert await pull.start() == R
    return pull


async def settle() -> None:
    """Until the event loop has nothing more to do by itself."""
    for _ in range(20):
        await asyncio.sleep(0)


def change(number: int) -> tuple[DocumentChange, ...]:
    return (DocumentChange(key=f"x/{number}", revision=R, value=b"x"),)


async def test_pages_come_in_ahead_of_the_writing_thread_but_only_a_few() -> None:
    listing = Listing(10)
    pull = await begun(listing)
    made, drawn = [], []
    for _ in range(10):
        await settle()
        made.append(listing.made)
        drawn.append(await asyncio.to_thread(next, pull))
    assert made == [min(number + PAGES_AHEAD + 1, 10) for number in range(10)]
    assert drawn == [change(number) for number in range(10)]
    await pull.aclose()


async def test_the_end_of_a_listing_stays_its_end() -> None:
    pull = await begun(Listing(2))
    assert await asyncio.to_thread(list, pull) == [change(0), change(1)]
    assert await asyncio.to_thread(list, pull) == []
    await pull.aclose()


async def test_what_ends_a_listing_early_is_raised_after_the_pages_before_it() -> None:
    pull = await begun(Listing(2, LogUnavailable("The entry log does not answer.")))
    assert [await asyncio.to_thread(next, pull) for _ in range(2)] == [change(0), change(1)]
    for _ in range(2):
        with pytest.raises(LogUnavailable):
            await asyncio.to_thread(next, pull)
    await pull.aclose()


async def test_a_listing_that_is_closed_raises_at_once_also_while_pages_wait() -> None:
    pull = await begun(Listing(10))
    await asyncio.to_thread(next, pull)
    await settle()
    await pull.aclose()
    with pytest.raises(Abandoned):
        await asyncio.to_thread(next, pull)


async def test_a_thread_that_waits_for_a_page_is_told_when_the_listing_is_closed() -> None:
    stalled = asyncio.Event()

    async def pages() -> AsyncGenerator[Page, None]:
        yield Page(revision=R, records=())
        stalled.set()
        await asyncio.Event().wait()

    pull = Pull(pages(), asyncio.get_running_loop())
    await pull.start()
    assert await asyncio.to_thread(next, pull) == ()
    waiting = asyncio.create_task(asyncio.to_thread(next, pull))
    await stalled.wait()
    await pull.aclose()
    with pytest.raises(Abandoned):
        await waiting
