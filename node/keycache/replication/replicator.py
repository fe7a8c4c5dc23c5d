"""Keeps the replica equal to the log. The ONLY writer of the replica.

One round, for ever: look at the log, judge it (`domain.restart`), and act: list and replace, watch and apply, begin it, wait for it,
or leave it alone. Whatever goes wrong with the log leads back to the look. Lookups are answered from the replica all the time.

Ordering duties: nothing is listed BEFORE the check of this very round allowed it; rows and cursor go in ONE transaction (the replica
sees to it); the view is told AFTER the replica holds the change; waiters wake AFTER the view is told, so that who waited for a
revision sees all of its effects.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from datetime import timedelta

from keycache.codec import encode_settings
from keycache.domain.errors import (
    ForeignLog,
    KeycacheError,
    LogCompacted,
    LogUnavailable,
    StoreCorrupt,
    StoreError,
    Unavailable,
)
from keycache.domain.log import ABSENT, SETTINGS, Batch, Page, Survey
from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.ports import Clock, Cursor, DocumentChange, EntryChange, EntryLog, Offload, Replica, ReplicaChange
from keycache.domain.restart import UNFOUNDED, UNFOUNDED_HINT, Action, RestartReport
from keycache.domain.settings import Settings
from keycache.replication.checking import RestartCheck
from keycache.replication.link import GatedLog, LinkState
from keycache.replication.pull import Pull
from keycache.replication.readers import WATCHER_BACKLOG, Reader, Watched
from keycache.replication.reducer import reduce_events
from keycache.replication.view import View
from keycache.replication.waiting import unless

__all__ = ["RETRY_SECONDS", "WATCHER_BACKLOG", "LinkState", "Offload", "Replicator", "Watched"]

RETRY_SECONDS = (0.1, 0.5, 2.0, 5.0)
"""Back-off while the log cannot be reached, or the replica not be written; the last one repeats."""

LOOK_AGAIN_SECONDS = 5.0
"""How often a refused log is looked at: an administrator may have put the right one back."""

SERVE_AFTER = 0.5
"""Seconds from the start after which a replica that has settings is served, however far behind: an answer within a second of it."""

HEARD_WITHIN = timedelta(seconds=6)
"""A log that is well is heard every other second at least (etcd: progress of the watch); three missed are silence."""


class Replicator:
    """`run` forever in a task. `ready`: lookups may be answered. `caught_up`: the replica was equal to the log as it was looked at,
    once since the start. `log`: what the flows write to. `state` with its `reason`, and `report` of the last check, are for
    people."""

    def __init__(
        self,
        *,
        log: EntryLog,
        replica: Replica,
        view: View,
        clock: Clock,
        offload: Offload,
        check: RestartCheck,
        founding: ClusterIdentity | None = None,
        may_found: bool = True,
        on_listed: Callable[[Revision], None] = lambda _revision: None,
    ) -> None:
        """`founding`: the identity of a log that this node founds; None: any. `may_found`: whether it may. `on_listed` is
        told of each listing that made the replica anew."""
        self._log = log
        self._on_listed = on_listed
        self._replica = replica
        self._view = view
        self._clock = clock
        self._offload = offload
        self._check = check
        self._founding = founding
        self._may_found = may_found
        self._applied: Revision = ABSENT
        self._moved = asyncio.Condition()
        self._readers: set[Reader] = set()
        self._asked = asyncio.Event()
        self._listing_due = False
        self._taken: ClusterIdentity | None = None
        self._missing = 0
        self._attempt = 0
        self._heard = clock.sample().monotonic
        self.ready = asyncio.Event()
        self.caught_up = asyncio.Event()
        self.state = LinkState.STARTING
        self.reason = "The log was not looked at yet."
        self.report: RestartReport | None = None
        self.log: EntryLog = GatedLog(log, state=lambda: (self.state, self.reason), doubt=self._look_again)

    @property
    def applied(self) -> Revision:
        """The newest revision that lookups on this node see."""
        return self._applied

    @property
    def log_age(self) -> timedelta | None:
        """How long ago the log was last heard, or since the start if never. None: the log is on this node."""
        if not self._log.is_shared:
            return None
        return timedelta(seconds=self._clock.sample().monotonic - self._heard)

    @property
    def connected(self) -> bool:
        """Whether the log is followed, and was heard just now."""
        age = self.log_age
        return self.state is LinkState.FOLLOWING and (age is None or age < HEARD_WITHIN)

    async def run(self) -> None:
        """Survives everything that may pass. Raises StoreError, in a group: the replica is damaged, or cannot even be begun."""
        cursor = self._replica.cursor()
        if cursor is not None:
            self._applied = cursor.revision
            self._view.load()
        async with asyncio.TaskGroup() as group:
            if self._view.settings is not None:
                group.create_task(self._serve_soon(), name="serve anyway")
            while True:
                await self._round()

    async def reach(self, revision: int, *, timeout_seconds: float = 5.0) -> None:
        """Wait until that revision is applied here. Raises Unavailable when it takes too long."""
        if self._applied >= revision:
            return
        try:
            async with asyncio.timeout(timeout_seconds), self._moved:
                await self._moved.wait_for(lambda: self._applied >= revision)
        except TimeoutError:
            raise Unavailable(
                f"This node has applied revision {self._applied}, not yet {revision}.",
                hint="Try again, or ask without min_revision.",
            ) from None

    async def changes(self) -> AsyncIterator[Watched]:
        """Every change of an entry from now on."""
        reader = Reader()
        self._readers.add(reader)
        try:
            yield Watched(kind="STARTED", revision=self._applied)
            while True:
                yield await reader.next()
        finally:
            self._readers.discard(reader)

    async def look(self) -> tuple[RestartReport, Survey | None]:
        """The check as it would go now, and the survey it was made from (None: the log cannot be reached). Changes nothing."""
        return await self._check.look(missing=self._missing)

    async def take(self, identity: ClusterIdentity) -> None:
        """An administrator's word: the log of this identity replaces what is here, whatever the check says. Returns once it has, and
        the log takes writes."""
        self._taken = identity
        self._look_again()
        async with self._moved:
            await self._moved.wait_for(lambda: self._taken is None and self.state is LinkState.FOLLOWING)

    def list_anew(self) -> None:
        """The replica differs from the log: mend it, if the check allows it."""
        self._listing_due = True
        self._look_again()

    def miss(self, entries: int) -> None:
        """So many unexpired entries here are not in the log, and nobody removed them: it is not to be believed."""
        self._missing = entries
        self._look_again()

    def _look_again(self) -> None:
        self._asked.set()

    async def _serve_soon(self) -> None:
        await self._clock.sleep(SERVE_AFTER)
        self.ready.set()

    async def _round(self) -> None:
        try:
            await self._link()
        except LogCompacted:
            self._listing_due = True
            self._stand(LinkState.LISTING, "The log is looked at again.")
        except (LogUnavailable, ForeignLog) as error:
            self._stand(LinkState.SERVE_ONLY, str(error))
            await self._back_off()
        except StoreError as error:
            # A full disk may take the log's half of a write and not ours: lookups go on, and so do we once there is room. But a
            # node that cannot even begin says so by ending, and what is damaged is served no longer.
            if isinstance(error, StoreCorrupt) or not self.ready.is_set():
                raise
            self.reason = str(error)
            await self._back_off()
        except KeycacheError as error:  # etcd refuses what we ask of it: as good as no log, and no reason to end
            self._stand(LinkState.SERVE_ONLY, str(error))
            await self._back_off()

    async def _link(self) -> None:
        self._asked.clear()
        report, survey = await self.look()
        self.report = report
        if survey is None:
            raise LogUnavailable(report.reason)
        self._hear()
        action = Action.RELIST if survey.identity is not None and survey.identity == self._taken else report.action
        if action is Action.REFUSE:
            self._stand(LinkState.REFUSED, report.reason)
            await unless(self._asked, self._clock.sleep(LOOK_AGAIN_SECONDS))
        elif action is Action.FOUND and not self._may_found:
            raise LogUnavailable(UNFOUNDED, hint=UNFOUNDED_HINT)
        elif action is Action.FOUND:
            await self._found()  # the next round finds it founded, by us or by who was first
        else:
            await self._go_on(survey, listing=action is Action.RELIST or self._listing_due)

    async def _found(self) -> None:
        """Settings are written explicitly, once, and those in force here if there are any: a default must never come into force
        later by itself."""
        known = self._replica.document(SETTINGS)
        settings = encode_settings(Settings()) if known is None else known.value
        await self._log.found(self._founding or ClusterIdentity(secrets.token_hex(16)), {SETTINGS: settings})

    async def _go_on(self, survey: Survey, *, listing: bool) -> None:
        assert survey.identity is not None
        self._log.bind(survey.identity)
        if listing:
            self._stand(LinkState.LISTING, "The replica is made anew from the log.")
            await self._relist(survey.identity)
            if self._taken == survey.identity:
                self._taken = None
        self._stand(LinkState.FOLLOWING, "")
        await self._wake()
        await self._follow(survey.head)

    async def _relist(self, identity: ClusterIdentity) -> None:
        """Pages flow from the log into the one transaction of the replica as it asks for them: memory holds a few."""
        async with contextlib.aclosing(Pull(self._pages(), asyncio.get_running_loop())) as pull:
            revision = await pull.start()
            await self._offload(self._replica.replace, pull, Cursor(identity=identity, revision=revision))
        self._view.load()
        self._listing_due, self._missing = False, 0
        self._on_listed(revision)
        await self._advance(revision)
        for reader in self._readers:
            reader.lose(revision)

    async def _pages(self) -> AsyncGenerator[Page, None]:
        async with contextlib.aclosing(self._log.list()) as pages:
            async for page in pages:
                self._hear()
                yield page

    async def _follow(self, head: Revision) -> None:
        """Returns when it is asked to look again."""
        self._serve_from(head)
        async with contextlib.aclosing(self._log.watch(after=self._applied)) as batches:
            while (batch := await unless(self._asked, anext(batches, None))) is not None:
                await self._apply(batch)
                self._serve_from(head)
        if not self._asked.is_set():
            raise LogUnavailable("The log tells nothing more.")
        self._stand(LinkState.LISTING, "The log is looked at again.")

    async def _apply(self, batch: Batch) -> None:
        self._hear()
        if batch.revision > self._applied:
            changes = tuple(reduce_events(batch.events))
            cursor = Cursor(identity=self._log.identity, revision=batch.revision)
            await self._offload(self._replica.apply, changes, cursor)
            documents = [change.key for change in changes if isinstance(change, DocumentChange)]
            if documents:
                self._view.touched(documents)
            await self._advance(batch.revision)
            self._tell(changes)
        self._attempt = 0

    async def _advance(self, revision: Revision) -> None:
        self._applied = revision
        self._attempt = 0
        await self._wake()

    async def _wake(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    def _serve_from(self, head: Revision) -> None:
        if self._applied >= head:
            self.caught_up.set()
            self.ready.set()

    def _stand(self, state: LinkState, reason: str) -> None:
        """A log that does not help keeps no replica that has settings from being served."""
        self.state, self.reason = state, reason
        if state in {LinkState.SERVE_ONLY, LinkState.REFUSED} and self._view.settings is not None:
            self.ready.set()

    def _hear(self) -> None:
        self._heard = self._clock.sample().monotonic

    async def _back_off(self) -> None:
        seconds = RETRY_SECONDS[min(self._attempt, len(RETRY_SECONDS) - 1)]
        self._attempt += 1
        await unless(self._asked, self._clock.sleep(seconds))

    def _tell(self, changes: Sequence[ReplicaChange]) -> None:
        if not self._readers:
            return
        for change in changes:
            if isinstance(change, EntryChange):
                watched = Watched(
                    kind="REMOVED" if change.facts is None else "UPDATED",
                    revision=change.revision,
                    protocol=change.protocol,
                    fingerprint=change.fingerprint.text,
                    addresses=() if change.facts is None else change.facts.addresses,
                )
                for reader in self._readers:
                    reader.put(watched)
