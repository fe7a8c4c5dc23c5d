"""Writes to the log on behalf of the flows: compare, commit, try again on what others changed, wait until it is visible here.

While a shared log takes no writes, what comes with mail goes to the node's outbox instead (DESIGN 2.6). Administrators' acts do not:
whoever is told that a key is deleted must be able to rely on it, on every node.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from keycache.cache.holdings import Holdings
from keycache.codec import audit_to_wire, decode_entry, encode_entry, to_us
from keycache.domain.administration import AuditRecord
from keycache.domain.entry import Entry, Protocol
from keycache.domain.errors import Conflict, ForeignLog, InvalidInput, LogUnavailable, RecordTooLarge, Unavailable
from keycache.domain.log import ABSENT, AUDIT, Committed, Record, Refuted, Transaction, entry_key
from keycache.domain.names import Fingerprint, Revision
from keycache.domain.ports import EntryLog, Outbox, Replica, StoredEntry
from keycache.replication.replicator import Offload, Replicator
from keycache.replication.timekeeper import Timekeeper

T = TypeVar("T")

VISIBLE_SECONDS = 30.0
"""What was written is safe in the log; a disk that is busy for some seconds is no reason to tell the caller otherwise."""

ATTEMPTS = 16
"""Each refuted attempt means that another writer got through, so this many in a row is a storm and the caller is told."""


RECORD_BYTES = 1_500_000
"""etcd takes 1.5 MiB a request (FACTS 3); what is left is for names and comparisons. A log says so itself; this is for what waits for
one, and must not turn out to be undeliverable after it was acknowledged."""

Decide = Callable[[Entry | None], Awaitable["Update[T]"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Update(Generic[T]):
    """What an update function decides: `entry` to write (None: leave as it is), more records to put with it, and its `outcome`."""

    outcome: T
    entry: Entry | None
    puts: dict[str, bytes]


class Written(NamedTuple, Generic[T]):
    """What became of an update. `revision`: to wait for; the one already applied, if nothing was written to the log. `queued`: the
    entry waits in the outbox."""

    outcome: T
    revision: Revision
    queued: bool


class Writer:
    """`link_up`: whether the log can be reached, as far as this node knows; where it cannot, no mail waits for a deadline.
    `on_queued` is called when something came into the outbox."""

    def __init__(
        self,
        *,
        log: EntryLog,
        replica: Replica,
        replicator: Replicator,
        outbox: Outbox,
        holdings: Holdings,
        timekeeper: Timekeeper,
        offload: Offload,
        link_up: Callable[[], bool] = lambda: True,
        on_queued: Callable[[], None] = lambda: None,
    ) -> None:
        self._log = log
        self._replica = replica
        self._replicator = replicator
        self._outbox = outbox
        self._holdings = holdings
        self._timekeeper = timekeeper
        self._offload = offload
        self._link_up = link_up
        self._on_queued = on_queued
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def applied(self) -> Revision:
        """The revision that lookups on this node see now."""
        return self._replicator.applied

    async def update_entry(
        self, protocol: Protocol, fingerprint: Fingerprint, decide: Decide[T], *, queue: bool = False
    ) -> Written[T]:
        """Read, decide, compare-and-write, again if the entry changed meanwhile. `decide` may run several times.

        The entry is visible on this node when this returns (read your own writes), but for one case: with `queue` a key that is safe
        in the log while this node's replica lags is no failure, and the revision tells what to wait for.

        `queue`: while a shared log takes no writes, or the entry waits already, it goes to the outbox. Raises Conflict,
        RecordTooLarge; with `queue` OutboxFull and StoreError, without LogUnavailable and ForeignLog.
        """
        queue = queue and self._log.is_shared
        if queue and (not self._link_up() or self._holdings.pending(protocol, fingerprint) is not None):
            return await self._enqueue(protocol, fingerprint, decide)
        try:
            outcome, revision = await self._write(protocol, fingerprint, decide)
        except (LogUnavailable, ForeignLog):
            if not queue:
                raise
            # It may have been carried out all the same: then the delivery finds it there, and joins the two.
            return await self._enqueue(protocol, fingerprint, decide)
        try:
            await self._replicator.reach(revision, timeout_seconds=VISIBLE_SECONDS)
        except Unavailable:
            if not queue:
                raise
        return Written(outcome, revision, queued=False)

    async def _write(self, protocol: Protocol, fingerprint: Fingerprint, decide: Decide[T]) -> tuple[T, Revision]:
        """The outcome, and the revision that shows it."""
        key = entry_key(protocol, fingerprint)
        known = self._replica.entry(protocol, fingerprint)
        for _ in range(ATTEMPTS):
            update = await decide(None if known is None else known.entry)
            if update.entry is None:
                return update.outcome, max(self.applied, ABSENT if known is None else known.mod_revision)
            result = await self._log.commit(
                Transaction(
                    compare={key: ABSENT if known is None else known.mod_revision},
                    puts={key: encode_entry(update.entry), **update.puts},
                )
            )
            if isinstance(result, Committed):
                return update.outcome, result.revision
            record = result.current.get(key)
            known = None
            if record is not None:
                known = StoredEntry(entry=readable(record), mod_revision=record.mod_revision)
        raise Conflict(f"The entry {fingerprint} kept changing while it was written.", hint="Try again.")

    # 1. Two mails bring one key with an address each; the log is away.  2. Both find nothing of it waiting and decide; OpenPGP keys are
    # merged by a worker, which takes a while.  3. The second put takes the first one's place, and its address is gone though it was
    # acknowledged. Hence one at a time for each key.
    async def _enqueue(self, protocol: Protocol, fingerprint: Fingerprint, decide: Decide[T]) -> Written[T]:
        turn = self._turns.setdefault(entry_key(protocol, fingerprint), asyncio.Lock())
        async with turn:
            waits = self._holdings.pending(protocol, fingerprint) is not None
            update = await decide(self._holdings.entry(protocol, fingerprint))
            if update.entry is None:
                return Written(update.outcome, self.applied, queued=waits)
            size = len(encode_entry(update.entry)) + sum(len(value) for value in update.puts.values())
            if size > RECORD_BYTES:
                raise RecordTooLarge(
                    f"The key {fingerprint} makes a record of {size:,} bytes; the cluster's log takes {RECORD_BYTES:,}."
                )
            await self._offload(self._outbox.put, update.entry, update.puts, self._timekeeper.stamp())
        self._on_queued()
        return Written(update.outcome, self.applied, queued=True)

    async def catch_up(self, revision: Revision) -> None:
        """Wait until this node shows that revision. Raises Unavailable."""
        await self._replicator.reach(revision)

    async def commit(self, transaction: Transaction) -> Committed | Refuted:
        """Commit and wait until it is visible here."""
        result = await self._log.commit(transaction)
        if isinstance(result, Committed):
            await self._replicator.reach(result.revision, timeout_seconds=VISIBLE_SECONDS)
        return result

    async def act(
        self,
        record: AuditRecord,
        *,
        compare: dict[str, Revision] | None = None,
        puts: dict[str, bytes] | None = None,
        deletes: tuple[str, ...] = (),
    ) -> Revision:
        """An administrator's act and its line in the audit log, in one transaction. Raises Conflict when a comparison fails."""
        result = await self.commit(
            Transaction(compare=compare or {}, puts={**(puts or {}), **audit_put(record)}, deletes=deletes)
        )
        if isinstance(result, Refuted):
            raise Conflict(f"{record.subject} was changed by somebody else just now.", hint="Look again, then try again.")
        return result.revision


def readable(record: Record) -> Entry:
    """Raises Conflict for one of a later version."""
    try:
        return decode_entry(record.value)
    except InvalidInput as error:
        raise Conflict(
            f"The entry {record.key} cannot be read, so it is left as it is: {error.text}",
            hint="It may come from a later version; upgrade this node.",
        ) from error


def audit_put(record: AuditRecord, *, name: str = "") -> dict[str, bytes]:
    """The audit log's record of an act, to be put in the act's own transaction. `name`: of a record to write anew."""
    return {AUDIT + (name or timed_name(record.at)): audit_to_wire(record).SerializeToString(deterministic=True)}


def timed_name(at: datetime) -> str:
    """A name that sorts by time and is unique: microseconds since the epoch, a random id."""
    return f"{to_us(at):020d}-{uuid.uuid4().hex[:12]}"
