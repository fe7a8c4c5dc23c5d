"""For each guard of DESIGN 2.1 to 2.4: taken out, an unexpired entry is lost; in place, it is not. (Those of the restart check are in
`test_restart_guards.py`.)

Each scenario runs twice, on the real thing and on a mutant that lacks just this guard. A scenario that loses nothing under the
mutant would show that the guard, or its test, is worth nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from keycache.codec import encode_settings
from keycache.domain.log import SETTINGS, Transaction
from keycache.domain.settings import Settings, Timeouts
from keycache.replication.pull import Pull
from keycache.replication.purger import Purger
from keycache.replication.timekeeper import Timekeeper
from support.entries import T0, fingerprint_of, make_entry, make_key, make_sighting, record_of
from support.mutants import (
    AssumingDefaults,
    BelievingLeaps,
    ConfirmingItself,
    EndingWhenClosed,
    MutantPurger,
    StampingByTheClock,
    TrustingAnyClock,
    WithoutEntryComparison,
    WithoutSettingsComparison,
    WritingDownAnyTime,
    give_purger,
    give_timekeeper,
)
from support.node import Node, running_node
from support.odd_logs import InterposedLog, StallingLog

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
AGED = make_sighting(cached_at=T0 - 500 * DAY)

Scenario = Callable[..., Awaitable[bool]]
"""Whether an unexpired entry was lost. Its argument: the real class, or a mutant."""


# the comparisons of the removing transaction (2.2)
async def refreshed_before_its_removal(log_class: type[InterposedLog]) -> bool:
    node = Node(log=log_class())
    async with running_node(make_entry(1, AGED), node=node):
        log = node.log
        assert isinstance(log, InterposedLog)
        fresh = make_entry(1, replace(AGED, refreshed_at=T0))
        log.before = lambda: log.commit(Transaction(compare={}, puts=dict([record_of(fresh)])))
        await node.sweep()
        return fingerprint_of(1).text not in await node.in_log()


async def timeout_raised_before_its_removal(log_class: type[InterposedLog]) -> bool:
    node = Node(log=log_class())
    async with running_node(make_entry(1, AGED), node=node):
        log = node.log
        assert isinstance(log, InterposedLog)
        raised = encode_settings(Settings(timeouts=Timeouts(harvested=999 * DAY)))
        log.before = lambda: log.commit(Transaction(compare={}, puts={SETTINGS: raised}))
        await node.sweep()
        return fingerprint_of(1).text not in await node.in_log()


# the questions of the plan (2.3, 2.4)
def with_purger(purger_class: type[Purger]) -> Node:
    return Node(log=InterposedLog(), adapt=lambda cache: give_purger(cache, purger_class))


async def settings_lost(purger_class: type[Purger]) -> bool:
    """The cluster's timeout was 999 days; its record is gone; the key is 600 days old."""
    node = with_purger(purger_class)
    async with running_node(make_entry(1, make_sighting(cached_at=T0 - 600 * DAY)), node=node):
        await node.cache.settings.change(harvested=999 * DAY, actor="admin")
        await node.log.commit(Transaction(compare={}, puts={}, deletes=(SETTINGS,)))
        await node.settle()
        await node.sweep()
        return fingerprint_of(1).text not in await node.in_log()


async def confirmed_under_a_clock_that_was_set(purger_class: type[Purger]) -> bool:
    """An administrator sees a mass expiry and confirms it; the clock was set forward just before."""
    node = with_purger(purger_class)
    async with running_node(make_entry(1), node=node):
        node.clock.step(600 * DAY)
        await node.cache.purger.sweep(confirmed=True)
        return fingerprint_of(1).text not in await node.in_log()


async def clock_set_while_down(purger_class: type[Purger]) -> bool:
    node = with_purger(purger_class)
    async with running_node(make_entry(1), node=node):
        await node.restart(clock_moves=600 * DAY)
        await node.sweep()
        return fingerprint_of(1).text not in await node.in_log()


async def timeout_lowered_by_mistake(purger_class: type[Purger]) -> bool:
    """500 h for 500 d: by the settings in force the keys are expired. The hold gives the administrator the time to see it."""
    node = with_purger(purger_class)
    many = [make_entry(number, make_sighting(cached_at=T0 - 30 * DAY)) for number in range(150)]
    async with running_node(*many, node=node):
        await node.cache.settings.change(harvested=500 * HOUR, actor="admin")
        await node.sweep()
        await node.cache.settings.change(harvested=500 * DAY, actor="admin")
        return len(await node.in_log()) < 150


# the witness (2.1)
def with_timekeeper(keeper_class: type[Timekeeper]) -> Node:
    return Node(adapt=lambda cache: give_timekeeper(cache, keeper_class))


async def kept_under_a_clock_that_was_behind(keeper_class: type[Timekeeper]) -> bool:
    """1. The clock is set back by 40 hours. 2. A key is put. 3. The clock is set right. 4. The key seems 40 hours old."""
    node = with_timekeeper(keeper_class)
    async with running_node(node=node):
        node.clock.step(-40 * HOUR)
        await node.cache.harvesting.put(node.script.file(b"file", make_key(1)), "user1@example.org", "keys.example.org")
        node.clock.step(40 * HOUR)
        node.clock.advance(HOUR)
        await node.sweep()
        return fingerprint_of(1).text not in await node.in_log()


async def started_twice_with_a_clock_set_forward(keeper_class: type[Timekeeper]) -> bool:
    """The first start writes the wrong time down, the second believes to have seen it pass."""
    node = with_timekeeper(keeper_class)
    async with running_node(make_entry(1), node=node):
        for moves in (600 * DAY, HOUR):
            await node.restart(clock_moves=moves)
            await node.sweep()
        return fingerprint_of(1).text not in await node.in_log()


# the replicator (2.8)
async def stopped_during_a_listing(pull_class: type[Pull]) -> bool:
    log = StallingLog()
    node = Node(log=log)
    log.go.set()
    async with running_node(*(make_entry(number) for number in range(5)), node=node):
        pass
    log.compact()
    log.go.clear()
    log.stalled.clear()
    # As in Replicator._relist, on the class under test.
    pull = pull_class(log.list(), asyncio.get_running_loop())
    await pull.start()
    cursor = node.replica.cursor()
    assert cursor is not None
    writing = asyncio.create_task(asyncio.to_thread(node.replica.replace, pull, cursor))
    await log.stalled.wait()
    await pull.aclose()
    await asyncio.gather(writing, return_exceptions=True)
    return node.entry(fingerprint_of(1)) is None or node.entry(fingerprint_of(4)) is None


GUARDS: list[tuple[Scenario, type, type]] = [
    (refreshed_before_its_removal, InterposedLog, WithoutEntryComparison),
    (timeout_raised_before_its_removal, InterposedLog, WithoutSettingsComparison),
    (settings_lost, Purger, AssumingDefaults),
    (confirmed_under_a_clock_that_was_set, Purger, TrustingAnyClock),
    (clock_set_while_down, Purger, BelievingLeaps),
    (timeout_lowered_by_mistake, Purger, ConfirmingItself),
    # The mutants' common part loses nothing by itself.
    (settings_lost, MutantPurger, AssumingDefaults),
    (confirmed_under_a_clock_that_was_set, MutantPurger, TrustingAnyClock),
    (clock_set_while_down, MutantPurger, BelievingLeaps),
    (timeout_lowered_by_mistake, MutantPurger, ConfirmingItself),
    (kept_under_a_clock_that_was_behind, Timekeeper, StampingByTheClock),
    (started_twice_with_a_clock_set_forward, Timekeeper, WritingDownAnyTime),
    (stopped_during_a_listing, Pull, EndingWhenClosed),
]


@pytest.mark.parametrize(
    ("scenario", "real", "mutant"), GUARDS, ids=[f"{scenario.__name__}-{real.__name__}" for scenario, real, _ in GUARDS]
)
async def test_with_the_guard_nothing_is_lost_and_without_it_something_is(scenario: Scenario, real: type, mutant: type) -> None:
    assert not await scenario(real)
    assert await scenario(mutant)
