"""From the facts of entries to what a replica answers and sorts by. Pure; shared by the replica on SQLite and the one in memory."""

from __future__ import annotations

import hashlib

from keycache.domain.entry import Protocol, Trust
from keycache.domain.log import entry_key
from keycache.domain.lookup import PROTOCOLS, TRUSTS, EntryFacts, ReadyRow, Row, ready_origin
from keycache.domain.names import Fingerprint
from keycache.domain.ports import SortBy
from keycache.v1 import cache_pb2

PROTOCOL_NUMBER = {protocol: number for number, protocol in enumerate(PROTOCOLS)}
TRUST_NUMBER = {trust: number for number, trust in enumerate(TRUSTS)}
_HELD = TRUST_NUMBER[Trust.HELD]

DIGEST_MODULUS = 1 << 256


def row(address: str, facts: EntryFacts, mod_revision: int) -> Row:
    """`address` as the key spells it."""
    return Row(
        address,
        *facts[:3],
        *facts.times,
        facts.not_before,
        facts.not_after,
        facts.defect,
        facts.evidence,
        mod_revision,
        facts.key,
        facts.rest,
    )


Ready = tuple[int | None, int | None, bytes | None]
"""Of a ReadyRow: `origin`, `refreshed`, `sighted`; all None unless the entry is ready."""


def ready(facts: EntryFacts) -> Ready:
    origin = ready_origin(facts)
    if origin is None:
        return None, None, None
    cached, refreshed = facts.times[2 * origin], facts.times[2 * origin + 1]
    assert cached is not None
    assert refreshed is not None
    # Dictionaries: half the time of making a Timestamp and copying it.
    found = cache_pb2.FoundKey(origin=origin + 1, cached_at=_stamp(cached), refreshed_at=_stamp(refreshed))  # type: ignore[arg-type]
    return origin, refreshed, found.SerializeToString(deterministic=True)


def _stamp(microseconds: int) -> dict[str, int]:
    seconds, fraction = divmod(microseconds, 1_000_000)
    return {"seconds": seconds, "nanos": fraction * 1000}


def ready_row(place: int, facts: EntryFacts) -> ReadyRow:
    """`place` of the address in the question."""
    origin, refreshed, sighted = ready(facts)
    return place, origin, refreshed, facts.not_before, facts.not_after, sighted, facts.key


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


def searchable(facts: EntryFacts) -> str:
    """What `EntryQuery.text` is searched in, case folded: addresses, names and fingerprint, apart by a separator that no query can
    name, so that nothing is found across two of them."""
    parts = (*facts.addresses, *facts.names, facts.fingerprint)
    return _SEPARATOR.join([part.replace(_SEPARATOR, " ") for part in parts]).casefold()


def search_term(text: str) -> str:
    return text.replace(_SEPARATOR, " ").casefold()


_SEPARATOR = "\x1f"


def held_issuer(facts: EntryFacts) -> str:
    """The id that groups held entries; empty for others."""
    return facts.issuer if facts.trust == _HELD else ""


def first_address(facts: EntryFacts) -> str:
    """The least of the indexed addresses; empty without any."""
    return min([address.lower() for address in facts.addresses], default="")


def sort_value(facts: EntryFacts, sort: SortBy) -> str | int:
    """ADDRESS: the least address. CACHED: when it was first cached. REFRESHED: when it was last refreshed. Origins do not count."""
    if sort is SortBy.ADDRESS:
        return first_address(facts)
    if sort is SortBy.CACHED:
        return facts.cached
    if sort is SortBy.REFRESHED:
        return facts.refreshed
    return facts.fingerprint
