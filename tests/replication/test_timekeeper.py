"""A node's clock with what is known against it, over restarts: what is written down, what is believed, what goes on sightings."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from keycache.clock import ManualClock
from keycache.replication.timekeeper import HEARTBEAT, Timekeeper
from keycache.store.memory import MemoryReplica
from support.entries import T0

BOUND = timedelta(minutes=2)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Machine:
    """A clock, and the replica that outlives a restart."""

    def __init__(self, wall: datetime = T0) -> None:
        self.replica = MemoryReplica()
        self.start(wall)

    def start(self, wall: datetime) -> None:
        self.clock = ManualClock(wall)
        self.offsets: dict[str, timedelta] = {}
        self.keeper = Timekeeper(
            clock=self.clock, replica=self.replica, offload=asyncio.to_thread, offsets=lambda: dict(self.offsets)
        )

    @property
    def trusted(self) -> bool:
        return self.keeper.verdict(BOUND).trusted

    async def beat(self) -> datetime | None:
        await self.keeper.heartbeat(BOUND)
        return self.replica.high_water()


async def test_the_time_is_written_down_at_first_and_then_once_a_minute() -> None:
    machine = Machine()
    assert await machine.beat() == T0
    machine.clock.advance(HEARTBEAT - timedelta(seconds=1))
    assert await machine.beat() == T0
    machine.clock.advance(timedelta(seconds=1))
    assert await machine.beat() == T0 + HEARTBEAT


async def test_a_clock_set_forward_while_running_is_suspect_and_its_time_is_not_written_down() -> None:
    machine = Machine()
    await machine.beat()
    machine.clock.step(400 * DAY)
    assert not machine.trusted
    assert await machine.beat() == T0
    machine.clock.step(-400 * DAY)
    machine.clock.advance(HOUR)
    assert machine.trusted
    assert await machine.beat() == T0 + HOUR


async def test_a_clock_set_back_over_a_restart_is_suspect_until_it_has_passed_what_was_written_down() -> None:
    machine = Machine()
    await machine.beat()
    machine.start(T0 - HOUR)
    assert not machine.trusted
    machine.clock.advance(HOUR)
    assert machine.trusted
    assert await machine.beat() == T0
    machine.clock.advance(HEARTBEAT)
    assert await machine.beat() == T0 + HEARTBEAT
    assert machine.trusted


async def test_a_clock_set_forward_over_a_restart_is_believed_but_its_leap_is_neither_witnessed_nor_written_down() -> None:
    """It cannot be told from a long stop, so lookups go by it, and nothing is removed by it."""
    machine = Machine()
    await machine.beat()
    machine.start(T0 + 400 * DAY)
    assert machine.trusted
    assert machine.keeper.now() == machine.keeper.stamp() == T0 + 400 * DAY
    assert machine.keeper.witnessed() == T0
    machine.clock.advance(HOUR)
    assert machine.keeper.witnessed() == T0 + HOUR
    assert await machine.beat() == T0 + HOUR
    machine.start(T0 + 2 * HOUR)
    assert machine.trusted
    assert machine.keeper.witnessed() == T0 + HOUR


async def test_what_was_not_witnessed_stays_so_over_any_number_of_restarts() -> None:
    machine = Machine()
    await machine.beat()
    for number in range(1, 6):
        machine.start(T0 + number * 100 * DAY)
        machine.clock.advance(HOUR)
        await machine.beat()
        assert machine.replica.high_water() == T0 + number * HOUR


async def test_a_sighting_made_under_a_clock_that_is_behind_is_stamped_with_the_time_that_has_come_for_certain() -> None:
    machine = Machine()
    await machine.beat()
    machine.start(datetime(1970, 1, 1, tzinfo=UTC))
    machine.clock.advance(HOUR)
    assert machine.keeper.stamp() == T0 + HOUR
    assert machine.keeper.now() == datetime(1970, 1, 1, 1, tzinfo=UTC)


async def test_a_sighting_made_after_the_clock_was_set_back_while_running_is_not_stamped_behind_its_time() -> None:
    machine = Machine()
    await machine.beat()
    machine.clock.advance(DAY)
    machine.clock.step(-DAY)
    assert machine.keeper.stamp() == T0 + DAY


async def test_an_administrator_who_trusts_the_clock_starts_all_witnesses_anew_also_backwards() -> None:
    for leap in (400 * DAY, -400 * DAY):
        machine = Machine()
        await machine.beat()
        machine.clock.step(leap)
        assert not machine.trusted
        await machine.keeper.trust_clock()
        assert machine.trusted
        assert machine.keeper.witnessed() == machine.keeper.stamp() == machine.replica.high_water() == T0 + leap
        machine.start(T0 + leap)
        assert machine.trusted


async def test_a_clock_that_disagrees_with_the_other_members_is_suspect_and_its_time_is_not_written_down() -> None:
    machine = Machine()
    await machine.beat()
    machine.offsets = {"b": HOUR, "c": HOUR}
    machine.clock.advance(HOUR)
    assert not machine.trusted
    assert await machine.beat() == T0
    machine.offsets = {"b": HOUR, "c": timedelta()}
    assert machine.trusted
    assert await machine.beat() == T0 + HOUR


async def test_an_administrator_who_trusts_the_clock_counts_members_that_are_off_as_wrong_until_they_are_off_otherwise() -> (
    None
):
    machine = Machine()
    machine.offsets = {"b": HOUR}
    assert not machine.trusted
    await machine.keeper.trust_clock()
    for off, trusted in ((HOUR, True), (timedelta(), True), (HOUR + BOUND, True), (2 * HOUR, False), (-HOUR, False)):
        machine.offsets = {"b": off}
        assert machine.trusted == trusted
    machine.start(T0)
    machine.offsets = {"b": HOUR}
    assert not machine.trusted


async def test_a_sighting_is_stamped_with_the_cluster_s_time_where_the_own_clock_is_behind_it() -> None:
    machine = Machine()
    machine.offsets = {"b": DAY, "c": DAY}
    assert machine.keeper.stamp() == T0 + DAY
    assert machine.keeper.now() == T0
    machine.offsets = {"b": -DAY, "c": -DAY}
    assert machine.keeper.stamp() == T0
