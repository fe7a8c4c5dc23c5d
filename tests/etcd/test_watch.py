"""Watches on a real etcd: fragments, compaction, leases."""

from __future__ import annotations

import asyncio
import time

import pytest

from contract.log_words import committed, delete, heard, put, state_of
from keycache.domain.errors import ForeignLog, LogCompacted
from keycache.domain.log import Event, Transaction
from keycache.domain.names import Revision
from support.etcd import shared_etcd
from support.etcd_log import founded


async def test_revisions_that_etcd_sends_in_fragments_are_told_whole() -> None:
    """Twelve transactions of 1.2 MiB; etcd's fragments are of 2 MiB, so that their borders lie within revisions."""
    async with founded(shared_etcd().endpoints) as log:
        start = await log.head()
        revisions = [
            await committed(log, Transaction(compare={}, puts={f"{number}/{one}": b"x" * 12_000 for one in range(100)}))
            for number in range(12)
        ]
        told: list[Revision] = []
        batches = 0
        async with asyncio.timeout(20):
            async for batch in log.watch(after=start):
                seen = [revision for revision, _ in batch.events]
                assert all(seen.count(revision) == 100 for revision in set(seen))
                told += seen
                batches += 1
                if batch.revision >= revisions[-1]:
                    break
        assert told == [revision for revision in revisions for _ in range(100)]
        assert batches > 1


async def test_a_slow_reader_that_compaction_overtakes_is_told_so_and_nothing_after_the_gap() -> None:
    """Large records fill what gRPC lets through unread, small ones the 1024 places that etcd keeps for a watch (its chanBufLen); then
    etcd leaves this watch behind."""
    async with founded(shared_etcd().endpoints) as log:
        watch = log.watch(after=await committed(log, put(a=b"1")))
        first = await committed(log, put(a=b"2"))
        assert (await heard(watch)).revision == first
        written = [await committed(log, put(large=b"x" * 1_000_000)) for _ in range(12)]
        for _ in range(15):
            written += await asyncio.gather(*(committed(log, put(**{f"k{one}": b"x"})) for one in range(100)))
        await asyncio.to_thread(shared_etcd().compact)
        told: list[Revision] = []

        async def to_its_end() -> None:
            async for batch in watch:
                told.extend(revision for revision, _ in batch.events)

        with pytest.raises(LogCompacted) as caught:
            async with asyncio.timeout(20):
                await to_its_end()
        assert told == sorted(written)[: len(told)]
        assert len(told) < len(written)
        assert caught.value.compacted == max(written)


async def test_a_watch_from_just_below_a_compacted_deletion_says_so() -> None:
    """etcd before 3.4.36 and 3.5.18 takes such a watch, and leaves the deletion out (etcd#19179)."""
    async with founded(shared_etcd().endpoints) as log:
        first = await committed(log, put(a=b"1"))
        second = await committed(log, delete("a"))
        assert second == first + 1
        assert await asyncio.to_thread(shared_etcd().compact) == second
        with pytest.raises(LogCompacted) as caught:
            await heard(log.watch(after=first))
        assert caught.value.compacted == second


async def test_a_watch_from_a_revision_that_etcd_has_not_come_to_finds_a_log_that_went_back() -> None:
    async with founded(shared_etcd().endpoints) as log:
        with pytest.raises(ForeignLog, match="has not come to that revision"):
            await heard(log.watch(after=Revision(await log.head() + 1000)))


async def test_a_node_that_is_cut_off_is_gone_when_its_lease_ends() -> None:
    async with founded(shared_etcd().endpoints, presence_seconds=2) as log:
        revision = await log.announce("members/1", b"1")
        again = await log.announce("members/1", b"2")
        assert again > revision
        begin = time.monotonic()
        batch = await heard(log.watch(after=again))
        assert [event for _, event in batch.events] == [Event(key="members/1", value=None)]
        assert time.monotonic() - begin < 10


async def test_announcing_keeps_one_lease_alive_beyond_its_first_end() -> None:
    async with founded(shared_etcd().endpoints, presence_seconds=3) as log:
        begin = time.monotonic()
        start = await log.announce("members/1", b"0")
        lease = log._leases["members/1"]
        last = start
        while time.monotonic() - begin < 5:
            await asyncio.sleep(0.3)
            last = await log.announce("members/1", b"1")
        assert log._leases["members/1"] == lease
        assert await state_of(log) == {"members/1": (b"1", last)}
        await log.withdraw("members/1")
