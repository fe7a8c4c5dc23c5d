"""Nodes on one log that is lost, emptied, exchanged, taken back, compacted: no node loses an unexpired entry but by an administrator.

What must stay is read off each replica before a step: every entry that is unexpired by true time, under the settings that the node knows
before and after it. Clocks only run ahead here: what a clock that is behind makes of sightings is for `test_never_loses.py`, and for the
comparison of the members' clocks.

Set KEYCACHE_LONG_TESTS=1 for many more and ever new sequences.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from keycache.cache import KeyCache
from keycache.codec import encode_settings
from keycache.domain.entry import Entry, Origin
from keycache.domain.errors import LogUnavailable, Refused
from keycache.domain.log import SETTINGS, Transaction, witness_key
from keycache.domain.names import NodeId, Revision
from keycache.domain.restart import Way
from keycache.domain.settings import Settings
from keycache.replication.link import LinkState
from keycache.store import Store, open_store
from support.entries import T0, fingerprint_of, make_entry, make_key, record_of
from support.mutants import TakingAnyLog, give_check
from support.node import ENVELOPE, ImpatientClock, Node, eventually
from support.odd_logs import RestorableLog
from support.properties import bounded

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NUMBERS = range(5)
BOUND = Settings().clock_skew_bound

places = st.integers(0, 2)
numbers = st.sampled_from(NUMBERS)
spans = st.sampled_from([MINUTE, 20 * HOUR, 10 * DAY, 200 * DAY])

Held = dict[tuple[int, int], Entry]
"""By node and number."""


class ClusterNeverLoses(RuleBasedStateMachine):
    """Three nodes on the fakes in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.true = T0
        self.log = RestorableLog()
        self.logs = 0
        self.out_of_reach = False
        self.backups: list[Any] = []
        self.nodes = [self.make_node(place) for place in range(3)]
        self.skews = [timedelta()] * 3
        self.running = [True] * 3
        for node in self.nodes:
            self.run(node.start())
        self.run(self.say_well())
        self.begin()

    # what differs between the machines
    def make_node(self, place: int) -> Node:
        return Node(log=self.log, name=f"node-{place}", adapt=self.adapt)

    def adapt(self, cache: KeyCache) -> None:
        """A guard may be taken out here."""

    def reopen(self, place: int) -> None:
        """Between the end of one process and the start of the next."""

    # running
    def run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(doing)

    def teardown(self) -> None:
        try:
            self.everything_ends_well()
        finally:
            for node in self.nodes:
                self.run(node.stop())
            self.runner.close()

    def up(self, *states: LinkState) -> list[Node]:
        wanted = states or tuple(LinkState)
        return [
            node
            for node, running in zip(self.nodes, self.running, strict=True)
            if running and node.cache.replicator.state in wanted
        ]

    async def say_well(self) -> None:
        """What members do from time to time: each writes that it is well."""
        for node in self.up(LinkState.FOLLOWING):
            key = witness_key(NodeId(f"node-{self.nodes.index(node)}"))
            await node.log.commit(Transaction(compare={}, puts={key: str(self.true).encode()}))

    async def stand(self) -> None:
        """Until every node knows how it stands to the log as it is now, and has applied what it follows."""
        states = (LinkState.SERVE_ONLY,) if self.out_of_reach else (LinkState.FOLLOWING, LinkState.REFUSED)
        for node in self.up():
            await node.until(*states)
        for node in self.up(LinkState.FOLLOWING):
            await node.settle()

    async def notice(self) -> None:
        """The log is not what it was: until every node has seen it as it is now."""
        if not self.out_of_reach:
            for node in self.up():
                await eventually(lambda node=node: self.has_seen(node))  # type: ignore[misc]
        await self.stand()

    def has_seen(self, node: Node) -> bool:
        state, report, cursor = node.cache.replicator.state, node.cache.replicator.report, node.replica.cursor()
        identity, head = self.log._identity, self.log._head
        if state is LinkState.REFUSED:
            return report is not None and (report.log_identity, report.log_revision) == (identity, head)
        return state is LinkState.FOLLOWING and cursor is not None and cursor.identity == identity and cursor.revision <= head

    def held(self) -> Held:
        found = {}
        for place, node in enumerate(self.nodes):
            for number in NUMBERS:
                entry = node.entry(fingerprint_of(number))
                if entry is not None:
                    found[place, number] = entry
        return found

    def settings_of(self, place: int) -> Settings | None:
        return self.nodes[place].cache._view.settings if self.running[place] else None

    def begin(self) -> None:
        """Remember what must be there after the next step."""
        self.before = self.held()
        self.settings = [self.settings_of(place) for place in range(3)]
        self.given_up: set[tuple[int, int]] = set()

    def lasts(self, entry: Entry, *known: Settings | None) -> bool:
        """By true time, and by more than clocks may differ."""
        return all(
            one is None or any(self.true - s.refreshed_at < one.timeouts.of(s.origin) - BOUND for s in entry.sightings)
            for one in known
        )

    def advance(self, span: timedelta) -> None:
        self.true += span
        for node, running in zip(self.nodes, self.running, strict=True):
            if running:
                node.clock.advance(span)

    # the world
    @rule(span=spans)
    def time_passes(self, span: timedelta) -> None:
        self.advance(span)

    @rule(place=places, ahead=st.sampled_from([timedelta(), HOUR, 40 * DAY, 700 * DAY]))
    def a_clock_is_set_ahead_or_right(self, place: int, ahead: timedelta) -> None:
        if self.running[place]:
            self.nodes[place].clock.step(ahead - self.skews[place])
            self.skews[place] = ahead

    @rule(place=places)
    def a_node_stops(self, place: int) -> None:
        if self.running[place]:
            self.run(self.nodes[place].stop())
            self.running[place] = False

    @rule(place=places, ahead=st.sampled_from([timedelta(), timedelta(), 40 * DAY, 700 * DAY]))
    def a_node_starts(self, place: int, ahead: timedelta) -> None:
        node = self.nodes[place]
        if not self.running[place]:
            self.reopen(place)
            self.skews[place] = ahead
            node.clock = ImpatientClock(self.true + ahead)
            self.run(node.start())
            self.running[place] = True
            self.run(self.stand())

    @rule(place=places)
    def the_purger_of_a_node_comes_round(self, place: int) -> None:
        if self.running[place]:
            self.run(self.nodes[place].cache.purger.tick())

    # the log
    @precondition(lambda self: not self.out_of_reach)
    @rule()
    def the_log_is_lost_from_sight(self) -> None:
        self.log.interrupt()
        self.out_of_reach = True

    @precondition(lambda self: self.out_of_reach)
    @rule()
    def the_log_is_back(self) -> None:
        self.log.resume()
        self.out_of_reach = False
        self.run(self.notice())

    @precondition(lambda self: not self.out_of_reach)
    @rule()
    def the_log_is_compacted(self) -> None:
        self.log.compact()

    @rule(exchanged=st.booleans())
    def the_log_is_emptied_or_exchanged(self, exchanged: bool) -> None:
        self.logs += 1
        self.log.wipe(f"{self.logs:032x}" if exchanged else "")
        if exchanged:
            self.run(self.log.put(SETTINGS, encode_settings(Settings())))
            self.run(self.log.put(*record_of(make_entry(0))))
        self.run(self.notice())

    @precondition(lambda self: self.up(LinkState.FOLLOWING))
    @rule()
    def the_log_is_backed_up(self) -> None:
        self.backups.append(self.log.snapshot())

    @precondition(lambda self: self.backups and not self.out_of_reach)
    @rule(which=st.integers(0, 10), passed_by=st.booleans())
    def the_log_is_taken_back(self, which: int, passed_by: bool) -> None:
        self.run(self.say_well())
        self.run(self.stand())
        self.run(self.log.restore(self.backups[which % len(self.backups)]))
        if passed_by:
            cursors = [cursor.revision for node in self.nodes if (cursor := node.replica.cursor()) is not None]
            self.run(self.log.pass_by(Revision(max(cursors))))
        self.run(self.notice())

    # mail and administrators
    @rule(place=places, number=numbers)
    def a_mail_comes_in(self, place: int, number: int) -> None:
        if not self.running[place]:
            return
        node = self.nodes[place]
        following = node.cache.replicator.state is LinkState.FOLLOWING
        try:
            self.run(node.cache.harvesting.harvest(node.script.mail(make_key(number)), ENVELOPE))
        except LogUnavailable:
            assert not following
        else:
            self.run(self.say_well())

    @rule(place=places, number=numbers)
    def an_administrator_deletes(self, place: int, number: int) -> None:
        if self.nodes[place] in self.up(LinkState.FOLLOWING) and self.nodes[place].entry(fingerprint_of(number)):
            self.run(self.nodes[place].cache.entries.delete(fingerprint_of(number).text, "admin"))
            self.given_up |= {(node, number) for node in range(3)}

    @rule(place=places, origin=st.sampled_from(Origin), timeout=st.sampled_from([DAY, 30 * DAY, 500 * DAY, 999 * DAY]))
    def an_administrator_changes_a_timeout(self, place: int, origin: Origin, timeout: timedelta) -> None:
        if self.nodes[place] in self.up(LinkState.FOLLOWING):
            self.run(self.nodes[place].cache.settings.change(**{origin.value.lower(): timeout}, actor="admin"))

    @rule(place=places)
    def an_administrator_merges(self, place: int) -> None:
        if self.nodes[place] in self.up(LinkState.REFUSED):
            with contextlib.suppress(Refused):  # where it would expire entries
                self.run(self.nodes[place].cache.resolving.resolve(Way.MERGE, "admin"))
            self.run(self.notice())

    @rule(place=places)
    def an_administrator_discards(self, place: int) -> None:
        if self.nodes[place] in self.up(LinkState.REFUSED):
            self.run(self.nodes[place].cache.resolving.resolve(Way.DISCARD, "admin"))
            self.given_up |= {(place, number) for number in NUMBERS}
            self.run(self.notice())

    # what must always hold
    @invariant()
    def no_node_lost_what_it_held_and_nodes_that_follow_are_equal(self) -> None:
        self.run(self.stand())
        after = self.held()
        for (place, number), entry in self.before.items():
            if (place, number) in self.given_up or not self.lasts(entry, self.settings[place], self.settings_of(place)):
                continue
            assert (place, number) in after, "an unexpired entry was lost"
            now = {sighting.origin: sighting for sighting in after[place, number].sightings}
            for sighting in entry.sightings:
                assert sighting.origin in now, "a sighting was lost"
                assert now[sighting.origin].refreshed_at >= sighting.refreshed_at, "a time stamp went back"
                assert now[sighting.origin].cached_at <= sighting.cached_at, "a time stamp went on by itself"
        following = self.up(LinkState.FOLLOWING)
        assert len({node.replica.digest() for node in following}) <= 1
        if following:
            in_log = self.run(following[0].in_log())
            assert in_log == {entry.key.fingerprint.text: entry for entry in self.of(following[0], after)}
        for (place, number), entry in after.items():
            if self.running[place]:
                self.is_served(self.nodes[place], number, entry)
        self.begin()

    def of(self, node: Node, held: Held) -> list[Entry]:
        return [entry for (place, _), entry in held.items() if self.nodes[place] is node]

    def is_served(self, node: Node, number: int, entry: Entry) -> None:
        """Whatever the log does, by the node's own clock and the settings it knows."""
        known = node.cache._view.settings
        assert known is not None
        counts = any(node.clock.now() - one.refreshed_at < known.timeouts.of(one.origin) for one in entry.sightings)
        assert node.served(f"user{number}@example.org") == ([fingerprint_of(number).text] if counts else [])

    def everything_ends_well(self) -> None:
        """The log is back, all nodes start, and an administrator merges wherever one refuses: all that lasts is everywhere."""
        if self.out_of_reach:
            self.the_log_is_back()
        for place in range(3):
            self.a_node_starts(place, timedelta())
            self.a_clock_is_set_ahead_or_right(place, timedelta())
        self.no_node_lost_what_it_held_and_nodes_that_follow_are_equal()
        union = {number: entry for (_, number), entry in self.held().items() if self.lasts(entry, *self.settings)}
        for _ in range(2):  # who merges last may make the others look anew
            for place in range(3):
                self.an_administrator_merges(place)
                self.no_node_lost_what_it_held_and_nodes_that_follow_are_equal()
        if len(self.up(LinkState.FOLLOWING)) == 3:
            settings = self.settings_of(0)
            for number, entry in union.items():
                if self.lasts(entry, settings):
                    assert all(node.entry(fingerprint_of(number)) is not None for node in self.nodes), "a merge lost an entry"


class ClusterNeverLosesOnDisk(ClusterNeverLoses):
    """One of the nodes has its replica on SQLite, closed and opened again at every restart."""

    folder: str
    store: Store

    def make_node(self, place: int) -> Node:
        if place:
            return super().make_node(place)
        self.folder = tempfile.mkdtemp(prefix="keycache-test-")
        self.store = open_store(Path(self.folder))
        return Node(log=self.log, name="node-0", replica=self.store.replica, offload=self._offload)

    async def _offload(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await self.store.database.run(function, *arguments)

    def reopen(self, place: int) -> None:
        if place == 0:
            self.store.close()
            self.store = open_store(Path(self.folder))
            self.nodes[0].replica = self.store.replica

    def teardown(self) -> None:
        super().teardown()
        self.store.close()
        shutil.rmtree(self.folder)


class TakesAnyLog(ClusterNeverLoses):
    """On nodes that do not compare the identity of the log."""

    def adapt(self, cache: KeyCache) -> None:
        give_check(cache, TakingAnyLog)


def quickly(examples: int, steps: int) -> settings:
    """Without making failures small: at some 20 ms a step that takes longer than a test may."""
    return settings(bounded(examples, stateful_step_count=steps), phases=[Phase.generate])


def test_the_machine_would_see_a_loss() -> None:
    """Else all its silence is worth nothing."""
    with pytest.raises(AssertionError, match="an unexpired entry was lost"):
        run_state_machine_as_test(TakesAnyLog, settings=quickly(30, 15))


TestClusterNeverLoses = ClusterNeverLoses.TestCase
TestClusterNeverLoses.settings = quickly(20, 25)
TestClusterNeverLosesOnDisk = ClusterNeverLosesOnDisk.TestCase
TestClusterNeverLosesOnDisk.settings = quickly(5, 25)
