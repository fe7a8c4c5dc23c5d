"""What administrators removed, remembered in the log for a while, so that a node that was cut off does not bring it back.

1. Node A is cut off from the log, and harvests key K, or refreshes it, into its outbox.
2. An administrator deletes K on node B.
3. A is back and delivers. Nothing of K is there, as if it had never been: without a record of the deletion, K would be put again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta

from keycache.cache.writer import Writer
from keycache.codec import decode, deletion_from_wire, deletion_to_wire
from keycache.domain.administration import Deletion
from keycache.domain.errors import InvalidInput
from keycache.domain.log import DELETIONS, Record, Transaction, deletion_key
from keycache.domain.ports import Replica, StoredEntry
from keycache.replication.timekeeper import Timekeeper
from keycache.v1 import record_pb2

DELETION_KEPT = timedelta(days=7)
"""A node that was cut off for longer may bring back a key it saw during that time: a week is twice a long weekend, and an outage that
nobody mends within it is no outage but a decision. A record takes 200 bytes of the log, so a purge of 100,000 keys costs 20 MB of
etcd's 2 GiB (FACTS 3) for that week."""

BATCH = 60
"""Removals per transaction: a deletion and a record of it each, within etcd's 128 operations a list (FACTS 3)."""


def deletion_puts(removed: Iterable[StoredEntry], deletion: Deletion) -> dict[str, bytes]:
    """To be put in the removal's own transaction."""
    value = deletion_to_wire(deletion).SerializeToString(deterministic=True)
    return {deletion_key(one.entry.key.protocol, one.entry.key.fingerprint): value for one in removed}


def removed_at(record: Record | None) -> datetime | None:
    """When an administrator removed the entry that the record is about. None as well for one that cannot be read: nothing that was
    acknowledged is dropped on a doubt."""
    if record is None:
        return None
    try:
        return deletion_from_wire(decode(record_pb2.Deletion, record.value)).at
    except InvalidInput:
        return None


class Deletions:
    def __init__(self, *, writer: Writer, replica: Replica, timekeeper: Timekeeper) -> None:
        self._writer = writer
        self._replica = replica
        self._timekeeper = timekeeper

    async def trim(self) -> None:
        """Forget those that are old enough, by no more time than this node saw pass. A record that was renewed meanwhile stays, and
        with it its batch, until the next hour."""
        until = min(self._timekeeper.now(), self._timekeeper.witnessed()) - DELETION_KEPT
        old = await asyncio.to_thread(self._before, until)
        for start in range(0, len(old), BATCH):
            compare = {record.key: record.mod_revision for record in old[start : start + BATCH]}
            await self._writer.commit(Transaction(compare=compare, puts={}, deletes=tuple(compare)))

    def _before(self, until: datetime) -> list[Record]:
        found = ((record, removed_at(record)) for record in self._replica.documents(DELETIONS))
        return [record for record, at in found if at is not None and at < until]
