"""Nodes that share one log: who they take for alive, which of them purges, what their clocks make of each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import pytest

from keycache.cache.results import ListedMember
from keycache.clock import ManualClock
from keycache.codec.members import decode_member
from keycache.domain.entry import Entry, Origin
from keycache.domain.log import member_key, witness_key
from keycache.domain.names import NodeId
from keycache.domain.purge import PurgeState
from keycache.replication.replicator import LinkState
from keycache.replication.roster import SAY_SECONDS
from keycache.store.memory import MemoryLog
from support.entries import T0, fingerprint_of, make_entry, make_key, make_sighting
from support.node import ENVELOPE, Node, running_node

SAY = timedelta(seconds=SAY_SECONDS)
M, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
AGED = make_sighting(cached_at=T0 - 500 * DAY)


class Cluster:
    """Nodes a, b, ... on one log in memory, each with a clock of its own that goes with the others'."""

    def __init__(self, number: int) -> None:
        self.log = MemoryLog(shared=True)
        self.nodes = [self._node(chr(ord("a") + place)) for place in range(number)]

    def _node(self, name: str) -> Node:
        node = Node(log=self.log, name=name, managed=("ours.example",))
        node.clock = ManualClock(T0)  # words are exactly as far apart as it says
        node.presence = self.log
        return node

    async def pass_time(self, span: timedelta) -> None:
        """Word by word; afterwards every node has heard every other's last word."""
        while span > timedelta():
            for node in self.nodes:
                node.clock.advance(min(span, SAY))
            span -= SAY
            await self.heard()

    async def heard(self) -> None:
        for node in self.nodes:
            async with asyncio.timeout(10):
                while not await self._has_said(node):  # noqa: ASYNC110 -- what is waited for tells nobody
                    await asyncio.sleep(0)
        await self.settled()

    async def settled(self) -> None:
        """Every node has applied all that is in the log."""
        for node in self.nodes:
            await node.cache.replicator.reach(await self.log.head())

    async def _has_said(self, node: Node) -> bool:
        key = member_key(NodeId(node.name))
        record = (await self.log.survey((key,))).records[key]
        return record is not None and node.clock.now() - decode_member(record.value).clock < SAY

    async def tick(self) -> list[int]:
        """Every purger looks once, and every other node hears what became of it; how many entries each removed."""
        before = [sum(node.removed) for node in self.nodes]
        for node in self.nodes:
            await node.cache.purger.tick()
        await self.pass_time(SAY)
        return [sum(node.removed) - number for node, number in zip(self.nodes, before, strict=True)]


@asynccontextmanager
async def cluster(number: int, *entries: Entry) -> AsyncIterator[Cluster]:
    made = Cluster(number)
    async with AsyncExitStack() as stack:
        for node in made.nodes:
            await stack.enter_async_context(running_node(node=node))
        await made.nodes[0].seed(*entries)
        await made.pass_time(3 * SAY)
        yield made


def listed(node: Node) -> dict[str, ListedMember]:
    return {member.node_id: member for member in node.cache.cluster.members()}


async def purger(node: Node) -> str:
    status = (await node.cache.status()).cluster
    assert status is not None
    return status.purger


def label(node: Node) -> str:
    return f"{node.name}.example.org:7640 ({node.name})"


# members
async def test_every_node_lists_every_other_with_its_clock_and_how_far_it_is() -> None:
    async with cluster(3) as made:
        for node in made.nodes:
            members = listed(node)
            assert {name: member.is_this_node for name, member in members.items()} == {
                other.name: other is node for other in made.nodes
            }
            assert all(member.alive and member.clock_trusted and member.purge_state == "IDLE" for member in members.values())
            assert [member.skew for member in members.values()] == [None, timedelta(), timedelta()]
            assert [name for name, member in members.items() if member.purger] == ["a"]
            assert max(member.lag for member in members.values()) <= len(made.nodes)
            assert all(made.nodes[0].clock.now() - member.last_seen < SAY for member in members.values())


async def test_a_node_that_stops_is_gone_and_its_witness_is_what_is_known_of_it() -> None:
    async with cluster(2) as made:
        gone = made.nodes.pop()
        await gone.stop()
        await made.settled()
        (node,) = made.nodes
        member = listed(node)["b"]
        assert (member.alive, member.version, member.last_seen, member.started_at) == (False, "0.0", T0, None)
        assert node.cache.cluster.status().members == 1


async def test_a_node_that_died_is_gone_with_its_lease() -> None:
    async with cluster(2) as made:
        made.log.expire(member_key(NodeId("b")))
        await made.settled()
        assert not listed(made.nodes[0])["b"].alive


async def test_the_status_tells_how_the_node_stands_to_the_log() -> None:
    async with cluster(2) as made:
        status = await made.nodes[1].cache.status()
        cluster_status = status.cluster
        assert cluster_status is not None
        assert status.mode == "cluster"
        assert (cluster_status.name, cluster_status.link, cluster_status.reason) == ("keycache", "FOLLOWING", "")
        assert (cluster_status.purger, cluster_status.purge_state, cluster_status.members) == (label(made.nodes[0]), "IDLE", 2)
        assert cluster_status.worst_skew == timedelta()
        assert status.warnings == ()


async def test_two_nodes_of_one_id_are_told_of() -> None:
    async with cluster(1) as made:
        (node,) = made.nodes
        copy = made._node("a")
        copy.clock = ManualClock(node.clock.now())
        async with running_node(node=copy):
            await made.settled()
            assert any("its data directory was copied" in warning for warning in (await node.cache.status()).warnings)


async def test_a_node_that_refused_its_log_writes_no_word_into_it() -> None:
    """Its witness would tell the others that all is well."""
    async with cluster(1, make_entry(1)) as made:
        (node,) = made.nodes
        made.log.interrupt()
        await node.until(LinkState.SERVE_ONLY)
        made.log.wipe(made.log.identity.text)  # restored from before anything was in it
        made.log.resume()
        for _ in range(20):
            node.clock.advance(SAY)
            await asyncio.sleep(0.002)
        await node.until(LinkState.REFUSED)
        for _ in range(20):
            node.clock.advance(SAY)
            await asyncio.sleep(0)
        records = (await made.log.survey((member_key(NodeId("a")), witness_key(NodeId("a"))))).records
        assert set(records.values()) == {None}
        assert node.served("user1@example.org") == [fingerprint_of(1).text]


# purging
async def test_the_node_whose_turn_it_is_removes_and_no_other() -> None:
    async with cluster(3, make_entry(1, AGED), make_entry(2)) as made:
        assert await made.tick() == [1, 0, 0]
        for node in made.nodes:
            assert node.entry(fingerprint_of(1)) is None
            assert node.entry(fingerprint_of(2)) is not None


async def test_the_turn_moves_on_when_that_node_is_gone() -> None:
    async with cluster(2) as made:
        gone = made.nodes.pop(0)
        await gone.stop()
        await made.pass_time(SAY)
        (node,) = made.nodes
        assert await purger(node) == label(node)
        await node.seed(make_entry(1, AGED))
        assert await made.tick() == [1]


async def test_a_bad_clock_of_three_holds_its_own_node_and_the_turn_moves_on() -> None:
    async with cluster(3, make_entry(1, AGED), make_entry(2)) as made:
        made.nodes[0].clock.step(HOUR)
        await made.pass_time(3 * SAY)
        assert await made.tick() == [0, 1, 0]
        for node in made.nodes:
            assert await purger(node) == label(made.nodes[1])
            assert {name: member.clock_trusted for name, member in listed(node).items()} == {"a": False, "b": True, "c": True}
        assert made.nodes[0].cache.purger.status.state is PurgeState.HELD_CLOCK
        assert (await made.nodes[1].cache.status()).warnings == ()


async def test_a_bad_clock_since_its_start_is_found_by_the_others_alone() -> None:
    """Nothing on that machine tells: its clock was wrong when it was first started."""
    made = Cluster(3)
    made.nodes[0].clock = ManualClock(T0 - 5 * M)
    async with AsyncExitStack() as stack:
        for node in made.nodes:
            await stack.enter_async_context(running_node(node=node))
        await made.nodes[0].seed(make_entry(1, AGED), make_entry(2))
        await made.pass_time(4 * SAY)
        assert await made.tick() == [0, 1, 0]
        (warning,) = (await made.nodes[0].cache.status()).warnings[:1]
        assert warning.startswith(
            "The clock disagrees by more than 2.0 minutes with b.example.org:7640 (b), c.example.org:7640 (c)."
        )


async def test_of_two_clocks_that_disagree_both_hold_until_one_is_trusted() -> None:
    made = Cluster(2)
    made.nodes[0].clock = ManualClock(T0 + HOUR)
    async with AsyncExitStack() as stack:
        for node in made.nodes:
            await stack.enter_async_context(running_node(node=node))
        await made.nodes[0].seed(make_entry(1, AGED), make_entry(2))
        await made.pass_time(4 * SAY)
        assert await made.tick() == [0, 0]
        for node in made.nodes:
            status = (await node.cache.status()).cluster
            assert status is not None
            assert (status.purger, status.purge_state, status.purge_waiting) == ("", "HELD_CLOCK", 1)
            assert "disagrees by more than" in status.purge_reason
            assert abs(status.worst_skew) == HOUR
        await made.nodes[1].cache.entries.trust_clock("admin")
        await made.tick()
        assert [sum(node.removed) for node in made.nodes] == [0, 1]
        assert await purger(made.nodes[0]) == label(made.nodes[1])


async def test_what_holds_the_purge_is_told_by_every_node_and_can_be_released_on_any() -> None:
    aged = [make_entry(number, AGED) for number in range(150)]
    async with cluster(3, *aged, make_entry(399)) as made:
        assert await made.tick() == [0, 0, 0]
        for node in made.nodes:
            told = await node.cache.status()
            assert told.cluster is not None
            assert (told.cluster.purger, told.cluster.purge_state) == (label(made.nodes[0]), "HELD_MASS_EXPIRY")
            assert told.cluster.purge_waiting == 150
            assert any("keycache purge --confirm-held" in warning for warning in told.warnings)
        result = await made.nodes[2].cache.entries.confirm_held("admin")
        assert (result.matched, result.removed) == (150, 150)
        await made.settled()
        assert made.nodes[0].entry(fingerprint_of(1)) is None


# stamps
async def test_a_node_whose_clock_is_a_day_behind_stamps_with_the_cluster_s_time() -> None:
    """Else a key it is given counts for the others as a day old, and one that was looked up as expired."""
    made = Cluster(3)
    made.nodes[2].clock = ManualClock(T0 - DAY)
    async with AsyncExitStack() as stack:
        for node in made.nodes:
            await stack.enter_async_context(running_node(node=node))
        await made.pass_time(4 * SAY)
        await made.nodes[2].cache.harvesting.harvest(made.nodes[2].script.mail(make_key(1)), ENVELOPE)
        await made.settled()
        entry = made.nodes[0].entry(fingerprint_of(1))
        assert entry is not None
        assert abs(entry.sightings[0].refreshed_at - made.nodes[0].clock.now()) <= timedelta(milliseconds=1)
        assert made.nodes[0].served("user1@example.org") == [fingerprint_of(1).text]


@pytest.mark.parametrize("off", [-DAY, DAY])
async def test_one_bad_clock_does_not_move_the_stamps_of_the_good_ones(off: timedelta) -> None:
    made = Cluster(3)
    made.nodes[2].clock = ManualClock(T0 + off)
    async with AsyncExitStack() as stack:
        for node in made.nodes:
            await stack.enter_async_context(running_node(node=node))
        await made.pass_time(4 * SAY)
        good = made.nodes[0]
        await good.cache.harvesting.harvest(good.script.mail(make_key(1)), ENVELOPE)
        entry = good.entry(fingerprint_of(1))
        assert entry is not None
        assert [(one.origin, one.refreshed_at) for one in entry.sightings] == [(Origin.HARVESTED, good.clock.now())]
