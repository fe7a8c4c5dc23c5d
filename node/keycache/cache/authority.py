"""What the log holds of a change of the authority: begun, amended, ended, each step once, by whoever comes first."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from keycache.cache.journal import Journal
from keycache.cache.writer import Writer
from keycache.codec.authority import decode_change, encode_change, encode_report
from keycache.domain.log import ABSENT, TOKENS, Record, Transaction, authority_key, authority_report_key
from keycache.domain.names import NodeId
from keycache.domain.ports import EntryLog, Replica
from keycache.domain.rotation import AuthorityChange, AuthorityReport, Step
from keycache.replication.view import View

TOKENS_AT_ONCE = 100
"""Tokens taken out with one transaction; etcd takes 128 operations. Those beyond it pin an authority that is gone, and let nobody in."""


class AuthorityRecords:
    def __init__(self, *, log: EntryLog, writer: Writer, replica: Replica, view: View, journal: Journal) -> None:
        self._log = log
        self._writer = writer
        self._replica = replica
        self._view = view
        self._journal = journal

    @property
    def changes(self) -> Mapping[str, AuthorityChange]:
        """As replicated here, by the id of the former authority."""
        return self._view.changes

    @property
    def reports(self) -> Mapping[NodeId, AuthorityReport]:
        return self._view.reports

    async def read(self, former: str) -> tuple[AuthorityChange, Record] | None:
        """As the log itself has it now: for what must not be decided by a replica that lags. Raises LogUnavailable, InvalidInput."""
        record = (await self._log.survey((authority_key(former),))).records[authority_key(former)]
        return None if record is None else (decode_change(record.value), record)

    async def begin(self, change: AuthorityChange) -> None:
        """Raises Conflict when another one is under way, LogUnavailable."""
        key = authority_key(change.former)
        line = self._journal.entry_of(change.begun_by, "AUTHORITY_BEGIN", change.following)
        await self._writer.act(line, compare={key: ABSENT}, puts={key: encode_change(change)})

    async def amend(self, change: AuthorityChange, known: Record, actor: str, act: str) -> None:
        """`known`: what it takes the place of. With the switch go the tokens: they pin the former authority.

        Raises Conflict, LogUnavailable.
        """
        tokens: tuple[str, ...] = ()
        if change.step is Step.SWITCHED:
            tokens = tuple(record.key for record in self._replica.documents(TOKENS))[:TOKENS_AT_ONCE]
        await self._writer.act(
            self._journal.entry_of(actor, act, change.following),
            compare={known.key: known.mod_revision},
            puts={known.key: encode_change(change, over=known.value)},
            deletes=tokens,
        )

    async def end(self, change: AuthorityChange, known: Record, nodes: Collection[NodeId], actor: str, act: str) -> None:
        """Nothing is under way any more, and nobody reports. Raises Conflict, LogUnavailable."""
        await self._writer.act(
            self._journal.entry_of(actor, act, change.following),
            compare={known.key: known.mod_revision},
            puts={},
            deletes=(known.key, *(authority_report_key(node) for node in nodes)),
        )

    async def report(self, report: AuthorityReport, change: AuthorityChange) -> None:
        """This node's own word, once it differs from its last, and while the change is under way. Raises LogUnavailable."""
        known = self._replica.document(authority_key(change.former))
        if known is None or self._view.reports.get(report.node) == report:
            return
        puts = {authority_report_key(report.node): encode_report(report)}
        await self._writer.commit(Transaction(compare={known.key: known.mod_revision}, puts=puts))
