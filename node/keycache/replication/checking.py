"""The restart check carried out: what this node holds, what the log says, and the judgement of `domain.restart`."""

from __future__ import annotations

import asyncio

from keycache.domain.errors import LogUnavailable
from keycache.domain.log import ABSENT, BLOCKS, ENTRIES, ISSUERS, SETTINGS, WITNESSES, Survey, witness_key
from keycache.domain.names import NodeId, Revision
from keycache.domain.ports import EntryLog, Replica
from keycache.domain.restart import Known, RestartReport, check
from keycache.domain.settings import Timeouts
from keycache.domain.skew import TRUSTED
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import View

NEWEST = 16
"""Entries that are looked for. One that was written again since is enough to see that the log went back."""

SURVEY_LIMIT = 100
"""Keys in one survey: etcd takes 128 operations in the transaction that reads them (FACTS 3)."""


class RestartCheck:
    def __init__(self, *, log: EntryLog, replica: Replica, view: View, timekeeper: Timekeeper, node_id: NodeId) -> None:
        self._log = log
        self._replica = replica
        self._view = view
        self._timekeeper = timekeeper
        self._witness = witness_key(node_id)

    async def look(self, *, missing: int = 0) -> tuple[RestartReport, Survey | None]:
        """Now. `missing`: as in Known. Raises StoreError.

        ORDER: what is here is read BEFORE the log, or what the log took in between would look as if it lacked in it.
        """
        known = await asyncio.to_thread(self._known, missing)
        survey, problem = await self._survey(known)
        settings = known.settings
        report = check(
            known=known,
            survey=survey,
            problem=problem,
            clock=TRUSTED if settings is None else self._timekeeper.verdict(settings.clock_skew_bound),
            now=self._timekeeper.now(),
            witnessed=self._timekeeper.witnessed(),
        )
        return report, survey

    async def _survey(self, known: Known) -> tuple[Survey | None, str]:
        """What the log says, or why it says nothing."""
        since = ABSENT if known.cursor is None else known.cursor.revision
        try:
            return await self._log.survey([*{**known.tips, known.witness: ABSENT}], since=since), ""
        except LogUnavailable as error:
            return None, str(error)

    def _known(self, missing: int) -> Known:
        """ORDER: the cursor FIRST. The replica may go on meanwhile; then the records read are newer than it, never older."""
        replica, settings, now = self._replica, self._view.settings, self._timekeeper.now()
        cursor = replica.cursor()
        timeouts = Timeouts() if settings is None else settings.timeouts  # of no account for the sum of all
        counts = replica.counts(now=now, timeouts=timeouts)
        unreadable = len(replica.documents(ENTRIES))
        return Known(
            cursor=cursor,
            settings=settings,
            total=counts.live + counts.expired + counts.held + unreadable,
            expired=() if settings is None else tuple(replica.expired(now=now, timeouts=timeouts)),
            decisions=sum(len(replica.documents(prefix)) for prefix in (BLOCKS, ISSUERS)),
            tips=self._tips(),
            witness=self._witness,
            missing=missing,
        )

    def _tips(self) -> dict[str, Revision]:
        """Our own witness and the settings first, then as many as one survey takes."""
        first = (self._replica.document(key) for key in (self._witness, SETTINGS))
        tips = {record.key: record.mod_revision for record in first if record is not None}
        tips.update(self._replica.newest(NEWEST))
        witnesses = sorted(self._replica.documents(WITNESSES), key=lambda record: record.mod_revision, reverse=True)
        tips.update({record.key: record.mod_revision for record in witnesses[: SURVEY_LIMIT - len(tips) - 1]})
        return tips
