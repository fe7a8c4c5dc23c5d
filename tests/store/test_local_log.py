"""What the local log keeps beyond the contract of every log: it outlives the process, and shares fsyncs."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from keycache.domain.errors import LogCompacted, LogUnavailable
from keycache.domain.log import ABSENT, Batch, Committed, Event, Page, Record, Refuted, Transaction
from keycache.domain.names import Revision
from keycache.store import Store, open_store
from keycache.store.local_log import BATCH_BYTES, LocalLog


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    one = open_store(tmp_path)
    yield one
    one.close()


def put(**puts: bytes) -> Transaction:
    return Transaction(compare={}, puts=puts)


async def pages(log: LocalLog) -> list[Page]:
    return [page async for page in log.list()]


async def keys(log: LocalLog) -> set[str]:
    return {record.key for page in await pages(log) for record in page.records}


class Statements:
    """What the writer executes from now on."""

    def __init__(self, store: Store) -> None:
        self.seen: list[str] = []
        store.database._writer.set_trace_callback(self.seen.append)

    def count(self, statement: str) -> int:
        return self.seen.count(statement)


class Blocked:
    """Holds the writing thread until the end of the block, so that commits gather behind it."""

    def __init__(self, store: Store) -> None:
        self._go = threading.Event()
        store.database.submit(self._go.wait, 30)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._go.set()


async def test_the_log_outlives_the_process(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    await store.log.commit(put(a=b"1", b=b"1"))
    await store.log.commit(Transaction(compare={}, puts={"c": b"2"}, deletes=("a",)))
    identity, head, listed = store.log.identity, await store.log.head(), await pages(store.log)
    store.close()
    store = open_store(tmp_path)
    assert (store.log.identity, await store.log.head(), await pages(store.log)) == (identity, head, listed)
    watch = store.log.watch(after=Revision(0))
    assert await anext(watch) == Batch(
        revision=head,
        events=(
            (Revision(1), Event(key="b", value=b"1")),
            (Revision(2), Event(key="a", value=None)),
            (Revision(2), Event(key="c", value=b"2")),
        ),
    )
    assert await store.log.commit(put(d=b"3")) == Committed(revision=Revision(head + 1))
    store.close()


async def test_commits_that_wait_together_share_one_transaction_and_have_each_their_own_revision(store: Store) -> None:
    statements = Statements(store)
    with Blocked(store):
        commits = [asyncio.ensure_future(store.log.commit(put(**{f"k{number}": b"x"}))) for number in range(100)]
        await asyncio.sleep(0)
    results = await asyncio.gather(*commits)
    assert results == [Committed(revision=Revision(number)) for number in range(1, 101)]
    assert statements.count("COMMIT") == 1
    assert await keys(store.log) == {f"k{number}" for number in range(100)}


async def test_a_group_is_bounded(store: Store) -> None:
    statements = Statements(store)
    with Blocked(store):
        commits = [asyncio.ensure_future(store.log.commit(put(**{f"k{number}": b"x"}))) for number in range(600)]
        await asyncio.sleep(0)
    await asyncio.gather(*commits)
    assert statements.count("COMMIT") == 3


async def test_within_a_group_each_commit_sees_those_before_it(store: Store) -> None:
    with Blocked(store):
        commits = [
            asyncio.ensure_future(store.log.commit(Transaction(compare={"a": expected}, puts={"a": value})))
            for expected, value in ((ABSENT, b"1"), (ABSENT, b"2"), (Revision(1), b"3"), (Revision(1), b"4"))
        ]
        await asyncio.sleep(0)
    assert await asyncio.gather(*commits) == [
        Committed(revision=Revision(1)),
        Refuted(revision=Revision(1), current={"a": Record(key="a", value=b"1", mod_revision=Revision(1))}),
        Committed(revision=Revision(2)),
        Refuted(revision=Revision(2), current={"a": Record(key="a", value=b"3", mod_revision=Revision(2))}),
    ]


async def test_a_group_in_which_all_are_refuted_moves_nothing(store: Store) -> None:
    statements = Statements(store)
    assert isinstance(await store.log.commit(Transaction(compare={"a": Revision(7)}, puts={"a": b"1"})), Refuted)
    assert not any(statement.startswith(("INSERT", "UPDATE", "DELETE")) for statement in statements.seen)


def limit_pages(store: Store, spare: int) -> None:
    """Let the file grow by `spare` pages of 4 KiB at most, as on a full disk; -1: by any number."""
    (count,) = store.database._writer.execute("PRAGMA page_count").fetchone()
    limit = 1 << 30 if spare < 0 else count + spare
    store.database._writer.execute(f"PRAGMA max_page_count = {limit}").fetchone()


async def test_a_full_disk_fails_the_commit_changes_nothing_and_the_node_goes_on(store: Store) -> None:
    await store.log.commit(put(a=b"1"))
    before = await pages(store.log)
    await store.database.run(limit_pages, store, 5)
    watch = store.log.watch(after=Revision(1))
    heard = asyncio.ensure_future(anext(watch))
    with pytest.raises(LogUnavailable, match="No room is left") as caught:
        await store.log.commit(put(big=b"x" * 1_000_000, a=b"2"))
    assert "Free some space" in caught.value.hint
    assert await pages(store.log) == before
    assert await store.log.head() == 1
    assert await store.log.commit(put(small=b"2")) == Committed(revision=Revision(2)), "what still fits is written"
    assert (await heard).revision == 2
    await store.database.run(limit_pages, store, -1)
    assert await store.log.commit(put(big=b"x" * 1_000_000)) == Committed(revision=Revision(3))


async def test_in_a_group_only_the_commit_that_cannot_be_written_fails(store: Store) -> None:
    await store.database.run(limit_pages, store, 30)
    with Blocked(store):
        commits = [
            asyncio.ensure_future(store.log.commit(put(**{f"k{number}": b"x" * (1_000_000 if number == 2 else 10)})))
            for number in range(5)
        ]
        await asyncio.sleep(0)
    results = await asyncio.gather(*commits, return_exceptions=True)
    assert isinstance(results.pop(2), LogUnavailable)
    assert results == [Committed(revision=Revision(number)) for number in range(1, 5)]
    assert await keys(store.log) == {"k0", "k1", "k3", "k4"}


async def test_a_cancelled_commit_that_was_submitted_is_carried_out_and_told_to_watches(store: Store) -> None:
    watch = store.log.watch(after=Revision(0))
    heard = asyncio.ensure_future(anext(watch))
    with Blocked(store):
        commit = asyncio.ensure_future(store.log.commit(put(a=b"1")))
        await asyncio.sleep(0)
        commit.cancel()
        await asyncio.gather(commit, return_exceptions=True)
    assert (await heard).events == ((Revision(1), Event(key="a", value=b"1")),)


async def test_commits_under_way_when_the_store_closes_are_either_told_or_refused_truthfully(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with Blocked(store):
        commits = [asyncio.ensure_future(store.log.commit(put(**{f"k{number}": b"x"}))) for number in range(20)]
        await asyncio.sleep(0)
    await asyncio.to_thread(store.close)
    results = await asyncio.gather(*commits, return_exceptions=True)
    told = {f"k{number}" for number, result in enumerate(results) if isinstance(result, Committed)}
    assert all(isinstance(result, Committed | LogUnavailable) for result in results)
    store = open_store(tmp_path)
    assert await keys(store.log) == told
    store.close()


async def test_a_commit_after_the_database_was_closed_is_refused_at_once(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.database.close()
    async with asyncio.timeout(10):
        with pytest.raises(LogUnavailable, match="is closed"):
            await store.log.commit(put(a=b"1"))
    store.close()


async def test_a_commit_between_a_watch_s_last_look_and_its_sleep_wakes_it(store: Store) -> None:
    """The numbered interleaving in `LocalLog.watch`."""
    loop = asyncio.get_running_loop()

    class Interleaved(LocalLog):
        looks = 0

        def _changes(self, after: Revision) -> Batch | None:
            batch = super()._changes(after)
            self.looks += 1
            if self.looks == 1:
                asyncio.run_coroutine_threadsafe(self.commit(put(a=b"1")), loop).result(timeout=10)
            return batch

    log = Interleaved(store.database)
    async with asyncio.timeout(10):
        batch = await anext(log.watch(after=Revision(0)))
    assert batch == Batch(revision=Revision(1), events=((Revision(1), Event(key="a", value=b"1")),))
    assert log.looks == 2, "one look per commit: a watch at rest does not spin"


async def test_tombstones_are_bounded_and_the_newest_are_kept(store: Store) -> None:
    log = LocalLog(store.database, keep_tombstones=10)
    for number in range(100):
        await log.commit(put(**{f"k{number}": b"x"}))
        await log.commit(Transaction(compare={}, puts={}, deletes=(f"k{number}",)))
    with store.database.reading() as connection:
        (tombstones,) = connection.execute("SELECT count(*) FROM log_record WHERE value IS NULL").fetchone()
        (compacted,) = connection.execute("SELECT compacted FROM log_state").fetchone()
    assert 10 <= tombstones <= 20
    batch = await anext(log.watch(after=compacted))
    assert [event.key for _, event in batch.events] == [f"k{number}" for number in range(100 - tombstones, 100)]
    with pytest.raises(LogCompacted) as caught:
        await anext(log.watch(after=Revision(compacted - 1)))
    assert caught.value.compacted == compacted


async def test_compaction_never_tears_a_revision(store: Store) -> None:
    log = LocalLog(store.database, keep_tombstones=3)
    names = [f"k{number}" for number in range(12)]
    await log.commit(put(**dict.fromkeys(names, b"x")))
    for start in (0, 4, 8):
        await log.commit(Transaction(compare={}, puts={}, deletes=tuple(names[start : start + 4])))
    with store.database.reading() as connection:
        rows = connection.execute(
            "SELECT mod_revision, count(*) FROM log_record WHERE value IS NULL GROUP BY mod_revision ORDER BY 1"
        ).fetchall()
    assert rows == [(4, 4)], "three would do, but those of one revision stay together"


async def test_the_count_of_tombstones_survives_a_restart_and_revived_keys_leave_it(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    log = LocalLog(store.database, keep_tombstones=2)
    for _ in range(20):
        await log.commit(put(a=b"1"))
        await log.commit(Transaction(compare={}, puts={}, deletes=("a",)))
    assert log._tombstones == 1
    store.close()
    store = open_store(tmp_path)
    assert store.log._tombstones == 1
    with store.database.reading() as connection:
        assert connection.execute("SELECT compacted FROM log_state").fetchone() == (0,)
    store.close()


async def test_batches_are_bounded_in_bytes(store: Store) -> None:
    for number in range(12):
        await store.log.commit(put(**{f"k{number:02}": b"x" * 1_000_000}))
    sizes: list[int] = []
    async for batch in store.log.watch(after=Revision(0)):
        sizes.append(len(batch.events))
        assert sum(len(event.value or b"") for _, event in batch.events) <= BATCH_BYTES + 1_000_000
        if batch.revision == 12:
            break
    assert sum(sizes) == 12
    assert len(sizes) > 1


async def test_what_was_acknowledged_is_there_after_kill_9(tmp_path: Path) -> None:
    script = f"""
import asyncio, itertools
from pathlib import Path
from keycache.domain.log import Transaction
from keycache.store import open_store
store = open_store(Path({str(tmp_path)!r}))
async def write(name):
    for number in itertools.count():
        key = f"{{name}}/{{number}}"
        await store.log.commit(Transaction(compare={{}}, puts={{key: b"x", key + "/twin": b"x"}}))
        print(key, flush=True)
async def main():
    await asyncio.gather(*(write(name) for name in "abcd"))
asyncio.run(main())
"""
    acknowledged: set[str] = set()

    def run() -> None:
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(100):
                acknowledged.add(child.stdout.readline().strip())
            child.send_signal(signal.SIGKILL)
            lines = child.stdout.read().split("\n")
            acknowledged.update(lines[:-1])

    await asyncio.to_thread(run)
    store = open_store(tmp_path)
    kept = await keys(store.log)
    assert acknowledged <= kept
    assert {key for key in kept if not key.endswith("/twin")} == {key.removesuffix("/twin") for key in kept}, "all or nothing"
    (page,) = await pages(store.log)
    assert len({record.mod_revision for record in page.records}) * 2 == len(page.records)
    store.close()
