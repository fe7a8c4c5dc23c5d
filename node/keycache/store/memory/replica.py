"""A replica of plain dictionaries."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from keycache.codec import decode_entry
from keycache.domain.entry import Protocol, Sighting, Trust
from keycache.domain.errors import ForeignLog
from keycache.domain.log import (
    Record,
    entry_key,
)
from keycache.domain.lookup import EntryFacts, ReadyRow, Row
from keycache.domain.names import Fingerprint, Revision
from keycache.domain.ports import Counts, Cursor, DocumentChange, EntryChange, EntryPage, EntryQuery, ReplicaChange, StoredEntry
from keycache.domain.purge import Candidate
from keycache.domain.retention import entry_expires_at, is_expired
from keycache.domain.settings import Timeouts
from keycache.store.paging import Place, place_of, token
from keycache.store.rows import (
    digest_text,
    held_issuer,
    ready_row,
    record_hash,
    row,
    search_term,
    searchable,
    sort_value,
)

Name = tuple[Protocol, Fingerprint]


class _Kept:
    """One entry of the replica."""

    def __init__(self, change: EntryChange, facts: EntryFacts) -> None:
        self.facts = facts
        self.entry = decode_entry(change.value)
        self.value = change.value
        self.mod_revision = change.revision
        self.place_end = (facts.fingerprint, facts.protocol)

    def row(self, address: str) -> Row:
        return row(address, self.facts, self.mod_revision)


class MemoryReplica:
    """The `Replica` port. One lock around everything, so that no thread sees half a batch."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._entries: dict[Name, _Kept] = {}
        self._documents: dict[str, Record] = {}
        self._cursor: Cursor | None = None
        self._high_water: datetime | None = None

    # reads
    def cursor(self) -> Cursor | None:
        return self._cursor

    def lookup(self, addresses: Sequence[str]) -> dict[str, list[Row]]:
        with self._lock:
            answer: dict[str, list[Row]] = {}
            for kept in self._entries.values():
                for address in kept.entry.key.addresses:
                    if address.index in addresses:
                        answer.setdefault(address.index, []).append(kept.row(address.text))
            return answer

    def lookup_ready(self, addresses: Sequence[str]) -> builtins.list[ReadyRow]:
        with self._lock:
            return [
                ready_row(place, kept.facts)
                for place, asked in enumerate(addresses)
                for kept in self._entries.values()
                for address in kept.entry.key.addresses
                if address.index == asked
            ]

    def lookup_fingerprint(self, fingerprint: Fingerprint) -> list[Row]:
        with self._lock:
            found = [
                self._entries[name] for name in ((protocol, fingerprint) for protocol in Protocol) if name in self._entries
            ]
            return [kept.row("") for kept in found]

    def entry(self, protocol: Protocol, fingerprint: Fingerprint) -> StoredEntry | None:
        with self._lock:
            kept = self._entries.get((protocol, fingerprint))
            return None if kept is None else StoredEntry(entry=kept.entry, mod_revision=kept.mod_revision)

    def query(self, query: EntryQuery) -> EntryPage:
        with self._lock:
            place = place_of(query)
            rows = sorted(
                ((Place(sort_value(kept.facts, query.sort), *kept.place_end), kept) for kept in self._matching(query)),
                key=lambda one: one[0],
                reverse=query.descending,
            )
        if place is not None:
            rows = [one for one in rows if (one[0] < place if query.descending else one[0] > place)]
        shown = rows[: max(1, query.limit)]
        return EntryPage(
            entries=tuple(StoredEntry(entry=kept.entry, mod_revision=kept.mod_revision) for _, kept in shown),
            next=token(query, shown[-1][0]) if len(rows) > len(shown) else "",
        )

    def count(self, query: EntryQuery) -> int:
        with self._lock:
            return len(self._matching(query))

    def counts(self, *, now: datetime, timeouts: Timeouts) -> Counts:
        with self._lock:
            unexpired = [kept for kept in self._entries.values() if not is_expired(kept.entry, timeouts, now)]
            held = sum(kept.entry.key.trust is Trust.HELD for kept in unexpired)
            return Counts(live=len(unexpired) - held, expired=len(self._entries) - len(unexpired), held=held)

    def expired(self, *, now: datetime, timeouts: Timeouts) -> list[Candidate]:
        """As on SQLite: those first whose time ran out first, without the sources of their sightings."""
        with self._lock:
            over = [kept for kept in self._entries.values() if is_expired(kept.entry, timeouts, now)]
        over.sort(key=lambda kept: (entry_expires_at(kept.entry, timeouts), *kept.place_end))
        return [
            Candidate(
                protocol=kept.entry.key.protocol,
                fingerprint=kept.entry.key.fingerprint,
                mod_revision=kept.mod_revision,
                sightings=tuple(
                    Sighting(origin=one.origin, source="", cached_at=one.cached_at, refreshed_at=one.refreshed_at)
                    for one in kept.entry.sightings
                ),
            )
            for kept in over
        ]

    def document(self, key: str) -> Record | None:
        return self._documents.get(key)

    def documents(self, prefix: str) -> list[Record]:
        """In the order of keys."""
        with self._lock:
            return [self._documents[key] for key in sorted(self._documents) if key.startswith(prefix)]

    def digest(self) -> str:
        with self._lock:
            hashes = (record_hash(*name, kept.value) for name, kept in self._entries.items())
            return digest_text(sum(int.from_bytes(one, "big") for one in hashes))

    def revisions(self, first: str, last: str) -> dict[str, Revision]:
        with self._lock:
            found = {entry_key(*name): kept.mod_revision for name, kept in self._entries.items()}
            found.update({key: record.mod_revision for key, record in self._documents.items()})
        return {key: revision for key, revision in found.items() if first <= key < last}

    def newest(self, limit: int) -> list[tuple[str, Revision]]:
        with self._lock:
            found = [(entry_key(*name), kept.mod_revision) for name, kept in self._entries.items()]
        return sorted(found, key=lambda one: one[1], reverse=True)[:limit]

    def high_water(self) -> datetime | None:
        return self._high_water

    # writes
    def apply(self, changes: Iterable[ReplicaChange], cursor: Cursor) -> None:
        with self._lock:
            if self._cursor is not None and self._cursor.identity != cursor.identity:
                raise ForeignLog(
                    f"The replica holds what log {self._cursor.identity} held, and this change comes from log {cursor.identity}.",
                    hint="Run 'keycache cluster check' to see what to do.",
                )
            floor = 0 if self._cursor is None else self._cursor.revision
            entries, documents = dict(self._entries), dict(self._documents)
            latest: dict[Name | str, int] = {name: kept.mod_revision for name, kept in entries.items()}
            latest.update({key: record.mod_revision for key, record in documents.items()})
            for change in changes:
                key = change.key if isinstance(change, DocumentChange) else (change.protocol, change.fingerprint)
                if change.revision > max(floor, latest.get(key, 0)):
                    latest[key] = change.revision
                    _put(change, entries, documents)
            self._entries, self._documents = entries, documents
            self._cursor = Cursor(identity=cursor.identity, revision=Revision(max(floor, cursor.revision)))

    def replace(self, changes: Iterator[Sequence[ReplicaChange]], cursor: Cursor) -> None:
        """Reads go on meanwhile, as on SQLite: they may come from the very thread that `changes` waits for."""
        entries: dict[Name, _Kept] = {}
        documents: dict[str, Record] = {}
        for chunk in changes:
            for change in chunk:
                _put(change, entries, documents)
        with self._lock:
            self._entries, self._documents, self._cursor = entries, documents, cursor

    def raise_high_water(self, moment: datetime, *, force: bool = False) -> None:
        with self._lock:
            if force or self._high_water is None or moment > self._high_water:
                self._high_water = moment

    def close(self) -> None:
        """Nothing to close."""

    def _matching(self, query: EntryQuery) -> builtins.list[_Kept]:
        return [kept for kept in self._entries.values() if _matches(kept, query)]


def _put(change: ReplicaChange, entries: dict[Name, _Kept], documents: dict[str, Record]) -> None:
    if isinstance(change, DocumentChange):
        documents.pop(change.key, None)
        if change.value is not None:
            documents[change.key] = Record(key=change.key, value=change.value, mod_revision=change.revision)
        return
    name = (change.protocol, change.fingerprint)
    entries.pop(name, None)
    if change.facts is not None:
        entries[name] = _Kept(change, change.facts)


def _matches(kept: _Kept, query: EntryQuery) -> bool:
    entry, key = kept.entry, kept.entry.key
    of_origin = [sighting for sighting in entry.sightings if query.origin in (None, sighting.origin)]
    return all(
        (
            not query.text or search_term(query.text) in searchable(kept.facts),
            not query.address or query.address.lower() in {address.index for address in key.addresses},
            not query.domain or query.domain.lower() in {address.domain for address in key.addresses},
            query.protocol in (None, key.protocol),
            query.trust in (None, key.trust),
            not query.issuer or query.issuer == held_issuer(kept.facts),
            of_origin,
            query.older_than is None or all(sighting.refreshed_at < query.older_than for sighting in of_origin),
            query.expired is None or query.expired == is_expired(entry, query.timeouts, query.now),
        )
    )
