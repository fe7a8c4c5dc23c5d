"""Changes of entries and documents as rows. Works inside a transaction of its caller and keeps the digest in step.

Rows are written in groups by kind of statement; within one call each entry is written once, in its last accepted state.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from keycache import codec
from keycache.domain.entry import Entry
from keycache.domain.ports import DocumentChange, EntryChange
from keycache.store.rows import (
    PROTOCOL_NUMBER,
    digest_text,
    facts,
    first_address,
    held_issuer,
    ready,
    record_hash,
    searchable,
)

_SHARED = (
    *("protocol", "fingerprint", "trust", "harvested_cached", "harvested_refreshed", "looked_up_cached", "looked_up_refreshed"),
    *("imported_cached", "imported_refreshed"),
)
_READY = ("ready_origin", "ready_refreshed", "ready_sighted")
_ENTRY = (*_SHARED, "mod_revision", "hash", "address", "cached", "refreshed", "issuer", "search")
_ANSWER = (*_SHARED, "not_before", "not_after", "defect", "evidence", "mod_revision", "key", "rest", *_READY)


def _insert(table: str, columns: tuple[str, ...], key: str) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}, {key}) VALUES ({', '.join('?' * len(columns))}, ?)"  # noqa: S608 -- our names


def _update(table: str, columns: tuple[str, ...], key: str) -> str:
    return f"UPDATE {table} SET {', '.join(f'{column} = ?' for column in columns)} WHERE {key} = ?"  # noqa: S608 -- our names


_KNOWN = """
    SELECT protocol, fingerprint, id, mod_revision, hash FROM entry INDEXED BY entry_by_fingerprint
    WHERE fingerprint IN (SELECT value FROM json_each(?))
"""

Name = tuple[int, str]
"""An entry's protocol, as a number, and fingerprint."""


def name_of(change: EntryChange) -> Name:
    return PROTOCOL_NUMBER[change.protocol], change.fingerprint.text


class Known(NamedTuple):
    id: int
    mod_revision: int
    hash: bytes


class RowWriter:
    """Of one transaction. `digest`: the running sum, which `finish` stores. `last_id`: the highest row number in use."""

    def __init__(self, connection: sqlite3.Connection, digest: int) -> None:
        self._connection = connection
        self.digest = digest
        (self.last_id,) = connection.execute("SELECT coalesce(max(id), 0) FROM entry").fetchone()

    def known(self, names: Iterable[Name]) -> dict[Name, Known]:
        wanted = set(names)
        rows = self._connection.execute(_KNOWN, (json.dumps([fingerprint for _, fingerprint in wanted]),))
        return {row[:2]: Known(*row[2:]) for row in rows if row[:2] in wanted}

    def remove(self, entries: Sequence[Known]) -> None:
        """Addresses and bodies go with them."""
        self._connection.executemany("DELETE FROM entry WHERE id = ?", [(known.id,) for known in entries])
        for known in entries:
            self.digest -= int.from_bytes(known.hash, "big")

    def put(self, changes: Sequence[EntryChange], known: dict[Name, Known]) -> None:
        """`changes`: each entry once, none gone. `known`: those that have rows. Only what differs is written."""
        renumbered: list[tuple[int, int]] = []
        updated: list[tuple[int, EntryChange, Entry, bytes]] = []
        inserted: list[tuple[int, EntryChange, Entry, bytes]] = []
        for change in changes:
            assert change.entry is not None
            hashed = record_hash(change.protocol, change.fingerprint, change.value)
            old = known.get(name_of(change))
            if old is None:
                self.last_id += 1
                inserted.append((self.last_id, change, change.entry, hashed))
            elif old.hash == hashed:
                if old.mod_revision != change.revision:
                    renumbered.append((change.revision, old.id))
                continue
            else:
                self.digest -= int.from_bytes(old.hash, "big")
                updated.append((old.id, change, change.entry, hashed))
            self.digest += int.from_bytes(hashed, "big")
        run = self._connection.executemany
        run("UPDATE entry SET mod_revision = ? WHERE id = ?", renumbered)
        run("UPDATE answer SET mod_revision = ? WHERE entry = ?", renumbered)
        run("DELETE FROM address WHERE entry = ?", [one[:1] for one in updated])
        for statement, rows in ((_update, updated), (_insert, inserted)):
            made = [_rows(*one) for one in rows]
            run(statement("entry", _ENTRY, "id"), [entry for entry, _ in made])
            run(statement("answer", _ANSWER, "entry"), [answer for _, answer in made])
        run(
            "INSERT INTO address (entry, indexed, text, domain) VALUES (?, ?, ?, ?)",
            [
                (number, address.index, address.text, address.domain)
                for number, _, entry, _ in (*updated, *inserted)
                for address in entry.key.addresses
            ],
        )

    def document_revision(self, key: str) -> int:
        """0 when there is none."""
        row = self._connection.execute("SELECT mod_revision FROM document WHERE key = ?", (key,)).fetchone()
        return 0 if row is None else int(row[0])

    def document(self, change: DocumentChange) -> None:
        if change.value is None:
            self._connection.execute("DELETE FROM document WHERE key = ?", (change.key,))
            return
        self._connection.execute(
            """INSERT INTO document (key, mod_revision, value) VALUES (?, ?, ?)
            ON CONFLICT (key) DO UPDATE SET mod_revision = excluded.mod_revision, value = excluded.value""",
            (change.key, change.revision, change.value),
        )

    def finish(self, identity: str, revision: int) -> None:
        """Cursor and digest, in the same transaction as the rows."""
        self._connection.execute(
            "UPDATE replica_state SET identity = ?, revision = ?, digest = ? WHERE id = 1",
            (identity, revision, bytes.fromhex(digest_text(self.digest))),
        )


def _rows(number: int, change: EntryChange, entry: Entry, hashed: bytes) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """For `entry` and for `answer`."""
    known = facts(entry)
    cached = min(time for time in known[3:9:2] if time is not None)  # as sort_value has it, without computing it again
    refreshed = max(time for time in known[4:9:2] if time is not None)
    about = (first_address(entry), cached, refreshed, held_issuer(entry), searchable(entry))
    return (
        (*known[: len(_SHARED)], change.revision, hashed, *about, number),
        (*known, change.revision, *codec.halves(change.value), *ready(entry), number),
    )
