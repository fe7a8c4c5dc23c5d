"""From log records to what the replica must change. Pure; the replicator carries it out (DESIGN 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from keycache.codec import decode_entry
from keycache.domain.entry import Protocol
from keycache.domain.errors import InvalidInput
from keycache.domain.log import ENTRIES, Event, Record
from keycache.domain.names import Fingerprint, Revision
from keycache.domain.ports import DocumentChange, EntryChange, ReplicaChange


def reduce_events(events: Iterable[tuple[Revision, Event]]) -> Iterator[ReplicaChange]:
    """One change per event, in order. A record this version cannot read is kept as a document, so that nothing of the log is
    lost and a later version finds it; it is just not served here."""
    for revision, event in events:
        yield _reduce(event.key, event.value, revision)


def reduce_records(records: Iterable[Record]) -> Iterator[ReplicaChange]:
    """The same for a listing."""
    for record in records:
        yield _reduce(record.key, record.value, record.mod_revision)


def _reduce(key: str, value: bytes | None, revision: Revision) -> ReplicaChange:
    named = _entry_name(key)
    if named is None:
        return DocumentChange(key=key, revision=revision, value=value)
    protocol, fingerprint = named
    if value is None:
        return EntryChange(protocol=protocol, fingerprint=fingerprint, revision=revision, entry=None)
    try:
        entry = decode_entry(value)
    except InvalidInput:
        return DocumentChange(key=key, revision=revision, value=value)
    if (entry.key.protocol, entry.key.fingerprint) != named:
        return DocumentChange(key=key, revision=revision, value=value)
    return EntryChange(protocol=protocol, fingerprint=fingerprint, revision=revision, entry=entry, value=value)


def _entry_name(key: str) -> tuple[Protocol, Fingerprint] | None:
    if not key.startswith(ENTRIES):
        return None
    protocol, slash, fingerprint = key.removeprefix(ENTRIES).partition("/")
    try:
        return (Protocol(protocol.upper()), Fingerprint.parse(fingerprint)) if slash else None
    except (ValueError, InvalidInput):
        return None
