"""Listing, counting and expiry of the replica in SQL. Text in, rows out; nothing is decoded here.

Expiry must agree exactly with `domain.retention`: a sighting is over when refreshed + timeout <= now, which is refreshed <= now -
timeout in whole microseconds.
"""

from __future__ import annotations

import sqlite3
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


def _conditions(query: EntryQuery) -> tuple[list[str], dict[str, Any]]:
    """The filters as terms of a WHERE, with their parameters."""
    parameters: dict[str, Any] = dict(_over(query.now, query.timeouts))
    terms: list[str] = []

    def add(term: str, **values: Any) -> None:
        terms.append(term)
        parameters.update(values)

    if query.address:
        add("e.id IN (SELECT entry FROM address WHERE indexed = :address)", address=query.address.lower())
    if query.domain:
        add("e.id IN (SELECT entry FROM address WHERE domain = :domain)", domain=query.domain.lower())
    if query.protocol is not None:
        add("e.protocol = :protocol", protocol=PROTOCOL_NUMBER[query.protocol])
    if query.trust is not None:
        add("e.trust = :trust", trust=TRUST_NUMBER[query.trust])
    if query.issuer:
        add(f"e.trust = {_HELD} AND e.issuer = :issuer", issuer=query.issuer)
    if query.origin is not None:
        add(f"e.{_COLUMN[query.origin]}_refreshed IS NOT NULL")
    if query.older_than is not None:
        column = "refreshed" if query.origin is None else f"{_COLUMN[query.origin]}_refreshed"
        add(f"e.{column} < :older_than", older_than=codec.to_us(query.older_than))
    if query.expired is not None:
        add(f"({_EXPIRED})" if query.expired else f"NOT ({_EXPIRED})")
    if query.text:
        # instr, not LIKE: no wildcards to escape, and cases are folded in Python, where all of Unicode is known.
        add("instr(e.search, :text) > 0", text=search_term(query.text))
    return terms, parameters


def count(connection: sqlite3.Connection, query: EntryQuery) -> int:
    terms, parameters = _conditions(query)
    where = " AND ".join(terms) or "TRUE"
    (number,) = connection.execute(f"SELECT count(*) FROM entry e WHERE {where}", parameters).fetchone()  # noqa: S608 -- our terms
    return int(number)


WINDOW = 5000
"""Entries that are walked in sort order, a random read each, in the hope that a page of them match: some 15 ms. Beyond it a scan of all
entries in the order of the disk, keeping the best page of them, is faster: 0.3 s a million. So a filter that most entries pass and
one that hardly any passes are both answered soon."""


def page(connection: sqlite3.Connection, query: EntryQuery) -> list[tuple[Place, int, bytes, bytes]]:
    """Up to `limit` + 1 rows: place, mod_revision and the halves of the record."""
    terms, parameters = _conditions(query)
    limit = max(1, query.limit) + 1
    parameters.update(limit=limit, window=max(limit, WINDOW) if terms else limit)
    column, direction = _SORT[query.sort], "DESC" if query.descending else "ASC"
    place = place_of(query)
    beyond = "TRUE"
    if place is not None:
        beyond = (
            f"(e.{column}, e.fingerprint, e.protocol) {'<' if query.descending else '>'} (:value, :fingerprint, :at_protocol)"
        )
        parameters.update(value=place.value, fingerprint=place.fingerprint, at_protocol=place.protocol)
    order = f"{{}} {direction}, e.fingerprint {direction}, e.protocol {direction}"
    window = f"(SELECT * FROM entry e WHERE {beyond} ORDER BY {order.format(f'e.{column}')} LIMIT :window)"  # noqa: S608 -- our names
    where = " AND ".join(terms) or "TRUE"
    rows = connection.execute(
        _PAGE.format(column=column, source=window, where=where, order=order.format("1")), parameters
    ).fetchall()
    if terms and len(rows) < limit:
        # A unary plus keeps the sort's index out.
        order = order.format(f"+e.{column}")
        where = f"{where} AND {beyond}"
        rows = connection.execute(_PAGE.format(column=column, source="entry", where=where, order=order), parameters).fetchall()
    found = [(Place(*row[:3]), row[3], row[4], row[5]) for row in rows]
    return sorted(found, key=lambda one: one[0], reverse=query.descending)  # SQL promises no order through a join


_PAGE = """
    SELECT s.value, s.fingerprint, s.protocol, s.mod_revision, r.key, r.rest
    FROM (
        SELECT e.{column} AS value, e.fingerprint, e.protocol, e.mod_revision, e.id FROM {source} e WHERE {where}
        ORDER BY {order} LIMIT :limit
    ) s CROSS JOIN answer r ON r.entry = s.id
"""
