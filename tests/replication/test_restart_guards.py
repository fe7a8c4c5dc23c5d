"""For each guard of the restart check: taken out, an unexpired entry is lost; in place, it is not (as `test_guards.py` has it).

A node follows a log that other nodes write to; then the log is wiped, replaced, or taken back to an older state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from keycache.codec import encode_entry
from keycache.domain.entry import Entry
from keycache.domain.errors import LogUnavailable, Refused
from keycache.domain.log import WITNESSES, entry_key
from keycache.domain.ports import Cursor
from keycache.domain.restart import Way
from keycache.replication.checking import RestartCheck
from keycache.replication.link import GatedLog
from keycache.replication.replicator import LinkState, Replicator
from support.entries import T0, fingerprint_of, make_entry, make_sighting, record_of
from support.mutants import (
    BlindToTheHead,
    BlindToTheWitness,
    BlindToTips,
    BlindToWhatIsMissing,
    CountingByAnyClock,
    FollowingAnyLog,
    ListingAtOnce,
    NeverClosing,
    TakingAnyLog,
    give_check,
    give_gate,
    give_replicator,
)
from support.node import Node, running_node
from support.odd_logs import RestorableLog

DAY = timedelta(days=1)
AGED = make_sighting(cached_at=T0 - 500 * DAY)
OWN_WITNESS = WITNESSES + "node-1"

Scenario = Callable[..., Awaitable[bool]]


def following(log: RestorableLog, check_class: type[RestartCheck] = RestartCheck) -> Node:
    return Node(log=log, adapt=lambda cache: give_check(cache, check_class))


def lost(node: Node, number: int) -> bool:
    return node.entry(fingerprint_of(number)) is None


def cursor_of(node: Node) -> Cursor:
    cursor = node.replica.cursor()
    assert cursor is not None
    return cursor


def refreshed(entry: Entry) -> Entry:
    return replace(entry, sightings=(replace(entry.sightings[0], refreshed_at=T0),))


async def put(log: RestorableLog, entry: Entry) -> None:
    await log.put(*record_of(entry))


# identity
async def another_etcd_under_the_old_address(check_class: type[RestartCheck]) -> bool:
    log = RestorableLog()
    async with running_node(make_entry(1), node=following(log, check_class)) as node:
        await node.stop()
        log.wipe("b" * 32)
        await put(log, make_entry(2))
        await node.start()
        return lost(node, 1)


async def an_etcd_that_was_emptied(check_class: type[RestartCheck]) -> bool:
    """Its own first act must not be to begin anew where other nodes still hold everything."""
    log = RestorableLog()
    async with running_node(make_entry(1), node=following(log, check_class)) as node:
        await node.stop()
        log.wipe()
        await node.start()
        return lost(node, 1)


async def another_etcd_while_the_node_runs(replicator_class: type[Replicator]) -> bool:
    """The watch tells that the identity is gone or another one."""
    log = RestorableLog()
    node = Node(log=log, adapt=lambda cache: give_replicator(cache, replicator_class))
    async with running_node(make_entry(1), node=node):
        await node.cache.replicator.reach(await log.head())
        log.wipe("b" * 32)
        await put(log, make_entry(2))
        await node.looked_again()
        return lost(node, 1)


async def emptied_under_a_clock_that_was_set_forward(check_class: type[RestartCheck]) -> bool:
    log = RestorableLog()
    async with running_node(make_entry(1), node=following(log, check_class)) as node:
        await node.stop()
        log.wipe("b" * 32)
        await node.restart(clock_moves=600 * DAY)
        return lost(node, 1)


# time
async def restored_and_merged_wherever_a_node_refuses(check_class: type[RestartCheck]) -> bool:
    """A backup without entry 2 is put back. A node that does not notice brings nothing back."""
    log = RestorableLog()
    async with running_node(make_entry(1), node=following(log, check_class)) as node:
        backup = log.snapshot()
        await node.seed(make_entry(2))
        await log.restore(backup)
        await node.looked_again()
        with contextlib.suppress(Refused):
            await node.cache.resolving.resolve(Way.MERGE, "admin")
        return log._record(entry_key(make_entry(2).key.protocol, fingerprint_of(2))) is None


async def restored_and_passed_by_with_a_refresh_lost(check_class: type[RestartCheck]) -> bool:
    """The head is beyond the cursor again, and all that is between them is compacted: only what we hold of it can tell."""
    log = RestorableLog()
    async with running_node(make_entry(1, AGED), node=following(log, check_class)) as node:
        backup = log.snapshot()
        await node.seed(refreshed(make_entry(1, AGED)))
        await node.stop()
        await log.restore(backup)
        await log.pass_by(cursor_of(node).revision)
        await node.start()
        entry = node.entry(fingerprint_of(1))
        return entry is None or entry.sightings[0].refreshed_at != T0


async def restored_and_passed_by_with_our_witness_lost(check_class: type[RestartCheck]) -> bool:
    log = RestorableLog()
    async with running_node(make_entry(1), node=following(log, check_class)) as node:
        backup = log.snapshot()
        await log.put(OWN_WITNESS, b"well")
        await node.seed(make_entry(2))
        await node.stop()
        await log.restore(backup)
        await log.pass_by(cursor_of(node).revision)
        await node.start()
        return lost(node, 2)


async def missed_by_a_comparison_of_the_whole(check_class: type[RestartCheck]) -> bool:
    """Only that it is not there shows that the log went back; then the log is compacted, and the node has to list."""
    log = RestorableLog()
    async with running_node(make_entry(1), node=following(log, check_class)) as node:
        backup = log.snapshot()
        await node.seed(make_entry(2))
        await log.restore(backup, unnoticed=True)
        await log.pass_by(cursor_of(node).revision)
        node.cache.replicator.miss(1)
        await node.looked_again()
        return lost(node, 2)


async def restored_under_a_watch_that_lives(replicator_class: type[Replicator]) -> bool:
    """1. The watch waits at revision 5. 2. The log goes back to 3, and on to 6, compacted. 3. The watch says that it must list anew."""
    log = RestorableLog()
    node = Node(log=log, adapt=lambda cache: give_replicator(cache, replicator_class))
    async with running_node(make_entry(1), node=node):
        backup = log.snapshot()
        await log.put(OWN_WITNESS, b"well")
        await node.seed(make_entry(2))
        await log.restore(backup, unnoticed=True)
        await log.pass_by(cursor_of(node).revision)
        await node.looked_again()
        return lost(node, 2)


# the gate
async def purged_by_revisions_of_another_time(gate_class: type[GatedLog]) -> bool:
    """The interleaving of `GatedLog`: key 1 is expired in the replica, and fresh in the log, under one revision."""
    log = RestorableLog()
    aged = make_entry(1, AGED)
    node = Node(log=log, adapt=lambda cache: give_gate(cache, gate_class))
    async with running_node(make_entry(3), node=node):
        backup = log.snapshot()
        await node.seed(aged)
        await node.seed(make_entry(2))
        await log.restore(backup)
        await log.put(entry_key(aged.key.protocol, aged.key.fingerprint), encode_entry(refreshed(aged)))
        await node.until(LinkState.REFUSED)
        with contextlib.suppress(LogUnavailable):
            await node.cache.purger.sweep()
        return log._record(entry_key(aged.key.protocol, aged.key.fingerprint)) is None


GUARDS: list[tuple[Scenario, type, type]] = [
    (another_etcd_under_the_old_address, RestartCheck, TakingAnyLog),
    (an_etcd_that_was_emptied, RestartCheck, TakingAnyLog),
    (another_etcd_while_the_node_runs, Replicator, FollowingAnyLog),
    (emptied_under_a_clock_that_was_set_forward, RestartCheck, CountingByAnyClock),
    (restored_and_merged_wherever_a_node_refuses, RestartCheck, BlindToTheHead),
    (restored_and_passed_by_with_a_refresh_lost, RestartCheck, BlindToTips),
    (restored_and_passed_by_with_our_witness_lost, RestartCheck, BlindToTheWitness),
    (missed_by_a_comparison_of_the_whole, RestartCheck, BlindToWhatIsMissing),
    (restored_under_a_watch_that_lives, Replicator, ListingAtOnce),
    (purged_by_revisions_of_another_time, GatedLog, NeverClosing),
]


@pytest.mark.parametrize(
    ("scenario", "real", "mutant"), GUARDS, ids=[f"{scenario.__name__}-{real.__name__}" for scenario, real, _ in GUARDS]
)
async def test_with_the_guard_nothing_is_lost_and_without_it_something_is(scenario: Scenario, real: type, mutant: type) -> None:
    assert not await scenario(real)
    assert await scenario(mutant)
