"""The purger removes what has expired, and only that, and only under the settings by which it was found expired (DESIGN 2.1-2.4)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from keycache.codec import encode_settings
from keycache.domain.entry import Entry, Origin
from keycache.domain.log import SETTINGS, Transaction, entry_key
from keycache.domain.purge import PurgeState
from keycache.domain.settings import Settings, Timeouts
from keycache.replication.purger import BATCH, PurgeStatus
from support.entries import T0, fingerprint_of, make_entry, make_sighting, record_of
from support.node import Node, running_node
from support.odd_logs import InterposedLog

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
AGED = make_sighting(cached_at=T0 - 500 * DAY)


def aged(number: int) -> Entry:
    """Expired at T0 under the default settings."""
    return make_entry(number, AGED)


def refreshed(entry: Entry) -> Entry:
    return replace(entry, sightings=(replace(entry.sightings[0], refreshed_at=T0),))


@asynccontextmanager
async def purging(*entries: Entry, settings: Settings | None = None):
    """A node on a log into whose next removal a test can step."""
    node = Node(log=InterposedLog())
    async with running_node(node=node):
        if settings is not None:
            await put(node, settings)
            await node.settle()
        await node.seed(*entries)
        yield node, node.log


async def put(node: Node, settings: Settings) -> None:
    await node.log.commit(Transaction(compare={}, puts={SETTINGS: encode_settings(settings)}))


async def left(node: Node) -> list[str]:
    """What is in the log, and as well in the replica."""
    in_log = await node.in_log()
    for number in range(400):
        text = fingerprint_of(number).text
        assert (node.entry(fingerprint_of(number)) is not None) == (text in in_log)
    return sorted(in_log)


def fingerprints(*numbers: int) -> list[str]:
    return sorted(fingerprint_of(number).text for number in numbers)


async def test_a_sweep_removes_what_is_expired_from_log_and_replica_and_says_so() -> None:
    async with purging(aged(1), make_entry(2), aged(3)) as (node, _):
        assert await node.sweep() == 2
        assert await left(node) == fingerprints(2)
        assert node.cache.purger.status == PurgeStatus(state=PurgeState.IDLE, last_sweep_at=T0, last_sweep_removed=2)
        assert await node.sweep() == 0
        assert node.removed == [2]


async def test_a_sweep_of_many_goes_in_transactions_that_etcd_would_take() -> None:
    everything = Settings(purge_hold_share=1.0)
    async with purging(*(aged(number) for number in range(2 * BATCH + 30)), make_entry(399), settings=everything) as (
        node,
        log,
    ):
        before = log.commits
        assert await node.sweep() == 2 * BATCH + 30
        assert log.commits - before == 3
        assert await left(node) == fingerprints(399)


@pytest.mark.parametrize("what", ["refreshed", "timeout raised"])
async def test_a_key_that_is_refreshed_or_whose_timeout_is_raised_between_the_plan_and_its_removal_stays(what: str) -> None:
    """The interleaving at the top of purger.py: 1. found expired; 2. refreshed, or the timeout raised; 3. removed."""
    async with purging(aged(1)) as (node, log):

        async def meanwhile() -> None:
            if what == "refreshed":
                await log.commit(Transaction(compare={}, puts=dict([record_of(refreshed(aged(1)))])))
            else:
                await put(node, Settings(timeouts=Timeouts(harvested=999 * DAY)))

        log.before = meanwhile
        assert await node.sweep() == 0
        assert log.before is None
        assert await left(node) == fingerprints(1)
        assert await node.sweep() == 0
        assert node.served("user1@example.org") == fingerprints(1)


async def test_what_changed_of_a_batch_stays_and_the_rest_of_it_goes() -> None:
    async with purging(*(aged(number) for number in range(6))) as (node, log):

        async def meanwhile() -> None:
            await log.commit(Transaction(compare={}, puts=dict([record_of(refreshed(aged(1)))])))
            gone = aged(2)
            await log.commit(Transaction(compare={}, puts={}, deletes=(entry_key(gone.key.protocol, gone.key.fingerprint),)))

        # The deletion of key 2 is a commit that deletes, too: it must not be mistaken for the sweep's.
        log.before = meanwhile
        assert await node.sweep() == 4
        assert await left(node) == fingerprints(1)


async def test_settings_that_change_in_the_middle_of_a_sweep_end_it() -> None:
    """Whatever was removed before was expired under the settings of then."""
    numbers = range(3 * BATCH)
    async with purging(*(aged(number) for number in numbers), settings=Settings(purge_hold_share=1.0)) as (node, log):
        raised = Settings(timeouts=Timeouts(harvested=999 * DAY))

        def after_first_batch() -> None:
            log.before = lambda: put(node, raised)

        log.before = after_first_batch
        assert await node.sweep() == BATCH
        assert len(await left(node)) == 2 * BATCH
        assert await node.sweep() == 0
        assert node.cache.purger.status.state is PurgeState.IDLE


async def test_a_change_of_settings_wakes_the_purger() -> None:
    async with purging(make_entry(1, make_sighting(cached_at=T0 - 2 * HOUR)), make_entry(2)) as (node, _):
        changes = node.cache.watch()
        await anext(changes)
        await node.cache.settings.change(harvested=HOUR, actor="admin")
        gone = await anext(changes)
        assert (gone.kind, gone.fingerprint) == ("REMOVED", fingerprint_of(1).text)


async def test_the_purger_sweeps_by_itself_every_interval() -> None:
    node = Node(interval=timedelta(minutes=1))
    async with running_node(
        make_entry(1, make_sighting(cached_at=T0 - 500 * DAY + timedelta(minutes=3))), make_entry(2), node=node
    ):
        changes = node.cache.watch()
        await anext(changes)
        waiting = asyncio.ensure_future(anext(changes))
        while not waiting.done():
            node.clock.advance(timedelta(minutes=1))
            for _ in range(50):  # a whole round of the purger, through its threads
                await asyncio.sleep(0.001)
                if waiting.done():
                    break
        assert (waiting.result().kind, waiting.result().fingerprint) == ("REMOVED", fingerprint_of(1).text)
        assert node.clock.now() - T0 >= timedelta(minutes=3)
        assert node.entry(fingerprint_of(2)) is not None


@pytest.mark.parametrize("value", [None, b"\xff", encode_settings(Settings())[:8]])
async def test_settings_that_are_gone_or_cannot_be_read_purge_nothing_and_the_node_says_so(value: bytes | None) -> None:
    async with purging(aged(1)) as (node, log):
        puts, deletes = ({}, (SETTINGS,)) if value is None else ({SETTINGS: value}, ())
        await log.commit(Transaction(compare={}, puts=puts, deletes=deletes))
        assert await node.sweep() == 0
        assert await left(node) == fingerprints(1)
        assert node.cache.purger.status.state is PurgeState.HELD_NO_SETTINGS
        assert (
            (await node.cache.status())
            .warnings[0]
            .startswith("There are no settings" if value is None else "The settings cannot be read: ")
        )
        await put(node, Settings())
        assert await node.sweep() == 1


async def test_a_log_with_entries_but_without_settings_gets_none_and_purges_nothing() -> None:
    """DESIGN 2.3: that is damage. Only a log that holds nothing gets the defaults."""
    node = Node(log=InterposedLog())
    await node.log.commit(Transaction(compare={}, puts=dict([record_of(aged(1))])))
    async with running_node(node=node):
        assert await node.sweep() == 0
        assert await left(node) == fingerprints(1)
        assert node.replica.document(SETTINGS) is None
        assert node.cache.purger.status.state is PurgeState.HELD_NO_SETTINGS


async def test_an_empty_log_gets_the_defaults_written_down_once() -> None:
    node = Node()
    async with running_node(node=node):
        assert node.cache.settings.current() == (Settings(), 1)
        await node.restart()
        assert node.cache.settings.current() == (Settings(), 1)
        assert await node.log.head() == 1


@pytest.mark.parametrize("leap", [timedelta(minutes=3), 600 * DAY, -600 * DAY])
async def test_a_clock_that_is_set_while_the_node_runs_purges_nothing_until_it_is_right_or_trusted(leap: timedelta) -> None:
    young = make_entry(2, make_sighting(cached_at=T0 - 500 * DAY + timedelta(minutes=2, seconds=30)))
    async with purging(aged(1), young) as (node, _):
        node.clock.step(leap)
        assert await node.sweep() == 0
        assert await left(node) == fingerprints(1, 2)
        status = node.cache.purger.status
        assert status.state is PurgeState.HELD_CLOCK
        assert status.waiting == (0 if leap < timedelta() else 2)
        assert status.reason in (await node.cache.status()).warnings
        node.clock.step(-leap)
        assert await node.sweep() == 1
        assert await left(node) == fingerprints(2)


async def test_a_clock_set_forward_while_the_node_was_down_purges_nothing_that_is_not_expired() -> None:
    """Few keys, so that no hold on mass expiry helps: DESIGN 2.1 holds for a cache of two as well."""
    node = Node()
    async with running_node(make_entry(1), make_entry(2, make_sighting(Origin.LOOKED_UP)), node=node):
        for _ in range(3):
            await node.restart(clock_moves=700 * DAY)
            assert await node.sweep() == 0
            assert node.served("user1@example.org") == []
            status = node.cache.purger.status
            assert (status.state, status.waiting) == (PurgeState.HELD_CLOCK, 2)
            assert "did not see pass" in status.reason
            assert status.reason in (await node.cache.status()).warnings
        await node.restart(clock_moves=-2100 * DAY)
        assert node.served("user1@example.org") == fingerprints(1)
        assert node.served("user2@example.org") == fingerprints(2)


async def test_after_a_long_stop_what_expired_meanwhile_goes_as_much_later_or_when_the_clock_is_trusted() -> None:
    for trusted in (False, True):
        node = Node()
        async with running_node(make_entry(1, make_sighting(Origin.LOOKED_UP)), make_entry(2), node=node):
            await node.restart(down=3 * DAY)
            assert await node.sweep() == 0
            if trusted:
                await node.cache.entries.trust_clock("admin")
            else:
                node.clock.advance(DAY)
            assert await node.sweep() == 1
            assert await left(node) == fingerprints(2)


async def test_a_mass_expiry_waits_unserved_for_an_administrator() -> None:
    many = [aged(number) for number in range(150)]
    async with purging(*many, make_entry(399)) as (node, _):
        assert await node.sweep() == 0
        status = node.cache.purger.status
        assert (status.state, status.waiting) == (PurgeState.HELD_MASS_EXPIRY, 150)
        assert status.reason in (await node.cache.status()).warnings
        assert node.served("user1@example.org") == []
        assert len(await left(node)) == 151
        told = await node.cache.entries.confirm_held("admin", dry_run=True)
        assert (told.matched, told.removed) == (150, 0)
        assert len(await left(node)) == 151
        done = await node.cache.entries.confirm_held("admin")
        assert (done.matched, done.removed) == (150, 150)
        await node.settle()
        assert await left(node) == fingerprints(399)
        assert node.cache.purger.status.state is PurgeState.IDLE


async def test_a_log_that_goes_away_during_a_sweep_is_survived_and_the_rest_goes_later() -> None:
    async with purging(*(aged(number) for number in range(150)), settings=Settings(purge_hold_share=1.0)) as (node, log):

        def after_first_batch() -> None:
            log.before = log.interrupt

        log.before = after_first_batch
        await node.cache.purger.tick()
        status = node.cache.purger.status
        assert (status.state, status.last_sweep_removed) == (PurgeState.IDLE, BATCH)
        assert status.reason == "The last sweep failed: The entry log does not answer."
        log.resume()
        node.clock.advance(timedelta(seconds=10))
        assert await node.sweep() == 50
        assert await left(node) == []


async def test_a_node_whose_turn_it_is_not_plans_and_says_what_would_hold_it_and_removes_nothing_by_itself() -> None:
    async with purging(aged(1), make_entry(2)) as (node, _):
        purger = node.cache.purger
        purger._is_chosen = lambda: False
        assert await node.sweep() == 0
        assert purger.status == PurgeStatus(state=PurgeState.IDLE)
        node.clock.step(DAY)
        assert await node.sweep() == 0
        assert (purger.status.state, purger.status.waiting) == (PurgeState.HELD_CLOCK, 1)
        node.clock.step(-DAY)
        assert await left(node) == fingerprints(1, 2)
        assert (await node.cache.entries.confirm_held("admin")).removed == 1
