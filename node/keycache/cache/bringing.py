"""Records brought into a log beside what is there: after a refusal (`cache.resolving`), from a backup (`cache.restoring`).

Each is compared with what the log has of it, and an entry with its deletion. What is known there is joined, never replaced; what an
administrator removed there after it was last seen stays away. Brought again, it is found to be there: whatever breaks off is begun anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from keycache.cache.deletions import deletion_of
from keycache.cache.writer import ATTEMPTS
from keycache.codec import decode_entry, encode_entry
from keycache.domain.entry import Entry, Key, Protocol
from keycache.domain.errors import Conflict, ForeignLog, InvalidInput, RecordTooLarge
from keycache.domain.log import ABSENT, DELETIONS, ENTRIES, Committed, Record, Transaction, deletion_key, entry_key
from keycache.domain.merge import join_entries
from keycache.domain.names import ClusterIdentity
from keycache.domain.outbox import newest_sighting
from keycache.domain.ports import EntryLog, Examiner
from keycache.replication.timekeeper import Timekeeper

BATCH = 50
"""Entries in one transaction: each is compared, and so is its deletion, within etcd's 128 operations (FACTS 3)."""

BATCH_BYTES = 1024 * 1024
"""Of the values in one transaction, within etcd's 1.5 MiB (FACTS 3)."""


class Fate(Enum):
    BROUGHT = "BROUGHT"
    KNOWN = "KNOWN"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One record to bring. `entry` None: a document, or an entry that this version cannot read: brought as it is, or not."""

    key: str
    value: bytes
    entry: Entry | None = None

    @property
    def partner(self) -> str:
        """Of an entry the record that would say it was removed, and the other way round; empty where there is none."""
        if self.entry is not None:
            return deletion_key(self.entry.key.protocol, self.entry.key.fingerprint)
        return ENTRIES + self.key.removeprefix(DELETIONS) if self.key.startswith(DELETIONS) else ""


@dataclass(slots=True, kw_only=True)
class Tally:
    brought: int = 0
    known: int = 0
    deleted: int = 0

    def add(self, fates: Sequence[Fate]) -> None:
        self.brought += fates.count(Fate.BROUGHT)
        self.known += fates.count(Fate.KNOWN)
        self.deleted += fates.count(Fate.DELETED)


class Bringing:
    """`is_rejected`: whether keys of that issuer are not to come back."""

    def __init__(
        self,
        *,
        log: EntryLog,
        examiner: Examiner,
        timekeeper: Timekeeper,
        is_rejected: Callable[[Key], bool] = lambda _key: False,
    ) -> None:
        self._log = log
        self._examiner = examiner
        self._timekeeper = timekeeper
        self._is_rejected = is_rejected

    async def bring(self, items: Sequence[Item], identity: ClusterIdentity | None, tally: Tally, *, dry_run: bool) -> None:
        """Together, and one by one where one of them stands in the way of the others."""
        try:
            if await self._attempt(items, identity, tally, dry_run=dry_run):
                return
        except RecordTooLarge:
            if len(items) == 1:
                raise
        for item in items:
            for _ in range(ATTEMPTS):
                if await self._attempt([item], identity, tally, dry_run=dry_run):
                    break
            else:
                raise Conflict(f"The record {item.key} kept changing while it was merged.", hint="Try again.")

    async def _attempt(self, items: Sequence[Item], identity: ClusterIdentity | None, tally: Tally, *, dry_run: bool) -> bool:
        """Whether the log took them; if not, something of them was changed meanwhile."""
        known = await self.look_up(items, None if dry_run else identity)
        decided = [(item, *await self.decide(item, known)) for item in items]
        puts = {item.key: value for item, _, value in decided if value is not None}
        if puts and not dry_run:
            watched = [key for item, _, value in decided if value is not None for key in _keys_of(item)]
            compare = {key: ABSENT if (record := known.get(key)) is None else record.mod_revision for key in watched}
            if not isinstance(await self._log.commit(Transaction(compare=compare, puts=puts)), Committed):
                return False
        tally.add([fate for _, fate, _ in decided])
        return True

    async def look_up(self, items: Sequence[Item], identity: ClusterIdentity | None = None) -> dict[str, Record | None]:
        """What the log has of them. Raises ForeignLog when it is not of that identity any more."""
        survey = await self._log.survey([key for item in items for key in _keys_of(item)])
        if identity is not None and survey.identity != identity:
            raise ForeignLog("The log became another one while it was merged.", hint="Nothing is lost here. Look again.")
        return dict(survey.records)

    async def decide(self, item: Item, known: dict[str, Record | None]) -> tuple[Fate, bytes | None]:
        """What becomes of it, and what to write (None: nothing)."""
        record, partner = known.get(item.key), known.get(item.partner)
        if item.entry is None:  # a deletion of what is there is over: somebody brought it back
            return (Fate.BROUGHT, item.value) if record is None and partner is None else (Fate.KNOWN, None)
        if (partner is not None and _deleted_since(item.entry, partner)) or self._is_rejected(item.entry.key):
            return Fate.DELETED, None
        if record is None:
            return Fate.BROUGHT, item.value
        try:
            theirs = decode_entry(record.value)
        except InvalidInput:
            return Fate.KNOWN, None  # of a later version, which knows better
        ours = item.entry
        if theirs.key.protocol is Protocol.OPENPGP and theirs.key.material != ours.key.material:
            ours = replace(ours, key=await self._examiner.merge(theirs.key, ours.key, self._timekeeper.now()))
        joined = join_entries(theirs, ours)
        return Fate.KNOWN, None if joined == theirs else encode_entry(joined)


def item_of(entry: Entry) -> Item:
    return Item(key=entry_key(entry.key.protocol, entry.key.fingerprint), value=encode_entry(entry), entry=entry)


def _keys_of(item: Item) -> Iterator[str]:
    """Its own, and its partner's."""
    yield item.key
    if item.partner:
        yield item.partner


def _deleted_since(entry: Entry, record: Record) -> bool:
    """Whether an administrator removed it after it was seen last."""
    deletion = deletion_of(record)
    return deletion is not None and deletion.covers(newest_sighting(entry))
