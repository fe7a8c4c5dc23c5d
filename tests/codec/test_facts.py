"""What is read straight from a record is what its entry says, and a record that is no entry is refused by both ways alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from keycache import codec
from keycache.codec.facts import read_facts
from keycache.domain.entry import Change, Entry, Issuer, Origin, Protocol
from keycache.domain.errors import InvalidInput
from keycache.domain.lookup import ORIGINS, PROTOCOLS, TRUSTS, EntryFacts
from keycache.v1 import entry_pb2
from support.entries import T0, entries, instants, make_entry, make_sighting
from support.properties import bounded

FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
US = timedelta(microseconds=1)


def straight(value: bytes) -> EntryFacts | None:
    """None: refused."""
    try:
        return read_facts(value)
    except InvalidInput:
        return None


def by_way_of_the_entry(value: bytes) -> EntryFacts | None:
    try:
        entry = codec.decode_entry(value)
    except InvalidInput:
        return None
    message = codec.decode(entry_pb2.Entry, value)
    half = message.key.SerializeToString(deterministic=True)
    message.ClearField("key")
    key, sightings = entry.key, [entry.sighting(origin) for origin in ORIGINS]
    times = [None if one is None else codec.to_us(at) for one in sightings for at in _times(one)]
    return EntryFacts(
        protocol=PROTOCOLS.index(key.protocol),
        fingerprint=key.fingerprint.text,
        trust=TRUSTS.index(key.trust),
        times=tuple(times),  # type: ignore[arg-type]
        not_before=None if key.not_before is None else codec.to_us(key.not_before),
        not_after=None if key.not_after is None else codec.to_us(key.not_after),
        defect=codec.wire_enum(key.defect),
        evidence=0 if key.evidence_at is None else codec.to_us(key.evidence_at),
        cached=codec.to_us(min(one.cached_at for one in entry.sightings)),
        refreshed=codec.to_us(max(one.refreshed_at for one in entry.sightings)),
        addresses=tuple(address.text for address in key.addresses),
        names=key.names,
        issuer="" if key.issuer is None else key.issuer.id,
        key=half,
        rest=message.SerializeToString(deterministic=True),
    )


def _times(sighting: Any) -> tuple[Any, Any]:
    return (None, None) if sighting is None else (sighting.cached_at, sighting.refreshed_at)


@bounded(100)
@given(entry=entries(at=instants() | instants(FIRST, LAST)))
def test_facts_are_those_of_the_entry(entry: Entry) -> None:
    value = codec.encode_entry(entry)
    facts = straight(value)
    assert facts is not None
    assert facts == by_way_of_the_entry(value)
    assert codec.entry_of_halves(facts.key, facts.rest) == entry


# Records that another program, another version or a fault may have written.
UNKNOWN = b"\xca\x3e\x03new"
"""Field 1001, which is none of ours."""

enums = st.sampled_from([0, 1, 2, 3, 4, 9, -1])
stamps = st.builds(
    Timestamp,
    seconds=st.sampled_from([0, 1, -1, -62_135_596_800, -62_135_596_801, 253_402_300_799, 253_402_300_800, 2**62, -(2**62)]),
    nanos=st.sampled_from([0, 1, 999, 1000, 999_999_999, -1, 1_000_000_000, 2**31 - 1, -(2**31)]),
)
spellings = st.sampled_from(
    [
        "bob@example.org",
        "Bob@EXAMPLE.org",
        " bob@example.org ",
        '"bob"@example.org',
        "bob@bücher.example",
        "bob@example.org.",
        "@",
        "b ob@x.y",
        "",
    ]
)
fingerprints = st.sampled_from(["ab" * 20, "AB" * 20, "ab:" * 20, "0x" + "ab" * 32, " " + "ab" * 32, "ab" * 21, "", "ß" * 40])


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """An entry with a few fields set to anything that the wire allows."""
    message = codec.entry_to_wire(draw(entries(numbers=3)))
    key = message.key
    acts = {
        "protocol": lambda: setattr(key, "protocol", draw(enums)),
        "trust": lambda: setattr(key, "trust", draw(enums)),
        "held": lambda: setattr(key, "held", draw(enums)),
        "defect": lambda: setattr(key, "defect", draw(enums)),
        "fingerprint": lambda: setattr(key, "fingerprint", draw(fingerprints)),
        "address": lambda: key.addresses.append(draw(spellings)),
        "not_before": lambda: key.not_before.CopyFrom(draw(stamps)),
        "not_after": lambda: key.not_after.CopyFrom(draw(stamps)),
        "evidence_at": lambda: key.evidence_at.CopyFrom(draw(stamps)),
        "issuer": key.issuer.SetInParent,
        "origin": lambda: setattr(message.sightings[0], "origin", draw(enums)),
        "cached_at": lambda: message.sightings[0].cached_at.CopyFrom(draw(stamps)),
        "refreshed_at": lambda: message.sightings[0].refreshed_at.CopyFrom(draw(stamps)),
        "without": lambda: message.sightings[0].ClearField(
            draw(st.sampled_from(["origin", "source", "cached_at", "refreshed_at"]))
        ),
        "again": lambda: message.sightings.add().CopyFrom(message.sightings[0]),
        "reversed": message.sightings.reverse,
        "unknown": lambda: draw(st.sampled_from([message, key, *message.sightings, key.issuer, key.not_after])).MergeFromString(
            UNKNOWN
        ),
        "change": lambda: message.history.add().at.CopyFrom(draw(stamps)),
    }
    for name in draw(st.lists(st.sampled_from(sorted(acts)), min_size=1, max_size=3)):
        acts[name]()
    return message.SerializeToString()


@bounded(400)
@given(value=spoiled())
def test_a_record_with_odd_fields_is_read_or_refused_by_both_ways_alike(value: bytes) -> None:
    assert straight(value) == by_way_of_the_entry(value)


@bounded(200)
@given(entry=entries(numbers=3), data=st.data())
def test_damaged_bytes_are_read_or_refused_by_both_ways_alike(entry: Entry, data: st.DataObject) -> None:
    value = bytearray(codec.encode_entry(entry))
    for place in data.draw(st.lists(st.integers(0, len(value) - 1), max_size=3)):
        value[place] = data.draw(st.integers(0, 255))
    damaged = bytes(value[: data.draw(st.integers(0, len(value)))])
    assert straight(damaged) == by_way_of_the_entry(damaged)
    assert straight(bytes(value)) == by_way_of_the_entry(bytes(value))


@bounded(100)
@given(value=st.binary(max_size=60))
@example(b"")
def test_any_bytes_are_read_or_refused_by_both_ways_alike(value: bytes) -> None:
    assert straight(value) == by_way_of_the_entry(value)


def test_the_halves_of_a_record_in_another_order_or_in_pieces_are_those_of_the_record_in_order() -> None:
    issuer = Issuer(id="ab" * 8, name="CN=A")
    entry = make_entry(
        1, make_sighting(), make_sighting(Origin.IMPORTED), issuer=issuer, history=(Change(at=T0, what="CACHED", by="x"),)
    )
    facts = read_facts(codec.encode_entry(entry))
    framed = entry_pb2.Entry(key=entry_pb2.Key.FromString(facts.key)).SerializeToString()
    part = entry_pb2.Entry(key=entry_pb2.Key(names=["one more"])).SerializeToString()
    assert read_facts(facts.rest + framed) == facts
    assert straight(framed + facts.rest + part) == by_way_of_the_entry(framed + facts.rest + part)


def test_what_a_later_version_says_stays_in_the_halves_and_changes_no_fact() -> None:
    message = codec.entry_to_wire(make_entry(1))
    plain = read_facts(message.SerializeToString())
    for part in (message, message.key, message.sightings[0], message.sightings[0].cached_at):
        part.MergeFromString(UNKNOWN)
    value = message.SerializeToString()
    facts = read_facts(value)
    assert facts == by_way_of_the_entry(value)
    assert facts._replace(key=plain.key, rest=plain.rest) == plain
    assert (facts.key.count(UNKNOWN), facts.rest.count(UNKNOWN)) == (1, 3)


@pytest.mark.parametrize("protocol", Protocol)
def test_times_that_no_sighting_has_are_none(protocol: Protocol) -> None:
    entry = make_entry(1, make_sighting(Origin.LOOKED_UP, cached_at=T0 - US, refreshed_at=T0), protocol=protocol)
    facts = read_facts(codec.encode_entry(entry))
    assert facts.times == (None, None, codec.to_us(T0) - 1, codec.to_us(T0), None, None)
    assert (facts.cached, facts.refreshed) == (codec.to_us(T0) - 1, codec.to_us(T0))
