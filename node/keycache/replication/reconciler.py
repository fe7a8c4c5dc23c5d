"""Compares the whole replica with the whole log from time to time. A watch may lose events around a compaction (etcd#17529, #18089,
#19179; FACTS 3), and then nothing else would ever tell.

What must hold, for a listing at revision R and a replica that has applied R:
- a listed key is here, of the listed revision, or of one above R;
- a key that is here is listed, or of a revision above R.
What was deleted after R is neither: it is looked up in the log once more before it counts.

A difference is mended by a whole listing, which the restart check has to allow, never by single rows. But a record that the log lacks
may be lost there, not here. So if it is an unexpired entry that nobody deleted, the log is not believed (`domain.restart`). What a
listing did not mend is told, and not listed again: a fault of ours must not cost a listing of a million entries every ten minutes.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from keycache.domain.entry import Protocol
from keycache.domain.errors import ForeignLog, InvalidInput, LogCompacted, StoreError, Unavailable
from keycache.domain.log import ENTRIES, Page, deletion_key
from keycache.domain.names import Fingerprint, NodeId, Revision
from keycache.domain.ports import Clock, EntryLog, Replica
from keycache.domain.retention import is_expired
from keycache.replication.checking import SURVEY_LIMIT
from keycache.replication.link import LinkState
from keycache.replication.replicator import Replicator
from keycache.replication.view import View

RECONCILE = timedelta(minutes=10)

CATCH_UP_SECONDS = 30.0
"""For the replica to reach the listing's revision; a node that is further behind is compared at the next round."""

_END = "\U0010ffff"
"""Sorts after every key."""


@dataclass(slots=True)
class _Differences:
    """`suspects`: listed, and not here; deleted since, or missing."""

    suspects: list[str] = field(default_factory=list)
    stale: set[str] = field(default_factory=set)
    unlisted: set[str] = field(default_factory=set)


class Reconciler:
    """`run` in a task. `repaired`: records that differed when the whole was last compared, at `reconciled_at` (None: not yet)."""

    def __init__(
        self,
        *,
        log: EntryLog,
        replica: Replica,
        view: View,
        replicator: Replicator,
        clock: Clock,
        node_id: NodeId,
        interval: timedelta = RECONCILE,
    ) -> None:
        self._log = log
        self._replica = replica
        self._view = view
        self._replicator = replicator
        self._clock = clock
        self._interval = interval
        # By a share of the interval that differs from node to node, so that they do not all list at once.
        share = int.from_bytes(hashlib.sha256(node_id.text.encode()).digest()[:4], "big") / 2**32
        self._first = interval * share
        self._mended: set[str] = set()
        self.repaired = 0
        self.reconciled_at: datetime | None = None

    async def run(self) -> None:
        """For ever. A log that is on this node tells its watch itself and is not compared."""
        if not self._log.is_shared:
            return
        await self._clock.sleep(self._first.total_seconds())
        while True:
            await self._clock.sleep(self._interval.total_seconds())
            if self._replicator.state is LinkState.FOLLOWING:
                await self.tick()

    async def tick(self) -> None:
        """One comparison. A log or a disk that fails meanwhile, or a replica too far behind: there is a next round."""
        try:
            differing, missing = await self.compare()
        except (Unavailable, LogCompacted, ForeignLog, StoreError):
            return
        self.repaired, self.reconciled_at = len(differing), self._clock.now()
        if missing:
            self._replicator.miss(missing)
        elif differing - self._mended:
            self._replicator.list_anew()
        self._mended = differing

    async def compare(self) -> tuple[set[str], int]:
        """The keys that differ, and how many of them are unexpired entries here that the log lacks though nobody deleted them."""
        found = _Differences()
        position = ""
        revision: Revision | None = None
        async with aclosing(self._log.list(keys_only=True)) as pages:
            async for page in pages:
                if revision is None:
                    revision = page.revision
                    await self._replicator.reach(revision, timeout_seconds=CATCH_UP_SECONDS)
                if page.records:
                    last = page.records[-1].key + "\0"
                    await asyncio.to_thread(self._compare, page, position, last, found)
                    position = last
        assert revision is not None
        rest = Page(revision=revision, records=())
        await asyncio.to_thread(self._compare, rest, position, _END, found)
        differing = found.stale | found.unlisted | await self._confirmed(found.suspects)
        return differing, await self._missing(found.unlisted)

    # On a thread.
    def _compare(self, page: Page, first: str, last: str, found: _Differences) -> None:
        """Keys from `first` until before `last`, all of which the page has."""
        here = self._replica.revisions(first, last)
        for record in page.records:
            revision = here.pop(record.key, None)
            if revision is None:
                found.suspects.append(record.key)
            elif revision != record.mod_revision and revision <= page.revision:
                found.stale.add(record.key)
        found.unlisted.update(key for key, revision in here.items() if revision <= page.revision)

    async def _confirmed(self, suspects: list[str]) -> set[str]:
        """Those that are really missing here.

        1. We have applied A. 2. The key is not here. 3. The log still has it, of a revision not above A: we ought to have it.
        """
        missing: set[str] = set()
        for start in range(0, len(suspects), SURVEY_LIMIT):
            keys = suspects[start : start + SURVEY_LIMIT]
            applied = self._replicator.applied
            absent = [key for key in keys if key not in self._replica.revisions(key, key + "\0")]
            records = (await self._log.survey(absent)).records
            missing.update(key for key in absent if (record := records[key]) is not None and record.mod_revision <= applied)
        return missing

    async def _missing(self, unlisted: set[str]) -> int:
        """Unexpired entries among them that no administrator deleted. Without settings every one is unexpired."""
        lasting = [deletion_key(*named) for key in sorted(unlisted) if (named := _entry_name(key)) and self._lasts(key, *named)]
        missing = 0
        for start in range(0, len(lasting), SURVEY_LIMIT):
            records = (await self._log.survey(lasting[start : start + SURVEY_LIMIT])).records
            missing += sum(record is None for record in records.values())
        return missing

    def _lasts(self, key: str, protocol: Protocol, fingerprint: Fingerprint) -> bool:
        """Whether no node's purger may have removed it yet, whose clock may be as far ahead as clocks may differ."""
        stored, settings = self._replica.entry(protocol, fingerprint), self._view.settings
        if stored is None:
            return self._replica.document(key) is not None  # this version cannot read it
        return settings is None or not is_expired(
            stored.entry, settings.timeouts, self._clock.now() + settings.clock_skew_bound
        )


def _entry_name(key: str) -> tuple[Protocol, Fingerprint] | None:
    protocol, _, fingerprint = key.removeprefix(ENTRIES).partition("/")
    try:
        return (Protocol(protocol.upper()), Fingerprint.parse(fingerprint)) if key.startswith(ENTRIES) else None
    except (ValueError, InvalidInput):
        return None
