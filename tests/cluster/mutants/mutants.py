"""Each takes one guard out of the node that calls it. `sitecustomize` brings them there, `test_mutants.py` shows what is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from keycache.domain.log import ENTRIES, SETTINGS, Batch, CommitResult, Transaction
from keycache.domain.names import Revision
from keycache.etcd.log import EtcdLog

Commit = Callable[[EtcdLog, Transaction], Awaitable[CommitResult]]


# no mutant
def stall(folder: str) -> None:
    """A removal of entries waits: it makes the file `waits`, and goes on once there is `go`."""
    commit = EtcdLog.commit

    waits, go = Path(folder, "waits"), Path(folder, "go")

    def hold() -> None:
        waits.touch()
        while not go.exists():
            time.sleep(0.02)

    async def stalled(self: EtcdLog, transaction: Transaction) -> CommitResult:
        if any(key.startswith(ENTRIES) for key in transaction.deletes):
            await asyncio.to_thread(hold)
        return await commit(self, transaction)

    EtcdLog.commit = stalled


# 2. A purge is decided and carried out under the same settings
def purges_without_comparing_entries() -> None:
    _purge_compares(lambda key: not key.startswith(ENTRIES))


def purges_without_comparing_settings() -> None:
    _purge_compares(lambda key: key != SETTINGS)


def _purge_compares(what: Callable[[str], bool]) -> None:
    commit = EtcdLog.commit

    async def careless(self: EtcdLog, transaction: Transaction) -> CommitResult:
        if transaction.deletes:
            kept = {key: revision for key, revision in transaction.compare.items() if what(key)}
            transaction = replace(transaction, compare=kept)
        return await commit(self, transaction)

    EtcdLog.commit = careless


# 4. Suspect clocks purge nothing
def stamps_by_the_raw_clock() -> None:
    from keycache.replication.timekeeper import Timekeeper

    def stamp(self: Timekeeper) -> datetime:
        return self._clock.now()

    Timekeeper.stamp = stamp


# 6. What was acknowledged is kept
def forgets_its_outbox() -> None:
    """It waits in memory alone."""
    from keycache import store
    from keycache.store.memory import MemoryOutbox

    opened = store.open_store

    def open_store(*arguments: Any, **more: Any) -> store.Store:
        return replace(opened(*arguments, **more), outbox=MemoryOutbox())

    store.open_store = open_store


def delivers_whatever_was_deleted() -> None:
    from keycache.cache import delivery

    delivery.removed_at = lambda _record: None


# 1, 4 of DESIGN: the restart check
def lists_whatever_log_it_finds() -> None:
    """The flush of seed question 6: what is there now replaces what was here."""
    from keycache.domain import restart

    decide = restart._decide

    def always(*arguments: Any, **more: Any) -> tuple[restart.Action, str]:
        action, reason = decide(*arguments, **more)
        return (restart.Action.RELIST if action is restart.Action.REFUSE else action), reason

    restart._decide = always


def takes_any_log_for_its_own() -> None:
    """It goes on from its cursor, whosever log it is."""
    from keycache.domain import restart

    decide = restart._decide

    def always(*arguments: Any, **more: Any) -> tuple[restart.Action, str]:
        action, reason = decide(*arguments, **more)
        return (restart.Action.RESUME if action is restart.Action.REFUSE else action), reason

    restart._decide = always


# 8. At the same revision every node's digest is equal
def loses_an_event_in_ten() -> None:
    """No mutant: what etcd 3.4 does around compactions (etcd#19179). The guard is the reconciler."""
    watch = EtcdLog.watch

    async def lossy(self: EtcdLog, *, after: Revision) -> AsyncGenerator[Batch, None]:
        count = 0
        async for batch in watch(self, after=after):
            kept = []
            for revision, event in batch.events:
                if event.key.startswith(ENTRIES):
                    count += 1
                    if count % 10 == 0:
                        continue
                kept.append((revision, event))
            yield replace(batch, events=tuple(kept))

    EtcdLog.watch = lossy
