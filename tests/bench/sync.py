"""A replica's first sync beside the bare work in it: a listing of the same records, and an insert of the same rows. Then a real node on
the same log: memory of its own, and how soon it answers.

The log may be any that implements `EntryLog`: it is opened anew for each step, on that step's event loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodes
import uvloop

from keycache.app import settle_process
from keycache.clock import SystemClock
from keycache.domain.names import ClusterIdentity, NodeId
from keycache.domain.ports import EntryLog
from keycache.etcd.client import EtcdClient
from keycache.etcd.log import EtcdLog
from keycache.replication.checking import RestartCheck
from keycache.replication.replicator import Replicator
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import View
from keycache.store import open_store
from keycache.store.database import Database
from keycache.store.replica import CHUNK, SqliteReplica
from keycache.v1 import cache_pb2

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.etcd import EtcdCluster

ENTRIES = int(os.environ.get("KEYCACHE_BENCH_ENTRIES", "1000000"))
ROUNDS = int(os.environ.get("KEYCACHE_BENCH_ROUNDS", "3"))
SEED = 20_260_101
NAME = "bench"

TABLES = {"entry": "id", "answer": "entry", "address": "rowid"}
"""Those that hold a row or more of each entry, and the order in which a sync writes them."""

OpenLog = Callable[[], AbstractAsyncContextManager[EntryLog]]


@dataclass(slots=True)
class Stopwatch:
    """Adds up the seconds of its blocks, those that passed and those of processor that this process used."""

    wall: float = 0.0
    processor: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self.wall += time.perf_counter() - wall
        self.processor += time.process_time() - processor


def alone(scratch: Path) -> None:
    """On the log of a node's own."""
    data_dir = scratch / "node"
    nodes.fill(data_dir, ENTRIES)

    @asynccontextmanager
    async def open_log() -> AsyncIterator[EntryLog]:
        store = open_store(data_dir)
        yield store.log
        store.close()

    _compare(open_log, scratch)
    _run_nodes(data_dir)


def joining(scratch: Path) -> None:
    """On etcd, whose quota must take them."""
    flags = ("--quota-backend-bytes", str(8 << 30))
    with EtcdCluster.run(scratch, size=1, flags=flags) as etcd:

        @asynccontextmanager
        async def open_log() -> AsyncIterator[EntryLog]:
            log = EtcdLog(EtcdClient(etcd.endpoints), NAME)
            identity = ClusterIdentity("bench")
            await log.found(identity, {})  # refuted, and as well, from the second time on
            log.bind(identity)
            yield log
            await log.close()

        async def fill() -> None:
            async with open_log() as log:
                await nodes.fill_log(log, ENTRIES)

        uvloop.run(fill())
        (status,) = json.loads(etcd.etcdctl("endpoint", "status", "-w", "json"))
        size = status["Status"]["dbSizeInUse"]
        print(f"  etcd's database {size / 1e6:7.0f} MB in use: {ENTRIES / size * 2**30:,.0f} entries a GiB", flush=True)
        _compare(open_log, scratch)
        (scratch / "node").mkdir(mode=0o700)
        _run_nodes(scratch / "node", endpoints=etcd.endpoints, cluster=NAME)


def _run_nodes(data_dir: Path, **options: Any) -> None:
    with nodes.node(data_dir, **options) as first:
        print(
            f"  first start     {first.seconds_to_first_answer:7.1f} s to the first answer, "
            f"{first.peak_memory / 1e6:.0f} MB of memory of its own at most"
        )
    with nodes.node(data_dir, **options) as second:
        print(f"  next start      {second.seconds_to_first_answer:7.2f} s to the first answer")
        uvloop.run(_touch(data_dir, second.target))
        print(f"  after 20,000 lookups {nodes.own_memory(second.pid) / 1e6:.0f} MB of memory of its own")
    size = sum(file.stat().st_size for file in data_dir.iterdir() if file.is_file())
    print(f"  on its disk     {size / 1e6:7.0f} MB", flush=True)


async def _touch(data_dir: Path, target: str) -> None:
    chance = random.Random(SEED)
    async with nodes.channel(data_dir, target) as channel:
        call = channel.unary_unary("/keycache.v1.KeyCache/BatchLookup")
        for _ in range(200):
            addresses = [nodes.address(chance.randrange(ENTRIES)) for _ in range(100)]
            await call(cache_pb2.BatchLookupRequest(addresses=addresses).SerializeToString())


def _compare(open_log: OpenLog, scratch: Path) -> None:
    settle_process()
    for _ in range(ROUNDS):
        synced_file, bare_file = scratch / "synced.db", scratch / "bare.db"
        listing, records = list_bare(open_log)
        sync = first_sync(open_log, synced_file)
        insert = insert_bare(synced_file, bare_file)
        for name, watch in (("bare listing", listing), ("bare insert", insert), ("first sync", sync)):
            print(f"  {name:14}{watch.wall:9.1f} s   {watch.processor / records * 1e6:6.1f} microseconds of processor a record")
        wall = sync.wall / (listing.wall + insert.wall)
        processor = sync.processor / (listing.processor + insert.processor)
        print(f"  first sync / (listing + insert)  {wall:.2f} in time, {processor:.2f} in processor time", flush=True)
        for file in (synced_file, bare_file):
            file.unlink()


def list_bare(open_log: OpenLog) -> tuple[Stopwatch, int]:
    """Also how many records there are."""
    watch = Stopwatch()

    async def pages() -> int:
        async with open_log() as log:
            with watch.running():
                return sum([len(page.records) async for page in log.list()])

    return watch, uvloop.run(pages())


def first_sync(open_log: OpenLog, target: Path) -> Stopwatch:
    """What a new node does: an empty replica, and a replicator on it until it has caught up."""
    watch = Stopwatch()
    database = Database.open(target)
    replica = SqliteReplica(database)

    async def sync() -> None:
        async with open_log() as log:
            view, clock = View(replica), SystemClock()
            timekeeper = Timekeeper(clock=clock, replica=replica, offload=database.run)
            check = RestartCheck(log=log, replica=replica, view=view, timekeeper=timekeeper, node_id=NodeId("bench"))
            replicator = Replicator(log=log, replica=replica, view=view, clock=clock, offload=database.run, check=check)
            with watch.running():
                running = asyncio.create_task(replicator.run())
                done = asyncio.create_task(replicator.caught_up.wait())
                await asyncio.wait((running, done), return_when=asyncio.FIRST_COMPLETED)
            running.cancel()
            await asyncio.wait((running,))
            assert done.done()

    uvloop.run(sync())
    database.close()
    return watch


def insert_bare(source: Path, target: Path) -> Stopwatch:
    """The rows of one database into a new one of the same schema, the way SQLite is known to be fastest: one transaction, one
    prepared statement a table, indexes built afterwards. Reading the rows does not count."""
    watch = Stopwatch()
    database = Database.open(target)
    reader = sqlite3.connect(source)
    with ExitStack() as transaction:
        connection = transaction.enter_context(database.write(durable=False))
        with watch.running():
            indexes = connection.execute(
                f"SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN {(*TABLES,)}"
            ).fetchall()
            for name, _ in indexes:
                connection.execute(f"DROP INDEX {name}")
        columns = {table: [row[1] for row in reader.execute(f"PRAGMA table_info({table})")] for table in TABLES}
        rows = {
            table: reader.execute(f"SELECT {', '.join(columns[table])} FROM {table} ORDER BY {order}")
            for table, order in TABLES.items()
        }
        while chunks := {table: chunk for table in TABLES if (chunk := rows[table].fetchmany(CHUNK))}:
            for table, chunk in chunks.items():
                names, marks = ", ".join(columns[table]), ", ".join("?" * len(columns[table]))
                with watch.running():
                    connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", chunk)
        with watch.running():
            for _, sql in indexes:
                connection.execute(sql)
            transaction.close()  # commits
            database.checkpoint()
    reader.close()
    database.close()
    return watch
