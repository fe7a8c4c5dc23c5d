"""An entry's record read straight into what a replica keeps of it.

A first sync reads a million records and looks at none of them: building the domain's values of each on the way took ten times as
long as this (DESIGN 9). What `codec.decode_entry` refuses is refused here, and what it reads is read alike: `tests/facts` holds the
two together.
"""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from keycache.codec import decode, halves, to_us
from keycache.domain.entry import Defect, HeldReason
from keycache.domain.errors import InvalidInput
from keycache.domain.lookup import ORIGINS, PROTOCOLS, TRUSTS, EntryFacts
from keycache.domain.names import EmailAddress, Fingerprint
from keycache.v1 import entry_pb2

# Numbers on the wire are positions in the enum plus one, and 0 for none (`codec.wire_enum`).
_PROTOCOLS, _TRUSTS, _ORIGINS = (range(1, len(known) + 1) for known in (PROTOCOLS, TRUSTS, ORIGINS))
_REASONS, _DEFECTS = (range(len(known) + 1) for known in (HeldReason, Defect))

_FIRST, _LAST = to_us(datetime.min.replace(tzinfo=UTC)), to_us(datetime.max.replace(tzinfo=UTC))


def read_facts(value: bytes) -> EntryFacts:
    """Raises InvalidInput when the record is no entry that this version can read."""
    message = decode(entry_pb2.Entry, value)
    key = message.key
    if not (key.protocol in _PROTOCOLS and key.trust in _TRUSTS and key.held in _REASONS and key.defect in _DEFECTS):
        raise _unreadable("its key has a value of a later version")
    times: list[int | None] = [None] * (2 * len(ORIGINS))
    cached: list[int] = []
    refreshed: list[int] = []
    # A slice is a list at half the price of going through a repeated field.
    for sighting in message.sightings[:]:
        origin = sighting.origin
        if origin not in _ORIGINS or not sighting.HasField("cached_at") or not sighting.HasField("refreshed_at"):
            raise _unreadable("a sighting lacks origin, cached_at or refreshed_at")
        if times[2 * origin - 2] is not None:
            raise _unreadable("two sightings have one origin")
        cached.append(_us(sighting.cached_at))
        refreshed.append(_us(sighting.refreshed_at))
        times[2 * origin - 2 : 2 * origin] = cached[-1], refreshed[-1]
    if not cached:
        raise _unreadable("it has no sighting")
    for change in message.history[:]:
        _us(change.at)
    return EntryFacts(
        key.protocol - 1,
        Fingerprint.parse(key.fingerprint).text,
        key.trust - 1,
        tuple(times),  # type: ignore[arg-type] # mypy cannot count the six
        _us(key.not_before) if key.HasField("not_before") else None,
        _us(key.not_after) if key.HasField("not_after") else None,
        key.defect,
        _us(key.evidence_at) if key.HasField("evidence_at") else 0,
        min(cached),
        max(refreshed),
        tuple([EmailAddress.parse(address).text for address in key.addresses[:]]),
        tuple(key.names[:]),
        key.issuer.id,
        *halves(message),  # takes the key out of the message
    )


def _us(stamp: Timestamp) -> int:
    microseconds = stamp.seconds * 1_000_000 + stamp.nanos // 1000
    if not _FIRST <= microseconds <= _LAST:
        raise _unreadable(f"{stamp.seconds} seconds since 1970 is not a date")
    return microseconds


def _unreadable(why: str) -> InvalidInput:
    return InvalidInput(
        f"This record is not an entry that can be read: {why}.", hint="It may come from a later version; upgrade this node."
    )
