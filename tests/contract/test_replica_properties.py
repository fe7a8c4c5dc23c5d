"""Whatever happens to it, every replica shows what the one in memory shows, and expires what `domain.retention` expires."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.harness import REPLICAS
from contract.replicas import at
from keycache import codec
from keycache.domain.entry import Entry, Origin, Protocol, Trust
from keycache.domain.names import Fingerprint, Revision
from keycache.domain.ports import DocumentChange, EntryChange, EntryQuery, Replica, ReplicaChange, SortBy
from keycache.domain.retention import is_expired
from keycache.domain.settings import Timeouts
from keycache.store.memory import MemoryReplica
from support.entries import T0, addresses, entries, instants, put, texts

REAL = [name for name in REPLICAS if name != "memory"]
QUICK = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
NUMBERS = 4
KEYS = ("settings", "blocks/a", "blocks/b")


@dataclass(frozen=True)
class Apply:
    changes: tuple[ReplicaChange, ...]
    revision: int


@dataclass(frozen=True)
class Replace:
    chunks: tuple[tuple[ReplicaChange, ...], ...]
    revision: int


def entry_changes(revisions: st.SearchStrategy[int], *, removals: bool) -> st.SearchStrategy[EntryChange]:
    def change(entry: Entry, revision: int, removed: bool) -> EntryChange:
        made = put(entry, revision)
        return replace(made, facts=None, value=b"") if removed else made

    return st.builds(change, entries(numbers=NUMBERS), revisions, st.booleans() if removals else st.just(False))


def changes(*, removals: bool) -> st.SearchStrategy[ReplicaChange]:
    """Revisions overlap from step to step: replays and batches out of order are part of it."""
    revisions = st.integers(1, 30)
    values = st.none() | st.binary(max_size=3) if removals else st.binary(max_size=3)
    documents = st.builds(DocumentChange, key=st.sampled_from(KEYS), revision=revisions.map(Revision), value=values)
    return st.one_of(entry_changes(revisions, removals=removals), documents)


steps = st.lists(
    st.one_of(
        st.builds(Apply, st.lists(changes(removals=True), max_size=5).map(tuple), st.integers(1, 30)),
        st.builds(
            Replace,
            st.lists(st.lists(changes(removals=False), max_size=4).map(tuple), max_size=3).map(tuple),
            st.integers(1, 30),
        ),
    ),
    max_size=6,
)
timeouts = st.builds(
    Timeouts,
    **{
        origin.value.lower(): st.integers(3600, 999 * 86400).map(lambda seconds: timedelta(seconds=seconds))
        for origin in Origin
    },
)
queries = st.builds(
    EntryQuery,
    now=instants(),
    timeouts=timeouts,
    text=st.just("") | texts(max_size=3) | st.sampled_from(["BOB", "b@ex", "SS", "i"]),
    address=st.just("") | addresses().map(str),
    domain=st.just("") | addresses().map(lambda address: address.domain),
    protocol=st.none() | st.sampled_from(Protocol),
    origin=st.none() | st.sampled_from(Origin),
    trust=st.none() | st.sampled_from(Trust),
    issuer=st.sampled_from(["", "ab" * 8]),
    older_than=st.none() | instants(),
    expired=st.none() | st.booleans(),
    sort=st.sampled_from(SortBy),
    descending=st.booleans(),
    limit=st.integers(1, 5),
)
few_filters = st.builds(
    EntryQuery,
    now=instants(),
    timeouts=timeouts,
    sort=st.sampled_from(SortBy),
    descending=st.booleans(),
    limit=st.integers(1, 3),
)


def take(replica: Replica, step: Apply | Replace) -> None:
    if isinstance(step, Apply):
        replica.apply(step.changes, at(step.revision))
    else:
        replica.replace(iter(step.chunks), at(step.revision))


def everything(replica: Replica, query: EntryQuery) -> tuple[object, ...]:
    """All that a replica shows, in a form in which order does not matter where none is promised."""
    pages = [replica.query(query)]
    while pages[-1].next:
        pages.append(replica.query(replace(query, after=pages[-1].next)))
    plain = EntryQuery(now=query.now, timeouts=query.timeouts, limit=1000)
    kept = [one.entry for one in replica.query(plain).entries]
    asked = sorted({address.index for entry in kept for address in entry.key.addresses} | {"nobody@example.org"})
    batch = {index: sorted(rows) for index, rows in replica.lookup(asked).items()}
    assert batch == {index: sorted(found[index]) for index in asked if (found := replica.lookup([index]))}
    # The short way's rows, by place: of the same entries, whichever way they are read, alone or many.
    ready = sorted(replica.lookup_ready(asked), key=repr)
    alone = [(place, *row[1:]) for place, index in enumerate(asked) for row in replica.lookup_ready([index])]
    assert ready == sorted(alone, key=repr)
    assert sorted((asked[row[0]], row[6]) for row in ready) == sorted(
        (index, row.key) for index, rows in batch.items() for row in rows
    )
    fingerprints = sorted({entry.key.fingerprint.text for entry in kept})
    return (
        replica.cursor(),
        pages,
        replica.count(query),
        batch,
        ready,
        [replica.lookup_fingerprint(Fingerprint(one)) for one in fingerprints],
        [replica.entry(protocol, Fingerprint(one)) for one in fingerprints for protocol in Protocol],
        replica.counts(now=query.now, timeouts=query.timeouts),
        replica.expired(now=query.now, timeouts=query.timeouts),
        [replica.documents(prefix) for prefix in ("", "blocks/", "x")],
        [replica.document(key) for key in KEYS],
        replica.digest(),
    )


@pytest.mark.parametrize("name", REAL)
@QUICK
@given(steps=steps, first=few_filters, second=queries)
def test_the_same_changes_give_the_same_replica(
    name: str, steps: list[Apply | Replace], first: EntryQuery, second: EntryQuery
) -> None:
    model = MemoryReplica()
    with tempfile.TemporaryDirectory() as folder, REPLICAS[name](Path(folder)) as replica:
        for step in steps:
            take(model, step)
            take(replica, step)
            assert everything(replica, first) == everything(model, first)
        assert everything(replica, second) == everything(model, second)


@pytest.mark.parametrize("name", REPLICAS)
@QUICK
@given(steps=steps.filter(bool), data=st.data(), query=few_filters)
def test_a_replay_from_anywhere_is_harmless(
    name: str, steps: list[Apply | Replace], data: st.DataObject, query: EntryQuery
) -> None:
    """Only batches are replayed, and only once the log is known up to their end, as after a restart of a watch."""
    with tempfile.TemporaryDirectory() as folder, REPLICAS[name](Path(folder)) as replica:
        for step in steps:
            take(replica, step)
        before = everything(replica, query)
        cursor = replica.cursor()
        assert cursor is not None
        for step in data.draw(st.lists(st.sampled_from(steps), max_size=3)):
            if isinstance(step, Apply):
                old = tuple(change for change in step.changes if change.revision <= cursor.revision)
                take(replica, Apply(old, min(step.revision, cursor.revision)))
        assert everything(replica, query) == before


edges = st.sampled_from([timedelta(0), timedelta(microseconds=1), timedelta(microseconds=-1)])
far = instants(datetime(1, 1, 2, tzinfo=UTC), datetime(9990, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("name", REPLICAS)
@QUICK
@given(kept=st.lists(entries(numbers=20, at=instants() | far), min_size=1, max_size=6), limits=timeouts, data=st.data())
def test_expiry_is_that_of_the_domain_to_the_microsecond(
    name: str, kept: list[Entry], limits: Timeouts, data: st.DataObject
) -> None:
    by_name = {(entry.key.protocol, entry.key.fingerprint): entry for entry in kept}
    ends = [
        sighting.refreshed_at + limits.of(sighting.origin) + edge
        for entry in kept
        for sighting in entry.sightings
        for edge in (timedelta(0), timedelta(microseconds=-1))
    ]
    now = data.draw(st.sampled_from(ends) | instants() | st.just(T0))
    over = {key for key, entry in by_name.items() if is_expired(entry, limits, now)}
    held = sum(entry.key.trust is Trust.HELD for key, entry in by_name.items() if key not in over)
    with tempfile.TemporaryDirectory() as folder, REPLICAS[name](Path(folder)) as replica:
        replica.apply([put(entry, number + 1) for number, entry in enumerate(kept)], at(len(kept)))
        assert {(one.protocol, one.fingerprint) for one in replica.expired(now=now, timeouts=limits)} == over
        query = EntryQuery(now=now, timeouts=limits, limit=100, expired=True)
        assert {(one.entry.key.protocol, one.entry.key.fingerprint) for one in replica.query(query).entries} == over
        assert replica.count(replace(query, expired=False)) == len(by_name) - len(over)
        found = replica.counts(now=now, timeouts=limits)
        assert (found.expired, found.held, found.live) == (len(over), held, len(by_name) - len(over) - held)


@pytest.mark.parametrize("name", REPLICAS)
@QUICK
@given(entry=entries())
def test_an_entry_comes_back_as_it_was_put(name: str, entry: Entry) -> None:
    with tempfile.TemporaryDirectory() as folder, REPLICAS[name](Path(folder)) as replica:
        replica.apply([put(entry, 1)], at(1))
        stored = replica.entry(entry.key.protocol, entry.key.fingerprint)
        assert stored is not None
        assert stored.entry == entry
        (row,) = replica.lookup_fingerprint(entry.key.fingerprint)
        assert codec.entry_of_halves(row.key, row.rest) == entry
