"""What a watch lost is found by comparing the whole, and mended by listing it (FACTS 3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta

import pytest

from keycache.codec import encode_settings
from keycache.domain.entry import Entry
from keycache.domain.log import BLOCKS, SETTINGS, Batch, Event, Transaction, deletion_key, entry_key
from keycache.domain.names import NodeId, Revision
from keycache.domain.settings import Settings
from keycache.replication.reconciler import RECONCILE, Reconciler
from keycache.replication.replicator import LinkState
from support.entries import T0, fingerprint_of, make_entry, make_sighting, record_of
from support.node import Node, eventually, running_node
from support.odd_logs import CountingLog

DAY = timedelta(days=1)
AGED = make_sighting(cached_at=T0 - 500 * DAY)


class LossyLog(CountingLog):
    """A watch that does not tell what `loses` names, but goes on past it. Listings are in pages of two."""

    def __init__(self) -> None:
        super().__init__(shared=True)
        self.loses: Callable[[str], bool] = lambda _key: False

    async def watch(self, *, after: Revision) -> AsyncGenerator[Batch, None]:
        async for batch in super().watch(after=after):
            events: tuple[tuple[Revision, Event], ...] = tuple(one for one in batch.events if not self.loses(one[1].key))
            yield Batch(revision=batch.revision, events=events)


def name(entry: Entry) -> str:
    return entry_key(entry.key.protocol, entry.key.fingerprint)


async def lose(node: Node, *, puts: tuple[Entry, ...] = (), deletes: tuple[Entry, ...] = (), **documents: bytes) -> None:
    """Write this without the watch telling it."""
    log = node.log
    assert isinstance(log, LossyLog)
    log.loses = lambda _key: True
    written = {**dict(record_of(entry) for entry in puts), **documents}
    await log.commit(Transaction(compare={}, puts=written, deletes=tuple(name(entry) for entry in deletes)))
    await node.settle()
    log.loses = lambda _key: False


def lossy() -> Node:
    return Node(log=LossyLog())


def listings(node: Node) -> int:
    assert isinstance(node.log, LossyLog)
    return node.log.lists


async def compared(node: Node) -> tuple[int, int]:
    """What a round found, and how often the log was listed in it, once the replicator has done with it."""
    before = listings(node)
    await node.cache.reconciler.tick()
    if node.cache.replicator._asked.is_set():
        await node.looked_again()
    return node.cache.reconciler.repaired, listings(node) - before


async def test_a_replica_that_equals_the_log_is_left_as_it_is() -> None:
    async with running_node(*(make_entry(number) for number in range(7)), node=lossy()) as node:
        assert await compared(node) == (0, 1)
        assert node.cache.reconciler.reconciled_at == T0


@pytest.mark.parametrize("number", range(5))
async def test_an_entry_whose_event_was_lost_is_found_and_comes_with_a_listing(number: int) -> None:
    """Wherever in the order of keys it stands."""
    others = [make_entry(other) for other in range(5) if other != number]
    async with running_node(*others, node=lossy()) as node:
        await lose(node, puts=(make_entry(number),))
        assert node.entry(fingerprint_of(number)) is None
        assert await compared(node) == (1, 2)
        assert node.entry(fingerprint_of(number)) == make_entry(number)
        assert await compared(node) == (0, 1)


async def test_a_refresh_and_a_setting_whose_events_were_lost_are_found() -> None:
    old, new = make_entry(1, AGED), make_entry(1)
    async with running_node(old, make_entry(2), node=lossy()) as node:
        changed = Settings(purge_hold_floor=7)
        await lose(node, puts=(new,), **{SETTINGS: encode_settings(changed), BLOCKS + "address/x": b"x"})
        assert await compared(node) == (3, 2)
        assert node.entry(fingerprint_of(1)) == new
        assert node.cache.settings.current()[0] == changed


async def test_a_deletion_by_an_administrator_whose_event_was_lost_is_found() -> None:
    gone = make_entry(1)
    async with running_node(gone, make_entry(2), node=lossy()) as node:
        record = deletion_key(gone.key.protocol, gone.key.fingerprint)
        await lose(node, deletes=(gone,), **{record: b""})
        assert await compared(node) == (2, 2)
        assert node.entry(fingerprint_of(1)) is None
        assert node.replica.document(record) is not None


async def test_a_removal_of_what_had_expired_whose_event_was_lost_is_found() -> None:
    async with running_node(make_entry(1, AGED), make_entry(2), node=lossy()) as node:
        await lose(node, deletes=(make_entry(1, AGED),))
        assert await compared(node) == (1, 2)
        assert node.entry(fingerprint_of(1)) is None


async def test_an_unexpired_entry_that_the_log_lacks_though_nobody_deleted_it_is_not_given_up() -> None:
    """The log may have lost it, and this may be the last copy."""
    async with running_node(make_entry(1), make_entry(2), node=lossy()) as node:
        await lose(node, deletes=(make_entry(1),))
        assert await compared(node) == (1, 1)
        assert node.cache.replicator.state is LinkState.REFUSED
        assert "it lacks 1 unexpired keys of this node that nobody has removed" in node.cache.replicator.reason
        assert node.entry(fingerprint_of(1)) == make_entry(1)


async def test_what_is_written_and_deleted_while_the_log_is_listed_is_no_difference() -> None:
    async with running_node(*(make_entry(number) for number in range(6)), node=lossy()) as node:
        log = node.log
        assert isinstance(log, LossyLog)
        plain = log.list

        async def busy(*, page_size: int = 1000, keys_only: bool = False):
            """Others write between the pages, and all of it is applied here before the next is compared."""
            number = 0
            async for page in plain(page_size=page_size, keys_only=keys_only):
                puts = dict([record_of(make_entry(number, names=("new",))), record_of(make_entry(100 + number))])
                deletes = (name(make_entry(number + 3)),)
                await log.commit(Transaction(compare={}, puts=puts, deletes=deletes))
                await node.settle()
                number += 1
                yield page

        log.list = busy  # type: ignore[method-assign]
        assert await node.cache.reconciler.compare() == (set(), 0)


async def test_a_difference_that_a_listing_does_not_mend_is_told_and_not_listed_again() -> None:
    async with running_node(make_entry(1), node=lossy()) as node:
        await lose(node, puts=(make_entry(2),))
        node.cache.replicator.list_anew = lambda: None  # type: ignore[method-assign]
        await node.cache.reconciler.tick()
        del node.cache.replicator.list_anew
        assert await compared(node) == (1, 1)
        await lose(node, puts=(make_entry(3),))
        assert await compared(node) == (2, 2), "a new one is"


async def test_a_log_that_cannot_be_reached_is_compared_another_time() -> None:
    async with running_node(make_entry(1), node=lossy()) as node:
        await lose(node, puts=(make_entry(2),))
        node.log.interrupt()  # type: ignore[attr-defined]
        await node.cache.reconciler.tick()
        assert (node.cache.reconciler.repaired, node.cache.reconciler.reconciled_at) == (0, None)


async def test_the_whole_is_compared_every_interval_by_each_node_at_a_time_of_its_own() -> None:
    async with running_node(make_entry(1), node=lossy()) as node:
        await lose(node, puts=(make_entry(2),))
        first = node.cache.reconciler._first
        node.clock.advance(first)
        for _ in range(5):
            await asyncio.sleep(0)  # until it waits for the next interval
        node.clock.advance(RECONCILE - timedelta(seconds=1))
        await asyncio.sleep(0)
        assert node.cache.reconciler.reconciled_at is None
        node.clock.advance(timedelta(seconds=1))
        await eventually(lambda: node.cache.reconciler.repaired == 1)
        await eventually(lambda: node.entry(fingerprint_of(2)) is not None)
    parts = (node.log, node.replica, node.clock)
    shares = {
        Reconciler(log=parts[0], replica=parts[1], view=None, replicator=None, clock=parts[2], node_id=NodeId(str(one)))._first  # type: ignore[arg-type]
        for one in range(20)
    }
    assert len(shares) == 20
    assert timedelta() <= min(shares) < RECONCILE / 3
    assert RECONCILE * 2 / 3 < max(shares) < RECONCILE


async def test_a_log_on_the_node_itself_is_not_compared() -> None:
    async with running_node(make_entry(1)) as node:
        await node.cache.reconciler.run()
