"""Faults of a cluster, as they come about in machine rooms. Each begins one; `Cluster.heal` ends them all."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from support.cluster import Cluster, ClusterNode
from support.etcd import EtcdMember

Fault = Callable[[Cluster, random.Random], Awaitable[None]]

QUOTA = ("--quota-backend-bytes", str(16 * 2**20))
"""Flags of etcd for `fills_the_quota`: some 16 records of a mebibyte, far above what the clients write."""

HOLD = ((0.3, 2.5), (0.3, 2.5), (5.0, 8.0))
"""Seconds that a fault lasts. etcd elects a leader after 1 to 2 s, a node gives a call up after 5 and calls a log silent after 6: some
faults are over before anybody noticed, and some are not."""

SHORT_OF_BOUND, BEYOND = timedelta(seconds=40), (timedelta(minutes=10), timedelta(hours=3), timedelta(days=40))


# processes
async def kills_a_node(cluster: Cluster, chance: random.Random) -> None:
    await _one(cluster, chance).kill()


async def kills_all_nodes(cluster: Cluster, chance: random.Random) -> None:
    await asyncio.gather(*(node.kill() for node in cluster.up))


async def stops_a_node(cluster: Cluster, chance: random.Random) -> None:
    await _one(cluster, chance).stop()


async def kills_a_member(cluster: Cluster, chance: random.Random) -> None:
    for member in _members(cluster, chance, 1):
        member.kill()


async def kills_the_quorum(cluster: Cluster, chance: random.Random) -> None:
    for member in _members(cluster, chance, 2):
        member.kill()


async def kills_every_member(cluster: Cluster, chance: random.Random) -> None:
    for member in _members(cluster, chance, 3):
        member.kill()


async def pauses_a_node(cluster: Cluster, chance: random.Random) -> None:
    _one(cluster, chance).pause()


async def pauses_a_member(cluster: Cluster, chance: random.Random) -> None:
    for member in _members(cluster, chance, 1):
        member.pause()


async def pauses_the_quorum(cluster: Cluster, chance: random.Random) -> None:
    for member in _members(cluster, chance, 2):
        member.pause()


# the network
async def cuts_a_node_off(cluster: Cluster, chance: random.Random) -> None:
    name = _one(cluster, chance).name
    await asyncio.to_thread(cluster.network.isolate, name)


async def cuts_a_member_off(cluster: Cluster, chance: random.Random) -> None:
    """From members and nodes alike."""
    await asyncio.to_thread(cluster.network.isolate, chance.choice(cluster.etcd.members).name)


async def cuts_a_member_from_members(cluster: Cluster, chance: random.Random) -> None:
    """Nodes reach it and it has no leader: who watches there hears nothing."""
    names = [member.name for member in cluster.etcd.members]
    await asyncio.to_thread(cluster.network.isolate, chance.choice(names), of=names)


async def splits_in_two(cluster: Cluster, chance: random.Random) -> None:
    """One member and one node here, all others there."""
    here = {chance.choice(cluster.etcd.members).name, _one(cluster, chance).name}
    for name in here:
        await asyncio.to_thread(cluster.network.isolate, name, of=set(cluster.network.hosts) - here)


async def loses_what_a_node_says(cluster: Cluster, chance: random.Random) -> None:
    """One way alone: it hears, and is not heard."""
    name = _one(cluster, chance).name
    for member in cluster.etcd.members:
        await asyncio.to_thread(cluster.network.cut, name, member.name, both_ways=False)


# etcd's store
async def compacts(cluster: Cluster, chance: random.Random) -> None:
    """All history goes, often while a node does not look."""
    node = _one(cluster, chance)
    how = chance.choice(["paused", "killed", "watching"])
    if how == "paused":
        node.pause()
    elif how == "killed":
        await node.kill()
    await asyncio.sleep(chance.uniform(0.2, 1.0))
    with contextlib.suppress(AssertionError):  # another fault stands in the way
        await asyncio.to_thread(cluster.etcd.compact)
        for member in cluster.etcd.members:
            await asyncio.to_thread(cluster.etcd.etcdctl, "defrag", endpoints=(member.endpoint,))


async def fills_the_quota(cluster: Cluster, chance: random.Random) -> None:
    """Somebody else's junk in the same etcd, until it takes no more."""
    with contextlib.suppress(AssertionError):  # as above
        await asyncio.to_thread(cluster.etcd.fill)


# clocks
async def sets_a_clock(cluster: Cluster, chance: random.Random) -> None:
    """A little or much, forward or back, often over a restart."""
    node = _one(cluster, chance)
    step = chance.choice([SHORT_OF_BOUND, *BEYOND]) * chance.choice([1, -1])
    node.set_clock(step)
    if chance.random() < 0.5:
        await (node.kill() if chance.random() < 0.5 else node.stop())
        await node.start()


async def torment(cluster: Cluster, faults: Sequence[Fault], chance: random.Random, seconds: float) -> list[str]:
    """Faults, one or two at a time, each healed, for so long; what was done."""
    done: list[str] = []
    bag: list[Fault] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for _ in range(1 if chance.random() < 0.7 else 2):
            if not bag:  # each has its turn, in ever new order
                bag = chance.sample(faults, len(faults))
            fault = bag.pop()
            done.append(fault.__name__)
            await fault(cluster, chance)
        await asyncio.sleep(chance.uniform(*chance.choice(HOLD)))
        await cluster.heal()
        await asyncio.sleep(chance.uniform(0.2, 0.6))
    return done


def _one(cluster: Cluster, chance: random.Random) -> ClusterNode:
    """One that runs; another fault may have ended the others."""
    return chance.choice(cluster.up or cluster.nodes)


def _members(cluster: Cluster, chance: random.Random, count: int) -> list[EtcdMember]:
    """Not those that another fault killed."""
    return [member for member in chance.sample(cluster.etcd.members, count) if member.is_running]
