"""Listing, counting and expiry of the replica in SQL. Text in, rows out; nothing is decoded here.

Expiry must agree exactly with `domain.retention`: a sighting is over when refreshed + timeout <= now, which is refreshed <= now -
timeout in whole microseconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from keycache import codec
from keycache.domain.entry import Origin, Trust
from keycache.domain.lookup import ORIGINS
from keycache.domain.ports import EntryQuery, SortBy
from keycache.domain.settings import Timeouts
from keycache.store.paging import Place, place_of
from keycache.store.rows import PROTOCOL_NUMBER, TRUST_NUMBER, search_term

_COLUMN = {Origin.HARVESTED: "harvested", Origin.LOOKED_UP: "looked_up", Origin.IMPORTED: "imported"}
_SORT = {
    SortBy.ADDRESS: "address",
    SortBy.CACHED: "cached",
    SortBy.REFRESHED: "refreshed",
    SortBy.FINGERPRINT: "fingerprint",
}

_OVER = {
    origin: f"(e.{column}_refreshed IS NULL OR e.{column}_refreshed <= :over_{column})" for origin, column in _COLUMN.items()
}
_EXPIRED = " AND ".join(_OVER.values())  # never NULL

# The same set as three disjoint ranges of one index, by which sightings there are: the time taken grows with what is expired, not
# with what there is.
_EXPIRED_RANGES = """
    SELECT {columns} FROM entry e INDEXED BY entry_by_age WHERE e.harvested_refreshed <= :over_harvested
        AND (e.looked_up_refreshed IS NULL OR e.looked_up_refreshed <= :over_looked_up)
        AND (e.imported_refreshed IS NULL OR e.imported_refreshed <= :over_imported)
    UNION ALL
    SELECT {columns} FROM entry e INDEXED BY entry_by_age WHERE e.harvested_refreshed IS NULL
        AND e.looked_up_refreshed <= :over_looked_up
        AND (e.imported_refreshed IS NULL OR e.imported_refreshed <= :over_imported)
    UNION ALL
    SELECT {columns} FROM entry e INDEXED BY entry_by_age WHERE e.harvested_refreshed IS NULL AND e.looked_up_refreshed IS NULL
        AND e.imported_refreshed <= :over_imported
"""

_HELD = TRUST_NUMBER[Trust.HELD]
_COUNTS = f"""
    SELECT (SELECT count(*) FROM entry), (SELECT count(*) FROM entry INDEXED BY entry_held WHERE trust = {_HELD}),
        count(*), total(trust = {_HELD})
    FROM ({_EXPIRED_RANGES.format(columns="e.trust")})
"""  # noqa: S608 -- constants

_EXPIRED_ROWS = f"""
    SELECT e.protocol, e.fingerprint, e.mod_revision, e.harvested_cached, e.harvested_refreshed, e.looked_up_cached,
        e.looked_up_refreshed, e.imported_cached, e.imported_refreshed
    FROM entry e WHERE e.id IN ({_EXPIRED_RANGES.format(columns="e.id")})
"""  # noqa: S608 -- constants


def _over(now: datetime, timeouts: Timeouts) -> dict[str, int]:
    """The newest refresh that no longer counts, per origin."""
    return {f"over_{_COLUMN[origin]}": codec.to_us(now) - codec.to_us(codec.EPOCH + timeouts.of(origin)) for origin in ORIGINS}


def counts(connection: sqlite3.Connection, *, now: datetime, timeouts: Timeouts) -> tuple[int, int, int, int]:
    """All entries, all held ones, the expired ones, the held among the expired."""
    total, held, expired, both = connection.execute(_COUNTS, _over(now, timeouts)).fetchone()
    return total, held, expired, int(both)


def expired(connection: sqlite3.Connection, *, now: datetime, timeouts: Timeouts) -> list[tuple[Any, ...]]:
    """Protocol, fingerprint, mod_revision, and cached and refreshed per origin, in no order."""
    return connection.execute(_EXPIRED_ROWS, _over(now, timeouts)).fetchall()


class Conditions:
    """The WHERE of a query. `selective`: few entries are expected to match, so walking an index in sort order would be the slow way."""

    def __init__(self, query: EntryQuery) -> None:
        self.parameters: dict[str, Any] = dict(_over(query.now, query.timeouts))
        self.terms: list[str] = []
        self.selective = False
        if query.address:
            self._add(
                "e.id IN (SELECT entry FROM address WHERE indexed = :address)", selective=True, address=query.address.lower()
            )
        if query.domain:
            self._add("e.id IN (SELECT entry FROM address WHERE domain = :domain)", selective=True, domain=query.domain.lower())
        if query.protocol is not None:
            self._add("e.protocol = :protocol", protocol=PROTOCOL_NUMBER[query.protocol])
        if query.trust is not None:
            self._add("e.trust = :trust", trust=TRUST_NUMBER[query.trust])
        if query.issuer:
            self._add(f"e.trust = {_HELD} AND e.issuer = :issuer", selective=True, issuer=query.issuer)
        if query.origin is not None:
            self._add(f"e.{_COLUMN[query.origin]}_refreshed IS NOT NULL")
        if query.older_than is not None:
            column = "refreshed" if query.origin is None else f"{_COLUMN[query.origin]}_refreshed"
            self._add(f"e.{column} < :older_than", older_than=codec.to_us(query.older_than))
        if query.expired is not None:
            self._add(f"({_EXPIRED})" if query.expired else f"NOT ({_EXPIRED})", selective=query.expired)
        if query.text:
            # instr, not LIKE: no wildcards to escape, and case folding is done in Python, where it knows all of Unicode.
            self._add("instr(e.search, :text) > 0", selective=True, text=search_term(query.text))

    def _add(self, term: str, *, selective: bool = False, **parameters: Any) -> None:
        self.terms.append(term)
        self.selective = self.selective or selective
        self.parameters.update(parameters)

    @property
    def sql(self) -> str:
        return " AND ".join(self.terms) or "TRUE"


def count(connection: sqlite3.Connection, query: EntryQuery) -> int:
    where = Conditions(query)
    (number,) = connection.execute(f"SELECT count(*) FROM entry e WHERE {where.sql}", where.parameters).fetchone()  # noqa: S608 -- our terms
    return int(number)


def page(connection: sqlite3.Connection, query: EntryQuery) -> Sequence[tuple[Place, int, bytes, bytes]]:
    """Up to `limit` + 1 rows: place, mod_revision and the halves of the record."""
    where = Conditions(query)
    column = f"e.{_SORT[query.sort]}"
    place = place_of(query)
    if place is not None:
        sign = "<" if query.descending else ">"
        where.terms.append(f"({column}, e.fingerprint, e.protocol) {sign} (:value, :fingerprint, :at_protocol)")
        where.parameters.update(value=place.value, fingerprint=place.fingerprint, at_protocol=place.protocol)
    # A unary plus keeps the sort's index out: matching rows are few and sorted afterwards.
    first = f"+{column}" if where.selective else column
    direction = "DESC" if query.descending else "ASC"
    sql = f"""
        SELECT s.value, s.fingerprint, s.protocol, s.mod_revision, body.key, body.rest
        FROM (
            SELECT e.id, {column} AS value, e.fingerprint, e.protocol, e.mod_revision FROM entry e WHERE {where.sql}
            ORDER BY {first} {direction}, e.fingerprint {direction}, e.protocol {direction} LIMIT :limit
        ) s CROSS JOIN body ON body.entry = s.id
        ORDER BY s.value {direction}, s.fingerprint {direction}, s.protocol {direction}
    """  # noqa: S608 -- columns and directions are ours, values are bound
    rows = connection.execute(sql, {**where.parameters, "limit": max(1, query.limit) + 1})
    return [(Place(*row[:3]), row[3], row[4], row[5]) for row in rows]
