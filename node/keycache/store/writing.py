"""Changes of entries and documents as rows. Works inside a transaction of its caller and keeps the digest in step.

Rows are written in groups by kind of statement; within one call each entry is written once, in its last accepted state.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

from keycache.domain.lookup import EntryFacts
from keycache.domain.ports import DocumentChange, EntryChange
from keycache.store.rows import PROTOCOL_NUMBER, digest_text, first_address, held_issuer, ready, record_hash, searchable

_SHARED = (
    *("protocol", "fingerprint", "trust", "harvested_cached", "harvested_refreshed", "looked_up_cached", "looked_up_refreshed"),
    *("imported_cached", "imported_refreshed"),
)
_READY = ("ready_origin", "ready_refreshed", "ready_sighted")
_ENTRY = (*_SHARED, "mod_revision", "hash", "address", "cached", "refreshed", "issuer", "search")
_ANSWER = (*_SHARED, "not_before", "not_after", "defect", "evidence", "mod_revision", "key", "rest", *_READY)


@cache
def _insert(table: str, columns: tuple[str, ...], rows: int) -> str:
    values = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([values] * rows)}"  # noqa: S608 -- our names


def _update(table: str, columns: tuple[str, ...], key: str) -> str:
    return f"UPDATE {table} SET {', '.join(f'{column} = ?' for column in columns)} WHERE {key} = ?"  # noqa: S608 -- our names


_KNOWN = """
    SELECT protocol, fingerprint, id, mod_revision, hash FROM entry INDEXED BY entry_by_fingerprint
    WHERE fingerprint IN (SELECT value FROM json_each(?))
"""

BLOCK = 512
"""Rows in one statement at most, a power of two: of 20 columns each they stay below the 32,766 parameters that SQLite takes
(SQLITE_MAX_VARIABLE_NUMBER)."""

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

    def put(self, changes: Mapping[Name, EntryChange], known: Mapping[Name, Known]) -> None:
        """`changes`: none gone. `known`: those that have rows. Only what differs is written."""
        renumbered: list[tuple[int, int]] = []
        updated: list[_Written] = []
        inserted: list[_Written] = []
        for name, change in changes.items():
            assert change.facts is not None
            hashed = record_hash(change.protocol, change.fingerprint, change.value)
            old = known.get(name)
            if old is None:
                self.last_id += 1
                inserted.append((self.last_id, change.facts, change.revision, hashed))
            elif old.hash == hashed:
                if old.mod_revision != change.revision:
                    renumbered.append((change.revision, old.id))
                continue
            else:
                self.digest -= int.from_bytes(old.hash, "big")
                updated.append((old.id, change.facts, change.revision, hashed))
            self.digest += int.from_bytes(hashed, "big")
        run = self._connection.executemany
        run("UPDATE entry SET mod_revision = ? WHERE id = ?", renumbered)
        run("UPDATE answer SET mod_revision = ? WHERE entry = ?", renumbered)
        run("DELETE FROM address WHERE entry = ?", [one[:1] for one in updated])
        made = [_rows(*one) for one in updated]
        run(_update("entry", _ENTRY, "id"), [entry for entry, _ in made])
        run(_update("answer", _ANSWER, "entry"), [answer for _, answer in made])
        made = [_rows(*one) for one in inserted]
        self._insert("entry", (*_ENTRY, "id"), [entry for entry, _ in made])
        self._insert("answer", (*_ANSWER, "entry"), [answer for _, answer in made])
        addresses = [
            (number, address.lower(), address, address.rpartition("@")[2])  # as EmailAddress has `index` and `domain`
            for number, facts, _, _ in (*updated, *inserted)
            for address in facts.addresses
        ]
        self._insert("address", ("entry", "indexed", "text", "domain"), addresses)

    # SQLite works without Python's lock during a statement, and needs it between two. With many rows in one, a thread that makes the
    # next page of a listing works meanwhile; with one row in each, the two would take turns. Powers of two, so that any number of
    # rows takes few statements, all of which stay prepared.
    def _insert(self, table: str, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
        done = 0
        while left := len(rows) - done:
            size = min(BLOCK, 1 << left.bit_length() - 1)
            self._connection.execute(_insert(table, columns, size), [*chain.from_iterable(rows[done : done + size])])
            done += size

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


_Written = tuple[int, EntryFacts, int, bytes]
"""Of one entry: number of its rows, facts, revision, hash."""


def _rows(number: int, facts: EntryFacts, revision: int, hashed: bytes) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """For `entry` and for `answer`."""
    sorts = (first_address(facts), facts.cached, facts.refreshed)
    shared = (*facts[:3], *facts.times)
    validity = (facts.not_before, facts.not_after, facts.defect, facts.evidence)
    return (
        (*shared, revision, hashed, *sorts, held_issuer(facts), searchable(facts), number),
        (*shared, *validity, revision, facts.key, facts.rest, *ready(facts), number),
    )
