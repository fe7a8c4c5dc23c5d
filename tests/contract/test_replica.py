"""What every replica keeps: rows by revision, cursor with the rows, expiry as `domain.retention` has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest

from contract.replicas import TIMEOUTS, at, document, every, observed, shown, stored
from keycache import codec
from keycache.domain.entry import Defect, Origin, Protocol
from keycache.domain.errors import ForeignLog, LogUnavailable
from keycache.domain.log import Record
from keycache.domain.lookup import Row
from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.ports import Counts, Replica, ReplicaChange
from keycache.v1 import cache_pb2
from support.entries import T0, facts_of, fingerprint_of, gone, make_entry, make_sighting, put


# Rows and cursor
def test_a_new_replica_is_empty_and_has_no_cursor(replica: Replica) -> None:
    assert replica.cursor() is None
    assert replica.digest() == "0" * 64
    assert replica.high_water() is None
    assert replica.counts(now=T0, timeouts=TIMEOUTS) == Counts(live=0, expired=0, held=0)
    assert (replica.lookup(["a@example.org"]), replica.lookup([]), shown(replica), replica.documents("")) == ({}, {}, [], [])


def test_an_applied_entry_is_found_by_address_by_fingerprint_and_by_name(replica: Replica) -> None:
    entry = make_entry(
        1,
        make_sighting(Origin.HARVESTED, cached_at=T0, refreshed_at=T0 + timedelta(days=1)),
        make_sighting(Origin.IMPORTED, cached_at=T0 - timedelta(days=5)),
        addresses=["Bob@example.org", "second@EXAMPLE.com"],
        not_before=T0 - timedelta(days=100),
        not_after=T0 + timedelta(days=100),
        evidence_at=T0 + timedelta(microseconds=1),
        defect=Defect.NO_ENCRYPTION_KEY,
    )
    replica.apply([put(entry, 7)], at(7))
    row = Row(
        address="Bob@example.org",
        protocol=0,
        fingerprint=entry.key.fingerprint.text,
        trust=0,
        harvested_cached=codec.to_us(T0),
        harvested_refreshed=codec.to_us(T0 + timedelta(days=1)),
        looked_up_cached=None,
        looked_up_refreshed=None,
        imported_cached=codec.to_us(T0 - timedelta(days=5)),
        imported_refreshed=codec.to_us(T0 - timedelta(days=5)),
        not_before=codec.to_us(T0 - timedelta(days=100)),
        not_after=codec.to_us(T0 + timedelta(days=100)),
        defect=2,
        evidence=codec.to_us(T0) + 1,
        mod_revision=7,
        key=facts_of(entry).key,
        rest=facts_of(entry).rest,
    )
    second = row._replace(address="second@example.com")
    not_ready = (None, None, row.not_before, row.not_after, None, row.key)
    assert list(replica.lookup_ready(["second@example.com", "nobody@example.org", "bob@example.org"])) == [
        (0, *not_ready),
        (2, *not_ready),
    ]
    assert replica.lookup(["bob@example.org"]) == {"bob@example.org": [row]}
    assert replica.lookup(["second@example.com", "nobody@example.org", "bob@example.org", "bob@example.org"]) == {
        "bob@example.org": [row],
        "second@example.com": [second],
    }
    assert replica.lookup(["Bob@example.org"]) == {}, "only the indexed form is looked up"
    assert replica.lookup_fingerprint(entry.key.fingerprint) == [row._replace(address="")]
    assert replica.lookup_fingerprint(fingerprint_of(2)) == []
    assert replica.entry(Protocol.SMIME, entry.key.fingerprint) == stored(entry, 7)
    assert replica.entry(Protocol.OPENPGP, entry.key.fingerprint) is None
    assert replica.cursor() == at(7)


@pytest.mark.parametrize(("origin", "number"), [(Origin.HARVESTED, 0), (Origin.LOOKED_UP, 1), (Origin.IMPORTED, 2)])
def test_a_ready_entry_is_read_with_its_sighting_as_the_wire_has_it(replica: Replica, origin: Origin, number: int) -> None:
    sighting = make_sighting(origin, cached_at=T0 - timedelta(days=3), refreshed_at=T0 + timedelta(microseconds=1))
    entry = make_entry(1, sighting, addresses=["Bob@example.org"], not_after=T0)
    replica.apply([put(entry, 7)], at(7))
    found = cache_pb2.FoundKey(
        origin=codec.wire_enum(origin),  # type: ignore[arg-type]
        cached_at=codec.timestamp(sighting.cached_at),
        refreshed_at=codec.timestamp(sighting.refreshed_at),
    )
    fixed = (codec.to_us(T0) + 1, None, codec.to_us(T0), found.SerializeToString())
    row = (number, *fixed, facts_of(entry).key)
    assert list(replica.lookup_ready(["bob@example.org"])) == [(0, *row)]
    assert list(replica.lookup_ready(["bob@example.org", "x@example.org", "bob@example.org"])) == [(0, *row), (2, *row)]
    assert list(replica.lookup_ready(["Bob@example.org"])) == list(replica.lookup_ready([])) == []


def test_an_entry_that_gets_a_second_sighting_or_a_defect_is_ready_no_more(replica: Replica) -> None:
    entry, later = make_entry(1, addresses=["bob@example.org"]), make_sighting(Origin.IMPORTED)
    twice, revoked = (
        replace(entry, sightings=(*entry.sightings, later)),
        replace(entry, key=replace(entry.key, defect=Defect.REVOKED)),
    )
    ready = []
    for revision, changed in enumerate((entry, twice, entry, revoked, entry), 1):
        replica.apply([put(changed, revision)], at(revision))
        ((_, *row),) = replica.lookup_ready(["bob@example.org"])
        ready.append([value is not None for value in (row[0], row[1], row[4])])
    assert ready == [[True] * 3, [False] * 3, [True] * 3, [False] * 3, [True] * 3]


def test_a_key_without_evidence_or_bounds_has_zero_and_none(replica: Replica) -> None:
    entry = make_entry(1, make_sighting(Origin.LOOKED_UP), protocol=Protocol.OPENPGP)
    replica.apply([put(entry, 1)], at(1))
    (row,) = replica.lookup_fingerprint(entry.key.fingerprint)
    now = codec.to_us(T0)
    assert row[1:15] == (1, entry.key.fingerprint.text, 1, None, None, now, now, None, None, None, None, 0, 0, 1)


def test_an_address_in_two_spellings_has_a_row_for_each(replica: Replica) -> None:
    replica.apply([put(make_entry(1, addresses=["bob@example.org", "Bob@example.org"]), 1)], at(1))
    assert sorted(row.address for row in replica.lookup(["bob@example.org"])["bob@example.org"]) == [
        "Bob@example.org",
        "bob@example.org",
    ]


def test_addresses_that_share_an_index_are_found_together(replica: Replica) -> None:
    entries = [make_entry(number, addresses=["bob@example.org"]) for number in range(3)]
    replica.apply([put(entry, 1) for entry in entries], at(1))
    rows = replica.lookup(["bob@example.org"])["bob@example.org"]
    assert {row.fingerprint for row in rows} == {entry.key.fingerprint.text for entry in entries}


def test_an_address_beyond_ascii_is_found_alone_and_in_a_batch(replica: Replica) -> None:
    entry = make_entry(1, addresses=["Jürgen😀'%_@bücher.example"])
    replica.apply([put(entry, 1)], at(1))
    index = entry.key.addresses[0].index
    assert set(replica.lookup([index])) == {index}
    assert set(replica.lookup([index, "x@example.org"])) == {index}


def test_a_changed_entry_loses_the_addresses_it_no_longer_has(replica: Replica) -> None:
    replica.apply([put(make_entry(1, addresses=["old@example.org"]), 1)], at(1))
    replica.apply([put(make_entry(1, addresses=["new@example.org"]), 2)], at(2))
    assert list(replica.lookup(["old@example.org", "new@example.org"])) == ["new@example.org"]


def test_a_deleted_entry_is_gone_from_every_read(replica: Replica) -> None:
    entry = make_entry(1)
    replica.apply([put(entry, 1)], at(1))
    replica.apply([gone(entry, 2)], at(2))
    assert replica.lookup(["user1@example.org"]) == {}
    assert replica.lookup_fingerprint(entry.key.fingerprint) == []
    assert (shown(replica), shown(replica, text="user1"), shown(replica, domain="example.org")) == ([], [], [])
    assert replica.digest() == "0" * 64


def test_a_change_that_is_not_newer_than_the_row_is_skipped(replica: Replica) -> None:
    new = make_entry(1, addresses=["new@example.org"])
    replica.apply([put(new, 5), put(make_entry(1, addresses=["old@example.org"]), 4), gone(new, 5)], at(5))
    assert shown(replica) == [new]


def test_a_row_that_is_ahead_of_the_cursor_is_not_overwritten_by_what_came_before_it(replica: Replica) -> None:
    new = make_entry(1, addresses=["new@example.org"])
    replica.apply([put(new, 7), document("settings", 7, b"new")], at(3))
    replica.apply([put(make_entry(1), 5), gone(new, 6), document("settings", 5, b"old"), document("settings", 6, None)], at(6))
    assert shown(replica) == [new]
    assert replica.documents("") == [Record(key="settings", value=b"new", mod_revision=Revision(7))]


def test_within_one_batch_the_newest_revision_counts_also_for_what_is_deleted(replica: Replica) -> None:
    entry = make_entry(1)
    replica.apply([put(entry, 3), gone(entry, 5), put(entry, 4), document("d", 5, None), document("d", 4, b"x")], at(5))
    assert (shown(replica), replica.documents("")) == ([], [])


def test_a_replayed_batch_changes_nothing_and_brings_nothing_back(replica: Replica) -> None:
    entry, other = make_entry(1), make_entry(2)
    first: list[ReplicaChange] = [put(entry, 1), document("settings", 2, b"s")]
    second: list[ReplicaChange] = [gone(entry, 3), put(other, 4), document("settings", 5, None)]
    replica.apply(first, at(2))
    replica.apply(second, at(5))
    before = observed(replica)
    replica.apply(first, at(2))
    replica.apply([*first, *second], at(5))
    assert observed(replica) == before
    assert before[0] == at(5)


def test_an_empty_batch_moves_the_cursor(replica: Replica) -> None:
    replica.apply([], at(3))
    assert replica.cursor() == at(3)


def test_changes_of_another_log_are_refused_and_change_nothing(replica: Replica) -> None:
    entry = make_entry(1)
    replica.apply([put(entry, 5)], at(5))
    before = observed(replica)
    with pytest.raises(ForeignLog):
        replica.apply([gone(entry, 9)], at(9, ClusterIdentity("theirs")))
    assert observed(replica) == before


def test_an_error_in_the_middle_of_a_batch_leaves_rows_and_cursor_as_they_were(replica: Replica) -> None:
    replica.apply([put(make_entry(1), 1)], at(1))
    before = observed(replica)

    def broken() -> Iterator[ReplicaChange]:
        yield put(make_entry(2), 2)
        yield gone(make_entry(1), 3)
        raise LogUnavailable("the log went away")

    with pytest.raises(LogUnavailable):
        replica.apply(broken(), at(3))
    assert observed(replica) == before


def test_a_listing_replaces_everything_that_is_not_in_it(replica: Replica) -> None:
    replica.apply([*(put(make_entry(number), 1) for number in range(5)), document("a", 1, b"a"), document("b", 1, b"b")], at(9))
    kept, changed, new = make_entry(1), make_entry(2, addresses=["x@example.org"]), make_entry(7)
    listing: list[Sequence[ReplicaChange]] = [[put(kept, 1), document("b", 3, b"B")], [], [put(changed, 4), put(new, 2)]]
    replica.replace(iter(listing), at(4, ClusterIdentity("theirs")))
    assert replica.cursor() == at(4, ClusterIdentity("theirs")), "a listing may also go back, and be another log's"
    assert shown(replica) == [kept, new, changed]
    assert replica.documents("") == [Record(key="b", value=b"B", mod_revision=Revision(3))]
    assert replica.lookup(["user2@example.org"]) == {}
    assert replica.entry(Protocol.SMIME, kept.key.fingerprint) == stored(kept, 1)


def test_a_listing_renumbers_an_entry_whose_value_is_the_same(replica: Replica) -> None:
    entry = make_entry(1)
    replica.apply([put(entry, 5)], at(5))
    replica.replace(iter([[put(entry, 2)]]), at(3, ClusterIdentity("theirs")))
    assert replica.entry(Protocol.SMIME, entry.key.fingerprint) == stored(entry, 2)
    assert replica.lookup(["user1@example.org"])["user1@example.org"][0].mod_revision == 2


def test_an_empty_listing_empties_the_replica(replica: Replica) -> None:
    replica.apply([put(make_entry(1), 1), document("a", 1, b"a")], at(1))
    replica.replace(iter([]), at(2))
    assert (shown(replica), replica.documents(""), replica.digest(), replica.cursor()) == ([], [], "0" * 64, at(2))


def test_a_listing_that_breaks_off_leaves_the_old_rows(replica: Replica) -> None:
    replica.apply([put(make_entry(1), 1), document("a", 1, b"a")], at(1))
    before = observed(replica)

    def broken() -> Iterator[Sequence[ReplicaChange]]:
        yield [put(make_entry(2), 2), document("b", 2, b"b")]
        raise LogUnavailable("the log went away")

    with pytest.raises(LogUnavailable):
        replica.replace(broken(), at(2))
    assert observed(replica) == before


def test_the_first_listing_serves_every_kind_of_read(replica: Replica) -> None:
    entries = [make_entry(number, addresses=[f"u{number}@d{number % 3}.example"]) for number in range(50)]
    replica.replace(iter([[put(entry, 1) for entry in entries[:25]], [put(entry, 1) for entry in entries[25:]]]), at(1))
    assert set(replica.lookup([f"u{number}@d{number % 3}.example" for number in range(50)])) == {
        entry.key.addresses[0].index for entry in entries
    }
    assert len(shown(replica, domain="d1.example")) == 17
    assert replica.counts(now=T0, timeouts=TIMEOUTS) == Counts(live=50, expired=0, held=0)
    replica.apply([gone(entry, 2) for entry in entries], at(2))
    assert (shown(replica), replica.digest()) == ([], "0" * 64)


def test_an_entry_listed_twice_is_kept_once(replica: Replica) -> None:
    listing = [[put(make_entry(1), 1)], [put(make_entry(1), 1), put(make_entry(1, addresses=["b@example.org"]), 2)]]
    replica.replace(iter(listing), at(2))
    assert shown(replica) == [make_entry(1, addresses=["b@example.org"])]
    replica.apply([gone(make_entry(1), 3)], at(3))
    assert replica.digest() == "0" * 64


# Digest
def test_the_digest_depends_on_entries_and_values_and_on_nothing_else(replica: Replica) -> None:
    one, two = make_entry(1), make_entry(2)
    replica.apply([put(one, 1), put(two, 2), document("settings", 3, b"s")], at(3))
    digest = replica.digest()
    replica.replace(iter([[put(two, 8)], [put(one, 9)]]), at(9, ClusterIdentity("theirs")))
    assert replica.digest() == digest
    replica.apply([put(make_entry(1, make_sighting(source="other")), 10)], at(10, ClusterIdentity("theirs")))
    assert replica.digest() != digest
    replica.apply([put(one, 11)], at(11, ClusterIdentity("theirs")))
    assert replica.digest() == digest


# Documents
def test_documents_are_found_by_key_and_by_prefix_in_the_order_of_keys(replica: Replica) -> None:
    keys = ["blocks/a", "blocks/b", "blocks%", "blocks0", "BLOCKS/a", "audit/1", "blocks/"]
    replica.apply([document(key, number + 1, key.encode()) for number, key in enumerate(keys)], at(9))
    assert [record.key for record in replica.documents("blocks/")] == ["blocks/", "blocks/a", "blocks/b"]
    assert [record.key for record in replica.documents("")] == sorted(keys)
    assert replica.document("blocks/b") == Record(key="blocks/b", value=b"blocks/b", mod_revision=Revision(2))
    assert replica.document("blocks/c") is None
    replica.apply([document("blocks/b", 10, b""), document("audit/1", 11, None)], at(11))
    assert replica.document("blocks/b") == Record(key="blocks/b", value=b"", mod_revision=Revision(10))
    assert replica.documents("audit/") == []


# High water
def test_the_high_water_only_rises_unless_forced(replica: Replica) -> None:
    replica.raise_high_water(T0)
    replica.raise_high_water(T0 - timedelta(days=1))
    assert replica.high_water() == T0
    replica.raise_high_water(T0 + timedelta(microseconds=1))
    assert replica.high_water() == T0 + timedelta(microseconds=1)
    replica.raise_high_water(datetime(2020, 1, 1, tzinfo=UTC), force=True)
    assert replica.high_water() == datetime(2020, 1, 1, tzinfo=UTC)


def test_the_high_water_outlives_a_listing(replica: Replica) -> None:
    replica.raise_high_water(T0)
    replica.replace(iter([]), at(1))
    assert replica.high_water() == T0


# Threads
def test_readers_in_other_threads_never_see_half_a_batch(replica: Replica) -> None:
    """Every batch makes all entries of one generation; a page must never show two."""
    size, seen, errors = 20, set[str](), list[BaseException]()
    done = False

    def read() -> None:
        try:
            while not done:
                sources = {one.entry.sightings[0].source for one in replica.query(every()).entries}
                assert len(sources) <= 1
                seen.update(sources)
                replica.lookup(["user1@example.org", "user2@example.org"])
        except BaseException as error:  # noqa: BLE001 -- handed to the test
            errors.append(error)

    readers = [Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for generation in range(1, 15):
        batch = [put(make_entry(number, make_sighting(source=str(generation))), generation) for number in range(size)]
        replica.apply(batch, at(generation))
    done = True
    for reader in readers:
        reader.join()
    assert errors == []
