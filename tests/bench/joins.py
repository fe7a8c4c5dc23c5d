"""A node joins a cluster by the real commands, beside a bare listing of its etcd and a bare insert of the same rows."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import nodes
import sync

from keycache.clock import SystemClock
from keycache.cluster.standing import StandingFile
from keycache.domain.ports import EntryLog
from keycache.etcd.client import EtcdClient
from keycache.etcd.connection import EtcdTls
from keycache.etcd.log import EtcdLog
from keycache.store.files import DATABASE_NAME

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import command
from support.forming import places

ENTRIES = int(os.environ.get("KEYCACHE_BENCH_JOINED", "100000"))
ROUNDS = int(os.environ.get("KEYCACHE_BENCH_ROUNDS", "3"))
LIMIT_SECONDS = 600.0
GONE_SECONDS = 60.0
"""A node counts as alive for 15 s after its last word."""

PARTS = {
    "node goes over": "checks and certificate",
    "node ready": "going over",
    "replica listed anew": "listing",
    "in the cluster": "word in the log",
}
"""What the joiner logs at the end of each part."""


def measure(scratch: Path) -> None:
    host = scratch / "host"
    nodes.fill(host, ENTRIES)
    with _node(host):
        _, took = _run(host, "cluster", "create", "--name", "bench")
        print(f"  cluster create  {took:6.2f} s for {ENTRIES:,} entries", flush=True)
        ratios = [_round(host, scratch / f"joiner{number}", scratch / "bare.db") for number in range(ROUNDS)]
    whole, sync_alone = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(f"  median ratios   {whole:6.2f} of the whole join, {sync_alone:.2f} of its listing alone")


def _round(host: Path, joiner: Path, bare_file: Path) -> tuple[float, float]:
    """The joiner is removed afterwards, so that each joins a cluster of one node."""
    with _node(joiner):
        token = _run(host, "cluster", "token")[0]["token"]
        began = SystemClock().now()
        joined, took = _run(joiner, "cluster", "join", "--token", token)
        if joined["entries"] != ENTRIES:
            raise SystemExit(f"{joined['entries']} entries came of {ENTRIES}")
    parts = _parts(joiner / "log", began)
    parts["until the command saw it"] = took - sum(parts.values())
    listing, _ = sync.list_bare(lambda: _open_log(host))
    insert = sync.insert_bare(joiner / DATABASE_NAME, bare_file)
    bare_file.unlink()
    _remove(host, (joiner / "node-id").read_text().strip())
    bare = listing.wall + insert.wall
    print(f"  join            {took:6.2f} s: " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items()))
    print(f"  bare            {bare:6.2f} s: listing {listing.wall:.2f}, insert {insert.wall:.2f}")
    print(f"  join / bare     {took / bare:6.2f}; its listing / bare {parts['listing'] / bare:.2f}", flush=True)
    return took / bare, parts["listing"] / bare


def _parts(log: Path, began: datetime) -> dict[str, float]:
    """Seconds of each part."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    events = [(line["event"], datetime.fromisoformat(line["time"])) for line in lines]
    found, last = {}, began
    for event, part in PARTS.items():
        at = next(at for name, at in events if name == event and at > last)
        found[part], last = (at - last).total_seconds(), at
    return found


def _remove(host: Path, node: str) -> None:
    until = time.monotonic() + GONE_SECONDS
    words = [command.EXECUTABLE, "cluster", "remove", node, "--yes", "--data-dir", host]
    while subprocess.run(words, capture_output=True, check=False, timeout=LIMIT_SECONDS).returncode:
        if time.monotonic() > until:
            raise SystemExit("the joiner cannot be removed")
        time.sleep(1)


@asynccontextmanager
async def _open_log(host: Path) -> AsyncIterator[EntryLog]:
    standing = StandingFile(host).now
    assert standing is not None
    pair = (host / "pki" / "etcd.pem").read_bytes()
    tls = EtcdTls(ca=(host / "pki" / "ca.pem").read_bytes(), certificate=pair, key=pair)
    log = EtcdLog(EtcdClient(standing.endpoints, tls), standing.cluster)
    log.bind(standing.identity)
    yield log
    await log.close()


@contextmanager
def _node(data_dir: Path) -> Iterator[None]:
    started = command.start(data_dir, **{**places(), "LOG__LEVEL": "info", "PURGE__INTERVAL": "5m"})
    try:
        yield
    finally:
        command.stop(started)


def _run(data_dir: Path, *words: str) -> tuple[dict[str, Any], float]:
    """The command's document, and the seconds from its start to its end."""
    began = time.perf_counter()
    done = subprocess.run(
        [command.EXECUTABLE, *words, "--json", "--data-dir", data_dir],
        stdout=subprocess.PIPE,
        check=True,
        timeout=LIMIT_SECONDS,
    )
    return json.loads(done.stdout), time.perf_counter() - began
