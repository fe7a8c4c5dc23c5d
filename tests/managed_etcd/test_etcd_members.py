"""Members of a real etcd with TLS: learners come, vote, lead and go; what etcd refuses for now is waited for, the rest is told."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aetcd import rpc

from keycache.cluster.etcd_members import EtcdMembers, Member
from keycache.cluster.etcd_spec import EtcdSpec, HostPort
from keycache.cluster.managed_etcd import EtcdState, ManagedEtcd
from keycache.cluster.seats import KnownNode, Seating, SeatWatch
from keycache.domain.errors import Conflict, LogUnavailable, NotFound, Refused
from keycache.domain.voters import DEAD_AFTER, Move, Seat, Step, next_step
from support.etcd import free_port
from support.managed import START_SECONDS, NodeTls, make_spec, members_of, running, until


class Cluster:
    """Nodes' etcds and what `domain.voters` says of them, as the flows will carry it out."""

    def __init__(self, folder: Path, tls: NodeTls, stack: AsyncExitStack, members: EtcdMembers) -> None:
        self.folder = folder
        self.tls = tls
        self.members = members
        self.nodes: dict[str, KnownNode] = {}
        self.etcds: dict[str, ManagedEtcd] = {}
        self._stack = stack
        self._watch = SeatWatch()

    async def start(self, spec: EtcdSpec) -> ManagedEtcd:
        etcd = await self._stack.enter_async_context(running(spec, self.tls))
        self.etcds[spec.name] = etcd
        self.nodes[spec.name] = KnownNode(name=spec.name, peer_url=spec.peer.url)
        return etcd

    def join(self, name: str) -> None:
        """A node that is ready to start its etcd."""
        self.nodes[name] = KnownNode(name=name, peer_url=HostPort("127.0.0.1", free_port()).url)

    async def learner(self, name: str) -> ManagedEtcd:
        url = self.nodes[name].peer_url
        await self.members.add_learner(url)
        peer = HostPort("127.0.0.1", int(url.rpartition(":")[2]))
        return await self.start(make_spec(self.folder, name, self.tls, others=await self.members.list(), peer=peer))

    async def member(self, name: str) -> Member:
        return next(member for member in await self.members.list() if member.name == name)

    async def seats(self) -> dict[str, Seat]:
        return {node.name: node.seat for node in (await self._look()).nodes}

    async def step(self) -> Step:
        """Ask what to do, and do it."""
        seating = await self._look()
        step = next_step(seating.nodes)
        match step.move:
            case Move.ADD_LEARNER:
                await self.learner(step.node)
            case Move.PROMOTE:
                await self.members.promote(seating.members[step.node])
            case Move.MOVE_LEADER:
                await self.members.move_leader(seating.members[step.to])
            case Move.REMOVE_MEMBER:
                await self.members.remove(seating.members[step.node])
                del self.nodes[step.node]
            case Move.DEMOTE | Move.REMOVE_DEAD_LEARNER:
                await self.members.remove(seating.members[step.node])
            case Move.WAIT:
                await asyncio.sleep(0.1)
        return step

    async def settle(self) -> list[tuple[Move, str]]:
        """The steps until nothing is to be done, without the waiting."""
        taken = []
        async with asyncio.timeout(2 * START_SECONDS):
            while (step := await self.step()).move is not Move.KEEP:
                assert step.move is not Move.BLOCKED, step
                taken += [(step.move, step.node)] if step.move is not Move.WAIT else []
        return taken

    async def _look(self) -> Seating:
        return self._watch.look(list(self.nodes.values()), await self.members.survey(), monotonic=time.monotonic())


@asynccontextmanager
async def founded(folder: Path, tls: NodeTls) -> AsyncIterator[Cluster]:
    """One member, m0, that votes."""
    spec = make_spec(folder, "m0", tls)
    async with members_of(spec, files=tls) as members, AsyncExitStack() as stack:
        cluster = Cluster(folder, tls, stack, members)
        await cluster.start(spec)
        yield cluster


async def put(cluster: Cluster, key: bytes) -> None:
    await cluster.members.call(lambda end: end.kv.Put, rpc.PutRequest(key=key, value=b"x"))


async def test_three_nodes_come_and_the_leader_goes(tmp_path: Path, tls: NodeTls) -> None:
    """The whole way: 1, a learner, 3 voters; the leader leaves, and 2 voters become 1 and a learner."""
    async with founded(tmp_path, tls) as cluster:
        cluster.join("m1")
        assert await cluster.settle() == [(Move.ADD_LEARNER, "m1")]
        assert await cluster.seats() == {"m0": Seat.VOTER, "m1": Seat.LEARNER}
        cluster.join("m2")
        assert await cluster.settle() == [(Move.PROMOTE, "m1"), (Move.ADD_LEARNER, "m2"), (Move.PROMOTE, "m2")]
        assert await cluster.seats() == dict.fromkeys(("m0", "m1", "m2"), Seat.VOTER)
        await put(cluster, b"before")

        gone = cluster.etcds["m0"]
        spec = gone.spec
        cluster.nodes["m0"] = KnownNode(name="m0", peer_url=spec.peer.url, leaving=True)
        cluster.members.use([cluster.etcds[name].spec.client.url for name in ("m1", "m2")])
        assert [(await cluster.step()).move for _ in range(2)] == [Move.MOVE_LEADER, Move.REMOVE_MEMBER]
        assert "m0" not in await cluster.seats()
        await until(lambda: gone.state is EtcdState.UNUSABLE)
        assert isinstance(gone.problem, Refused)
        with pytest.raises(Refused, match="was removed from etcd"):
            await gone.wait_until_healthy(START_SECONDS)

        demoted = await cluster.step()
        assert demoted.move is Move.DEMOTE
        back = cluster.etcds[demoted.node]
        await until(lambda: back.state is EtcdState.UNUSABLE)
        await back.stop()
        await back.clear()
        assert await cluster.settle() == [(Move.ADD_LEARNER, demoted.node)]
        assert sorted(seat.value for seat in (await cluster.seats()).values()) == ["learner", "voter"]
        await put(cluster, b"after")


async def test_a_second_learner_waits_for_the_first_to_be_promoted(tmp_path: Path, tls: NodeTls) -> None:
    async with founded(tmp_path, tls) as cluster:
        cluster.join("m1")
        cluster.join("m2")
        await cluster.learner("m1")
        second = cluster.nodes["m2"].peer_url
        with pytest.raises(Refused, match="takes one learner at a time, and has one: m1") as told:
            await cluster.members.add_learner(second, seconds=0)
        assert "let it leave" in told.value.hint
        adding = asyncio.create_task(cluster.members.add_learner(second))
        await cluster.members.promote((await cluster.member("m1")).id)
        added = await adding
        assert (added.peer_urls, added.is_learner, added.has_started) == ((second,), True, False)
        assert await cluster.members.add_learner(second) == added, "asking again is harmless"
        await cluster.members.remove(added.id)
        await cluster.members.remove(added.id)
        assert {member.name for member in await cluster.members.list()} == {"m0", "m1"}


async def test_a_learner_that_never_started_is_found_and_makes_room(tmp_path: Path, tls: NodeTls) -> None:
    async with founded(tmp_path, tls) as cluster:
        await cluster.members.add_learner("https://127.0.0.1:9")
        cluster.join("m1")
        watch = SeatWatch()
        nodes = list(cluster.nodes.values())
        reports = await cluster.members.survey()
        first = watch.look(nodes, reports, monotonic=100.0)
        assert next_step(first.nodes).move is Move.WAIT
        later = watch.look(nodes, reports, monotonic=100.0 + DEAD_AFTER.total_seconds())
        step = next_step(later.nodes)
        assert step.move is Move.REMOVE_DEAD_LEARNER
        await cluster.members.remove(later.members[step.node])
        assert await cluster.settle() == [(Move.ADD_LEARNER, "m1")]


async def test_a_learner_that_has_not_caught_up_is_not_promoted(tmp_path: Path, tls: NodeTls) -> None:
    async with founded(tmp_path, tls) as cluster:
        added = await cluster.members.add_learner("https://127.0.0.1:9")
        with pytest.raises(Refused, match="has not caught up with etcd's leader"):
            await cluster.members.promote(added.id, seconds=0)
        moved = await cluster.members.update_peer_urls(added.id, ["https://127.0.0.1:19"])
        assert moved.peer_urls == ("https://127.0.0.1:19",)
        with pytest.raises(NotFound, match="etcd has no member 1"):
            await cluster.members.promote(1)
        with pytest.raises(NotFound):
            await cluster.members.move_leader(1)
        with pytest.raises(Conflict, match=r"has a member at .* already: m0"):
            await cluster.members.add_learner(cluster.nodes["m0"].peer_url)


async def test_a_learner_is_healthy_and_says_how_far_it_is(tmp_path: Path, tls: NodeTls) -> None:
    """On 3.4 it answers nothing but its status and serializable reads; that is enough to see it."""
    async with founded(tmp_path, tls) as cluster:
        cluster.join("m1")
        await cluster.learner("m1")
        report = {each.member.name: each.status for each in await cluster.members.survey()}
        leader, learner = report["m0"], report["m1"]
        assert leader is not None
        assert learner is not None
        assert (leader.leads, leader.is_learner, learner.leads, learner.is_learner) == (True, False, False, True)
        assert learner.leader == leader.member_id
        await cluster.etcds["m1"].stop()
        silent = {each.member.name: each for each in await cluster.members.survey()}["m1"]
        assert silent.status is None
        assert "refuses connections" in silent.problem


async def test_a_voter_that_is_killed_comes_back_to_its_quorum(tmp_path: Path, tls: NodeTls) -> None:
    async with founded(tmp_path, tls) as cluster:
        cluster.join("m1")
        etcd = await cluster.learner("m1")
        await cluster.members.promote((await cluster.member("m1")).id)
        await etcd.wait_until_healthy(START_SECONDS)
        pid = etcd.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: etcd.pid not in {None, pid})
        await etcd.wait_until_healthy(START_SECONDS)
        await put(cluster, b"after")


async def test_a_member_that_was_removed_while_it_was_down_learns_it_and_may_come_back_empty(
    tmp_path: Path, tls: NodeTls
) -> None:
    async with founded(tmp_path, tls) as cluster:
        cluster.join("m1")
        etcd = await cluster.learner("m1")
        await etcd.wait_until_healthy(START_SECONDS)
        await etcd.stop()
        await cluster.members.remove((await cluster.member("m1")).id)
        async with running(etcd.spec, tls, healthy=False) as again:
            await until(lambda: again.state is EtcdState.UNUSABLE)
            assert "was removed from etcd" in str(again.problem)
        await etcd.clear()
        assert await cluster.settle() == [(Move.ADD_LEARNER, "m1")]


async def test_nobody_there_is_told(tmp_path: Path, tls: NodeTls) -> None:
    async with members_of(make_spec(tmp_path, "m0", tls), files=tls) as members:
        with pytest.raises(LogUnavailable, match="refuses connections"):
            await members.list()
