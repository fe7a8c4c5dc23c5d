"""Two nodes on a log that comes and goes, at random: what was acknowledged is in the log in the end, and what was deleted is not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from keycache.cache.delivery import Delivery
from keycache.domain.entry import Defect, Origin
from keycache.domain.errors import LogUnavailable, NotFound, Refused
from keycache.domain.outbox import Pending
from keycache.domain.verdict import Verdict
from support.entries import fingerprint_of, make_key
from support.lines import Member, Once, nothing, shared_log
from support.node import ENVELOPE
from support.properties import bounded

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
NUMBERS = range(2)
WRITTEN = {Verdict.CACHED, Verdict.REFRESHED}

numbers = st.sampled_from(NUMBERS)
which = st.sampled_from([0, 1])
addresses = st.sets(st.sampled_from(["a", "b", "c"]), min_size=1).map(
    lambda names: sorted(f"{name}@x.example" for name in names)
)


@dataclass
class Known:
    """Of one key, since it was last deleted: when each origin last saw it as acknowledged, where it was bound, whether it was revoked.
    `may_be_there`: it was seen though it is known to be revoked; whether that was worth a write is not told."""

    seen: dict[Origin, datetime] = field(default_factory=dict)
    addresses: set[str] = field(default_factory=set)
    revoked: bool = False
    may_be_there: bool = False


class TwoNodes(RuleBasedStateMachine):
    delivery: type[Delivery] = Delivery

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.known: dict[int, Known] = {}
        self.files = 0
        log = shared_log()
        self.nodes = [Member(log, adapt=self.adapt), Member(log, adapt=self.adapt)]
        self.up = [True, True]
        for node in self.nodes:
            self.run(node.start())

    def adapt(self, cache: Any) -> None:
        cache.delivery.__class__ = self.delivery

    def run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(doing)

    def teardown(self) -> None:
        for node in self.nodes:
            self.run(node.stop())
        self.runner.close()

    def time_passes(self, span: timedelta = SECOND) -> None:
        """Before every act, so that no two are of one instant; on both clocks alike."""
        latest = max(node.clock.now() for node in self.nodes) + span
        for node in self.nodes:
            node.clock.advance(latest - node.clock.now())

    def acknowledged(self, node: Member, number: int, origin: Origin, verdict: Verdict, bound: list[str]) -> None:
        if verdict in WRITTEN:
            known = self.known.setdefault(number, Known())
            known.seen[origin] = node.clock.now()
            known.addresses |= {*bound}
        elif verdict is Verdict.REVOCATION_LEARNED:
            self.known.setdefault(number, Known()).may_be_there = True

    # mail
    @rule(at=which, number=numbers, bound=addresses, lost=st.booleans())
    def a_mail_comes_in(self, at: int, number: int, bound: list[str], lost: bool) -> None:
        """`lost`: the answer of the log, which did what it was asked."""
        self.time_passes()
        node = self.nodes[at]
        if lost and self.up[at]:
            node.line.after = Once(lambda: self.cut(at))
        mail = node.script.mail(make_key(number, addresses=bound))
        result = self.run(node.cache.harvesting.harvest(mail, ENVELOPE))
        node.line.after = nothing
        self.acknowledged(node, number, Origin.HARVESTED, result.verdict, bound)

    @rule(at=which, number=numbers)
    def a_processor_puts_what_it_looked_up(self, at: int, number: int) -> None:
        self.time_passes()
        node = self.nodes[at]
        self.files += 1
        blob = node.script.file(b"file %d" % self.files, make_key(number, addresses=["a@x.example"]))
        results, _ = self.run(node.cache.harvesting.put(blob, "a@x.example", "keys.example.org"))
        self.acknowledged(node, number, Origin.LOOKED_UP, results[0].verdict, ["a@x.example"])

    @rule(at=which, number=numbers)
    def a_mail_brings_a_revocation(self, at: int, number: int) -> None:
        self.time_passes()
        node = self.nodes[at]
        mail = node.script.mail(make_key(number, addresses=["a@x.example"], defect=Defect.REVOKED))
        result = self.run(node.cache.harvesting.harvest(mail, ENVELOPE))
        if result.verdict is Verdict.REVOCATION_LEARNED and number in self.known:
            self.known[number].revoked = True

    # administrators
    @rule(at=which, number=numbers)
    def an_administrator_deletes(self, at: int, number: int) -> None:
        self.time_passes()
        with contextlib.suppress(NotFound, LogUnavailable):
            self.run(self.nodes[at].cache.entries.delete(fingerprint_of(number).text, "anna"))
            self.known.pop(number, None)

    @rule(at=which)
    def an_administrator_purges(self, at: int) -> None:
        self.time_passes()
        node = self.nodes[at]
        there = [number for number in NUMBERS if node.entry(fingerprint_of(number)) is not None]
        with contextlib.suppress(LogUnavailable, Refused):
            self.run(node.cache.entries.purge(None, everything=True, dry_run=False, actor="anna"))
            for number in there:
                self.known.pop(number, None)

    # the world
    async def cut(self, at: int) -> None:
        self.up[at] = False
        self.nodes[at].line.cut()

    @rule(at=which)
    def the_line_is_cut(self, at: int) -> None:
        self.run(self.cut(at))

    def mend(self, at: int) -> None:
        if not self.up[at]:
            self.up[at] = True
            self.run(self.nodes[at].mended())
            self.time_passes()

    @rule(at=which)
    def the_line_is_mended(self, at: int) -> None:
        self.mend(at)

    @rule(at=which)
    def some_is_delivered(self, at: int) -> None:
        self.time_passes()
        with contextlib.suppress(LogUnavailable):
            self.run(self.nodes[at].cache.delivery.deliver())

    @rule(at=which)
    def a_delivery_is_cut_off(self, at: int) -> None:
        """The log did what it was asked, and its answer is lost."""
        self.time_passes()
        if self.up[at]:
            self.nodes[at].line.after = Once(lambda: self.cut(at))
            with contextlib.suppress(LogUnavailable):
                self.run(self.nodes[at].cache.delivery.deliver())
            self.nodes[at].line.after = nothing

    @precondition(lambda self: all(self.up))
    @rule(at=which)
    def a_node_restarts(self, at: int) -> None:
        self.run(self.nodes[at].restart())

    @rule()
    def hours_pass(self) -> None:
        self.time_passes(25 * HOUR)

    # what must always hold
    @invariant()
    def what_is_up_is_up_to_date(self) -> None:
        for node, up in zip(self.nodes, self.up, strict=True):
            if up:
                self.run(node.settle())

    @rule()
    def all_is_well_again_and_nothing_was_lost(self) -> None:
        for at, node in enumerate(self.nodes):
            self.mend(at)
            self.run(node.deliver())
        in_log = self.run(self.nodes[0].in_log())
        for node in self.nodes:
            self.run(node.settle())
            assert node.outbox.count == 0
        assert self.nodes[0].replica.digest() == self.nodes[1].replica.digest()
        for number in NUMBERS:
            entry, known = in_log.get(fingerprint_of(number).text), self.known.get(number)
            if known is None or not known.seen:
                assert entry is None or (known is not None and known.may_be_there), "a deleted entry came back"
                continue
            assert entry is not None, "an acknowledged entry was lost"
            assert known.addresses <= {address.text for address in entry.key.addresses}, "an address was lost"
            for origin, moment in known.seen.items():
                sighting = entry.sighting(origin)
                assert sighting is not None, "a sighting was lost"
                assert sighting.refreshed_at >= moment, "a time stamp moved back"
            if known.revoked:
                assert entry.key.defect is Defect.REVOKED, "a revocation was lost"


class ForgetsDeletions(TwoNodes):
    class Forgetting(Delivery):
        async def _decided(self, pending: Pending, known: Any, deletion: Any, seen: Any, attempt: int) -> Any:
            item = await super()._decided(pending, known, None, seen, attempt)
            return replace(item, compare={key: at for key, at in item.compare.items() if not key.startswith("deletions/")})

    delivery = Forgetting


def test_the_machine_would_see_a_deleted_entry_come_back() -> None:
    """Else all its silence is worth nothing."""
    once = settings(bounded(400, stateful_step_count=30), phases=[Phase.generate])
    with pytest.raises(AssertionError, match="a deleted entry came back"):
        run_state_machine_as_test(ForgetsDeletions, settings=once)


TestTwoNodes = TwoNodes.TestCase
TestTwoNodes.settings = bounded(60, stateful_step_count=30)
