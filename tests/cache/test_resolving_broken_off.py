"""A merge or a discard that breaks off anywhere leaves the refusal as it was, and ends the same when it is begun anew (habit 15)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta

import pytest

from keycache.cache.bringing import BATCH
from keycache.codec import encode_settings
from keycache.domain.errors import ForeignLog, LogUnavailable
from keycache.domain.log import AUDIT, ENTRIES, SETTINGS, SETTINGS_HISTORY, CommitResult, Transaction
from keycache.domain.restart import Way
from keycache.domain.settings import Settings, Timeouts
from keycache.replication.link import LinkState
from support.entries import T0, fingerprint_of, make_entry, make_sighting
from support.node import Node, eventually, running_node
from support.odd_logs import RestorableLog

DAY = timedelta(days=1)
LONGER = Settings(timeouts=Timeouts(harvested=999 * DAY))
THEIRS = "b" * 32

RANDOM = (AUDIT, SETTINGS_HISTORY)
"""Records whose names differ from run to run."""


class FailingLog(RestorableLog):
    """From write number `fails_at` on nothing gets through; `carried_out`: that one did, but nobody hears of it."""

    fails_at: int | None = None
    carried_out = False
    writes = 0

    async def found(self, identity, puts, *, instead_of=None) -> CommitResult:
        return await self._write(lambda: super(FailingLog, self).found(identity, puts, instead_of=instead_of))

    async def commit(self, transaction: Transaction) -> CommitResult:
        return await self._write(lambda: super(FailingLog, self).commit(transaction))

    async def _write(self, write: Callable[[], object]) -> CommitResult:
        self.writes += 1
        if self.fails_at is None or self.writes < self.fails_at:
            return await write()  # type: ignore[misc]
        if self.carried_out and self.writes == self.fails_at:
            await write()  # type: ignore[misc]
        raise LogUnavailable("The connection broke.")


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("how", ["emptied", "another", "went back"])
async def test_what_breaks_off_at_any_step_leaves_the_refusal_and_ends_the_same_when_it_is_begun_anew(
    how: str, way: Way, carried_out: bool
) -> None:
    """Write by write: it fails, with or without having been carried out; the node is started anew; it is resolved again."""
    ends = []
    step: int | None = None
    for attempt in range(1, 30):
        log = FailingLog()
        mine = [make_entry(number) for number in range(1, BATCH + 10)]
        async with running_node(node=Node(log=log)) as node:
            await node.cache.settings.change(harvested=999 * DAY, actor="admin")
            await node.seed(make_entry(0, make_sighting(cached_at=T0 - 600 * DAY)))
            backup = log.snapshot()
            await node.cache.settings.change(looked_up=2 * DAY, actor="admin")
            await node.cache.blocks.block(address="eve@example.org", until=None, reason="", actor="admin")
            await node.seed(*mine)
            await node.stop()
            if how == "went back":
                await log.restore(backup)
            else:
                log.wipe(THEIRS if how == "another" else "")
            if how == "another":
                await log.put(SETTINGS, encode_settings(LONGER))
            await node.start()
            assert node.cache.replicator.state is LinkState.REFUSED
            digest, cursor = node.replica.digest(), node.replica.cursor()
            log.writes, log.fails_at, log.carried_out = 0, step, carried_out
            with contextlib.suppress(LogUnavailable):
                await node.cache.resolving.resolve(way, "admin")
            broke = step is not None and log.writes >= step
            if broke:
                assert node.cache.replicator.state is LinkState.REFUSED
                assert (node.replica.digest(), node.replica.cursor()) == (digest, cursor)
                log.fails_at = None
                await node.restart()
                assert node.cache.replicator.state is LinkState.REFUSED
                assert node.served("user1@example.org") == [fingerprint_of(1).text]
                await node.cache.resolving.resolve(way, "admin")
            await node.until(LinkState.FOLLOWING)
            await node.settle()
            records = {key: value for key, (_, value) in log._records.items() if value and not key.startswith(RANDOM)}
            history = {(change.name, change.old, change.new) for change in await node.cache.settings.history()}
            ends.append((node.replica.digest(), records, history, await node.in_log()))
            later = how == "another" or (how == "went back" and way is Way.DISCARD)
            assert node.cache.settings.current()[0].timeouts.looked_up == (DAY if later else 2 * DAY)
        if step is not None and not broke:
            break
        step = attempt
    assert len(ends) > (5 if way is Way.MERGE else 2)
    assert all(end == ends[0] for end in ends)
    assert len(ends[0][3]) == (BATCH + 10 if way is Way.MERGE else 1 if how == "went back" else 0)


async def test_a_merge_that_is_cancelled_is_begun_anew() -> None:
    class Stalling(RestorableLog):
        stalls = False

        async def commit(self, transaction: Transaction) -> CommitResult:
            result = await super().commit(transaction)
            if self.stalls and any(key.startswith(ENTRIES) for key in transaction.puts):
                await asyncio.Event().wait()
            return result

    log = Stalling()
    async with running_node(*(make_entry(number) for number in range(BATCH + 10)), node=Node(log=log)) as node:
        log.wipe()
        await node.until(LinkState.REFUSED)
        log.stalls = True
        merging = asyncio.create_task(node.cache.resolving.resolve(Way.MERGE, "admin"))
        await eventually(lambda: any(key.startswith(ENTRIES) for key in log._records))
        merging.cancel()
        await asyncio.wait((merging,))
        log.stalls = False
        assert node.cache.replicator.state is LinkState.REFUSED
        result = await node.cache.resolving.resolve(Way.MERGE, "admin")
        assert (result.entries, result.known) == (BATCH + 10, BATCH)


async def test_a_log_that_becomes_another_one_during_a_merge_ends_it_and_nothing_here_is_lost() -> None:
    class Changing(RestorableLog):
        changes = False

        async def commit(self, transaction: Transaction) -> CommitResult:
            if self.changes and any(key.startswith(ENTRIES) for key in transaction.puts):
                self.changes = False
                self.wipe("c" * 32)
            return await super().commit(transaction)

    log = Changing()
    async with running_node(make_entry(1), node=Node(log=log)) as node:
        log.wipe(THEIRS)
        await node.until(LinkState.REFUSED)
        log.changes = True
        with pytest.raises(ForeignLog):
            await node.cache.resolving.resolve(Way.MERGE, "admin")
        await node.looked_again()
        assert node.cache.replicator.state is LinkState.REFUSED
        assert node.entry(fingerprint_of(1)) == make_entry(1)
        assert (await node.cache.resolving.resolve(Way.MERGE, "admin")).identity == "c" * 32
        assert await node.in_log() == {fingerprint_of(1).text: make_entry(1)}
