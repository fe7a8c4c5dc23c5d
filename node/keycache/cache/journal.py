"""What is remembered of acts and verdicts: the audit log in the entry log, and the latest verdicts in memory."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from keycache.cache.results import MessageResult, VerdictLine
from keycache.cache.writer import Writer, audit_put, timed_name
from keycache.codec import audit_from_wire, decode
from keycache.domain.administration import AuditRecord
from keycache.domain.log import AUDIT, Record, Transaction
from keycache.domain.ports import Replica
from keycache.domain.verdict import Verdict
from keycache.replication.timekeeper import Timekeeper
from keycache.v1 import record_pb2

AUDIT_LIMIT = 10_000
"""Audit records kept, the newest: some years of a busy administrator in a few megabytes of every node."""

AUDIT_SLACK = 100
"""Records above the limit from which on they are trimmed, and as many in one transaction (etcd takes 128, FACTS 3)."""

VERDICTS_KEPT = 1_000

TALLY_SPAN = timedelta(minutes=10)
"""Like acts begin a new record after this long."""


@dataclass(slots=True, kw_only=True)
class _Tally:
    """A running count and what of it stands in the log. `turn`: one writes at a time, always the newest count."""

    at: datetime
    name: str
    count: int = 0
    written: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


def newest_first(records: Iterable[Record]) -> list[Record]:
    """In the order in which the log took them: clocks may be set between two acts, and two acts may share an instant."""
    return sorted(records, key=lambda record: (record.mod_revision, record.key), reverse=True)


class Journal:
    """`on_verdict` is called with each message's verdict, for metrics."""

    def __init__(
        self,
        *,
        writer: Writer,
        replica: Replica,
        timekeeper: Timekeeper,
        on_verdict: Callable[[Verdict], None] = lambda _verdict: None,
    ) -> None:
        self._writer = writer
        self._replica = replica
        self._timekeeper = timekeeper
        self.on_verdict = on_verdict
        self._counts: Counter[str] = Counter()
        self._tallies: dict[tuple[str, str, str, str], _Tally] = {}
        self._recent: deque[VerdictLine] = deque(maxlen=VERDICTS_KEPT)

    def note(self, result: MessageResult, at: datetime) -> None:
        """Count a message's verdict and remember the line."""
        self._counts[result.verdict.value] += 1
        self._recent.appendleft(
            VerdictLine(
                at=at,
                message_id=result.message_id,
                sender=result.sender,
                direction=result.direction,
                verdict=result.verdict,
                detail=result.detail,
            )
        )
        self.on_verdict(result.verdict)

    def verdicts(self, limit: int) -> tuple[dict[str, int], tuple[VerdictLine, ...]]:
        """Counts since start, and the newest lines first."""
        return dict(self._counts), tuple(self._recent)[:limit]

    async def audit(self, *, limit: int, subject: str = "") -> tuple[AuditRecord, ...]:
        """Newest first."""
        records = (
            audit_from_wire(decode(record_pb2.AuditRecord, record.value))
            for record in newest_first(self._replica.documents(AUDIT))
        )
        chosen = [record for record in records if not subject or record.subject == subject]
        return tuple(chosen[:limit])

    def entry_of(self, actor: str, action: str, subject: str, detail: str = "") -> AuditRecord:
        """A record of an act that happens now."""
        return AuditRecord(at=self._timekeeper.now(), actor=actor, action=action, subject=subject, detail=detail)

    async def record(self, actor: str, action: str, subject: str, detail: str = "") -> None:
        """An act that writes nothing else."""
        await self._writer.act(self.entry_of(actor, action, subject, detail))

    async def tally(self, actor: str, action: str, subject: str, noun: str) -> None:
        """One more of many like acts, such as the entries of one imported file: they share one record, which counts them, or a
        large import would push everything else out of the log."""
        now = self._timekeeper.now()
        self._tallies = {key: one for key, one in self._tallies.items() if now - one.at < TALLY_SPAN}
        tally = self._tallies.setdefault((actor, action, subject, noun), _Tally(at=now, name=timed_name(now)))
        tally.count += 1
        async with tally.turn:
            if tally.written == tally.count:
                return  # whoever had the turn before wrote ours along
            count = tally.count
            record = AuditRecord(at=tally.at, actor=actor, action=action, subject=subject, detail=f"{count} {noun}")
            await self._writer.commit(Transaction(compare={}, puts=audit_put(record, name=tally.name)))
            tally.written = count

    async def trim(self) -> None:
        """Drop the oldest records above the limit."""
        keys = [record.key for record in self._replica.documents(AUDIT)]
        surplus = keys[: max(0, len(keys) - AUDIT_LIMIT)]
        if len(surplus) < AUDIT_SLACK:
            return
        for start in range(0, len(surplus), AUDIT_SLACK):
            await self._writer.commit(Transaction(compare={}, puts={}, deletes=tuple(surplus[start : start + AUDIT_SLACK])))
