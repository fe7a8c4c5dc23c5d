"""Writes to the log on behalf of the flows: compare, commit, try again on what others changed, wait until it is visible here."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from keycache.codec import audit_to_wire, decode_entry, encode_entry, to_us
from keycache.domain.administration import AuditRecord
from keycache.domain.entry import Entry, Protocol
from keycache.domain.errors import Conflict, InvalidInput
from keycache.domain.log import ABSENT, AUDIT, Committed, Record, Refuted, Transaction, entry_key
from keycache.domain.names import Fingerprint, Revision
from keycache.domain.ports import EntryLog, Replica, StoredEntry
from keycache.replication.replicator import Replicator

T = TypeVar("T")

VISIBLE_SECONDS = 30.0
"""What was written is safe in the log; a disk that is busy for some seconds is no reason to tell the caller otherwise."""

ATTEMPTS = 16
"""Each refuted attempt means that another writer got through, so this many in a row is a storm and the caller is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update(Generic[T]):
    """What an update function decides: `entry` to write (None: leave as it is), more records to put with it, and its `outcome`."""

    outcome: T
    entry: Entry | None
    puts: dict[str, bytes]


class Writer:
    def __init__(self, *, log: EntryLog, replica: Replica, replicator: Replicator) -> None:
        self._log = log
        self._replica = replica
        self._replicator = replicator

    @property
    def applied(self) -> Revision:
        """The revision that lookups on this node see now."""
        return self._replicator.applied

    async def update_entry(
        self,
        protocol: Protocol,
        fingerprint: Fingerprint,
        decide: Callable[[Entry | None], Awaitable[Update[T]]],
    ) -> tuple[T, Revision]:
        """Read, decide, compare-and-write, again if the entry changed meanwhile. `decide` may run several times.

        Returns its outcome and the revision to wait for; the one already applied, if nothing was written. The entry is visible
        on this node when this returns (read your own writes). Raises LogUnavailable, Conflict.
        """
        key = entry_key(protocol, fingerprint)
        known = self._replica.entry(protocol, fingerprint)
        for _ in range(ATTEMPTS):
            update = await decide(None if known is None else known.entry)
            if update.entry is None:
                await self.catch_up(ABSENT if known is None else known.mod_revision)
                return update.outcome, self.applied
            result = await self._log.commit(
                Transaction(
                    compare={key: ABSENT if known is None else known.mod_revision},
                    puts={key: encode_entry(update.entry), **update.puts},
                )
            )
            if isinstance(result, Committed):
                await self._replicator.reach(result.revision, timeout_seconds=VISIBLE_SECONDS)
                return update.outcome, result.revision
            record = result.current.get(key)
            known = None
            if record is not None:
                known = StoredEntry(entry=_readable(record), mod_revision=record.mod_revision)
        raise Conflict(f"The entry {fingerprint} kept changing while it was written.", hint="Try again.")

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


def _readable(record: Record) -> Entry:
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
