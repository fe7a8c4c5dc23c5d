"""Lookups, harvests and a million entries, each beside the bare thing in the same run. See `run`."""

from __future__ import annotations

import asyncio
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nodes
import uvloop

from keycache.v1 import cache_pb2

IN_FLIGHT = 32
ROUNDS = 7
ROUND_SECONDS = 2.0
ENTRIES = 100_000
SAMPLE = 2_000
BATCH = 100
SEED = 20_260_101


async def _load(channel: object, method: str, requests: Sequence[bytes], seconds: float) -> float:
    """Calls a second, IN_FLIGHT at a time."""
    call = channel.unary_unary(f"/keycache.v1.KeyCache/{method}")  # type: ignore[attr-defined]
    until = time.perf_counter() + seconds
    done = 0

    async def caller(offset: int) -> None:
        nonlocal done
        position = offset
        while time.perf_counter() < until:
            await call(requests[position % len(requests)])
            position += IN_FLIGHT
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(caller(offset) for offset in range(IN_FLIGHT)))
    return done / (time.perf_counter() - began)


def _requests(method: str) -> list[bytes]:
    chance = random.Random(SEED)
    if method == "Lookup":
        numbers = [chance.randrange(ENTRIES) for _ in range(SAMPLE)]
        return [cache_pb2.LookupRequest(address=nodes.address(n)).SerializeToString() for n in numbers]
    batches = [[nodes.address(chance.randrange(ENTRIES)) for _ in range(BATCH)] for _ in range(SAMPLE // 20)]
    return [cache_pb2.BatchLookupRequest(addresses=batch).SerializeToString() for batch in batches]


def _check_found(method: str, answer: bytes) -> None:
    """A miss is a tenth of a key in size and time; both sides would look better for it."""
    if method == "Lookup":
        results = [cache_pb2.LookupResponse.FromString(answer).result]
    else:
        results = list(cache_pb2.BatchLookupResponse.FromString(answer).results)
    if not results or any(len(result.keys) != 1 for result in results):
        raise SystemExit(f"a {method} did not find what was put in")


async def _side_by_side(data_dir: Path, running: nodes.RunningNode, scratch: Path) -> None:
    methods = {"Lookup": _requests("Lookup"), "BatchLookup": _requests("BatchLookup")}
    answers = scratch / "answers"
    async with nodes.channel(data_dir, running.target) as ours:
        with answers.open("w") as file:
            for method, requests in methods.items():
                call = ours.unary_unary(f"/keycache.v1.KeyCache/{method}")
                for request in requests:
                    answer = await call(request)
                    _check_found(method, answer)
                    file.write(f"{method} {request.hex()} {answer.hex()}\n")
        bare = await asyncio.create_subprocess_exec(
            sys.executable, "bare_server.py", str(data_dir / "pki"), str(answers),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert bare.stdout is not None
        port = int(await bare.stdout.readline())
        async with nodes.channel(data_dir, f"127.0.0.1:{port}") as theirs:
            for method, requests in methods.items():
                await _compare(method, requests, (ours, running.pid), (theirs, bare.pid))
        assert bare.stdin is not None
        bare.stdin.close()
        await bare.wait()


async def _compare(method: str, requests: Sequence[bytes], ours: tuple[object, int], bare: tuple[object, int]) -> None:
    rates: dict[str, list[float]] = {"keycache": [], "bare": []}
    costs: dict[str, list[float]] = {"keycache": [], "bare": []}
    for number in range(ROUNDS + 1):
        for name, (channel, pid) in {"keycache": ours, "bare": bare}.items():
            before = nodes.processor_seconds(pid)
            rate = await _load(channel, method, requests, ROUND_SECONDS)
            cost = (nodes.processor_seconds(pid) - before) / (rate * ROUND_SECONDS)
            if number:  # the first round warms up
                rates[name].append(rate)
                costs[name].append(cost)
    ratio = statistics.median(k / b for k, b in zip(rates["keycache"], rates["bare"], strict=True))
    work = statistics.median(b / k for k, b in zip(costs["keycache"], costs["bare"], strict=True))
    for name, measured in rates.items():
        rate, cost = statistics.median(measured), statistics.median(costs[name])
        print(f"  {method:12} {name:9} {rate:9,.0f} calls/s   {cost * 1e6:7.0f} microseconds of processor a call in the server")
    print(f"  {method:12} ratio of calls/s {ratio:.2f}; ratio of processor time (bare / keycache) {work:.2f}")


def lookup(scratch: Path) -> None:
    """Lookup and BatchLookup(100) over 100,000 entries, 32 in flight, mutual TLS, beside grpc.aio returning the same bytes."""
    data_dir = scratch / "node"
    nodes.fill(data_dir, ENTRIES)
    with nodes.node(data_dir) as running:
        uvloop.run(_side_by_side(data_dir, running, scratch))


def harvest(scratch: Path) -> None:
    """Harvest of a known, fresh key through a node, beside parsing and verifying the same mail in this process alone."""
    import harvests

    harvests.measure(scratch)


def million(scratch: Path) -> None:
    """A million entries (KEYCACHE_BENCH_ENTRIES: another number), alone: the first sync beside a bare paged list of the log and a bare
    bulk insert of the same rows; memory of a node's own, start to the first answer, size on disk."""
    import sync

    sync.alone(scratch)


def joiner(scratch: Path) -> None:
    """The same with the log on etcd."""
    import sync

    sync.joining(scratch)


def joined(scratch: Path) -> None:
    """An empty node joins a cluster of 100,000 entries (KEYCACHE_BENCH_JOINED: another number) by the real commands, from the command's
    start to its end, when the node follows and is healthy; beside a bare list of the cluster's etcd and a bare insert of the rows."""
    import joins

    joins.measure(scratch)


def visibility(scratch: Path) -> None:
    """Time from Harvest's answer on one node to its key's visibility on two others, beside a bare etcd put and watch."""
    import clusters

    clusters.visibility(scratch)


def outage(scratch: Path) -> None:
    """etcd gone for ten minutes (KEYCACHE_BENCH_OUTAGE: seconds) under lookups and harvests: what was answered, what was lost."""
    import clusters

    clusters.outage(scratch)


def thrift(scratch: Path) -> None:
    """A thousand mails from one sender, through two nodes: writes that etcd counts."""
    import clusters

    clusters.thrift(scratch)


MEASURES: dict[str, Callable[[Path], None]] = {
    one.__name__: one for one in (lookup, harvest, million, joiner, joined, visibility, thrift, outage)
}


def main(names: Sequence[str]) -> int:
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(MEASURES)}", file=sys.stderr)
        return 2
    for name in names or MEASURES:
        print(f"{name}: {MEASURES[name].__doc__}", flush=True)
        with tempfile.TemporaryDirectory(prefix="keycache-bench-") as scratch:
            MEASURES[name](Path(scratch))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
