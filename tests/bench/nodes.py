"""Data directories filled with made-up entries, nodes run on them, and what a process used."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc

from keycache.clock import SystemClock
from keycache.codec import encode_entry, encode_settings
from keycache.domain.entry import Entry, Key, Origin, Protocol, Sighting, Trust
from keycache.domain.log import ABSENT, SETTINGS, Committed, Transaction, entry_key
from keycache.domain.names import EmailAddress, Fingerprint
from keycache.domain.settings import Settings
from keycache.store import open_store

KEYCACHE = Path(sys.executable).with_name("keycache")
MATERIAL_BYTES = 1_400
"""With addresses and times about 1.5 KB a record: the answer's size that FACTS 4 measured with."""

PUTS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningNode:
    pid: int
    target: str
    seconds_to_first_answer: float
    """From starting the process to the first answered lookup."""


def address(number: int) -> str:
    return f"person{number}@company{number % 5_000}.example"


def fill(data_dir: Path, count: int, *, seed: int = 1) -> None:
    """Put `count` entries into a new data directory's log; the node's first start lists them into its replica."""
    asyncio.run(_fill(data_dir, count, random.Random(seed)))


async def _fill(data_dir: Path, count: int, chance: random.Random) -> None:
    store = open_store(data_dir)
    now = SystemClock().now()
    result = await store.log.commit(Transaction(compare={SETTINGS: ABSENT}, puts={SETTINGS: encode_settings(Settings())}))
    assert isinstance(result, Committed)
    for start in range(0, count, PUTS):
        puts = {}
        for number in range(start, min(start + PUTS, count)):
            at = now - timedelta(seconds=chance.randrange(86_400 * 400))
            entry = Entry(
                key=Key(
                    protocol=Protocol.SMIME,
                    fingerprint=Fingerprint(chance.randbytes(32).hex()),
                    material=chance.randbytes(MATERIAL_BYTES),
                    addresses=(EmailAddress(address(number)),),
                    names=(f"CN=Person {number}",),
                    trust=Trust.ANCHORED,
                    not_before=now - timedelta(days=500),
                    not_after=now + timedelta(days=500),
                    evidence_at=at,
                    algorithm="RSA 2048",
                ),
                sightings=(Sighting(origin=Origin.HARVESTED, source="<bench@example>", cached_at=at, refreshed_at=at),),
            )
            puts[entry_key(entry.key.protocol, entry.key.fingerprint)] = encode_entry(entry)
        await store.log.commit(Transaction(compare={}, puts=puts))
    store.close()


@contextmanager
def node(
    data_dir: Path,
    *,
    lookup: bool = True,
    limit_seconds: float = 900.0,
    endpoints: Sequence[str] = (),
    cluster: str = "keycache",
) -> Iterator[RunningNode]:
    """`keycache serve` as its user runs it, stopped by its own pid. `endpoints`: of etcd; none: it works alone."""
    environment = {
        **os.environ,
        "KEYCACHE_LISTEN__GRPC": "127.0.0.1:0",
        "KEYCACHE_LISTEN__METRICS": "off",
        "KEYCACHE_LOG__LEVEL": "warning",
        "KEYCACHE_MAIL__MANAGED_DOMAINS": "ours.example",
        "KEYCACHE_CLUSTER__NAME": cluster,
        "KEYCACHE_CLUSTER__ENDPOINTS": ",".join(endpoints),
    }
    run_file = data_dir / "run.json"
    run_file.unlink(missing_ok=True)
    began = time.monotonic()
    process = subprocess.Popen([KEYCACHE, "serve", "--data-dir", str(data_dir)], env=environment)
    try:
        while not run_file.exists():
            if process.poll() is not None or time.monotonic() - began > limit_seconds:
                raise SystemExit(f"the node did not start (exit code {process.poll()})")
            time.sleep(0.005)
        target = json.loads(run_file.read_bytes())["grpc"]
        if lookup:
            asyncio.run(_first_answer(data_dir, target))
        yield RunningNode(pid=process.pid, target=target, seconds_to_first_answer=time.monotonic() - began)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


async def _first_answer(data_dir: Path, target: str) -> None:
    from keycache.v1 import cache_pb2

    async with channel(data_dir, target) as open_channel:
        call = open_channel.unary_unary("/keycache.v1.KeyCache/Lookup")
        request = cache_pb2.LookupRequest(address=address(7)).SerializeToString()
        answer = cache_pb2.LookupResponse.FromString(await call(request, wait_for_ready=True))
        assert len(answer.result.keys) == 1


def channel(data_dir: Path, target: str) -> grpc.aio.Channel:
    """A channel of raw bytes, as the local administrator."""
    pki = data_dir / "pki"
    credentials = grpc.ssl_channel_credentials(
        (pki / "ca.pem").read_bytes(), (pki / "admin.key").read_bytes(), (pki / "admin.pem").read_bytes()
    )
    return grpc.aio.secure_channel(target, credentials, options=[("grpc.max_receive_message_length", -1)])


def own_memory(pid: int) -> int:
    """Bytes of memory of its own: anonymous, not file mappings."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise LookupError("RssAnon")


def processor_seconds(pid: int) -> float:
    """User and system time used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
