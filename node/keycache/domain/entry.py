"""Entries: one key each, what is known of it, and where and when it was obtained.

All instants are aware datetimes in UTC. Expiry is never stored, only computed (`retention`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from keycache.domain.names import EmailAddress, Fingerprint

HISTORY_LIMIT = 20
"""Changes remembered per entry: a year of monthly refreshes and some more."""


class Protocol(Enum):
    SMIME = "SMIME"
    OPENPGP = "OPENPGP"


class Origin(Enum):
    """How a key was obtained; each has its own timeout."""

    HARVESTED = "HARVESTED"
    LOOKED_UP = "LOOKED_UP"
    IMPORTED = "IMPORTED"


class Trust(Enum):
    """ANCHORED: chain ends in a trusted root. BOUND: OpenPGP, valid self-signature. HELD: kept, not served by default."""

    ANCHORED = "ANCHORED"
    BOUND = "BOUND"
    HELD = "HELD"


class HeldReason(Enum):
    UNKNOWN_ISSUER = "UNKNOWN_ISSUER"
    SELF_SIGNED = "SELF_SIGNED"


class Defect(Enum):
    """Why a kept key must not be used whatever the time. (Validity in time is `not_before` / `not_after`.)"""

    REVOKED = "REVOKED"
    NO_ENCRYPTION_KEY = "NO_ENCRYPTION_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Who vouches for an S/MIME key: the highest issuer its chain names.

    `id`: 16 hex digits that group keys of one issuer. `name`: RFC 4514 text. `certificate`: its DER where we have it, so that
    approving it can release the keys; empty if only its name is known.
    """

    id: str
    name: str
    certificate: bytes = b""
    extra: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key as an examination found it, without when and whence.

    `material`: DER of one X.509 certificate, or a minimal binary OpenPGP certificate.
    `addresses`: those it is proven to be bound to. `names`: what a person would search for (subject, user IDs).
    `not_before`, `not_after`: the window in which it can encrypt; None is unbounded.
    `evidence_at`: signingTime or Autocrypt effective date of the newest message that showed or preferred it.
    `capabilities`: OIDs of the sender's SMIMECapabilities, best first. `prefer_encrypt`: Autocrypt's mutual.
    `extra`: encoded fields of a later version, carried along untouched.
    """

    protocol: Protocol
    fingerprint: Fingerprint
    material: bytes
    addresses: tuple[EmailAddress, ...]
    names: tuple[str, ...] = ()
    trust: Trust
    held: HeldReason | None = None
    issuer: Issuer | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    defect: Defect | None = None
    evidence_at: datetime | None = None
    capabilities: tuple[str, ...] = ()
    prefer_encrypt: bool = False
    algorithm: str = ""
    extra: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """That the key was obtained by one origin: first at `cached_at`, last at `refreshed_at`.

    `source`: the message's id, the key server's name or the imported file's name, for people to read.
    """

    origin: Origin
    source: str
    cached_at: datetime
    refreshed_at: datetime
    extra: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of an entry's history. `what`: CACHED, REFRESHED, ADDRESS_ADDED, UPDATED, RELEASED, REVOKED, IMPORTED."""

    at: datetime
    what: str
    by: str
    extra: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A key and its sightings, at most one per origin, in the order of `Origin`."""

    key: Key
    sightings: tuple[Sighting, ...]
    history: tuple[Change, ...] = ()
    extra: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        origins = [sighting.origin for sighting in self.sightings]
        if not origins or origins != sorted(set(origins), key=list(Origin).index):
            raise ValueError("an entry has one sighting per origin, at least one, in the order of Origin")

    def sighting(self, origin: Origin) -> Sighting | None:
        return next((s for s in self.sightings if s.origin is origin), None)
