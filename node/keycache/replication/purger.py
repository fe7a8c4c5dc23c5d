"""Removes what has expired, and only that, and only under the settings by which it was found expired (DESIGN 2.1 to 2.4).

The race that is guarded, as an interleaving:
1. The purger reads the settings (24 h) and finds key K expired.
2. An administrator raises the timeout to 500 d; or a mail from K's owner refreshes K.
3. The purger removes K.
Step 3 is a transaction that compares K's and the settings' mod_revision with those of step 1: it is refuted, K stays, and the
sweep starts anew under what is now in force.

Where nodes share the log, one of them sweeps by itself (`membership.choose_purger`), to spare the log transactions that would come to
nothing. Nothing rests on it: what keeps an entry is the comparison of step 3. Every node plans, so that each knows, and says, what
would hold it; and a sweep that an administrator confirms is carried out by the node that was asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from keycache.domain.errors import KeycacheError
from keycache.domain.log import SETTINGS, Committed, Transaction, entry_key
from keycache.domain.ports import Clock, EntryLog, Replica
from keycache.domain.purge import Candidate, PurgePlan, PurgeState, plan
from keycache.domain.skew import TRUSTED
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import View
from keycache.replication.waiting import unless

BATCH = 100
"""Removals per transaction: a comparison and a deletion each, within etcd's 128 operations a list (FACTS 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeStatus:
    """`waiting`: expired entries that are held back."""

    state: PurgeState = PurgeState.IDLE
    reason: str = ""
    waiting: int = 0
    last_sweep_at: datetime | None = None
    last_sweep_removed: int = 0


class Purger:
    """`run` in a task; `wake` when settings changed; `sweep` at once when an administrator says so. `resting` is set while
    it waits for its next round."""

    def __init__(
        self,
        *,
        log: EntryLog,
        replica: Replica,
        view: View,
        timekeeper: Timekeeper,
        clock: Clock,
        interval: timedelta,
        on_removed: Callable[[int], None] = lambda _removed: None,
        is_chosen: Callable[[], bool] = lambda: True,
    ) -> None:
        self._log = log
        self._replica = replica
        self._view = view
        self._timekeeper = timekeeper
        self._clock = clock
        self._interval = interval
        self._on_removed = on_removed
        self._is_chosen = is_chosen
        self._woken = asyncio.Event()
        self.resting = asyncio.Event()
        self._sweeping = asyncio.Lock()
        self.status = PurgeStatus()

    def wake(self) -> None:
        self.resting.clear()
        self._woken.set()

    async def run(self) -> None:
        """Sweep, wait, for ever. A log or disk that fails is waited for."""
        while True:
            self._woken.clear()
            await self.tick()
            if not self._woken.is_set():
                self.resting.set()
            await self._wait()
            self.resting.clear()

    async def tick(self) -> None:
        """What is done every interval: write the time down, then sweep."""
        settings = self._view.settings
        try:
            if settings is not None:
                await self._timekeeper.heartbeat(settings.clock_skew_bound)
            await self.sweep()
        except KeycacheError as error:
            self.status = replace(self.status, reason=f"The last sweep failed: {error.text}")

    async def sweep(self, *, confirmed: bool = False) -> int:
        """Plan and carry out one sweep; the number of entries removed. `confirmed` releases a hold on mass expiry."""
        async with self._sweeping:
            decided = await self.plan(confirmed=confirmed)
            self.status = replace(
                self.status,
                state=decided.state,
                reason=decided.reason,
                waiting=decided.expired - len(decided.remove),
            )
            if decided.state is not PurgeState.SWEEPING:
                return 0
            if not confirmed and not self._is_chosen():  # asked once our own state is told: it has a say in whose turn it is
                self.status = replace(self.status, state=PurgeState.IDLE, waiting=0)
                return 0
            removed = 0
            try:
                for start in range(0, len(decided.remove), BATCH):
                    gone = await self._remove(decided.remove[start : start + BATCH], decided)
                    if gone is None:
                        break
                    removed += gone
            finally:
                self.status = replace(
                    self.status,
                    state=PurgeState.IDLE,
                    last_sweep_at=self._clock.now(),
                    last_sweep_removed=removed,
                )
                self._on_removed(removed)
            return removed

    async def plan(self, *, confirmed: bool = False) -> PurgePlan:
        """What a sweep would do now."""
        settings, revision = self._view.settings, self._view.settings_revision
        now = self._timekeeper.now()
        candidates: list[Candidate] = []
        total = 0
        if settings is not None:
            candidates = await asyncio.to_thread(self._replica.expired, now=now, timeouts=settings.timeouts)
        if settings is not None and candidates:
            counts = await asyncio.to_thread(self._replica.counts, now=now, timeouts=settings.timeouts)
            total = counts.live + counts.expired + counts.held
        return plan(
            candidates=candidates,
            total=total,
            settings=settings,
            settings_revision=revision,
            clock=TRUSTED if settings is None else self._timekeeper.verdict(settings.clock_skew_bound),
            now=now,
            witnessed=self._timekeeper.witnessed(),
            confirmed=confirmed,
        )

    async def _remove(self, candidates: Sequence[Candidate], decided: PurgePlan) -> int | None:
        """One transaction; refuted, it is tried again without the entries that changed. None: the settings changed, stop."""
        remaining = {entry_key(one.protocol, one.fingerprint): one.mod_revision for one in candidates}
        while remaining:
            result = await self._log.commit(
                Transaction(compare={SETTINGS: decided.settings_revision, **remaining}, puts={}, deletes=tuple(remaining))
            )
            if isinstance(result, Committed):
                return len(remaining)
            settings = result.current.get(SETTINGS)
            if settings is None or settings.mod_revision != decided.settings_revision:
                self.wake()
                return None
            kept = {
                key: revision
                for key, revision in remaining.items()
                if (record := result.current.get(key)) is not None and record.mod_revision == revision
            }
            if len(kept) == len(remaining):
                return None  # refuted, yet nothing differs: never remove on a doubt
            remaining = kept
        return 0

    async def _wait(self) -> None:
        await unless(self._woken, self._clock.sleep(self._interval.total_seconds()))
