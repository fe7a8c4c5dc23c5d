"""From log records to what the replica must change. Pure; the replicator carries it out (DESIGN 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from keycache.codec.facts import read_facts
from keycache.domain.entry import Protocol
from keycache.domain.errors import InvalidInput
from keycache.domain.log import ENTRIES, Event, Record
from keycache.domain.lookup import PROTOCOLS, EntryFacts
from keycache.domain.names import Fingerprint, Revision
from keycache.domain.ports import DocumentChange, EntryChange, ReplicaChange


def reduce_events(events: Iterable[tuple[Revision, Event]]) -> Iterator[ReplicaChange]:
    """The changes of each event, in order. A record this version cannot read is kept as a document, so that nothing of the log is
    lost and a later version finds it; it is just not served here, and what it replaces is not either."""
    for revision, event in events:
        yield from _reduced(event.key, event.value, revision)


def reduce_records(records: Iterable[Record]) -> Iterator[ReplicaChange]:
    """The same for a listing."""
    for record in records:
        yield from _reduced(record.key, record.value, record.mod_revision)


def _reduced(key: str, value: bytes | None, revision: Revision) -> tuple[ReplicaChange, ...]:
    named = _entry_name(key)
    if named is None:
        return (DocumentChange(key=key, revision=revision, value=value),)
    protocol, fingerprint = named
    facts = None if value is None else _read(value, protocol, fingerprint)
    kept = b"" if facts is None or value is None else value
    entry = EntryChange(protocol=protocol, fingerprint=fingerprint, revision=revision, facts=facts, value=kept)
    if value is not None and facts is None:
        return entry, DocumentChange(key=key, revision=revision, value=value)
    return (entry,)


def _read(value: bytes, protocol: Protocol, fingerprint: Fingerprint) -> EntryFacts | None:
    """None: not an entry of that name that this version can read."""
    try:
        facts = read_facts(value)
    except InvalidInput:
        return None
    return facts if PROTOCOLS[facts.protocol] is protocol and facts.fingerprint == fingerprint.text else None


def _entry_name(key: str) -> tuple[Protocol, Fingerprint] | None:
    if not key.startswith(ENTRIES):
        return None
    protocol, slash, fingerprint = key.removeprefix(ENTRIES).partition("/")
    try:
        return (Protocol(protocol.upper()), Fingerprint.parse(fingerprint)) if slash else None
    except (ValueError, InvalidInput):
        return None
