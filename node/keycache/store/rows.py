"""From entries to what a replica answers and sorts by. Pure; shared by the replica on SQLite and the one in memory."""

from __future__ import annotations

import hashlib

from keycache import codec
from keycache.domain.entry import Entry, Protocol, Trust
from keycache.domain.log import entry_key
from keycache.domain.lookup import ORIGINS, PROTOCOLS, TRUSTS, ReadyRow, Row, ready_sighting
from keycache.domain.names import Fingerprint
from keycache.domain.ports import SortBy
from keycache.v1 import cache_pb2

PROTOCOL_NUMBER = {protocol: number for number, protocol in enumerate(PROTOCOLS)}
_ORIGIN_NUMBER = {origin: number for number, origin in enumerate(ORIGINS)}
TRUST_NUMBER = {trust: number for number, trust in enumerate(TRUSTS)}

DIGEST_MODULUS = 1 << 256

Facts = tuple[
    int, str, int, int | None, int | None, int | None, int | None, int | None, int | None, int | None, int | None, int, int
]
"""The columns of a Row from `protocol` to `evidence`."""


def facts(entry: Entry) -> Facts:
    key = entry.key
    times: list[int | None] = [None] * (2 * len(ORIGINS))
    for sighting in entry.sightings:
        place = 2 * _ORIGIN_NUMBER[sighting.origin]
        times[place : place + 2] = codec.to_us(sighting.cached_at), codec.to_us(sighting.refreshed_at)
    return (
        PROTOCOL_NUMBER[key.protocol],
        key.fingerprint.text,
        TRUST_NUMBER[key.trust],
        *times,
        None if key.not_before is None else codec.to_us(key.not_before),
        None if key.not_after is None else codec.to_us(key.not_after),
        codec.wire_enum(key.defect),
        0 if key.evidence_at is None else codec.to_us(key.evidence_at),
    )  # type: ignore[return-value] # the six times, which mypy cannot count


def row(address: str, entry: Entry, mod_revision: int, value: bytes) -> Row:
    """`address` as the key spells it; `value` the entry's record."""
    return Row(address, *facts(entry), mod_revision, *codec.halves(value))


Ready = tuple[int | None, int | None, bytes | None]
"""Of a ReadyRow: `origin`, `refreshed`, `sighted`; all None unless the entry is ready."""


def ready(entry: Entry) -> Ready:
    sighting = ready_sighting(entry)
    if sighting is None:
        return None, None, None
    found = cache_pb2.FoundKey(
        origin=codec.wire_enum(sighting.origin),  # type: ignore[arg-type]
        cached_at=codec.timestamp(sighting.cached_at),
        refreshed_at=codec.timestamp(sighting.refreshed_at),
    )
    return _ORIGIN_NUMBER[sighting.origin], codec.to_us(sighting.refreshed_at), found.SerializeToString(deterministic=True)


def ready_row(place: int, entry: Entry, value: bytes) -> ReadyRow:
    """`place` of the address in the question; `value` the entry's record."""
    known = Row("", *facts(entry), 0, *codec.halves(value))
    origin, refreshed, sighted = ready(entry)
    return place, origin, refreshed, known.not_before, known.not_after, sighted, known.key


def record_hash(protocol: Protocol, fingerprint: Fingerprint, value: bytes) -> bytes:
    """SHA-256 over name, NUL and value of a record: one summand of the digest."""
    hasher = hashlib.sha256(entry_key(protocol, fingerprint).encode())
    hasher.update(b"\0")
    hasher.update(value)
    return hasher.digest()


def digest_text(total: int) -> str:
    """The digest as shown: the sum of the records' hashes modulo 2^256, so that it can follow every change and does not depend on
    the order of changes (an additive multiset hash). It finds differences between honest nodes; it is no signature."""
    return f"{total % DIGEST_MODULUS:064x}"


def searchable(entry: Entry) -> str:
    """What `EntryQuery.text` is searched in, case folded: addresses, names and fingerprint, apart by a separator that no query can
    name, so that nothing is found across two of them."""
    key = entry.key
    parts = (*(address.text for address in key.addresses), *key.names, key.fingerprint.text)
    return _SEPARATOR.join(part.replace(_SEPARATOR, " ") for part in parts).casefold()


def search_term(text: str) -> str:
    return text.replace(_SEPARATOR, " ").casefold()


_SEPARATOR = "\x1f"


def held_issuer(entry: Entry) -> str:
    """The id that groups held entries; empty for others."""
    return entry.key.issuer.id if entry.key.trust is Trust.HELD and entry.key.issuer is not None else ""


def first_address(entry: Entry) -> str:
    """The least of the indexed addresses; empty without any."""
    return min((address.index for address in entry.key.addresses), default="")


def sort_value(entry: Entry, sort: SortBy) -> str | int:
    """ADDRESS: the least address. CACHED: when it was first cached. REFRESHED: when it was last refreshed. Origins do not count."""
    if sort is SortBy.ADDRESS:
        return first_address(entry)
    if sort is SortBy.CACHED:
        return codec.to_us(min(sighting.cached_at for sighting in entry.sightings))
    if sort is SortBy.REFRESHED:
        return codec.to_us(max(sighting.refreshed_at for sighting in entry.sightings))
    return entry.key.fingerprint.text
