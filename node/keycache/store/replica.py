"""The replica on SQLite: the node's own full copy, read at every lookup, written by the replicator alone.

It can always be rebuilt from the entry log, so its transactions are not synced to the disk one by one: a power cut takes rows and
cursor back together, and the replicator goes on from there. Rows that a log of another identity wrote are only ever replaced by a
whole listing: revisions of two logs must not be compared.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from keycache import codec
from keycache.domain.entry import Entry, Protocol, Sighting
from keycache.domain.errors import ForeignLog, InvalidInput
from keycache.domain.log import Record, entry_key, entry_prefix
from keycache.domain.lookup import ORIGINS, PROTOCOLS, ReadyRow, Row, timeouts_us
from keycache.domain.names import ClusterIdentity, Fingerprint, Revision
from keycache.domain.ports import Counts, Cursor, DocumentChange, EntryChange, EntryPage, EntryQuery, ReplicaChange, StoredEntry
from keycache.domain.purge import Candidate
from keycache.domain.settings import Timeouts
from keycache.store import listing
from keycache.store.database import Database
from keycache.store.faults import damaged, translate
from keycache.store.paging import token
from keycache.store.rows import PROTOCOL_NUMBER
from keycache.store.writing import Known, Name, RowWriter, name_of

CHUNK = 1000
"""Changes per group of statements: what a page of a listing holds (`EntryLog.list`)."""

_ANSWER = """r.protocol, r.fingerprint, r.trust, r.harvested_cached, r.harvested_refreshed, r.looked_up_cached, r.looked_up_refreshed,
    r.imported_cached, r.imported_refreshed, r.not_before, r.not_after, r.defect, r.evidence, r.mod_revision, r.key, r.rest"""
_BY_ADDRESS = f"""SELECT a.text, {_ANSWER} FROM address a INDEXED BY address_lookup CROSS JOIN answer r ON r.entry = a.entry
    WHERE a.indexed """  # noqa: S608 -- constants
_ONE = _BY_ADDRESS + "= ?"
_MANY = _BY_ADDRESS + "IN (SELECT value FROM json_each(?))"  # noqa: S608 -- constants
# CROSS JOIN keeps the order of the loops: a seek for each address asked, in the order asked, and one for each row found.
_READY = """r.ready_origin, r.ready_refreshed, r.not_before, r.not_after, r.ready_sighted, r.key"""
_READY_ONE = f"""SELECT 0, {_READY} FROM address a INDEXED BY address_lookup CROSS JOIN answer r ON r.entry = a.entry
    WHERE a.indexed = ?"""  # noqa: S608 -- constants
_READY_MANY = f"""SELECT j.key, {_READY} FROM json_each(?) j CROSS JOIN address a INDEXED BY address_lookup ON a.indexed = j.value
    CROSS JOIN answer r ON r.entry = a.entry"""  # noqa: S608 -- constants
_FINGERPRINT = f"""SELECT '', {_ANSWER} FROM entry e INDEXED BY entry_by_fingerprint CROSS JOIN answer r ON r.entry = e.id
    WHERE e.fingerprint = ? ORDER BY e.protocol"""  # noqa: S608 -- constants
_ENTRY = """SELECT r.mod_revision, r.key, r.rest FROM entry e INDEXED BY entry_by_fingerprint CROSS JOIN answer r ON r.entry = e.id
    WHERE e.fingerprint = ? AND e.protocol = ?"""

_REVISIONS = """SELECT fingerprint, mod_revision FROM entry INDEXED BY entry_by_fingerprint
    WHERE fingerprint >= ? AND fingerprint < ? AND protocol = ?"""
_BEYOND = "\x7f"
"""Sorts after every fingerprint."""
_LAST = "\U0010ffff"
"""Sorts after whatever may follow a prefix."""
_NEWEST = (
    "SELECT protocol, fingerprint, mod_revision FROM entry INDEXED BY entry_by_revision ORDER BY mod_revision DESC LIMIT ?"
)

_make_row = Row._make


class SqliteReplica:
    """The `Replica` port. An entry that spells one indexed address in two ways has a row for each in a lookup."""

    def __init__(self, database: Database) -> None:
        """The database stays its owner's to close."""
        self._database = database

    # reads
    def cursor(self) -> Cursor | None:
        with self._database.reading() as connection:
            return _cursor(connection)

    def lookup(self, addresses: Sequence[str]) -> dict[str, list[Row]]:
        if len(addresses) == 1:
            found = self._select(_ONE, addresses[0])
            return {addresses[0]: [_make_row(row) for row in found]} if found else {}
        answer: dict[str, list[Row]] = {}
        for row in self._select(_MANY, json.dumps(addresses)):
            index = row[0].lower()  # as EmailAddress.index has it
            rows = answer.get(index)
            if rows is None:
                answer[index] = [_make_row(row)]
            else:
                rows.append(_make_row(row))
        return answer

    def lookup_ready(self, addresses: Sequence[str]) -> list[ReadyRow]:
        if len(addresses) == 1:
            return self._select(_READY_ONE, addresses[0])
        return self._select(_READY_MANY, json.dumps(addresses))

    def lookup_fingerprint(self, fingerprint: Fingerprint) -> list[Row]:
        return [_make_row(row) for row in self._select(_FINGERPRINT, fingerprint.text)]

    def _select(self, statement: str, parameter: str) -> list[Any]:
        """As `Database.reading` around one statement, without the price of context managers: this is the hot path."""
        connection = self._database.take()
        try:
            return connection.execute(statement, (parameter,)).fetchall()
        except sqlite3.Error as error:
            ours = translate(error, self._database.path)
            if ours is error:
                raise
            raise ours from error
        finally:
            self._database.give(connection)

    def entry(self, protocol: Protocol, fingerprint: Fingerprint) -> StoredEntry | None:
        with self._database.reading() as connection:
            row = connection.execute(_ENTRY, (fingerprint.text, PROTOCOL_NUMBER[protocol])).fetchone()
        return None if row is None else self._stored(*row)

    def query(self, query: EntryQuery) -> EntryPage:
        with self._database.reading() as connection:
            rows = listing.page(connection, query)
        shown = rows[: max(1, query.limit)]
        return EntryPage(
            entries=tuple(self._stored(*row[1:]) for row in shown),
            next=token(query, shown[-1][0]) if len(rows) > len(shown) else "",
        )

    def count(self, query: EntryQuery) -> int:
        with self._database.reading() as connection:
            return listing.count(connection, query)

    def counts(self, *, now: datetime, timeouts: Timeouts) -> Counts:
        with self._database.reading() as connection:
            total, held, expired, both = listing.counts(connection, now=now, timeouts=timeouts)
        held -= both
        return Counts(live=total - expired - held, expired=expired, held=held)

    def expired(self, *, now: datetime, timeouts: Timeouts) -> list[Candidate]:
        """Those first whose time ran out first. Their sightings lack `source`: it stands in the record, which is not read here."""
        with self._database.reading() as connection:
            rows = listing.expired(connection, now=now, timeouts=timeouts)
        spans = timeouts_us(timeouts)

        def ended(row: tuple[Any, ...]) -> tuple[int, str, int]:
            last = max(refreshed + span for refreshed, span in zip(row[4::2], spans, strict=True) if refreshed is not None)
            return last, row[1], row[0]

        return [
            Candidate(
                protocol=PROTOCOLS[protocol],
                fingerprint=Fingerprint(fingerprint),
                mod_revision=mod_revision,
                sightings=_bare(times),
            )
            for protocol, fingerprint, mod_revision, *times in sorted(rows, key=ended)
        ]

    def document(self, key: str) -> Record | None:
        with self._database.reading() as connection:
            row = connection.execute("SELECT value, mod_revision FROM document WHERE key = ?", (key,)).fetchone()
        return None if row is None else Record(key=key, value=row[0], mod_revision=row[1])

    def documents(self, prefix: str) -> list[Record]:
        """In the order of keys."""
        # The upper bound keeps the seek from going through all that sorts after the prefix: a purge leaves as many deletions as entries.
        sql = "SELECT key, value, mod_revision FROM document WHERE key >= ? AND key < ? ORDER BY key"
        with self._database.reading() as connection:
            rows = connection.execute(sql, (prefix, prefix + _LAST)).fetchall()
        return [Record(key=key, value=value, mod_revision=mod_revision) for key, value, mod_revision in rows]

    def digest(self) -> str:
        with self._database.reading() as connection:
            (digest,) = connection.execute("SELECT digest FROM replica_state").fetchone()
        return bytes(digest).hex()

    def revisions(self, first: str, last: str) -> dict[str, Revision]:
        found: dict[str, Revision] = {}
        with self._database.snapshot() as connection:
            for protocol in PROTOCOLS:
                prefix = entry_prefix(protocol)
                low, high = (bound.removeprefix(prefix) if bound.startswith(prefix) else "" for bound in (first, last))
                if last <= prefix or first >= prefix + _BEYOND:
                    continue
                rows = connection.execute(
                    _REVISIONS, (low, high if last < prefix + _BEYOND else _BEYOND, PROTOCOL_NUMBER[protocol])
                )
                found.update({prefix + fingerprint: Revision(revision) for fingerprint, revision in rows})
            rows = connection.execute("SELECT key, mod_revision FROM document WHERE key >= ? AND key < ?", (first, last))
            found.update({key: Revision(revision) for key, revision in rows})
        return found

    def newest(self, limit: int) -> list[tuple[str, Revision]]:
        with self._database.reading() as connection:
            rows = connection.execute(_NEWEST, (limit,)).fetchall()
        return [
            (entry_key(PROTOCOLS[protocol], Fingerprint(fingerprint)), Revision(revision))
            for protocol, fingerprint, revision in rows
        ]

    def high_water(self) -> datetime | None:
        with self._database.reading() as connection:
            (moment,) = connection.execute("SELECT high_water FROM replica_state").fetchone()
        return None if moment is None else codec.from_us(moment)

    # writes
    def apply(self, changes: Iterable[ReplicaChange], cursor: Cursor) -> None:
        """Raises ForeignLog when the replica holds rows of another log: list that one instead."""
        with self._database.write(durable=False) as connection:
            before = _cursor(connection)
            if before is not None and before.identity != cursor.identity:
                raise ForeignLog(
                    f"The replica holds what log {before.identity} held, and this change comes from log {cursor.identity}.",
                    hint="Run 'keycache cluster check' to see what to do.",
                )
            floor = 0 if before is None else before.revision
            writer = RowWriter(connection, _digest(connection))
            latest: dict[Name | str, int] = {}
            remaining = iter(changes)
            while chunk := list(islice(remaining, CHUNK)):
                _apply(writer, chunk, floor, latest)
            writer.finish(cursor.identity.text, max(floor, cursor.revision))

    def replace(self, changes: Iterator[Sequence[ReplicaChange]], cursor: Cursor) -> None:
        """Reads go on meanwhile and see the old rows until the end. An error, also of the iterator, leaves the old rows."""
        with self._database.write(durable=False) as connection:
            (rows,) = connection.execute("SELECT count(*) FROM (SELECT 1 FROM entry LIMIT 1)").fetchone()
            writer = RowWriter(connection, _digest(connection))
            connection.execute("DELETE FROM document")
            if rows:
                _replace(connection, writer, changes)
            else:
                _fill(connection, writer, changes)
            writer.finish(cursor.identity.text, cursor.revision)
        self._database.checkpoint()  # a first listing leaves a write-ahead log of gigabytes

    def raise_high_water(self, moment: datetime, *, force: bool = False) -> None:
        sql = "UPDATE replica_state SET high_water = ?1 WHERE ?2 OR high_water IS NULL OR high_water < ?1"
        with self._database.write(durable=True) as connection:
            connection.execute(sql, (codec.to_us(moment), force))

    def close(self) -> None:
        """Nothing of its own to close: the file belongs to the `Database`."""

    def _stored(self, mod_revision: int, key: bytes, rest: bytes) -> StoredEntry:
        try:
            entry: Entry = codec.entry_of_halves(key, rest)
        except InvalidInput as error:
            raise damaged(self._database.path, f"an entry in it cannot be read ({error.text})") from error
        return StoredEntry(entry=entry, mod_revision=Revision(mod_revision))


def _cursor(connection: sqlite3.Connection) -> Cursor | None:
    identity, revision = connection.execute("SELECT identity, revision FROM replica_state").fetchone()
    return None if identity is None else Cursor(identity=ClusterIdentity(identity), revision=Revision(revision))


def _digest(connection: sqlite3.Connection) -> int:
    (digest,) = connection.execute("SELECT digest FROM replica_state").fetchone()
    return int.from_bytes(digest, "big")


def _bare(times: Sequence[int | None]) -> tuple[Sighting, ...]:
    pairs = zip(ORIGINS, times[::2], times[1::2], strict=True)
    return tuple(
        Sighting(origin=origin, source="", cached_at=codec.from_us(cached), refreshed_at=codec.from_us(refreshed))
        for origin, cached, refreshed in pairs
        if cached is not None and refreshed is not None
    )


# 1. A batch is applied, its cursor with it; the process dies before anybody hears of it.  2. The watch begins again at an older
# revision and brings the same changes, among them the making of an entry that a later one deleted.  3. The entry has no row any more
# whose revision could be compared: only the cursor's can. Hence `floor`; `latest` is the same within one call.
def _apply(writer: RowWriter, chunk: Sequence[ReplicaChange], floor: int, latest: dict[Name | str, int]) -> None:
    known = writer.known(name_of(change) for change in chunk if isinstance(change, EntryChange))
    accepted: dict[Name, EntryChange] = {}
    for change in chunk:
        if isinstance(change, DocumentChange):
            if change.revision > max(floor, latest.get(change.key) or writer.document_revision(change.key)):
                latest[change.key] = change.revision
                writer.document(change)
            continue
        name = name_of(change)
        row = known.get(name)
        if change.revision > max(floor, latest.get(name, 0), 0 if row is None else row.mod_revision):
            latest[name] = change.revision
            accepted[name] = change
    writer.remove([known[name] for name, change in accepted.items() if change.facts is None and name in known])
    writer.put({name: change for name, change in accepted.items() if change.facts is not None}, known)


def _pieces(changes: Iterator[Sequence[ReplicaChange]], writer: RowWriter) -> Iterator[dict[Name, EntryChange]]:
    """The entries of a listing, chunk by chunk; documents are written on the way."""
    for chunk in changes:
        entries: dict[Name, EntryChange] = {}
        for change in chunk:
            if isinstance(change, DocumentChange):
                writer.document(change)
            elif change.facts is not None:
                entries[name_of(change)] = change
        yield entries


def _replace(connection: sqlite3.Connection, writer: RowWriter, changes: Iterator[Sequence[ReplicaChange]]) -> None:
    """Write what differs, then drop what was not listed."""
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS listed (id INTEGER PRIMARY KEY)")
    connection.execute("DELETE FROM temp.listed")
    for entries in _pieces(changes, writer):
        known = writer.known(entries)
        connection.executemany("INSERT OR IGNORE INTO temp.listed (id) VALUES (?)", [(row.id,) for row in known.values()])
        first_new = writer.last_id + 1
        writer.put(entries, known)
        new = range(first_new, writer.last_id + 1)
        connection.executemany("INSERT INTO temp.listed (id) VALUES (?)", [(number,) for number in new])
    unlisted = [Known(-1, 0, b"")]
    while unlisted:
        unlisted = [Known(*row) for row in connection.execute(_UNLISTED, (unlisted[-1].id, CHUNK)).fetchall()]
        writer.remove(unlisted)
    connection.execute("DELETE FROM temp.listed")


_UNLISTED = """SELECT id, mod_revision, hash FROM entry WHERE id > ? AND id NOT IN (SELECT id FROM temp.listed)
    ORDER BY id LIMIT ?"""


def _fill(connection: sqlite3.Connection, writer: RowWriter, changes: Iterator[Sequence[ReplicaChange]]) -> None:
    """Into an empty replica: indexes are built once at the end, by sorting, not by a million inserts in random order. The one on
    fingerprints stays: a listing comes in its order, and it catches an entry that is listed twice."""
    indexes = connection.execute(
        """SELECT name, sql FROM sqlite_schema
        WHERE type = 'index' AND tbl_name IN ('entry', 'address') AND sql IS NOT NULL AND name <> 'entry_by_fingerprint'"""
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f'DROP INDEX "{name}"')
    for entries in _pieces(changes, writer):
        writer.put(entries, writer.known(entries))
    for _, sql in indexes:
        connection.execute(sql)
