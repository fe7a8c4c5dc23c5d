"""From log records to what the replica must change. Pure; the replicator carries it out (DESIGN 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from keycache.codec import decode_entry
from keycache.domain.entry import Entry, Protocol
from keycache.domain.errors import InvalidInput
from keycache.domain.log import ENTRIES, Event, Record
from keycache.domain.names import Fingerprint, Revision
from keycache.domain.ports import DocumentChange, EntryChange, ReplicaChange


def reduce_events(events: Iterable[tuple[Revision, Event]]) -> Iterator[ReplicaChange]:
    """The changes of each event, in order. A record this version cannot read is kept as a document, so that nothing of the log is
    lost and a later version finds it; it is just not served here, and what it replaces is not either."""
    for revision, event in events:
        yield from _reduce(event.key, event.value, revision)


def reduce_records(records: Iterable[Record]) -> Iterator[ReplicaChange]:
    """The same for a listing."""
    for record in records:
        yield from _reduce(record.key, record.value, record.mod_revision)


def _reduce(key: str, value: bytes | None, revision: Revision) -> Iterator[ReplicaChange]:
    named = _entry_name(key)
    if named is None:
        yield DocumentChange(key=key, revision=revision, value=value)
        return
    entry = None if value is None else _read(value, named)
    protocol, fingerprint = named
    yield EntryChange(
        protocol=protocol, fingerprint=fingerprint, revision=revision, entry=entry, value=b"" if entry is None else value or b""
    )
    if value is not None and entry is None:
        yield DocumentChange(key=key, revision=revision, value=value)


def _read(value: bytes, named: tuple[Protocol, Fingerprint]) -> Entry | None:
    """None: not an entry of that name that this version can read."""
    try:
        entry = decode_entry(value)
    except InvalidInput:
        return None
    return entry if (entry.key.protocol, entry.key.fingerprint) == named else None


def _entry_name(key: str) -> tuple[Protocol, Fingerprint] | None:
    if not key.startswith(ENTRIES):
        return None
    protocol, slash, fingerprint = key.removeprefix(ENTRIES).partition("/")
    try:
        return (Protocol(protocol.upper()), Fingerprint.parse(fingerprint)) if slash else None
    except (ValueError, InvalidInput):
        return None
