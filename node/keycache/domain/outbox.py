"""What waits on a node for a log that takes no writes (DESIGN 2.6), and what becomes of it on delivery. Values in, a value out.

What was decided while a node was cut off is as good as what was decided elsewhere meanwhile, so the two are joined, never one put in
the other's place. Only an administrator's removal, made at or after the entry's newest sighting, is stronger.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from keycache.domain.entry import Defect, Entry, Key
from keycache.domain.errors import OutboxFull
from keycache.domain.lookup import Row
from keycache.domain.merge import join_entries, join_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """One entry that waits. `number`: its place in the order of acceptance. `version`: counts how often it was put anew while it
    waited, so that a delivery of an older state does not remove a newer one. `puts`: records to be delivered with it."""

    number: int
    version: int
    entry: Entry
    puts: Mapping[str, bytes]
    queued_at: datetime


class Fate(Enum):
    """WRITE: the log lacks something of it. THERE: the log has all of it. REMOVED: an administrator removed it meanwhile."""

    WRITE = "WRITE"
    THERE = "THERE"
    REMOVED = "REMOVED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`entry`: what the log is to hold; None unless `fate` is WRITE."""

    fate: Fate
    entry: Entry | None = None


def newest_sighting(entry: Entry) -> datetime:
    return max(sighting.refreshed_at for sighting in entry.sightings)


def delivery(waiting: Entry, known: Entry | None, key: Key, removed_at: datetime | None) -> Decision:
    """What to do with an entry that waited. `known`: what the log holds. `key`: the waiting one's, already merged with the known
    material where that differs. `removed_at`: when an administrator last removed the entry, as far as that is still told.

    A removed entry that others have brought back since learns of a revocation from one that waited, and nothing else.
    """
    if removed_at is not None and removed_at >= newest_sighting(waiting):
        if known is None or key.defect is not Defect.REVOKED or known.key.defect is Defect.REVOKED:
            return Decision(fate=Fate.REMOVED)
        joined = replace(known, key=replace(join_keys(known.key, key), addresses=known.key.addresses))
        return Decision(fate=Fate.WRITE, entry=joined)
    if known is None:
        return Decision(fate=Fate.WRITE, entry=waiting)
    joined = join_entries(known, replace(waiting, key=key))
    return Decision(fate=Fate.THERE) if joined == known else Decision(fate=Fate.WRITE, entry=joined)


REVOKED = list(Defect).index(Defect.REVOKED) + 1
"""As `Row.defect` has it."""


def overlaid(rows: Iterable[Row], waiting: Sequence[Row], revoked: Container[tuple[int, str]]) -> list[Row]:
    """The replica's rows with those that wait in the place of the same keys'. `revoked`: protocol and fingerprint of keys that the
    replica knows to be revoked; a revocation holds whoever learned of it, so what waits of these is left out."""
    waiting = [row for row in waiting if (row.protocol, row.fingerprint) not in revoked]
    replaced = {(row.protocol, row.fingerprint) for row in waiting}
    return [row for row in rows if (row.protocol, row.fingerprint) not in replaced] + waiting


def full(count: int, limit: int) -> OutboxFull:
    """What to raise when there is no room."""
    return OutboxFull(
        f"The outbox of this node is full: {count:,} keys wait for the cluster's log, in the {limit >> 20:,} MiB that they may take.",
        hint="Bring etcd back (see 'keycache status'); what waits is then delivered by itself. Until then keys that are new or need a "
        "refresh are not kept; the next signed mail brings them again.",
    )
