"""The entry log as values: records, events, transactions, and the names of its keys (DESIGN 6).

Keys are relative to the cluster's prefix. The log orders transactions by revision; one transaction has one revision, and its
events are never split over two batches.
"""

from __future__ import annotations

from dataclasses import dataclass

from keycache.domain.entry import Protocol
from keycache.domain.names import Fingerprint, Revision

SETTINGS = "settings"
SETTINGS_HISTORY = "settings-history/"
ENTRIES = "entries/"
BLOCKS = "blocks/"
ISSUERS = "anchors/"
CHAIN = "chain/"
AUDIT = "audit/"

ABSENT = Revision(0)
"""As a compared mod_revision: the key must not exist."""


def entry_key(protocol: Protocol, fingerprint: Fingerprint) -> str:
    return f"{ENTRIES}{protocol.value.lower()}/{fingerprint.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    key: str
    value: bytes
    mod_revision: Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`value` None: deleted."""

    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """All events of one or more whole revisions up to `revision`, in order. May be empty: the log was heard at `revision`."""

    revision: Revision
    events: tuple[tuple[Revision, Event], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a listing; all pages of a listing are of the same `revision`."""

    revision: Revision
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """All or nothing. `compare`: key to the mod_revision it must still have (ABSENT: must not exist). The log itself adds the
    comparison of its identity (DESIGN 2.2)."""

    compare: dict[str, Revision]
    puts: dict[str, bytes]
    deletes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    revision: Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuted:
    """A comparison failed; nothing was written. `current`: the compared keys as they are now (None: absent)."""

    revision: Revision
    current: dict[str, Record | None]


CommitResult = Committed | Refuted
