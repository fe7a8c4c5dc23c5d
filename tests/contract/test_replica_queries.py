"""What every replica lists, searches, sorts and expires."""

from __future__ import annotations

from datetime import timedelta

import pytest

from contract.replicas import TIMEOUTS, at, every, shown
from keycache.domain.entry import Entry, Issuer, Origin, Protocol, Trust
from keycache.domain.errors import InvalidInput
from keycache.domain.names import Revision
from keycache.domain.ports import Counts, Replica, SortBy
from keycache.domain.purge import Candidate
from support.entries import T0, fingerprint_of, gone, make_entry, make_sighting, put


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
        ("un\x1fit", [2]),
    ],
)
def test_a_search_finds_any_part_of_address_name_or_fingerprint_whatever_the_case(
    replica: Replica, text: str, expected: list[int]
) -> None:
    entries = [
        make_entry(1),
        make_entry(2, names=("un\x1fit",)),
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
