"""Plain builders and hypothesis strategies for keys, sightings and entries. The material is not real: no parser is meant to see it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from keycache import codec
from keycache.codec.facts import read_facts
from keycache.domain.entry import Change, Defect, Entry, HeldReason, Issuer, Key, Origin, Protocol, Sighting, Trust
from keycache.domain.log import entry_key
from keycache.domain.lookup import EntryFacts
from keycache.domain.names import EmailAddress, Fingerprint, Revision
from keycache.domain.ports import EntryChange

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
"""The instant that tests call now, unless they say otherwise."""


def fingerprint_of(number: int, protocol: Protocol = Protocol.SMIME) -> Fingerprint:
    """A fingerprint of the length the protocol usually has; equal numbers give equal fingerprints."""
    digits = hashlib.sha256(f"{protocol.value} {number}".encode()).hexdigest()
    return Fingerprint(digits if protocol is Protocol.SMIME else digits[:40])


def make_key(
    number: int = 1,
    *,
    protocol: Protocol = Protocol.SMIME,
    addresses: Iterable[str] | None = None,
    trust: Trust | None = None,
    material_size: int = 64,
    **fields: Any,
) -> Key:
    """Key number `number`, bound to user<number>@example.org unless `addresses` are given. `fields` as in Key."""
    if trust is None:
        trust = Trust.ANCHORED if protocol is Protocol.SMIME else Trust.BOUND
    if trust is Trust.HELD:
        fields.setdefault("held", HeldReason.UNKNOWN_ISSUER)
        fields.setdefault("issuer", Issuer(id=f"{number % 7:016x}", name=f"CN=Issuer {number % 7}"))
    texts = [f"user{number}@example.org"] if addresses is None else addresses
    block = hashlib.sha256(f"material {protocol.value} {number}".encode()).digest()
    fields.setdefault("fingerprint", fingerprint_of(number, protocol))
    return Key(
        protocol=protocol,
        material=(block * (material_size // len(block) + 1))[:material_size],
        addresses=tuple(EmailAddress.parse(text) for text in texts),
        trust=trust,
        **fields,
    )


def make_sighting(
    origin: Origin = Origin.HARVESTED,
    *,
    cached_at: datetime = T0,
    refreshed_at: datetime | None = None,
    source: str = "<mail@example.org>",
) -> Sighting:
    """Refreshed when it was cached, unless told otherwise."""
    return Sighting(origin=origin, source=source, cached_at=cached_at, refreshed_at=refreshed_at or cached_at)


def make_entry(number: int = 1, *sightings: Sighting, history: tuple[Change, ...] = (), **key: Any) -> Entry:
    """Key number `number` with these sightings (one harvested at T0 by default). `key` as in `make_key`."""
    return Entry(key=make_key(number, **key), sightings=sightings or (make_sighting(),), history=history)


def put(entry: Entry, revision: int) -> EntryChange:
    """The word of a replicator that this entry is now so."""
    return EntryChange(
        protocol=entry.key.protocol,
        fingerprint=entry.key.fingerprint,
        revision=Revision(revision),
        facts=facts_of(entry),
        value=codec.encode_entry(entry),
    )


def gone(entry: Entry, revision: int) -> EntryChange:
    """The word of a replicator that this entry is no more."""
    return EntryChange(protocol=entry.key.protocol, fingerprint=entry.key.fingerprint, revision=Revision(revision), facts=None)


def facts_of(entry: Entry) -> EntryFacts:
    """What a replica keeps of it."""
    return read_facts(codec.encode_entry(entry))


def record_of(entry: Entry) -> tuple[str, bytes]:
    """Name and value of the entry's record in the log."""
    return entry_key(entry.key.protocol, entry.key.fingerprint), codec.encode_entry(entry)


# Strategies. Small alphabets on purpose: collisions are where the faults are.
def texts(max_size: int = 20) -> st.SearchStrategy[str]:
    """Any text that protobuf can carry, with what SQL and search treat specially well represented."""
    special = st.sampled_from(["%", "_", "\\", "'", '"', "\x00", "\n", "ß", "İ", "Ä", "\x1f", "*", "?", "["])
    plain = st.characters(codec="utf-8")
    return st.text(st.one_of(special, plain), max_size=max_size)


def instants(
    first: datetime = datetime(2024, 1, 1, tzinfo=UTC), last: datetime = datetime(2029, 1, 1, tzinfo=UTC)
) -> st.SearchStrategy[datetime]:
    """Aware, UTC, to the microsecond, both ends included."""
    span = (last - first) // timedelta(microseconds=1)
    return st.integers(0, span).map(lambda offset: first + timedelta(microseconds=offset))


def addresses() -> st.SearchStrategy[EmailAddress]:
    """Few addresses in several spellings, some with characters that LIKE would take for wildcards."""
    locals_ = st.sampled_from(["bob", "Bob", "alice", "a_b", "a%b", "axb", "o'neil", "jürgen", "JÜRGEN", "x+tag"])
    domains = st.sampled_from(["example.org", "EXAMPLE.org", "sub.example.org", "bücher.example", "example.com"])
    return st.builds(lambda local, domain: EmailAddress.parse(f"{local}@{domain}"), locals_, domains)


def fingerprints(*, numbers: int = 1000) -> st.SearchStrategy[Fingerprint]:
    return st.builds(fingerprint_of, st.integers(0, numbers - 1), st.sampled_from(Protocol))


@st.composite
def keys(draw: st.DrawFn, *, numbers: int = 1000) -> Key:
    """A Key of any kind; fingerprint and protocol come from `numbers` possibilities each."""
    protocol = draw(st.sampled_from(Protocol))
    trust = draw(st.sampled_from(Trust))
    issuer = draw(st.none() | st.builds(Issuer, id=st.sampled_from(["00" * 8, "ab" * 8]), name=texts()))
    return Key(
        protocol=protocol,
        fingerprint=fingerprint_of(draw(st.integers(0, numbers - 1)), protocol),
        material=draw(st.binary(max_size=40)),
        addresses=tuple(draw(st.lists(addresses(), max_size=3, unique=True))),
        names=tuple(draw(st.lists(texts(), max_size=2))),
        trust=trust,
        held=draw(st.sampled_from(HeldReason)) if trust is Trust.HELD else None,
        issuer=issuer,
        not_before=draw(st.none() | instants()),
        not_after=draw(st.none() | instants()),
        defect=draw(st.none() | st.sampled_from(Defect)),
        evidence_at=draw(st.none() | instants()),
        capabilities=tuple(draw(st.lists(st.sampled_from(["2.16.840.1.101.3.4.1.42", "1.2.840.113549.3.7"]), max_size=2))),
        prefer_encrypt=draw(st.booleans()),
        algorithm=draw(st.sampled_from(["", "RSA 3072", "EC P-256"])),
    )


@st.composite
def sightings(draw: st.DrawFn, origin: Origin, *, at: st.SearchStrategy[datetime] | None = None) -> Sighting:
    """Cached before it is refreshed, or at once."""
    first, last = sorted((draw(instants() if at is None else at), draw(instants() if at is None else at)))
    return Sighting(origin=origin, source=draw(texts()), cached_at=first, refreshed_at=last)


@st.composite
def entries(draw: st.DrawFn, *, numbers: int = 1000, at: st.SearchStrategy[datetime] | None = None) -> Entry:
    """An Entry with one to three sightings; `at` draws their instants."""
    origins = draw(st.sets(st.sampled_from(Origin), min_size=1))
    whats = st.sampled_from(["CACHED", "REFRESHED", "REVOKED"])
    return Entry(
        key=draw(keys(numbers=numbers)),
        sightings=tuple(draw(sightings(origin, at=at)) for origin in Origin if origin in origins),
        history=tuple(draw(st.lists(st.builds(Change, at=instants(), what=whats, by=texts()), max_size=2))),
    )
