"""No sequence of harvests, refreshes, imports, deletions, settings changes, restarts and clock steps loses an unexpired entry.

The model knows the TRUE time, which the node does not. An entry is unexpired when, by true time, a sighting of it is younger than its
origin's timeout. A wrong clock may make a node withhold such an entry for a while; it must never make it remove one. What is served
goes by the node's own clock: never a key that is expired by it, always one that is not.

Set KEYCACHE_LONG_TESTS=1 for many more and ever new sequences.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from keycache.domain.entry import Origin, Sighting
from keycache.domain.errors import InvalidInput, NotFound, Refused
from keycache.domain.lookup import Answer
from keycache.domain.settings import Settings
from keycache.domain.verdict import Verdict
from keycache.store import Store, open_store
from support.entries import T0, fingerprint_of, make_entry, make_key, make_sighting
from support.mutants import BelievingLeaps, give_purger
from support.node import ENVELOPE, Node
from support.properties import bounded

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NUMBERS = range(6)
BOUND = Settings().clock_skew_bound
"""Clocks within the bound are taken for right, so removals may come that much early."""

numbers = st.sampled_from(NUMBERS)
timeouts = st.sampled_from([HOUR, 3 * HOUR, DAY, 30 * DAY, 500 * DAY, 999 * DAY])
spans = st.sampled_from([MINUTE, HOUR - SECOND, HOUR, 20 * HOUR, 10 * DAY, 200 * DAY])
steps = st.sampled_from([HOUR, 5 * HOUR, 40 * DAY, 700 * DAY]).flatmap(lambda step: st.sampled_from([step, -step]))


@dataclass
class Known:
    """What the model knows of one entry. `stamped`: as the node wrote it. `true`: when it was really refreshed last, by origin.
    `may_be_gone`: it was expired at some time, or an administrator's act allowed its removal."""

    stamped: tuple[Sighting, ...]
    true: dict[Origin, datetime] = field(default_factory=dict)
    may_be_gone: bool = False


class NeverLoses(RuleBasedStateMachine):
    """On the fakes in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.true = T0
        self.skew = timedelta()
        self.known: dict[int, Known] = {}
        self.settings = Settings()
        self.imports = 0
        self.node = self.make_node()
        self.run(self.node.start())

    # what differs between the stores
    def make_node(self) -> Node:
        return Node()

    def reopen(self) -> None:
        """Between the end of one process and the start of the next."""

    # running
    def run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(doing)

    def teardown(self) -> None:
        self.run(self.node.stop())
        self.runner.close()

    @property
    def wall(self) -> datetime:
        return self.true + self.skew

    def unexpired(self, known: Known) -> bool:
        """By true time, and by more than clocks may differ."""
        return any(self.true - moment < self.settings.timeouts.of(origin) - BOUND for origin, moment in known.true.items())

    def countable(self, sightings: tuple[Sighting, ...]) -> bool:
        """By the node's own clock."""
        return any(self.wall - one.refreshed_at < self.settings.timeouts.of(one.origin) for one in sightings)

    def obtained(self, number: int, origin: Origin, verdict: Verdict) -> None:
        """The node was shown the key just now, and said `verdict`."""
        entry = self.node.entry(fingerprint_of(number))
        assert entry is not None
        known = self.known.get(number)
        after = entry.sighting(origin)
        assert after is not None
        before = None if known is None else next((one for one in known.stamped if one.origin is origin), None)
        if verdict is Verdict.ALREADY_FRESH:
            assert after == before
            return
        assert verdict in {Verdict.CACHED, Verdict.REFRESHED}
        assert after.refreshed_at >= self.wall
        assert after.cached_at == (after.refreshed_at if before is None else min(before.cached_at, after.refreshed_at))
        if known is None:
            known = self.known[number] = Known(stamped=())
        others = tuple(one for one in known.stamped if one.origin is not origin)
        assert tuple(one for one in entry.sightings if one.origin is not origin) == others
        known.stamped, known.may_be_gone = entry.sightings, False
        known.true[origin] = self.true

    # the world
    @rule(span=spans)
    def time_passes(self, span: timedelta) -> None:
        self.true += span
        self.node.clock.advance(span)

    @rule(step=steps)
    def somebody_sets_the_clock(self, step: timedelta) -> None:
        self.skew += step
        self.node.clock.step(step)

    @precondition(lambda self: self.skew)
    @rule()
    def somebody_sets_the_clock_right(self) -> None:
        self.node.clock.step(-self.skew)
        self.skew = timedelta()

    @rule(down=st.sampled_from([timedelta(), MINUTE, 5 * HOUR, 40 * DAY]), step=st.just(timedelta()) | steps)
    def the_node_restarts(self, down: timedelta, step: timedelta) -> None:
        self.true += down
        self.skew += step
        self.run(self.node.stop())
        self.reopen()
        self.run(self.node.restart(clock_moves=down + step))

    @rule()
    def the_purger_comes_round(self) -> None:
        self.run(self.node.sweep())

    # mail
    @rule(number=numbers)
    def a_mail_comes_in(self, number: int) -> None:
        result = self.run(self.node.cache.harvesting.harvest(self.node.script.mail(make_key(number)), ENVELOPE))
        self.obtained(number, Origin.HARVESTED, result.verdict)

    @rule(number=numbers)
    def a_processor_puts_what_it_looked_up(self, number: int) -> None:
        blob = self.node.script.file(b"file", make_key(number))
        results, _ = self.run(self.node.cache.harvesting.put(blob, f"user{number}@example.org", "keys.example.org"))
        self.obtained(number, Origin.LOOKED_UP, results[0].verdict)

    # administrators
    @rule(number=numbers, origin=st.sampled_from(Origin), age=spans, older=st.sampled_from([timedelta(), DAY]))
    def an_entry_is_imported_from_an_export(self, number: int, origin: Origin, age: timedelta, older: timedelta) -> None:
        self.imports += 1
        source = f"export {self.imports}"
        refreshed = self.true - age
        entry = make_entry(number, make_sighting(origin, cached_at=refreshed - older, refreshed_at=refreshed, source=source))
        self.node.script.know(entry.key)
        try:
            self.run(self.node.cache.imports.entry(entry, "export.jsonl", "admin"))
        except InvalidInput:
            if refreshed <= self.wall:
                raise  # only what lies in the node's future may be refused
            return
        known = self.known.setdefault(number, Known(stamped=()))
        before = next((one for one in known.stamped if one.origin is origin), None)
        stored = self.node.entry(fingerprint_of(number))
        after = None if stored is None else stored.sighting(origin)
        if after is None:  # expired on arrival, and removed already
            known.may_be_gone = True
            return
        assert stored is not None
        assert after.cached_at == min(
            entry.sightings[0].cached_at, entry.sightings[0].cached_at if before is None else before.cached_at
        )
        assert after.refreshed_at == max(refreshed, refreshed if before is None else before.refreshed_at)
        known.stamped = stored.sightings
        known.true[origin] = max(refreshed, known.true.get(origin, refreshed))
        known.may_be_gone = known.may_be_gone and not self.unexpired(known)

    @rule(number=numbers)
    def an_administrator_deletes(self, number: int) -> None:
        present = self.node.entry(fingerprint_of(number)) is not None
        try:
            self.run(self.node.cache.entries.delete(fingerprint_of(number).text, "admin"))
        except NotFound:
            assert not present
        self.known.pop(number, None)

    @rule(origin=st.none() | st.sampled_from(Origin), older_than=st.none() | spans)
    def an_administrator_purges(self, origin: Origin | None, older_than: timedelta | None) -> None:
        entries = self.node.cache.entries
        query = entries.query(origin=origin, older_than=older_than)
        self.run(entries.purge(query, everything=origin is None and older_than is None, dry_run=False, actor="admin"))
        for number, known in list(self.known.items()):
            chosen = [one for one in known.stamped if origin in (None, one.origin)]
            if chosen and all(older_than is None or one.refreshed_at < self.wall - older_than for one in chosen):
                del self.known[number]

    @rule(origin=st.sampled_from(Origin), timeout=timeouts)
    def an_administrator_changes_a_timeout(self, origin: Origin, timeout: timedelta) -> None:
        result = self.run(self.node.cache.settings.change(**{origin.value.lower(): timeout}, actor="admin"))
        self.settings = result.settings

    @rule(floor=st.sampled_from([0, 1, 100]))
    def an_administrator_changes_the_hold(self, floor: int) -> None:
        self.settings = self.run(self.node.cache.settings.change(purge_hold_floor=floor, actor="admin")).settings

    @rule()
    def an_administrator_confirms_a_held_sweep(self) -> None:
        """Who confirms takes what is expired by the node's clock for expired."""
        for known in self.known.values():
            known.may_be_gone = known.may_be_gone or not self.countable(known.stamped)
        with contextlib.suppress(Refused):  # under a suspect clock
            self.run(self.node.cache.entries.confirm_held("admin"))

    @precondition(lambda self: not self.skew)
    @rule()
    def an_administrator_trusts_the_clock(self) -> None:
        """Who does so while it is right gives up what was stamped too early by a clock that was behind, and nothing else."""
        for known in self.known.values():
            behind = any(one.refreshed_at < known.true[one.origin] for one in known.stamped)
            known.may_be_gone = known.may_be_gone or (behind and not self.countable(known.stamped))
        self.run(self.node.cache.entries.trust_clock("admin"))

    # what must always hold
    @invariant()
    def nothing_is_lost_nothing_comes_back_nothing_is_changed(self) -> None:
        self.run(self.node.settle())
        in_log = self.run(self.node.in_log())
        for number in NUMBERS:
            text = fingerprint_of(number).text
            entry, known = self.node.entry(fingerprint_of(number)), self.known.get(number)
            assert entry == in_log.get(text), "the replica is not as the log"
            if known is None:
                assert entry is None, "a deleted entry came back"
                continue
            known.may_be_gone = known.may_be_gone or not self.unexpired(known)
            if entry is None:
                assert known.may_be_gone, "an unexpired entry was lost"
                del self.known[number]
                continue
            assert entry.sightings == known.stamped, "a time stamp changed without a refresh"
            address = f"user{number}@example.org"
            served = self.node.served(address) == [text]
            answer = self.node.cache.lookups.serve(address)
            assert served == (not isinstance(answer, Answer) or bool(answer.keys)), "the short way answers otherwise"
            assert served == self.countable(known.stamped), "served though expired, or withheld though not"


class NeverLosesOnDisk(NeverLoses):
    """On the SQLite store, closed and opened again at every restart."""

    folder: str
    store: Store

    def make_node(self) -> Node:
        self.folder = tempfile.mkdtemp(prefix="keycache-test-")
        self.store = open_store(Path(self.folder))
        return Node(log=self.store.log, replica=self.store.replica, outbox=self.store.outbox, offload=self._offload)

    async def _offload(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await self.store.database.run(function, *arguments)

    def reopen(self) -> None:
        self.store.close()
        self.store = open_store(Path(self.folder))
        self.node.log, self.node.replica, self.node.outbox = self.store.log, self.store.replica, self.store.outbox

    def teardown(self) -> None:
        super().teardown()
        self.store.close()
        shutil.rmtree(self.folder)


class BelievesLeaps(NeverLoses):
    """On a node whose purger takes every leap of its clock for time that passed."""

    def make_node(self) -> Node:
        return Node(adapt=lambda cache: give_purger(cache, BelievingLeaps))


def test_the_machine_would_see_a_loss() -> None:
    """Else all its silence is worth nothing."""
    once = settings(bounded(40, stateful_step_count=30), phases=[Phase.generate])
    with pytest.raises(AssertionError, match="an unexpired entry was lost"):
        run_state_machine_as_test(BelievesLeaps, settings=once)


TestNeverLoses = NeverLoses.TestCase
TestNeverLoses.settings = bounded(40, stateful_step_count=30)
TestNeverLosesOnDisk = NeverLosesOnDisk.TestCase
TestNeverLosesOnDisk.settings = bounded(6, stateful_step_count=25)
