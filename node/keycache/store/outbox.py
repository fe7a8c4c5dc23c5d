"""What waits for the cluster's log, on this node's own disk (DESIGN 2.6).

1. A put is on the disk when it returns: the mail processor is told right after it.
2. Numbers are never used twice while the process lives, so that whoever delivered number 7 removes nothing that came later.
3. Nothing but two sums is held in memory. Reads go by SQLite's indexes and take some microseconds; they are made only while something
   waits.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache

from keycache import codec
from keycache.codec.facts import read_facts
from keycache.domain.entry import Entry, Protocol
from keycache.domain.errors import InvalidInput, StoreError
from keycache.domain.log import ABSENT
from keycache.domain.lookup import Row
from keycache.domain.names import Fingerprint
from keycache.domain.outbox import Pending, full
from keycache.store.database import Database
from keycache.store.faults import damaged
from keycache.store.rows import PROTOCOL_NUMBER, row

OUTBOX_BYTES = 512 << 20
"""350,000 keys of 1.5 KB. A refresh counts like a new key and there is one a day and sender at most (DESIGN 3), so this is a whole day
without the log at a site that hears from 350,000 people a day. Intermediates that the cluster does not know come on top, 1.6 KB each."""

_FIRST = "SELECT number, version, queued_at, value FROM outbox ORDER BY number LIMIT ?"
_NAMED = "SELECT number, version, queued_at, value FROM outbox WHERE fingerprint = ? AND protocol = ?"
_ONE = "SELECT number, version, queued_at, length(value) FROM outbox WHERE fingerprint = ? AND protocol = ?"
_SIZE = """SELECT length(value) + coalesce((SELECT sum(length(p.key) + length(p.value)) FROM outbox_put p WHERE p.number = o.number), 0)
    FROM outbox o WHERE number = ? AND version = ?"""
_SUMS = """SELECT count(*), coalesce(max(number), 0), coalesce(sum(length(value)), 0)
    + (SELECT coalesce(sum(length(key) + length(value)), 0) FROM outbox_put) FROM outbox"""
# CROSS JOIN keeps the order of the loops, and the index that of the rows: nothing is sorted.
_ROWS = """SELECT a.indexed, a.text, o.value FROM outbox_address a INDEXED BY outbox_address_lookup
    CROSS JOIN outbox o ON o.number = a.number WHERE a.indexed """
_ROWS_ONE = _ROWS + "= ?"
_ROWS_MANY = _ROWS + "IN (SELECT value FROM json_each(?))"  # noqa: S608 -- constants
_PUT = """INSERT INTO outbox (number, protocol, fingerprint, version, queued_at, value) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (number) DO UPDATE SET version = excluded.version, value = excluded.value"""


class SqliteOutbox:
    """The `Outbox` port. `count` and `size` are what was committed last."""

    def __init__(self, database: Database, *, limit: int = OUTBOX_BYTES) -> None:
        """The database stays its owner's to close."""
        self._database = database
        self._writing = threading.Lock()
        self.limit = limit
        self.count: int
        self.size: int
        with database.reading() as connection:
            self.count, self._numbers, self.size = connection.execute(_SUMS).fetchone()

    # reads
    def pending(self, protocol: Protocol, fingerprint: Fingerprint) -> Pending | None:
        with self._database.snapshot() as connection:
            found = connection.execute(_NAMED, (fingerprint.text, PROTOCOL_NUMBER[protocol])).fetchone()
            return None if found is None else self._pending(connection, *found)

    def rows(self, addresses: Sequence[str]) -> dict[str, list[Row]]:
        statement, asked = (_ROWS_ONE, addresses[0]) if len(addresses) == 1 else (_ROWS_MANY, json.dumps(addresses))
        with self._database.reading() as connection:
            found = connection.execute(statement, (asked,)).fetchall()
        answer: dict[str, list[Row]] = {}
        for index, text, value in found:
            answer.setdefault(index, []).append(Row(text, *self._row(value)[1:]))
        return answer

    def rows_of(self, fingerprint: Fingerprint) -> list[Row]:
        with self._database.reading() as connection:
            found = connection.execute(
                "SELECT value FROM outbox WHERE fingerprint = ? ORDER BY protocol", (fingerprint.text,)
            ).fetchall()
        return [self._row(value) for (value,) in found]

    def first(self, limit: int) -> list[Pending]:
        with self._database.snapshot() as connection:
            return [self._pending(connection, *found) for found in connection.execute(_FIRST, (limit,)).fetchall()]

    # writes
    def put(self, entry: Entry, puts: Mapping[str, bytes], at: datetime) -> None:
        protocol, fingerprint, value = (
            PROTOCOL_NUMBER[entry.key.protocol],
            entry.key.fingerprint.text,
            codec.encode_entry(entry),
        )
        with self._writing:
            with self._database.write(durable=True) as connection:
                old = connection.execute(_ONE, (fingerprint, protocol)).fetchone()
                number, version, queued_at, replaced = old or (self._numbers + 1, 0, codec.to_us(at), 0)
                held = dict(connection.execute("SELECT key, length(value) FROM outbox_put WHERE number = ?", (number,)))
                growth = len(value) - replaced
                growth += sum(len(one) - held[key] if key in held else len(key) + len(one) for key, one in puts.items())
                if growth > 0 and self.size + growth > self.limit:
                    raise full(self.count, self.limit)
                connection.execute(_PUT, (number, protocol, fingerprint, version + 1, queued_at, value))
                connection.executemany(
                    "INSERT OR REPLACE INTO outbox_put (number, key, value) VALUES (?, ?, ?)",
                    [(number, key, one) for key, one in puts.items()],
                )
                connection.execute("DELETE FROM outbox_address WHERE number = ?", (number,))
                connection.executemany(
                    "INSERT INTO outbox_address (number, indexed, text) VALUES (?, ?, ?)",
                    [(number, address.index, address.text) for address in entry.key.addresses],
                )
            self._numbers = max(self._numbers, number)
            self.size += growth
            self.count += old is None

    def remove(self, delivered: Iterable[Pending]) -> None:
        with self._writing:
            count, size = self.count, self.size
            with self._database.write(durable=True) as connection:
                for pending in delivered:
                    found = connection.execute(_SIZE, (pending.number, pending.version)).fetchone()
                    if found is None:
                        continue  # put anew, or removed, meanwhile
                    connection.execute("DELETE FROM outbox WHERE number = ?", (pending.number,))
                    count, size = count - 1, size - found[0]
            self.count, self.size = count, size

    def clear(self) -> int:
        with self._writing:
            with self._database.write(durable=True) as connection:
                connection.execute("DELETE FROM outbox")
            count, self.count, self.size = self.count, 0, 0
            return count

    def _row(self, value: bytes) -> Row:
        try:
            return _remembered(value)
        except InvalidInput as error:
            raise self._unreadable(error) from error

    def _pending(self, connection: sqlite3.Connection, number: int, version: int, queued_at: int, value: bytes) -> Pending:
        puts = connection.execute("SELECT key, value FROM outbox_put WHERE number = ?", (number,)).fetchall()
        return Pending(
            number=number, version=version, entry=self._decoded(value), puts=dict(puts), queued_at=codec.from_us(queued_at)
        )

    def _decoded(self, value: bytes) -> Entry:
        try:
            return codec.decode_entry(value)
        except InvalidInput as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: InvalidInput) -> StoreError:
        return damaged(self._database.path, f"an entry in its outbox cannot be read ({error.text})")


@lru_cache(maxsize=1024)
def _remembered(value: bytes) -> Row:
    """Without an address. To take a record apart costs more than to find it, and the same correspondents are asked for again
    and again: 3 MB, as a rule."""
    return row("", read_facts(value), ABSENT)
