"""Going on after a refusal (`domain.restart`): an administrator's word, and the only way on which a replica is given up.

MERGE brings what is here into the log, DISCARD forgets it. What waits in the outbox is delivered after a merge, as ever, and forgotten
with a discard, BEFORE the log is followed and the delivery could take it up. Either ends with the replicator taking the log as it then is.

ORDER: everything is in the log BEFORE the replica is replaced, and nothing but the log says how far a merge came. So one that breaks
off anywhere leaves the replica and the refusal as they were; begun anew, it finds what it brought and goes on from there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from keycache.cache.bringing import BATCH, BATCH_BYTES, Bringing, Item, Tally, item_of
from keycache.cache.journal import Journal
from keycache.cache.writer import audit_put
from keycache.codec import decode_entry, decode_settings, encode_settings
from keycache.domain.entry import Protocol
from keycache.domain.errors import Conflict, InvalidInput, LogUnavailable, Refused
from keycache.domain.log import (
    ABSENT,
    AUDIT,
    BLOCKS,
    CHAIN,
    DELETIONS,
    ENTRIES,
    ISSUERS,
    REMOVED,
    SETTINGS,
    SETTINGS_HISTORY,
    Committed,
    Record,
    Survey,
    Transaction,
)
from keycache.domain.names import ClusterIdentity, Fingerprint
from keycache.domain.ports import EntryLog, EntryQuery, Examiner, Offload, Outbox, Replica, SortBy
from keycache.domain.restart import Action, RestartReport, Way
from keycache.domain.retention import expires_at, is_expired, lasting
from keycache.domain.settings import Settings, Timeouts
from keycache.replication.purger import Purger
from keycache.replication.replicator import Replicator
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import View

PAGE = 500

_KINDS = (SETTINGS_HISTORY, BLOCKS, ISSUERS, CHAIN, AUDIT)
"""Of documents that are brought along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """`entries`: brought into the log, or forgotten. `known`: of the merged, those that the log had already. `deleted`: not brought,
    since an administrator had removed them from the log. `identity`, `revision`: of the log that is followed from now on; in a dry
    run of the one that was found."""

    way: Way
    entries: int
    known: int
    deleted: int
    identity: str
    revision: int


class Resolving:
    def __init__(
        self,
        *,
        log: EntryLog,
        replica: Replica,
        view: View,
        replicator: Replicator,
        purger: Purger,
        examiner: Examiner,
        timekeeper: Timekeeper,
        journal: Journal,
        outbox: Outbox,
        offload: Offload,
        founding: ClusterIdentity | None = None,
    ) -> None:
        """`founding`: the identity of a log that this node founds, or did before it was cut off; None: any. `log`:
        the log itself, which takes writes that the
        gate of the flows does not let through yet."""
        self._log = log
        self._replica = replica
        self._view = view
        self._replicator = replicator
        self._purger = purger
        self._bringer = Bringing(log=log, examiner=examiner, timekeeper=timekeeper)
        self._timekeeper = timekeeper
        self._journal = journal
        self._outbox = outbox
        self._offload = offload
        self._founding = founding
        self._turn = asyncio.Lock()

    async def resolve(
        self,
        way: Way,
        actor: str,
        *,
        dry_run: bool = False,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> Resolved:
        """`progress` is told how many of how many entries are done. Raises Refused where there is nothing to resolve, or entries
        would expire by it; LogUnavailable, ForeignLog, Conflict, RecordTooLarge: nothing is lost, begin it anew."""
        async with self._turn:
            report, survey = await self._replicator.look()
            if survey is None:
                raise LogUnavailable(report.reason, hint="Nothing was changed. Try again when the log can be reached.")
            if report.action is not Action.REFUSE:
                raise Refused("There is nothing to resolve: this node has not refused its log.", hint="See 'keycache status'.")
            if way is Way.DISCARD:
                return await self._discard(report, survey, actor, dry_run=dry_run)
            return await self._merge(report, survey, actor, dry_run=dry_run, progress=progress)

    async def _discard(self, report: RestartReport, survey: Survey, actor: str, *, dry_run: bool) -> Resolved:
        count = report.kept + report.expired
        if dry_run:
            return self._resolved(Way.DISCARD, Tally(brought=count), survey)
        identity = survey.identity
        if identity is None:
            identity = await self._found({SETTINGS: self._settings_record()}, instead_of=None)
        self._log.bind(identity)
        record = self._journal.entry_of(actor, "RESOLVE", identity.text, f"DISCARD: {count} keys of this node forgotten")
        compare, puts = {}, audit_put(record)
        if survey.head == ABSENT and not self._log.is_shared:
            # As the first start of a node alone would do, which takes a log with anything in it for one that has settings.
            compare, puts = {SETTINGS: ABSENT}, {SETTINGS: self._settings_record(), **puts}
        if not isinstance(await self._log.commit(Transaction(compare=compare, puts=puts)), Committed):
            raise Conflict("The log was changed by somebody else just now.", hint="Look again, then try again.")
        await self._offload(self._outbox.clear)
        await self._replicator.take(identity)
        return self._resolved(Way.DISCARD, Tally(brought=count), survey, identity)

    async def _merge(
        self, report: RestartReport, survey: Survey, actor: str, *, dry_run: bool, progress: Callable[[int, int], None]
    ) -> Resolved:
        identity = survey.identity
        theirs = (await self._log.survey((SETTINGS,))).records[SETTINGS]
        anew = identity is None or identity == report.replica_identity  # nobody's, or ours that went back
        settings = self._newer_settings(theirs) if anew else {}
        if theirs is not None and not settings:
            await self._refuse_to_expire(theirs)
        if not dry_run:
            if identity is None or anew:
                identity = await self._found(settings, instead_of=identity)
            self._log.bind(identity)
            await self._bring_documents(identity, removals=anew or identity == self._founding)
        gone = {(one.protocol, one.fingerprint) for one in (await self._purger.plan()).remove}
        total = report.kept + report.expired - len(gone)
        tally = Tally()
        async for batch in self._batches(gone):
            await self._bringer.bring(batch, identity, tally, dry_run=dry_run)
            progress(tally.brought + tally.known + tally.deleted, total)
        if dry_run:
            return self._resolved(Way.MERGE, tally, survey)
        assert identity is not None
        detail = f"MERGE: {tally.brought} keys brought, {tally.known} known already, {tally.deleted} removed there before"
        record = self._journal.entry_of(actor, "RESOLVE", identity.text, detail)
        await self._log.commit(Transaction(compare={}, puts=audit_put(record)))
        await self._replicator.take(identity)
        return self._resolved(Way.MERGE, tally, survey, identity)

    def settle(self) -> None:
        """The log that this node was to found is there: one that an administrator has it found later is another."""
        self._founding = None

    def _resolved(self, way: Way, tally: Tally, survey: Survey, identity: ClusterIdentity | None = None) -> Resolved:
        known = identity or survey.identity
        return Resolved(
            way=way,
            entries=tally.brought + tally.known if way is Way.MERGE else tally.brought,
            known=tally.known,
            deleted=tally.deleted,
            identity="" if known is None else known.text,
            revision=survey.head if identity is None else self._replicator.applied,
        )

    async def _found(self, puts: dict[str, bytes], *, instead_of: ClusterIdentity | None) -> ClusterIdentity:
        """A new lifetime of the log. After a log went back in time it gets one, so that every other node notices too, and can bring
        what it has."""
        planned = self._founding if instead_of is None else None
        identity = planned or ClusterIdentity(secrets.token_hex(16))
        if not isinstance(await self._log.found(identity, puts, instead_of=instead_of), Committed):
            raise Conflict("Somebody else founded the log just now.", hint="Look again, then try again.")
        return identity

    def _newer_settings(self, theirs: Record | None) -> dict[str, bytes]:
        """The settings known here, unless those that the log went back to (or is without) are as new. They come into force in the
        transaction that founds it: not for a moment may entries live by older ones, under which they might count as expired."""
        ours = self._replica.document(SETTINGS)
        newer = ours is not None and (theirs is None or theirs.mod_revision < ours.mod_revision)
        return {SETTINGS: ours.value} if ours is not None and newer else {}

    def _settings_record(self) -> bytes:
        known = self._replica.document(SETTINGS)
        return encode_settings(Settings()) if known is None else known.value

    async def _refuse_to_expire(self, record: Record) -> None:
        """`record`: the settings of the log. An entry that is unexpired here and would be expired there is lost by merging it.
        Settings are for an administrator to change, where they are in force. Raises Refused."""
        try:
            theirs = decode_settings(record.value).timeouts
        except InvalidInput:
            return  # then nothing is removed there either
        now, ours = self._timekeeper.now(), self._view.settings
        doubtful = [
            self._item(one.protocol, one.fingerprint)
            for one in await asyncio.to_thread(lambda: self._replica.expired(now=now, timeouts=theirs))
            if ours is None or expires_at(lasting(one.sightings, ours.timeouts), ours.timeouts) > now
        ]
        lost = 0
        for start in range(0, len(doubtful), BATCH):
            items = [item for item in doubtful[start : start + BATCH] if item is not None]
            known = await self._bringer.look_up(items)
            for item in items:
                _, value = await self._bringer.decide(item, known)
                joined = decode_entry(value) if value is not None else item.entry
                lost += joined is not None and is_expired(joined, theirs, now)
        if lost:
            raise Refused(
                f"{lost} keys of this node are unexpired by the timeouts it knows, and would be expired by those of the log.",
                hint="Raise the timeouts there first ('keycache settings set' on a node that follows it), or discard.",
            )

    def _item(self, protocol: Protocol, fingerprint: Fingerprint) -> Item | None:
        stored = self._replica.entry(protocol, fingerprint)
        return None if stored is None else item_of(stored.entry)

    # 1. An administrator deletes K while node B is cut off.  2. The log is lost, and A brings what it has into a new one.  3. B brings
    # what it has: nothing in the log would say that K was deleted. Into a log that was others' all along no removals are brought:
    # nobody deleted anything there.
    async def _bring_documents(self, identity: ClusterIdentity, *, removals: bool) -> None:
        """Those that the log has none of."""
        settings = self._replica.document(SETTINGS)
        first = [] if settings is None else [settings]  # no entry may stand in the log before the settings it is to live by
        records = [*first, *(record for kind in _KINDS for record in self._replica.documents(kind))]
        if removals:  # and who was removed stays so, under an authority that goes on
            records += [*self._removals(), *self._replica.documents(REMOVED)]
        items = [Item(key=record.key, value=record.value) for record in records]
        for start in range(0, len(items), BATCH):
            await self._bringer.bring(items[start : start + BATCH], identity, Tally(), dry_run=False)

    def _removals(self) -> list[Record]:
        """Records of deletions that still hold: an entry that is here was brought back since."""
        found = self._replica.documents(DELETIONS)
        names = {record.key: ENTRIES + record.key.removeprefix(DELETIONS) for record in found}
        return [record for record in found if not self._replica.revisions(names[record.key], names[record.key] + "\0")]

    async def _batches(self, gone: set[tuple[Protocol, Fingerprint]]) -> AsyncIterator[list[Item]]:
        """Every entry here but those that may be removed this moment."""
        batch: list[Item] = []
        size = 0
        query = EntryQuery(now=self._timekeeper.now(), timeouts=Timeouts(), sort=SortBy.FINGERPRINT, limit=PAGE)
        unreadable = [Item(key=record.key, value=record.value) for record in self._replica.documents(ENTRIES)]
        async for page in self._pages(query, unreadable):
            for item in page:
                if item.entry is not None and (item.entry.key.protocol, item.entry.key.fingerprint) in gone:
                    continue
                if batch and (len(batch) == BATCH or size + len(item.value) > BATCH_BYTES):
                    yield batch
                    batch, size = [], 0
                batch.append(item)
                size += len(item.value)
        if batch:
            yield batch

    async def _pages(self, query: EntryQuery, last: list[Item]) -> AsyncIterator[list[Item]]:
        while True:
            page = await asyncio.to_thread(self._replica.query, query)
            yield [item_of(stored.entry) for stored in page.entries]
            if not page.next:
                break
            query = replace(query, after=page.next)
        yield last
