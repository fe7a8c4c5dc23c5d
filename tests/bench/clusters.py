"""Several nodes on one etcd, each figure beside what a bare etcd does in the same run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
import nodes
import uvloop
from aetcd import rpc

from keycache.v1 import cache_pb2

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.etcd import EtcdCluster
from support.scenario_people import Person

NAME = "bench"
SAMPLE = 400
PACE_SECONDS = 0.02
"""Between two harvests: visibility is a delay, not a throughput, and 50 new senders a second are a busy gateway."""

LOOKUPS_A_SECOND = 200
HARVESTS_A_SECOND = 4
KNOWN = 200
OUTAGE_SECONDS = float(os.environ.get("KEYCACHE_BENCH_OUTAGE", "600"))
MAILS = 1_000


@contextmanager
def _nodes(scratch: Path, endpoints: Sequence[str], count: int) -> Iterator[list[tuple[Path, nodes.RunningNode]]]:
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(count):
            data_dir = scratch / f"node{number}"
            data_dir.mkdir(mode=0o700)
            running = stack.enter_context(nodes.node(data_dir, lookup=False, endpoints=endpoints, cluster=NAME))
            started.append((data_dir, running))
        yield started


# visibility


def visibility(scratch: Path) -> None:
    with EtcdCluster.run(scratch, size=1) as etcd, _nodes(scratch, etcd.endpoints, 3) as started:
        uvloop.run(_visibility(etcd.endpoints[0], started))


async def _visibility(endpoint: str, started: Sequence[tuple[Path, nodes.RunningNode]]) -> None:
    people = [Person(f"seen{number}") for number in range(SAMPLE)]
    mails = [person.mail() for person in people]
    async with contextlib.AsyncExitStack() as stack:
        first, *others = [
            await stack.enter_async_context(nodes.channel(data_dir, running.target)) for data_dir, running in started
        ]
        bare_put = await stack.enter_async_context(grpc.aio.insecure_channel(endpoint.removeprefix("http://")))
        bare_watch = await stack.enter_async_context(grpc.aio.insecure_channel(endpoint.removeprefix("http://")))
        seen = [await stack.enter_async_context(_watching(channel)) for channel in others]
        heard = await stack.enter_async_context(_bare_watching(bare_watch))
        harvest, put = first.unary_unary("/keycache.v1.KeyCache/Harvest"), rpc.KVStub(bare_put).Put
        answered: dict[str, float] = {}
        asked: dict[str, tuple[float, float]] = {}
        for number, (person, mail) in enumerate(zip(people, mails, strict=True)):
            request = cache_pb2.HarvestRequest(message=mail, envelope={"direction": cache_pb2.DIRECTION_INBOUND})
            answer = cache_pb2.HarvestResponse.FromString(await harvest(request.SerializeToString()))
            answered[person.fingerprint] = time.perf_counter()
            assert answer.verdict == "CACHED", answer
            await asyncio.sleep(PACE_SECONDS)
            key, begun = f"/bare/{number}", time.perf_counter()
            await put(rpc.PutRequest(key=key.encode(), value=person.material))
            asked[key] = begun, time.perf_counter()
            await asyncio.sleep(PACE_SECONDS)
        await asyncio.sleep(1.0)
        ours = [arrived[one] - at for arrived in seen for one, at in answered.items()]
        whole = [heard[key] - begun for key, (begun, _) in asked.items()]
        after = [heard[key] - ended for key, (_, ended) in asked.items()]
    _row("Harvest's answer to visible on another node", ours)
    _row("bare: begin of a put to the watch's event", whole)
    _row("bare: answer of a put to the watch's event", after)
    print(f"  p99 ratio, ours / bare put and watch: {_p99(ours) / _p99(whole):.2f}")


def _row(title: str, delays: Sequence[float]) -> None:
    median = statistics.median(delays)
    print(f"  {title:46} median {median * 1e3:7.2f} ms   p99 {_p99(delays) * 1e3:7.2f} ms   of {len(delays)}")


def _p99(delays: Sequence[float]) -> float:
    return statistics.quantiles(delays, n=100, method="inclusive")[98]


@asynccontextmanager
async def _watching(channel: grpc.aio.Channel) -> AsyncIterator[dict[str, float]]:
    """When this node showed which fingerprint to its lookups."""
    seen: dict[str, float] = {}
    call = channel.unary_stream("/keycache.v1.KeyCache/Watch")(b"")
    begun = asyncio.Event()

    async def read() -> None:
        async for raw in call:
            event = cache_pb2.WatchEvent.FromString(raw)
            if event.kind == cache_pb2.WatchEvent.STARTED:
                begun.set()
            elif event.fingerprint:
                seen.setdefault(event.fingerprint, time.perf_counter())

    async with _task(read()):
        await begun.wait()
        yield seen


@asynccontextmanager
async def _bare_watching(channel: grpc.aio.Channel) -> AsyncIterator[dict[str, float]]:
    heard: dict[str, float] = {}
    call = rpc.WatchStub(channel).Watch()
    create = rpc.WatchCreateRequest(key=b"/bare/", range_end=b"/bare0")
    await call.write(rpc.WatchRequest(create_request=create))
    await call.read()

    async def read() -> None:
        while response := await call.read():
            for event in response.events:
                heard.setdefault(event.kv.key.decode(), time.perf_counter())

    async with _task(read()):
        yield heard


@asynccontextmanager
async def _task(work: object) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)  # type: ignore[arg-type]
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# outage


def outage(scratch: Path) -> None:
    with EtcdCluster.run(scratch, size=1) as etcd, _nodes(scratch, etcd.endpoints, 1) as started:
        uvloop.run(_outage(etcd, *started[0]))


async def _outage(etcd: EtcdCluster, data_dir: Path, running: nodes.RunningNode) -> None:
    known = [Person(f"known{number}") for number in range(KNOWN)]
    counts = {"lookups": 0, "missed": 0, "harvests": 0, "refused": 0}
    slowest = 0.0
    accepted: list[str] = []
    async with nodes.channel(data_dir, running.target) as channel:
        harvest, lookup = (channel.unary_unary(f"/keycache.v1.KeyCache/{name}") for name in ("Harvest", "Lookup"))

        async def take(person: Person) -> cache_pb2.HarvestResponse:
            request = cache_pb2.HarvestRequest(message=person.mail(), envelope={"direction": cache_pb2.DIRECTION_INBOUND})
            return cache_pb2.HarvestResponse.FromString(await harvest(request.SerializeToString()))

        for person in known:
            assert (await take(person)).verdict == "CACHED"
        await asyncio.to_thread(etcd.members[0].kill)
        began = time.perf_counter()

        async def look() -> None:
            nonlocal slowest
            chance = random.Random(1)
            while (elapsed := time.perf_counter() - began) < OUTAGE_SECONDS:
                person = chance.choice(known)
                at = time.perf_counter()
                request = cache_pb2.LookupRequest(address=person.address).SerializeToString()
                answer = cache_pb2.LookupResponse.FromString(await lookup(request))
                slowest = max(slowest, time.perf_counter() - at)
                counts["lookups"] += 1
                counts["missed"] += not answer.result.keys
                await asyncio.sleep(max(0.0, counts["lookups"] / LOOKUPS_A_SECOND - elapsed))

        async def bring() -> None:
            while (elapsed := time.perf_counter() - began) < OUTAGE_SECONDS:
                person = Person(f"outage{counts['harvests']}")
                try:
                    answer = await take(person)
                except grpc.aio.AioRpcError:
                    counts["refused"] += 1
                else:
                    counts["refused"] += answer.verdict != "CACHED"
                    accepted.append(person.fingerprint)
                counts["harvests"] += 1
                await asyncio.sleep(max(0.0, counts["harvests"] / HARVESTS_A_SECOND - elapsed))

        await asyncio.gather(look(), bring())
    print(f"  etcd was gone for                   {time.perf_counter() - began:8.0f} s")
    print(
        f"  lookups                             {counts['lookups']:8,}, {counts['missed']} without the key, slowest {slowest * 1e3:.0f} ms"
    )
    print(f"  harvests of new keys                {counts['harvests']:8,}, {counts['refused']} refused")
    await asyncio.to_thread(etcd.start)
    back = time.perf_counter()
    while (present := _in_etcd(etcd)) < set(accepted) | {person.fingerprint for person in known}:
        if time.perf_counter() - back > 120:
            break
        await asyncio.sleep(0.2)
    found, took = len(set(accepted) & present), time.perf_counter() - back
    print(f"  in etcd afterwards                  {found:8,} of {len(accepted):,}, {took:.1f} s after it was back")


def _in_etcd(etcd: EtcdCluster) -> set[str]:
    listed = etcd.etcdctl("get", "--prefix", "--keys-only", f"/keycache/{NAME}/entries/")
    return {line.rpartition("/")[2] for line in listed.splitlines() if line}


# thrift


def thrift(scratch: Path) -> None:
    with EtcdCluster.run(scratch, size=1) as etcd, _nodes(scratch, etcd.endpoints, 2) as started:
        uvloop.run(_thrift(etcd, started))


async def _thrift(etcd: EtcdCluster, started: Sequence[tuple[Path, nodes.RunningNode]]) -> None:
    person = Person("prolific")
    request = cache_pb2.HarvestRequest(message=person.mail(), envelope={"direction": cache_pb2.DIRECTION_INBOUND})
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(nodes.channel(data_dir, running.target)) for data_dir, running in started]
        calls = [channel.unary_unary("/keycache.v1.KeyCache/Harvest") for channel in channels]
        verdicts: dict[str, int] = {}
        for number in range(MAILS):
            answer = cache_pb2.HarvestResponse.FromString(await calls[number % len(calls)](request.SerializeToString()))
            verdicts[answer.verdict] = verdicts.get(answer.verdict, 0) + 1
    key = f"/keycache/{NAME}/entries/openpgp/{person.fingerprint}"
    document = json.loads(await asyncio.to_thread(etcd.etcdctl, "get", key, "-w", "json"))
    writes = document["kvs"][0]["version"]
    print(f"  {MAILS:,} mails of one sender through {len(calls)} nodes: {verdicts}; etcd counts {writes} write of its record")
