"""Words in which the contract suites of the replica speak."""

from __future__ import annotations

from datetime import timedelta

from keycache.domain.entry import Entry
from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.ports import Cursor, DocumentChange, EntryQuery, Replica, StoredEntry
from keycache.domain.settings import Timeouts
from support.entries import T0

OURS = ClusterIdentity("ours")
TIMEOUTS = Timeouts(harvested=timedelta(days=10), looked_up=timedelta(hours=1), imported=timedelta(days=20))


def at(revision: int, identity: ClusterIdentity = OURS) -> Cursor:
    return Cursor(identity=identity, revision=Revision(revision))


def document(key: str, revision: int, value: bytes | None) -> DocumentChange:
    return DocumentChange(key=key, revision=Revision(revision), value=value)


def stored(entry: Entry, revision: int) -> StoredEntry:
    return StoredEntry(entry=entry, mod_revision=Revision(revision))


def every(**fields: object) -> EntryQuery:
    return EntryQuery(**{"now": T0, "timeouts": TIMEOUTS, **fields})  # type: ignore[arg-type]


def shown(replica: Replica, **fields: object) -> list[Entry]:
    """All pages of a listing; checks on the way that `count` agrees."""
    query = every(**fields)
    entries: list[Entry] = []
    while True:
        page = replica.query(query)
        entries.extend(one.entry for one in page.entries)
        assert len(page.entries) <= query.limit
        if not page.next:
            break
        query = every(**{**fields, "after": page.next})
    assert replica.count(query) == len(entries)
    return entries


def observed(replica: Replica) -> tuple[object, ...]:
    return (
        replica.cursor(),
        replica.query(every(limit=1000)).entries,
        replica.documents(""),
        replica.digest(),
        replica.counts(now=T0, timeouts=TIMEOUTS),
    )
