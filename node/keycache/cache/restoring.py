"""Backup and restore: what is the administrators', as one log holds it at one revision, and its way into another one.

A restore removes nothing and shortens nothing. What is in the log already is joined with what the backup has (`cache.bringing`), so a
restore that breaks off anywhere is begun anew, and finds what it brought.

ORDER: the settings BEFORE the entries, so that none counts as expired under timeouts it was never meant for. A log without entries takes
the backup's; another one keeps its own, and then refuses an entry that lives by the backup's timeouts and would be expired by these.

What expired since the backup is brought all the same: lookups do not serve it, and its removal is the purger's, which has the guards for
that. A deleted key: its deletion, in the log or in the backup, holds back what was last seen before it, as long as it is kept
(`cache.deletions`). Of one that was deleted after the backup and that no deletion speaks of any more, nothing tells that it was deleted.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from keycache.cache.bringing import BATCH, Bringing, Item, Tally
from keycache.cache.cluster import ClusterDesk
from keycache.cache.desks import SettingsDesk
from keycache.cache.imports import AHEAD_LIMIT
from keycache.cache.journal import Journal
from keycache.cache.results import SettingsResult
from keycache.cache.writer import Writer
from keycache.codec import decode_entry
from keycache.codec.backup import Source, is_backed_up
from keycache.domain.errors import InvalidInput, LogUnavailable, Refused
from keycache.domain.log import DELETIONS, ENTRIES, SETTINGS, Record, entry_key
from keycache.domain.names import Revision
from keycache.domain.ports import EntryLog, Examiner, Replica
from keycache.domain.retention import is_expired
from keycache.domain.settings import Settings
from keycache.replication.link import LinkState
from keycache.replication.replicator import Replicator
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import View


class SettingsFrom(Enum):
    """BY_CONTENT: a log without entries takes the backup's settings, another keeps its own."""

    BY_CONTENT = "BY_CONTENT"
    BACKUP = "BACKUP"
    LOG = "LOG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """`settings`: of the backup. `records`: how many it has, for the audit log."""

    settings: Settings
    made_at: datetime
    choice: SettingsFrom
    dry_run: bool
    records: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Of the entries of one batch: `known` were here before (and are joined), `deleted` stay away, by an administrator's earlier word;
    `expired`: of what is written, by the settings in force. `documents`: blocks and the like that came."""

    brought: int
    known: int
    deleted: int
    expired: int
    documents: int


class Restoring:
    def __init__(
        self,
        *,
        replicator: Replicator,
        replica: Replica,
        view: View,
        writer: Writer,
        settings: SettingsDesk,
        examiner: Examiner,
        timekeeper: Timekeeper,
        journal: Journal,
        cluster: ClusterDesk,
    ) -> None:
        self._replicator = replicator
        self._log: EntryLog = replicator.log
        self._replica = replica
        self._view = view
        self._writer = writer
        self._settings = settings
        self._timekeeper = timekeeper
        self._journal = journal
        self._cluster = cluster
        self._bringer = Bringing(log=self._log, examiner=examiner, timekeeper=timekeeper, is_rejected=view.is_rejected)

    async def backup(self) -> AsyncGenerator[Source | Record, None]:
        """The source, then every record, all of one revision. Raises LogUnavailable, Unavailable without readable settings."""
        if self._replicator.state is not LinkState.FOLLOWING:
            raise LogUnavailable(
                f"A backup is made of the log, which this node does not follow now. {self._replicator.reason}".strip(),
                hint="See 'keycache status'. What this node holds, 'keycache export' gives at any time.",
            )
        self._view.require_settings()
        first = True
        async for page in self._log.list():
            if first:
                yield Source(
                    made_at=self._timekeeper.now(),
                    cluster=self._cluster.status().name if self._log.is_shared else "",
                    identity=self._log.identity.text,
                    revision=page.revision,
                    version=self._cluster.describe().version,
                )
                first = False
            for record in page.records:
                if is_backed_up(record.key) and not self._is_back(record.key):
                    yield record

    def _is_back(self, key: str) -> bool:
        """Whether this is the deletion of an entry that is there again: it would keep that away from where it is restored."""
        name = ENTRIES + key.removeprefix(DELETIONS)
        return key.startswith(DELETIONS) and bool(self._replica.revisions(name, name + "\0"))

    async def settle(self, terms: Terms, actor: str) -> SettingsResult:
        """The first step: the settings, if this log is to have the backup's. Raises Refused, LogUnavailable."""
        self._check_clock(terms)
        current = self._view.require_settings()
        wanted = self._in_force(terms, current)
        result = await self._settings.take(wanted, dry_run=True, actor=actor)
        if result.would_expire:
            raise Refused(
                f"Nothing was changed: {result.would_expire} keys that are here would be expired by the backup's settings.",
                hint="Restore without --take-settings; change settings with 'keycache settings set'.",
            )
        if terms.dry_run:
            return result
        made_at = f"{terms.made_at:%Y-%m-%d %H:%M:%S} UTC"
        await self._journal.record(actor, "RESTORE", f"backup of {made_at}", f"{terms.records} records")
        return await self._settings.take(wanted, dry_run=False, actor=actor, reason=f"backup of {made_at}")

    async def take(self, records: Sequence[Record], terms: Terms) -> Taken:
        """Raises InvalidInput; Refused, and nothing of these was brought; LogUnavailable, Conflict: nothing is lost, restore again."""
        self._check_clock(terms)
        if len(records) > BATCH:
            raise InvalidInput(f"{len(records)} records at once.", hint=f"Send at most {BATCH}.")
        items = [_item(record) for record in records if record.key != SETTINGS]  # `settle` has seen to these
        in_force = self._view.require_settings()
        if terms.dry_run:
            in_force = self._in_force(terms, in_force)
        now = self._timekeeper.now()
        known = await self._bringer.look_up(items)
        expired = lost = 0
        for item in items:
            if item.entry is None:
                continue
            _, written = await self._bringer.decide(item, known)
            if written is not None and is_expired(decode_entry(written), in_force.timeouts, now):
                expired += 1
                lost += not is_expired(item.entry, terms.settings.timeouts, now)
        if lost and terms.choice is not SettingsFrom.LOG:
            raise Refused(
                f"{lost} or more keys of the backup are unexpired by its own settings, and would be expired by those in force here.",
                hint="Raise the timeouts first ('keycache settings set') or say --take-settings; --keep-settings restores all the same.",
            )
        entries, documents = Tally(), Tally()
        await self._bring([item for item in items if item.key.startswith(ENTRIES)], entries, terms)
        await self._bring([item for item in items if not item.key.startswith(ENTRIES)], documents, terms)
        return Taken(
            brought=entries.brought,
            known=entries.known,
            deleted=entries.deleted,
            expired=expired,
            documents=documents.brought,
        )

    async def finish(self) -> Revision:
        """Until lookups here see all of it."""
        head = await self._log.head()
        await self._writer.catch_up(head)
        return head

    async def _bring(self, items: Sequence[Item], tally: Tally, terms: Terms) -> None:
        if items:
            await self._bringer.bring(items, None, tally, dry_run=terms.dry_run)

    def _in_force(self, terms: Terms, current: Settings) -> Settings:
        """Once `settle` is done."""
        taken = terms.choice is SettingsFrom.BACKUP or (terms.choice is SettingsFrom.BY_CONTENT and self._is_empty())
        return terms.settings if taken else current

    def _is_empty(self) -> bool:
        return not (self._cluster.waiting or self._replica.newest(1) or self._replica.documents(ENTRIES))

    def _check_clock(self, terms: Terms) -> None:
        if terms.made_at > self._timekeeper.stamp() + AHEAD_LIMIT:
            raise Refused(
                f"Nothing was changed: the backup was made at {terms.made_at:%Y-%m-%d %H:%M} UTC, which is in the future.",
                hint="Check this node's clock.",
            )


def _item(record: Record) -> Item:
    """Raises InvalidInput. An entry of a later version is brought as it is."""
    if not is_backed_up(record.key):
        raise InvalidInput(f"{record.key[:80]!r} is nothing that a backup holds.")
    if not record.key.startswith(ENTRIES):
        return Item(key=record.key, value=record.value)
    try:
        entry = decode_entry(record.value)
    except InvalidInput:
        return Item(key=record.key, value=record.value)
    if entry_key(entry.key.protocol, entry.key.fingerprint) != record.key:
        raise InvalidInput(f"The record {record.key[:80]!r} holds the entry of another key.")
    return Item(key=record.key, value=record.value, entry=entry)
