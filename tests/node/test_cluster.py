"""Two real nodes on a real etcd: what one is given both serve, each knows of the other, and an outage loses nothing."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from keycache.v1 import cluster_pb2
from support.etcd import EtcdCluster
from support.openpgp import Maker, armour
from support.scenario import Running, eventually, running


@asynccontextmanager
async def nodes(folder: Path, etcd: EtcdCluster, number: int = 2) -> AsyncIterator[list[Running]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running(folder / f"node{place}", CLUSTER__ENDPOINTS=",".join(etcd.endpoints)))
            for place in range(number)
        ]


def key_mail(address: str) -> bytes:
    key = armour(Maker(address).certificate(f"<{address}>"))
    head = f"From: {address}\r\nTo: bob@ours.example\r\nMIME-Version: 1.0\r\nContent-Type: application/pgp-keys\r\n\r\n"
    return head.encode() + key


async def served(node: Running, address: str) -> None:
    async def look() -> bool | None:
        return True if await node.outcome(address) == "served" else None

    await eventually(look)


async def members(node: Running) -> dict[bool, list[cluster_pb2.ListedMember]]:
    """By whether they live."""
    answer = await node.connection.call(node.connection.cluster.ListMembers, cluster_pb2.ListMembersRequest())
    return {alive: [one for one in answer.members if one.alive is alive] for alive in (True, False)}


async def living(node: Running, number: int) -> list[cluster_pb2.ListedMember]:
    """Once so many live, and their clocks are measured."""

    async def look() -> list[cluster_pb2.ListedMember] | None:
        alive = (await members(node))[True]
        known = all(one.is_this_node or one.HasField("skew") for one in alive)
        return alive if len(alive) == number and known else None

    return await eventually(look)


def metrics(node: Running) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{node.node.run_file['metrics']}/metrics", timeout=30) as answer:
        lines = [line.rpartition(" ") for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


@pytest.fixture
def etcd(tmp_path: Path):
    with EtcdCluster.run(tmp_path / "etcd") as cluster:
        yield cluster


async def test_what_one_node_is_given_both_serve_and_each_knows_of_the_other(tmp_path: Path, etcd: EtcdCluster) -> None:
    async with nodes(tmp_path, etcd) as (first, second):
        await first.harvest(key_mail("anna@one.example"))
        await served(second, "anna@one.example")
        for node in (first, second):
            listed = await living(node, 2)
            assert [one.is_this_node for one in listed] == [True, False]
            assert sum(one.purger for one in listed) == 1
            assert all(one.clock_trusted and one.outbox == 0 for one in listed)
            assert {one.address for one in listed} == {other.node.run_file["grpc"] for other in (first, second)}
            assert abs(listed[1].skew.ToTimedelta().total_seconds()) < 10  # one machine, one clock, however busy
            shown = await asyncio.to_thread(metrics, node)
            assert (shown["keycache_members"], shown['keycache_link_state{state="FOLLOWING"}']) == (2, 1)
        statuses = [await node.status() for node in (first, second)]
        assert statuses[0].cluster.purger == statuses[1].cluster.purger != ""
        assert statuses[0].identity == statuses[1].identity


async def test_a_node_that_stops_takes_its_leave_and_one_that_is_killed_is_gone_with_its_lease(
    tmp_path: Path, etcd: EtcdCluster
) -> None:
    async with nodes(tmp_path, etcd, 3) as (first, second, third):
        await living(first, 3)
        second.node.process.terminate()
        await asyncio.to_thread(second.node.process.wait, 60)
        gone = (await members(first))[False]
        assert len(gone) == 1  # at once: its lease had another 10 s at least
        third.kill()
        await living(first, 1)
        assert len((await members(first))[False]) == 2


async def test_while_etcd_is_away_a_key_waits_and_is_delivered_when_it_is_back(tmp_path: Path, etcd: EtcdCluster) -> None:
    async with nodes(tmp_path, etcd) as (first, second):
        etcd.members[0].kill()
        await first.until(lambda status: status.cluster.link == "SERVE_ONLY")
        kept = await first.harvest(key_mail("berta@one.example"))
        assert [key.queued for key in kept.keys] == [True]
        assert await first.outcome("berta@one.example") == "served"
        status = await first.status()
        assert (status.cluster.outbox_entries, status.cluster.purger) == (1, "")
        etcd.members[0].start()
        await served(second, "berta@one.example")
        await first.until(lambda status: status.cluster.link == "FOLLOWING" and status.cluster.outbox_entries == 0)
