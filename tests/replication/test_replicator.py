"""The replicator keeps the replica equal to the log, whatever happens to either (DESIGN 2.8)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from keycache.clock import ManualClock
from keycache.codec import encode_settings
from keycache.domain.entry import Entry
from keycache.domain.errors import Unavailable
from keycache.domain.log import SETTINGS, Committed, Transaction, entry_key
from keycache.domain.names import Revision
from keycache.domain.ports import Cursor, EntryLog
from keycache.domain.settings import Settings
from keycache.replication.replicator import RETRY_SECONDS, WATCHER_BACKLOG, LinkState, Watched
from keycache.replication.view import View
from keycache.store.memory import MemoryLog, MemoryReplica
from support.entries import T0, make_entry, record_of
from support.node import eventually, make_replicator
from support.odd_logs import BreakingLog, CountingLog, RepeatingLog, StallingLog


class HastyClock(ManualClock):
    """Does not sleep, only remembers for how long it should have; `then` is called at each."""

    def __init__(self) -> None:
        super().__init__(T0)
        self.slept: list[float] = []
        self.then: Callable[[], object] = lambda: None

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.then()
        await asyncio.sleep(0)


class Follower:
    """A log, a replica, and the replicator between them."""

    def __init__(self, log: EntryLog, replica: MemoryReplica | None = None) -> None:
        self.log = log
        self.replica = replica or MemoryReplica()
        self.view = View(self.replica)
        self.clock = HastyClock()
        self.threads: list[asyncio.Future[Any]] = []
        self.replicator = make_replicator(log=log, replica=self.replica, view=self.view, clock=self.clock, offload=self.offload)

    async def offload(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """As `asyncio.to_thread`, but the test can wait for a thread whose caller is gone."""
        thread = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
        self.threads.append(thread)
        return await asyncio.shield(thread)

    async def write(self, *entries: Entry, deletes: tuple[Entry, ...] = ()) -> int:
        return await commit(self.log, *entries, deletes=deletes)

    async def caught_up(self) -> None:
        await self.replicator.reach(await self.log.head())

    def held(self) -> list[Entry]:
        return sorted((kept.entry for kept in self.replica._entries.values()), key=lambda entry: entry.key.fingerprint)


async def commit(log: EntryLog, *entries: Entry, deletes: tuple[Entry, ...] = ()) -> int:
    names = tuple(entry_key(entry.key.protocol, entry.key.fingerprint) for entry in deletes)
    result = await log.commit(Transaction(compare={}, puts=dict(record_of(entry) for entry in entries), deletes=names))
    assert isinstance(result, Committed)
    return result.revision


@asynccontextmanager
async def following(log: EntryLog, replica: MemoryReplica | None = None) -> AsyncIterator[Follower]:
    follower = Follower(log, replica)
    task = asyncio.create_task(follower.replicator.run())
    try:
        yield follower
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def sorted_entries(*numbers: int) -> list[Entry]:
    return sorted((make_entry(number) for number in numbers), key=lambda entry: entry.key.fingerprint)


async def test_an_empty_replica_is_filled_by_one_listing_page_by_page_and_then_follows() -> None:
    log = CountingLog()
    await commit(log, *(make_entry(number) for number in range(7)))
    async with following(log) as follower:
        await follower.replicator.ready.wait()
        assert follower.held() == sorted_entries(*range(7))
        assert follower.replica.cursor() == Cursor(identity=log.identity, revision=Revision(1))
        await follower.write(make_entry(7), deletes=(make_entry(0),))
        await follower.caught_up()
        assert follower.held() == sorted_entries(*range(1, 8))
        assert (log.lists, log.watches, follower.replicator.applied) == (1, [1], 2)


async def test_an_empty_log_makes_an_empty_replica_ready() -> None:
    async with following(MemoryLog()) as follower:
        await follower.replicator.ready.wait()
        assert follower.replica.cursor() == Cursor(identity=follower.log.identity, revision=Revision(0))


async def test_a_restart_resumes_from_the_cursor_and_does_not_list() -> None:
    log = CountingLog()
    async with following(log) as first:
        await first.write(make_entry(1))
        await first.caught_up()
    await commit(log, make_entry(2), deletes=(make_entry(1),))
    async with following(log, first.replica) as second:
        await second.replicator.ready.wait()
        assert second.held() == sorted_entries(2)
        assert (log.lists, log.watches[-1]) == (1, 1)


async def test_a_restart_knows_its_settings_before_the_log_is_heard() -> None:
    log = MemoryLog()
    await log.commit(Transaction(compare={}, puts={SETTINGS: encode_settings(Settings(purge_hold_floor=7))}))
    async with following(log) as first:
        await first.caught_up()
    log.interrupt()
    async with following(log, first.replica) as second:
        await asyncio.sleep(0)
        assert second.view.require_settings() == Settings(purge_hold_floor=7)
        assert second.replicator.applied == 1


async def test_what_is_told_twice_is_applied_once() -> None:
    """Without the comparison of revisions the replayed deletion and the replayed older value would come back."""
    log = RepeatingLog()
    async with following(log) as follower:
        reader = follower.replicator.changes()
        assert (await anext(reader)).kind == "STARTED"
        for number in range(1, 5):
            await follower.write(make_entry(number))
        await follower.write(make_entry(1, names=("newer",)), deletes=(make_entry(2),))
        await follower.caught_up()
        expected = sorted([make_entry(1, names=("newer",)), *sorted_entries(3, 4)], key=lambda entry: entry.key.fingerprint)
        assert follower.held() == expected
        plain = Follower(log)
        assert follower.replica.digest() == await _listed_digest(plain)


async def _listed_digest(follower: Follower) -> str:
    async with following(follower.log, follower.replica) as other:
        await other.replicator.ready.wait()
        return other.replica.digest()


async def test_a_watch_below_what_the_log_still_holds_lists_anew_and_loses_no_change() -> None:
    log = CountingLog()
    async with following(log) as first:
        await first.write(make_entry(1), make_entry(2))
        await first.caught_up()
    await commit(log, make_entry(3), deletes=(make_entry(1),))
    log.compact()
    async with following(log, first.replica) as second:
        await second.replicator.ready.wait()
        assert second.held() == sorted_entries(2, 3)
        assert log.lists == 2


async def test_a_compacted_log_that_cannot_be_listed_just_now_is_listed_later() -> None:
    """The listing that a compaction asks for fails: that is a log that is away, not the end of the node."""
    log = BreakingLog()
    async with following(log) as first:
        await first.write(*(make_entry(number) for number in range(6)))
        await first.caught_up()
    await commit(log, make_entry(7), deletes=(make_entry(1),))
    log.compact()
    log.failures = 2
    async with following(log, first.replica) as second:
        await second.replicator.ready.wait()
        assert second.held() == sorted_entries(0, 2, 3, 4, 5, 7)
        assert second.clock.slept == list(RETRY_SECONDS[:2])


async def test_a_log_that_is_away_is_waited_for_ever_longer_and_not_listed_when_it_is_back() -> None:
    log = CountingLog()
    async with following(log) as follower:
        await follower.write(make_entry(1))
        await follower.caught_up()
        back = asyncio.Event()

        def after_six() -> None:
            if len(follower.clock.slept) == 6:
                log.resume()
                back.set()

        follower.clock.then = after_six
        log.interrupt()
        await back.wait()
        await follower.write(make_entry(2))
        await follower.caught_up()
        assert follower.held() == sorted_entries(1, 2)
        assert follower.clock.slept == [*RETRY_SECONDS, RETRY_SECONDS[-1], RETRY_SECONDS[-1]]
        assert log.lists == 1


async def test_another_log_than_the_replica_was_filled_from_is_refused_and_nothing_is_changed() -> None:
    async with following(MemoryLog("a" * 32)) as first:
        await first.write(make_entry(1))
        await first.caught_up()
    digest, cursor = first.replica.digest(), first.replica.cursor()
    other = MemoryLog("b" * 32)
    await commit(other, make_entry(2))
    async with following(other, first.replica) as second:
        await eventually(lambda: second.replicator.state is LinkState.REFUSED)
        assert "was filled from log aaaa" in second.replicator.reason
        assert not second.replicator.ready.is_set(), "there are no settings to serve by"
    assert (first.replica.digest(), first.replica.cursor()) == (digest, cursor)
    assert first.held() == sorted_entries(1)


@pytest.mark.parametrize("before", [(), (1, 2)])
async def test_a_listing_that_breaks_off_changes_nothing_and_is_begun_anew(before: tuple[int, ...]) -> None:
    """Half a listing must never pass for a whole one: what had not come yet would be dropped."""
    log = BreakingLog()
    replica = MemoryReplica()
    if before:
        async with following(log, replica) as first:
            await first.write(*(make_entry(number) for number in before))
            await first.caught_up()
    await commit(log, *(make_entry(number) for number in range(10, 16)))
    log.compact()
    states = []
    second = Follower(log, replica)
    second.clock.then = lambda: states.append((second.held(), replica.cursor()))
    log.failures = 1
    async with following_with(second):
        await second.replicator.ready.wait()
        cursor = Cursor(identity=log.identity, revision=Revision(1)) if before else None
        assert states == [(sorted_entries(*before), cursor)]
        assert second.held() == sorted_entries(*before, *range(10, 16))


@asynccontextmanager
async def following_with(follower: Follower) -> AsyncIterator[None]:
    task = asyncio.create_task(follower.replicator.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("before", [(), (1, 2)])
async def test_a_node_that_is_stopped_in_the_middle_of_a_listing_keeps_what_it_had(before: tuple[int, ...]) -> None:
    """1. The replica's thread has drawn the first page. 2. The node is told to stop, the listing is closed. 3. The thread draws again.
    Were that the end of the listing to it, it would commit one page as the whole of the cache."""
    log = StallingLog()
    log.go.set()
    replica = MemoryReplica()
    if before:
        async with following(log, replica) as first:
            await first.write(*(make_entry(number) for number in before))
            await first.caught_up()
    await commit(log, *(make_entry(number) for number in range(10, 16)))
    log.compact()
    log.go.clear()
    log.stalled.clear()
    second = Follower(log, replica)
    async with following_with(second):
        await log.stalled.wait()
    log.go.set()
    outcome = await asyncio.gather(*second.threads, return_exceptions=True)
    assert [isinstance(one, Exception) for one in outcome] == [True]
    assert second.held() == sorted_entries(*before)
    assert replica.cursor() == (Cursor(identity=log.identity, revision=Revision(1)) if before else None)
    async with following(log, replica) as third:
        await third.replicator.ready.wait()
        assert third.held() == sorted_entries(*before, *range(10, 16))


async def test_who_waits_for_a_revision_sees_all_of_its_effects() -> None:
    async with following(MemoryLog()) as follower:
        for floor in range(1, 20):
            key, value = record_of(make_entry(floor))
            settings = Settings(purge_hold_floor=floor)
            result = await follower.log.commit(Transaction(compare={}, puts={SETTINGS: encode_settings(settings), key: value}))
            assert isinstance(result, Committed)
            await follower.replicator.reach(result.revision)
            assert follower.view.settings == settings
            assert follower.view.settings_revision == result.revision
            assert follower.replica.entry(make_entry(floor).key.protocol, make_entry(floor).key.fingerprint) is not None
            assert follower.replica.cursor() == Cursor(identity=follower.log.identity, revision=result.revision)


async def test_waiting_for_a_revision_that_does_not_come_ends_with_an_error_that_names_both() -> None:
    async with following(MemoryLog()) as follower:
        await follower.write(make_entry(1))
        await follower.caught_up()
        with pytest.raises(Unavailable, match=r"has applied revision 1, not yet 9\."):
            await follower.replicator.reach(9, timeout_seconds=0.01)


# readers
def told(kind: Any, revision: int, entry: Entry | None = None, *, addresses: bool = True) -> Watched:
    if entry is None:
        return Watched(kind=kind, revision=revision)
    return Watched(
        kind=kind,
        revision=revision,
        protocol=entry.key.protocol,
        fingerprint=entry.key.fingerprint.text,
        addresses=tuple(address.text for address in entry.key.addresses) if addresses else (),
    )


async def test_a_reader_is_told_where_it_starts_and_every_change_of_an_entry_from_there() -> None:
    async with following(MemoryLog()) as follower:
        await follower.write(make_entry(1))
        await follower.caught_up()
        reader = follower.replicator.changes()
        seen = [await anext(reader)]
        await follower.write(make_entry(2))
        await follower.log.commit(Transaction(compare={}, puts={"blocks/x": b"not of interest"}))
        await follower.write(deletes=(make_entry(1),))
        await follower.caught_up()
        seen += [await anext(reader), await anext(reader)]
        assert seen == [
            told("STARTED", 1),
            told("UPDATED", 2, make_entry(2)),
            told("REMOVED", 4, make_entry(1), addresses=False),
        ]
        await reader.aclose()
        assert not follower.replicator._readers


async def test_a_reader_learns_that_it_lost_changes_when_the_replica_was_listed_anew() -> None:
    log = CountingLog()
    async with following(log) as first:
        await first.write(make_entry(1))
        await first.caught_up()
    await commit(log, make_entry(2))
    log.compact()
    second = Follower(log, first.replica)
    reader = second.replicator.changes()
    assert await anext(reader) == told("STARTED", 0)
    async with following_with(second):
        assert await anext(reader) == told("LOST", 2)


async def test_a_reader_that_is_too_slow_is_told_that_it_lost_changes_and_then_the_newest() -> None:
    async with following(MemoryLog()) as follower:
        reader = follower.replicator.changes()
        await anext(reader)
        many = [make_entry(1, names=(str(number),)) for number in range(WATCHER_BACKLOG // 100 + 2)]
        # One record a batch: the log in memory tells only the newest value of each.
        for number, entry in enumerate(many):
            batch = [make_entry(1000 + (100 * number + n) % 500) for n in range(100)]
            await follower.write(entry, *batch[:99])
            await follower.caught_up()
        (waiting,) = follower.replicator._readers
        seen = [await anext(reader) for _ in range(len(waiting._queue))]
        assert seen[0].kind == "LOST"
        assert {one.kind for one in seen[1:]} == {"UPDATED"}
        assert len(seen) <= WATCHER_BACKLOG
        assert max(one.revision for one in seen) == follower.replicator.applied
