"""What a replica tells of revisions: to be compared with the log in whole (`revisions`) and in short (`newest`)."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.harness import REPLICAS
from contract.replicas import at, document, shown
from keycache.domain.entry import Entry, Protocol
from keycache.domain.log import entry_key
from keycache.domain.ports import Replica, ReplicaChange
from support.entries import gone, make_entry, put
from support.properties import bounded

EVERYTHING = ("", "\U0010ffff")


def name(entry: Entry) -> str:
    return entry_key(entry.key.protocol, entry.key.fingerprint)


def test_an_empty_replica_has_no_revisions(replica: Replica) -> None:
    assert replica.revisions(*EVERYTHING) == {}
    assert replica.newest(16) == []


def test_every_record_of_either_kind_is_told_with_its_revision(replica: Replica) -> None:
    smime, openpgp = make_entry(1), make_entry(1, protocol=Protocol.OPENPGP)
    replica.apply([put(smime, 3), put(openpgp, 4), document("settings", 5, b"s"), document("zebra/ä", 6, b"z")], at(9))
    assert replica.revisions(*EVERYTHING) == {name(smime): 3, name(openpgp): 4, "settings": 5, "zebra/ä": 6}
    replica.apply([put(make_entry(1, names=("newer",)), 10), gone(openpgp, 11), document("settings", 12, None)], at(12))
    assert replica.revisions(*EVERYTHING) == {name(smime): 10, "zebra/ä": 6}


def test_an_entry_that_this_version_cannot_read_is_told_as_what_it_is_kept_as(replica: Replica) -> None:
    key = name(make_entry(1))
    replica.apply([gone(make_entry(1), 3), document(key, 3, b"of a later version")], at(3))
    assert replica.revisions(*EVERYTHING) == {key: 3}


def test_a_listing_sets_revisions_also_where_nothing_else_changed(replica: Replica) -> None:
    entry = make_entry(1)
    replica.apply([put(entry, 9), put(make_entry(2), 9)], at(9))
    replica.replace(iter([[put(entry, 2)]]), at(3))
    assert replica.revisions(*EVERYTHING) == {name(entry): 2}
    assert replica.newest(16) == [(name(entry), 2)]


def test_bounds_hold_the_first_key_and_not_the_last(replica: Replica) -> None:
    keys = sorted(name(make_entry(number)) for number in range(3))
    replica.apply([put(make_entry(number), 1) for number in range(3)], at(1))
    assert list(replica.revisions(keys[0], keys[2])) == keys[:2]
    assert list(replica.revisions(keys[1], keys[1] + "\0")) == [keys[1]]
    assert replica.revisions(keys[1], keys[1]) == replica.revisions(keys[1] + "\0", keys[2]) == {}
    assert set(replica.revisions("entries/", "entries/zzz")) == set(keys)
    assert replica.revisions("", "entries/") == replica.revisions("entries/smimf", "z") == {}
    assert replica.revisions("entries/openpgp/", "entries/p") == {}


def test_the_newest_entries_come_first_whether_they_are_new_or_were_written_again(replica: Replica) -> None:
    entries = [make_entry(number) for number in range(5)]
    replica.apply([put(entry, 1 + number) for number, entry in enumerate(entries)], at(5))
    replica.apply([put(make_entry(0, names=("again",)), 7), document("settings", 8, b"no entry"), gone(entries[4], 9)], at(9))
    assert replica.newest(3) == [(name(entries[0]), 7), (name(entries[3]), 4), (name(entries[2]), 3)]
    assert len(replica.newest(16)) == 4


def test_a_replica_is_read_while_a_listing_is_on_its_way(replica: Replica) -> None:
    """Its pages come from the thread that answers lookups: one must not wait for the other."""
    replica.apply([put(make_entry(1), 1)], at(1))
    drawn, go = Event(), Event()

    def pages() -> Iterator[Sequence[ReplicaChange]]:
        yield [put(make_entry(2), 2)]
        drawn.set()
        assert go.wait(10)
        yield [put(make_entry(3), 2)]

    listing = Thread(target=lambda: replica.replace(pages(), at(2)))
    listing.start()
    assert drawn.wait(10)
    reader = Thread(target=lambda: (shown(replica), replica.revisions(*EVERYTHING)), daemon=True)
    reader.start()
    reader.join(10)
    waited = reader.is_alive()
    go.set()
    listing.join()
    assert not waited
    assert set(replica.revisions(*EVERYTHING)) == {name(make_entry(2)), name(make_entry(3))}


bounds = st.one_of(
    st.sampled_from(
        ["", "entries/", "entries/openpgp/", "entries/p", "entries/smime/", "entries/smime/8", "entries/smime0", "s"]
    ),
    st.builds(name, st.builds(make_entry, st.integers(0, 20))),
    st.builds(lambda number: name(make_entry(number, protocol=Protocol.OPENPGP)), st.integers(0, 20)),
    st.just("\U0010ffff"),
)


@pytest.mark.parametrize("kind", REPLICAS)
@bounded(15)
@given(cuts=st.lists(bounds, max_size=5), first=bounds, last=bounds)
def test_any_range_is_the_same_part_of_the_whole_and_ranges_add_up(kind: str, cuts: list[str], first: str, last: str) -> None:
    changes: list[ReplicaChange] = [
        put(make_entry(number, protocol=protocol), 1 + number) for number in range(20) for protocol in Protocol
    ]
    changes += [document(key, 30, b"x") for key in ("anchors/1", "settings", "settings-history/1", "witnesses/é")]
    with tempfile.TemporaryDirectory() as folder, REPLICAS[kind](Path(folder)) as replica:
        replica.apply(changes, at(30))
        whole = replica.revisions(*EVERYTHING)
        assert len(whole) == 44
        assert replica.revisions(first, last) == {key: revision for key, revision in whole.items() if first <= key < last}
        edges = ["", *sorted(cuts), "\U0010ffff"]
        parts = [replica.revisions(low, high) for low, high in itertools.pairwise(edges)]
        assert {key: revision for part in parts for key, revision in part.items()} == whole
        assert sum(map(len, parts)) == len(whole)
