"""Parts of the heart with one guard taken out each, to show that the guard is needed (habit 14). Never to be used but in tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from keycache.cache import KeyCache
from keycache.domain.errors import ForeignLog, LogCompacted
from keycache.domain.log import ENTRIES, SETTINGS, CommitResult, Survey, Transaction
from keycache.domain.purge import PurgePlan, plan
from keycache.domain.restart import Action, Known, RestartReport
from keycache.domain.settings import Settings
from keycache.domain.skew import TRUSTED
from keycache.replication.checking import RestartCheck
from keycache.replication.link import GatedLog
from keycache.replication.pull import Abandoned, Pull
from keycache.replication.purger import Purger
from keycache.replication.replicator import Replicator
from keycache.replication.timekeeper import Timekeeper
from support.odd_logs import InterposedLog


# the comparisons of the removing transaction (2.2)
class WithoutEntryComparison(InterposedLog):
    async def commit(self, transaction: Transaction) -> CommitResult:
        kept = {key: revision for key, revision in transaction.compare.items() if not key.startswith(ENTRIES)}
        return await super().commit(replace(transaction, compare=kept) if transaction.deletes else transaction)


class WithoutSettingsComparison(InterposedLog):
    async def commit(self, transaction: Transaction) -> CommitResult:
        kept = {key: revision for key, revision in transaction.compare.items() if key != SETTINGS}
        return await super().commit(replace(transaction, compare=kept) if transaction.deletes else transaction)


# the questions of the plan (2.3, 2.4)
class MutantPurger(Purger):
    """Plans as the real one does, except where a mutant says otherwise. By itself the control: nothing is taken out."""

    assumes_defaults = False
    trusts_any_clock = False
    confirms_itself = False
    believes_leaps = False

    async def plan(self, *, confirmed: bool = False) -> PurgePlan:
        settings = self._view.settings
        if settings is None and self.assumes_defaults:
            settings = Settings()
        timeouts = (settings or Settings()).timeouts
        now = self._timekeeper.now()
        counts = self._replica.counts(now=now, timeouts=timeouts)
        return plan(
            candidates=self._replica.expired(now=now, timeouts=timeouts),
            total=counts.live + counts.expired + counts.held,
            settings=settings,
            settings_revision=self._view.settings_revision,
            clock=TRUSTED if self.trusts_any_clock else self._timekeeper.verdict(timedelta(minutes=2)),
            now=now,
            witnessed=now if self.believes_leaps else self._timekeeper.witnessed(),
            confirmed=confirmed or self.confirms_itself,
        )


class AssumingDefaults(MutantPurger):
    assumes_defaults = True


class TrustingAnyClock(MutantPurger):
    trusts_any_clock = True


class ConfirmingItself(MutantPurger):
    confirms_itself = True


class BelievingLeaps(MutantPurger):
    believes_leaps = True


def give_purger(cache: KeyCache, purger_class: type[Purger]) -> None:
    """Before the node runs: that purger in the place of its own, on the same parts."""
    if purger_class is Purger:
        return
    ports = cache._ports
    cache.purger = purger_class(
        log=ports.log,
        replica=ports.replica,
        view=cache._view,
        timekeeper=cache._timekeeper,
        clock=ports.clock,
        interval=cache._facts.purge_interval,
    )
    cache.entries._purger = cache.resolving._purger = cache.cluster._purging = cache.purger


# the witness (2.1)
class StampingByTheClock(Timekeeper):
    def stamp(self) -> datetime:
        return self._clock.now()


class WritingDownAnyTime(Timekeeper):
    async def heartbeat(self, bound: timedelta) -> None:
        self._high_water = self._clock.now()
        await self._offload(self._replica.raise_high_water, self._high_water)


def give_timekeeper(cache: KeyCache, keeper_class: type[Timekeeper]) -> None:
    """Before the node runs: that timekeeper in the place of its own."""
    ports = cache._ports
    keeper = keeper_class(clock=ports.clock, replica=ports.replica, offload=ports.offload)
    check = cache.replicator._check
    for part in (cache, cache.harvesting, cache.purger, cache.entries, cache.lookups, cache.settings, cache.resolving, check):
        part._timekeeper = keeper


# the restart check (2.1)
class TakingAnyLog(RestartCheck):
    """The identity is not compared."""

    async def look(self, *, missing: int = 0) -> tuple[RestartReport, Survey | None]:
        report, survey = await super().look(missing=missing)
        if report.action is Action.REFUSE and report.log_identity != report.replica_identity:
            report = replace(report, action=Action.FOUND if report.log_identity is None else Action.RELIST)
        return report, survey


class BlindToTheHead(RestartCheck):
    async def _survey(self, known: Known) -> tuple[Survey | None, str]:
        survey, problem = await super()._survey(known)
        if survey is not None and known.cursor is not None:
            survey = replace(survey, head=max(survey.head, known.cursor.revision))
        return survey, problem


class BlindToTips(RestartCheck):
    def _known(self, missing: int) -> Known:
        known = super()._known(missing)
        return replace(known, tips={key: revision for key, revision in known.tips.items() if key == known.witness})


class BlindToTheWitness(RestartCheck):
    def _known(self, missing: int) -> Known:
        return replace(super()._known(missing), witness="witnesses/nobody")


class BlindToWhatIsMissing(RestartCheck):
    def _known(self, missing: int) -> Known:
        return super()._known(0)


class CountingByAnyClock(RestartCheck):
    """What is expired by the wall clock is a leftover, whatever speaks against the clock."""

    def _known(self, missing: int) -> Known:
        known = super()._known(missing)
        return replace(known, total=known.total - len(known.expired), expired=())


def give_check(cache: KeyCache, check_class: type[RestartCheck]) -> None:
    """Before the node runs: that check in the place of its own, on the same parts."""
    cache.replicator._check.__class__ = check_class


# the replicator (2.1, 2.8)
class ListingAtOnce(Replicator):
    """A log that lost its history is listed without another look at it."""

    async def _round(self) -> None:
        try:
            await self._link()
        except LogCompacted:
            await self._relist(self._log.identity)


class FollowingAnyLog(Replicator):
    """When the watch says that it is another log, that one is listed."""

    async def _round(self) -> None:
        try:
            await self._link()
        except ForeignLog:
            survey = await self._log.survey()
            if survey.identity is not None:
                self._log.bind(survey.identity)
                await self._relist(survey.identity)


class NeverClosing(GatedLog):
    """Lets every write through, however the node stands to the log."""

    async def commit(self, transaction: Transaction) -> CommitResult:
        return await self._log.commit(transaction)


def give_gate(cache: KeyCache, gate_class: type[GatedLog]) -> None:
    cache.replicator.log.__class__ = gate_class


def give_replicator(cache: KeyCache, replicator_class: type[Replicator]) -> None:
    cache.replicator.__class__ = replicator_class


class EndingWhenClosed(Pull):
    """As the built-in iteration would have it: a listing that was closed has no more pages."""

    def __next__(self) -> Sequence:
        try:
            return super().__next__()
        except Abandoned:
            raise StopIteration from None
