"""The short way of a lookup says what the judge of all cases says, byte for byte, whatever is cached, blocked, asked and set."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.harness import REPLICAS
from keycache.cache.holdings import Holdings
from keycache.cache.lookups import Lookups
from keycache.clock import ManualClock
from keycache.codec import block_to_wire, encode_settings
from keycache.domain.administration import Block, BlockKind
from keycache.domain.entry import Defect, Entry, Origin, Protocol, Trust
from keycache.domain.errors import InvalidInput, OutOfRange, Unavailable
from keycache.domain.log import BLOCKS, SETTINGS
from keycache.domain.lookup import DEFAULT_FILTER, Answer, LookupFilter, MissCode
from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.ports import Cursor, DocumentChange, ReplicaChange
from keycache.domain.settings import Settings, Timeouts
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import View
from keycache.services import wire
from keycache.store.memory import MemoryLog, MemoryOutbox
from support.entries import T0, fingerprint_of, make_entry, make_sighting, put
from support.node import make_replicator
from support.properties import bounded

US, HOUR, DAY = timedelta(microseconds=1), timedelta(hours=1), timedelta(days=1)
ASKED = ("bob@example.org", "Bob@Example.org", "alice@example.org", "nobody@example.org", "no address", "bob@example.org")
DEFAULTS = Settings()
EVERYTHING = LookupFilter(trusts=frozenset(Trust))


@contextmanager
def lookups(
    *entries: Entry,
    name: str = "memory",
    settings: Settings | None = DEFAULTS,
    blocks: tuple[Block, ...] = (),
    now: datetime = T0,
    waiting: tuple[Entry, ...] = (),
) -> Iterator[Lookups]:
    """Of a node whose replica, of that name, holds this; `settings` None: it could not read them yet. `waiting`: in its outbox."""
    changes: list[ReplicaChange] = [put(entry, number + 1) for number, entry in enumerate(entries)]
    if settings is not None:
        changes.append(DocumentChange(key=SETTINGS, revision=Revision(50), value=encode_settings(settings)))
    for number, block in enumerate(blocks):
        value = block_to_wire(block).SerializeToString()
        changes.append(DocumentChange(key=f"{BLOCKS}{number}", revision=Revision(51 + number), value=value))
    with tempfile.TemporaryDirectory() as folder, REPLICAS[name](Path(folder)) as replica:
        replica.apply(changes, Cursor(identity=ClusterIdentity("ours"), revision=Revision(99)))
        view, clock = View(replica), ManualClock(now)
        view.load()
        timekeeper = Timekeeper(clock=clock, replica=replica, offload=asyncio.to_thread)
        outbox = MemoryOutbox()
        for entry in waiting:
            outbox.put(entry, {}, now)
        yield Lookups(
            replica=replica,
            outbox=outbox,
            holdings=Holdings(replica=replica, outbox=outbox),
            view=view,
            replicator=make_replicator(log=MemoryLog(), replica=replica, view=view, clock=clock, timekeeper=timekeeper),
            timekeeper=timekeeper,
        )


def block(kind: BlockKind, value: str, until: datetime | None = None) -> Block:
    return Block(kind=kind, value=value, until=until, at=T0 - DAY)


def both_ways(of: Lookups, accept: LookupFilter = DEFAULT_FILTER) -> bytes:
    """What a batch is answered with the short way; checks that it is what the judge says, and a single lookup too."""
    short = wire.batch_response(ASKED, of.serve_all(ASKED, accept), revision=7, log_age=None)
    assert short == wire.batch_response(ASKED, of.by_addresses(ASKED, accept), revision=7, log_age=None)
    for address in ASKED[:4]:
        one = wire.lookup_response(address, of.serve(address, accept), revision=7, log_age=None)
        assert one == wire.lookup_response(address, of.by_address(address, accept), revision=7, log_age=None)
    return short


edges = st.sampled_from([-DAY, -US, timedelta(), US, DAY])
spans = st.sampled_from([HOUR, 3 * HOUR, DAY, 999 * DAY, 400 * DAY + 7 * US])
ages = st.sampled_from([timedelta(), HOUR - US, HOUR, 3 * HOUR, 400 * DAY, -HOUR]) | st.integers(0, 10**13).map(
    lambda n: n * US
)
mostly_none = st.sampled_from([None, None, None])


@st.composite
def some_entry(draw: st.DrawFn, number: int) -> Entry:
    origins = draw(st.sampled_from([*({origin} for origin in Origin), set(Origin), {Origin.HARVESTED, Origin.IMPORTED}]))
    times = {origin: sorted((T0 - draw(ages), T0 - draw(ages))) for origin in Origin}
    return make_entry(
        number,
        *(make_sighting(one, cached_at=times[one][0], refreshed_at=times[one][1]) for one in Origin if one in origins),
        addresses=draw(st.sampled_from([ASKED[:1], ASKED[1:2], ASKED[:2], ASKED[2:3], (ASKED[0], ASKED[2])])),
        trust=draw(st.sampled_from(Trust)),
        protocol=draw(st.sampled_from(Protocol)),
        defect=draw(mostly_none | st.sampled_from(Defect)),
        not_before=draw(mostly_none | edges.map(lambda edge: T0 + edge)),
        not_after=draw(mostly_none | edges.map(lambda edge: T0 + edge)),
        evidence_at=draw(st.none() | st.just(T0)),
        material_size=draw(st.sampled_from([0, 10, 1_400, 40_000])),
    )


some_blocks = st.lists(
    st.builds(
        block,
        st.just(BlockKind.FINGERPRINT),
        st.integers(0, 2).map(lambda number: fingerprint_of(number).text),
        st.sampled_from([None, T0, T0 + US]),
    )
    | st.builds(block, st.just(BlockKind.ADDRESS), st.sampled_from(["bob@example.org", "nobody@example.org"])),
    max_size=2,
)
filters = st.sampled_from([DEFAULT_FILTER, LookupFilter(), EVERYTHING, LookupFilter(origins=frozenset({Origin.IMPORTED}))])


@pytest.mark.parametrize("name", REPLICAS)
@bounded(60)
@given(
    data=st.data(), count=st.integers(0, 3), waits=st.sets(st.integers(0, 3)), blocks=st.just([]) | some_blocks, accept=filters
)
def test_the_short_way_answers_what_the_judge_of_all_cases_answers(name, data, count, waits, blocks, accept) -> None:
    entries = [data.draw(some_entry(number)) for number in range(count)]
    waiting = tuple(data.draw(some_entry(number)) for number in sorted(waits))
    timeouts = Timeouts(harvested=data.draw(spans), looked_up=data.draw(spans), imported=data.draw(spans))
    ends = [T0, *(one.refreshed_at + timeouts.of(one.origin) for entry in entries for one in entry.sightings)]
    now = data.draw(st.sampled_from(ends)) + data.draw(edges)
    settings = Settings(timeouts=timeouts)
    with lookups(*entries, name=name, settings=settings, blocks=tuple(blocks), now=now, waiting=waiting) as ours:
        both_ways(ours, accept)


def test_the_commonest_answers_are_given_the_short_way() -> None:
    """Else the tests above would compare the judge with itself."""
    good, expired = (
        make_entry(1, addresses=ASKED[:1]),
        make_entry(2, make_sighting(cached_at=T0 - 500 * DAY), addresses=ASKED[2:3]),
    )
    with lookups(good, expired) as ours:
        bob, bob_too, alice, nobody, no_address, again = ours.serve_all(ASKED)
        assert all(isinstance(answer, tuple) for answer in (bob, bob_too, again))
        assert (bob, bob_too) == (again, bob)
        assert (alice, nobody, no_address) == (Answer((), MissCode.EXPIRED), Answer((), MissCode.NOT_FOUND), None)
        assert isinstance(ours.serve(ASKED[0]), tuple)
        assert isinstance(ours.serve(ASKED[0], LookupFilter()), tuple)
        assert isinstance(ours.serve(ASKED[0], EVERYTHING), Answer), "with a filter of their own the judge decides"


@pytest.mark.parametrize(
    ("kind", "value", "code"),
    [
        (BlockKind.FINGERPRINT, fingerprint_of(1).text, MissCode.BLOCKED),
        (BlockKind.ADDRESS, "bob@example.org", MissCode.BLOCKED),
        (BlockKind.FINGERPRINT, fingerprint_of(2).text, None),
        (BlockKind.ADDRESS, "alice@example.org", None),
    ],
)
def test_a_block_is_obeyed_while_it_holds_and_not_longer(kind: BlockKind, value: str, code: MissCode | None) -> None:
    entry, until = make_entry(1, addresses=ASKED[:1]), T0 + HOUR
    for now, expected in ((until - US, code), (until, None)):
        with lookups(entry, blocks=(block(kind, value, until),), now=now) as ours:
            answer = ours.serve(ASKED[0])
            assert (answer.miss if isinstance(answer, Answer) else None) == expected
            both_ways(ours)


def test_nothing_is_found_for_a_blocked_address_whoever_was_never_there() -> None:
    with lookups(blocks=(block(BlockKind.ADDRESS, "nobody@example.org"),)) as ours:
        assert ours.serve("nobody@example.org") == Answer((), MissCode.BLOCKED)


def test_without_settings_nothing_is_served_and_nothing_is_denied() -> None:
    with lookups(make_entry(1, addresses=ASKED[:1]), settings=None) as ours:
        for address in ASKED[:4]:
            with pytest.raises(Unavailable):
                ours.serve(address)
        with pytest.raises(Unavailable):
            ours.serve_all(ASKED)


def test_what_is_no_address_is_said_to_be_none() -> None:
    with lookups() as ours:
        with pytest.raises(InvalidInput, match="'no address' is not a mail address"):
            ours.serve("no address")
        assert ours.serve_all(["no address"]) == ours.by_addresses(["no address"]) == [None]
        assert ours.serve_all([]) == []


def test_a_batch_beyond_the_limit_is_refused() -> None:
    with lookups() as ours, pytest.raises(OutOfRange):
        ours.serve_all(["bob@example.org"] * 1001)
