"""One writing thread, readers from anywhere, transactions that are all or nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keycache.domain.errors import StoreError
from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.ports import Cursor
from keycache.store import Store, open_store
from keycache.store.database import IDLE_READERS
from support.entries import make_entry, put


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    one = open_store(tmp_path)
    yield one
    one.close()


def cursor(revision: int) -> Cursor:
    return Cursor(identity=ClusterIdentity("ours"), revision=Revision(revision))


def pragma(store: Store, name: str, *, durable: bool) -> object:
    with store.database.write(durable=durable) as connection:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]


async def test_what_is_run_runs_on_one_thread_in_order_and_its_result_or_error_comes_back(store: Store) -> None:
    order: list[int] = []

    def note(number: int, *, fail: bool = False) -> int:
        order.append(number)
        if fail:
            raise StoreError("no")
        return threading.get_ident()

    threads = await asyncio.gather(*(store.database.run(note, number) for number in range(50)))
    assert order == list(range(50))
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()
    with pytest.raises(StoreError, match="no"):
        await store.database.run(note, 50, fail=True)


async def test_the_replica_is_written_on_the_writing_thread_while_the_loop_reads(store: Store) -> None:
    await store.database.run(store.replica.apply, [put(make_entry(1), 1)], cursor(1))
    assert list(store.replica.lookup(["user1@example.org"])) == ["user1@example.org"]


def test_a_durable_transaction_syncs_and_another_does_not(store: Store) -> None:
    full, normal = 2, 1
    assert [pragma(store, "synchronous", durable=durable) for durable in (True, False, True)] == [full, normal, full]


def test_rows_cannot_lose_their_parents(store: Store) -> None:
    assert pragma(store, "foreign_keys", durable=True) == 1


def test_a_block_that_raises_is_undone_and_the_next_one_works(store: Store) -> None:
    def fail() -> None:
        with store.database.write(durable=True) as connection:
            connection.execute("UPDATE replica_state SET identity = 'wrong'")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with store.database.write(durable=True) as connection:
        assert connection.execute("SELECT identity FROM replica_state").fetchone() == (None,)


def test_a_snapshot_does_not_move_and_readers_do_not_wait_for_the_writer(store: Store) -> None:
    with store.database.snapshot() as old:
        assert old.execute("SELECT revision FROM replica_state").fetchone() == (None,)
        store.replica.apply([], cursor(1))
        with store.database.write(durable=True) as connection:
            connection.execute("UPDATE replica_state SET revision = 2")
            assert store.replica.cursor() == cursor(1)
        assert old.execute("SELECT revision FROM replica_state").fetchone() == (None,)
    assert store.replica.cursor() == cursor(2)


def test_a_reader_cannot_write(store: Store) -> None:
    with pytest.raises(StoreError, match="cannot be written"), store.database.reading() as connection:
        connection.execute("DELETE FROM entry")


def test_connections_of_many_threads_are_used_again_and_few_stay_open(store: Store, tmp_path: Path) -> None:
    threads = 3 * IDLE_READERS
    together = threading.Barrier(threads)

    def read() -> None:
        with store.database.reading() as connection:
            together.wait()
            connection.execute("SELECT count(*) FROM entry").fetchone()

    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(read) for _ in range(threads)]:
            future.result()
    assert len(store.database._idle) == IDLE_READERS
    store.close()
    assert len(store.database._idle) == 0
    held = {path.resolve() for path in Path("/proc/self/fd").iterdir()}
    assert not {path for path in held if path.parent == tmp_path}


def test_the_log_of_writes_gives_its_room_back_after_a_first_listing(store: Store, tmp_path: Path) -> None:
    listing = [[put(make_entry(number, material_size=5000), 1) for number in range(500)]]
    store.replica.replace(iter(listing), cursor(1))
    assert (tmp_path / "keycache.db-wal").stat().st_size == 0
    assert store.replica.lookup(["user7@example.org"])
    store.database.verify()
