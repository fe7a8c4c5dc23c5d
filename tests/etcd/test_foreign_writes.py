"""An etcd that others use, too: their keys move its revisions, and no event of ours ever tells a watch."""

from __future__ import annotations

import asyncio
from pathlib import Path

from contract.log_words import committed, heard, listed, put
from keycache.clock import SystemClock
from keycache.domain.log import Batch, Committed, Transaction
from keycache.domain.names import Revision
from keycache.domain.ports import EntryLog
from keycache.replication.replicator import Replicator
from keycache.replication.view import View
from keycache.store.memory import MemoryReplica
from support.etcd import EtcdCluster, fresh_name, shared_etcd
from support.etcd_log import founded


async def write_elsewhere(etcd: EtcdCluster) -> None:
    await asyncio.to_thread(etcd.etcdctl, "put", f"/elsewhere/{fresh_name()}", "x")


async def reached(log: EntryLog, after: Revision, revision: Revision) -> list[Batch]:
    batches: list[Batch] = []
    async with asyncio.timeout(10):
        async for batch in log.watch(after=after):
            batches.append(batch)
            if batch.revision >= revision:
                return batches
    raise AssertionError("the watch ended")


async def test_a_watch_reaches_a_head_that_somebody_elses_keys_moved() -> None:
    async with founded(shared_etcd().endpoints) as log:
        start = await committed(log, put(a=b"1"))
        await write_elsewhere(shared_etcd())
        head = await log.head()
        assert head > start
        batches = await reached(log, start, head)
        assert [batch.events for batch in batches if batch.events] == []


async def test_a_watch_that_is_running_reaches_a_head_that_is_asked_for_later() -> None:
    async with founded(shared_etcd().endpoints) as log:
        start = await committed(log, put(a=b"1"))
        watch = log.watch(after=start)
        second = await committed(log, put(a=b"2"))
        assert (await heard(watch)).revision == second
        await write_elsewhere(shared_etcd())
        waiting = asyncio.ensure_future(anext(batch async for batch in watch if batch.revision > second))
        head = await log.head()
        async with asyncio.timeout(10):
            assert (await waiting).revision >= head


async def test_a_watch_reaches_the_revision_of_a_commit_that_changed_nothing() -> None:
    async with founded(shared_etcd().endpoints) as log:
        start = await committed(log, put(a=b"1"))
        await write_elsewhere(shared_etcd())
        result = await log.commit(Transaction(compare={}, puts={}, deletes=("nothing",)))
        assert isinstance(result, Committed)
        assert result.revision > start
        await reached(log, start, result.revision)


async def test_a_head_that_our_own_keys_made_is_reached_without_writing_anything() -> None:
    async with founded(shared_etcd().endpoints) as log:
        start = await log.head()
        revision = await committed(log, put(a=b"1"))
        await reached(log, start, await log.head())
        assert await log.head() == revision


async def test_a_quiet_watch_gives_signs_of_life_and_writes_nothing() -> None:
    async with founded(shared_etcd().endpoints) as log:
        start = await log.head()
        async with asyncio.timeout(10):
            batch = await anext(log.watch(after=start))
        assert batch == Batch(revision=start, events=())
        assert await log.head() == start


async def test_where_etcd_notifies_often_by_itself_nothing_is_written(tmp_path: Path) -> None:
    flag = "--experimental-watch-progress-notify-interval=100ms"
    with EtcdCluster.run(tmp_path, flags=[flag]) as etcd:
        async with founded(etcd.endpoints) as log:
            start = await committed(log, put(a=b"1"))
            watch = log.watch(after=start)
            waiting = asyncio.ensure_future(anext(batch async for batch in watch if batch.revision > start))
            await write_elsewhere(etcd)
            async with asyncio.timeout(10):
                batch = await waiting
            assert batch == Batch(revision=await log.head(), events=())


async def test_a_replica_becomes_ready_although_somebody_else_wrote_last() -> None:
    async with founded(shared_etcd().endpoints) as log:
        await committed(log, put(a=b"1"))
        replica = MemoryReplica()
        listed_at = (await listed(log))[0].revision
        replicator = Replicator(log=log, replica=replica, view=View(replica), clock=SystemClock(), offload=asyncio.to_thread)
        await write_elsewhere(shared_etcd())
        running = asyncio.ensure_future(replicator.run())
        try:
            async with asyncio.timeout(10):
                await replicator.ready.wait()
            assert replicator.applied > listed_at
            await write_elsewhere(shared_etcd())
            await replicator.reach(await log.head())
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
