"""What every replica keeps: rows by revision, cursor with the rows, expiry as `domain.retention` has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest

from keycache import codec
from keycache.domain.entry import Defect, Entry, Issuer, Origin, Protocol, Trust
from keycache.domain.errors import ForeignLog, InvalidInput, LogUnavailable
from keycache.domain.log import Record
from keycache.domain.lookup import Row
from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.ports import Counts, Cursor, DocumentChange, EntryQuery, Replica, ReplicaChange, SortBy, StoredEntry
from keycache.domain.purge import Candidate
from keycache.domain.settings import Timeouts
from support.entries import T0, fingerprint_of, gone, make_entry, make_sighting, put

OURS = ClusterIdentity("ours")
TIMEOUTS = Timeouts(harvested=timedelta(days=10), looked_up=timedelta(hours=1), imported=timedelta(days=20))


def at(revision: int, identity: ClusterIdentity = OURS) -> Cursor:
    return Cursor(identity=identity, revision=Revision(revision))


def document(key: str, revision: int, value: bytes | None) -> DocumentChange:
    return DocumentChange(key=key, revision=Revision(revision), value=value)


def stored(entry: Entry, revision: int) -> StoredEntry:
    return StoredEntry(entry=entry, mod_revision=Revision(revision))


def every(**fields: object) -> EntryQuery:
    return EntryQuery(**{"now": T0, "timeouts": TIMEOUTS, **fields})  # type: ignore[arg-type]


def shown(replica: Replica, **fields: object) -> list[Entry]:
    """All pages of a listing; checks on the way that `count` agrees."""
    query = every(**fields)
    entries: list[Entry] = []
    while True:
        page = replica.query(query)
        entries.extend(one.entry for one in page.entries)
        assert len(page.entries) <= query.limit
        if not page.next:
            break
        query = every(**{**fields, "after": page.next})
    assert replica.count(query) == len(entries)
    return entries


def observed(replica: Replica) -> tuple[object, ...]:
    return (
        replica.cursor(),
        replica.query(every(limit=1000)).entries,
        replica.documents(""),
        replica.digest(),
        replica.counts(now=T0, timeouts=TIMEOUTS),
    )


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
        key=codec.halves(codec.encode_entry(entry))[0],
        rest=codec.halves(codec.encode_entry(entry))[1],
    )
    second = row._replace(address="second@example.com")
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


# Queries
def test_filters_accept_what_they_say(replica: Replica) -> None:
    day = timedelta(days=1)
    harvested = make_entry(1, make_sighting(cached_at=T0 - 9 * day))
    looked_up = make_entry(2, make_sighting(Origin.LOOKED_UP), protocol=Protocol.OPENPGP, addresses=["x@example.com"])
    both = make_entry(
        3,
        make_sighting(cached_at=T0 - 15 * day),
        make_sighting(Origin.IMPORTED, cached_at=T0 - 2 * day),
        addresses=["y@sub.example.org"],
    )
    held = make_entry(4, make_sighting(cached_at=T0 - 30 * day), trust=Trust.HELD, issuer=Issuer(id="ab" * 8, name="CN=Some"))
    vouched = make_entry(5, make_sighting(Origin.IMPORTED), issuer=Issuer(id="ab" * 8, name="CN=Some"), addresses=[])
    replica.apply([put(entry, 1) for entry in (harvested, looked_up, both, held, vouched)], at(1))

    def found(**fields: object) -> list[int]:
        numbers = {entry.key.fingerprint: number for number, entry in enumerate((harvested, looked_up, both, held, vouched), 1)}
        return sorted(numbers[entry.key.fingerprint] for entry in shown(replica, **fields))

    assert found() == [1, 2, 3, 4, 5]
    assert found(address="USER1@example.org") == [1]
    assert found(domain="example.org") == [1, 4]
    assert found(domain="EXAMPLE.com") == [2]
    assert found(protocol=Protocol.OPENPGP) == [2]
    assert found(origin=Origin.HARVESTED) == [1, 3, 4]
    assert found(trust=Trust.HELD) == [4]
    assert found(issuer="ab" * 8) == [4], "the issuer of held entries"
    assert found(older_than=T0 - 5 * day) == [1, 4]
    assert found(older_than=T0 - 9 * day) == [4], "before, not at"
    assert found(older_than=T0 - 5 * day, origin=Origin.HARVESTED) == [1, 3, 4]
    assert found(older_than=T0, origin=Origin.IMPORTED) == [3]
    assert found(expired=True) == [4]
    assert found(expired=False) == [1, 2, 3, 5]
    assert found(expired=True, domain="example.com") == []
    assert found(now=T0 + timedelta(hours=1), expired=True, protocol=Protocol.OPENPGP) == [2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("USER", [1, 2]),
        ("ser2@exa", [2]),
        ("müller", [3]),
        ("MÜLLER", [3]),
        ("strasse", [3]),
        ("STRAßE", [3]),
        ("100%", [4]),
        ("0%_", [4]),
        ("%", [4]),
        ("_", [4]),
        ("a\\b", [4]),
        ("example.orgcn", []),
        ("org\x1fcn", []),
        ("\x00", []),
    ],
)
def test_a_search_finds_any_part_of_address_name_or_fingerprint_whatever_the_case(
    replica: Replica, text: str, expected: list[int]
) -> None:
    entries = [
        make_entry(1),
        make_entry(2),
        make_entry(3, addresses=["x@example.org"], names=("CN=Jörg Müller, Große Straße 1",)),
        make_entry(4, addresses=["y@example.org"], names=("100%_sure", "a\\b*?[c]")),
    ]
    replica.apply([put(entry, 1) for entry in entries], at(1))
    assert sorted(entries.index(entry) + 1 for entry in shown(replica, text=text)) == expected


def test_a_search_finds_part_of_a_fingerprint(replica: Replica) -> None:
    replica.apply([put(make_entry(number), 1) for number in range(1, 4)], at(1))
    assert shown(replica, text=fingerprint_of(2).text[10:30].upper()) == [make_entry(2)]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("sort", SortBy)
@pytest.mark.parametrize("fields", [{}, {"text": "user"}])
def test_pages_hold_each_entry_once_in_order_in_both_directions(
    replica: Replica, sort: SortBy, descending: bool, fields: dict[str, object]
) -> None:
    entries = [
        make_entry(
            number,
            make_sighting(cached_at=T0 - timedelta(days=number % 3), refreshed_at=T0 + timedelta(days=number % 4)),
            make_sighting(Origin.IMPORTED, cached_at=T0 - timedelta(days=5 - number % 2)),
            protocol=protocol,
            addresses=[f"user{number % 4}@example.org", "user9@example.org"] if number else [],
            names=("user",),
        )
        for number in range(12)
        for protocol in Protocol
    ]
    replica.apply([put(entry, 1) for entry in entries], at(1))

    def order(entry: Entry) -> tuple[object, str, Protocol]:
        value: object = {
            SortBy.ADDRESS: min((address.index for address in entry.key.addresses), default=""),
            SortBy.CACHED: min(sighting.cached_at for sighting in entry.sightings),
            SortBy.REFRESHED: max(sighting.refreshed_at for sighting in entry.sightings),
            SortBy.FINGERPRINT: "",
        }[sort]
        return value, entry.key.fingerprint.text, list(Protocol).index(entry.key.protocol)

    assert shown(replica, sort=sort, descending=descending, limit=5, **fields) == sorted(entries, key=order, reverse=descending)


def test_a_token_stays_good_when_entries_come_and_go(replica: Replica) -> None:
    entries = [make_entry(number, addresses=[f"u{number}@example.org"]) for number in range(6)]
    replica.apply([put(entry, 1) for entry in entries[:5]], at(1))
    first = replica.query(every(limit=2))
    replica.apply([gone(entries[1], 2), put(entries[5], 3), put(make_entry(9, addresses=["a@example.org"]), 4)], at(4))
    rest = replica.query(every(limit=10, after=first.next))
    assert [one.entry for one in (*first.entries, *rest.entries)] == entries


@pytest.mark.parametrize("token", ["x", "!", "é", "bnVsbA", "W10", "eyJhIjoxfQ", "A" * 10_000])
def test_a_token_that_is_none_is_refused(replica: Replica, token: str) -> None:
    with pytest.raises(InvalidInput):
        replica.query(every(after=token))


def test_a_token_of_another_order_or_direction_is_refused(replica: Replica) -> None:
    replica.apply([put(make_entry(number), 1) for number in range(3)], at(1))
    token = replica.query(every(limit=1)).next
    for fields in ({"sort": SortBy.CACHED}, {"sort": SortBy.FINGERPRINT}, {"descending": True}):
        with pytest.raises(InvalidInput):
            replica.query(every(after=token, **fields))


# Expiry
def test_an_entry_expires_at_its_timeout_to_the_microsecond(replica: Replica) -> None:
    entry = make_entry(1, make_sighting(Origin.LOOKED_UP, cached_at=T0, source="ldap://keys.example.org"))
    replica.apply([put(entry, 3)], at(3))
    over = T0 + TIMEOUTS.looked_up
    before = over - timedelta(microseconds=1)
    assert replica.counts(now=before, timeouts=TIMEOUTS) == Counts(live=1, expired=0, held=0)
    assert replica.expired(now=before, timeouts=TIMEOUTS) == []
    assert replica.counts(now=over, timeouts=TIMEOUTS) == Counts(live=0, expired=1, held=0)
    assert replica.expired(now=over, timeouts=TIMEOUTS) == [
        Candidate(
            protocol=Protocol.SMIME,
            fingerprint=entry.key.fingerprint,
            mod_revision=Revision(3),
            sightings=(make_sighting(Origin.LOOKED_UP, cached_at=T0, source=""),),
        )
    ]


def test_held_entries_count_apart_until_they_expire(replica: Replica) -> None:
    old = make_sighting(cached_at=T0 - timedelta(days=10))
    entries = [make_entry(1), make_entry(2, trust=Trust.HELD), make_entry(3, old, trust=Trust.HELD), make_entry(4, old)]
    replica.apply([put(entry, 1) for entry in entries], at(1))
    assert replica.counts(now=T0, timeouts=TIMEOUTS) == Counts(live=1, expired=2, held=1)


def test_what_expired_first_comes_first(replica: Replica) -> None:
    day = timedelta(days=1)
    entries = [
        make_entry(1, make_sighting(cached_at=T0 - 15 * day)),
        make_entry(2, make_sighting(Origin.LOOKED_UP, cached_at=T0 - 12 * day)),
        make_entry(3, make_sighting(Origin.IMPORTED, cached_at=T0 - 40 * day)),
        make_entry(4, make_sighting(cached_at=T0 - 40 * day), make_sighting(Origin.IMPORTED, cached_at=T0 - 21 * day)),
        make_entry(5),
    ]
    replica.apply([put(entry, 1) for entry in entries], at(1))
    names = [candidate.fingerprint for candidate in replica.expired(now=T0, timeouts=TIMEOUTS)]
    assert names == [fingerprint_of(number) for number in (3, 2, 1, 4)]


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
