"""Every node knows who shares the log: how far each is, what its clock says, and when it was last seen."""

from __future__ import annotations

from datetime import UTC, timedelta
from pathlib import Path

from keycache.v1 import cluster_pb2
from support.cluster import ClusterNode, cluster
from support.ledger import now
from support.scenario import eventually
from support.scenario_people import Person

MINUTE = timedelta(minutes=1)


async def test_the_table_shows_all_that_live_with_version_lag_and_skew(tmp_path: Path) -> None:
    async with cluster(tmp_path, clocks=True) as made:
        made.nodes[2].set_clock(timedelta(seconds=45))
        await made.nodes[2].restart()
        await made.node(0).harvest(Person("one").mail())
        statuses = await made.settled()
        names = [status.node_id for status in statuses]
        for number, node in enumerate(made.nodes):

            async def measured(node: ClusterNode = node) -> dict[str, cluster_pb2.ListedMember] | None:
                told = await node.running.members()
                ready = all(one.is_this_node or one.HasField("skew") for one in told.values())
                return told if len(told) == 3 and ready else None

            told = await eventually(measured)
            assert set(told) == set(names)
            for other, member in zip(names, statuses, strict=True):
                line = told[other]
                assert (line.alive, line.is_this_node, line.version) == (True, other == names[number], member.version)
                assert line.lag < 20
                assert line.applied_revision > 0
                assert line.clock_trusted
                off = timedelta(seconds=45) * ((other == names[2]) - (number == 2))
                if not line.is_this_node:
                    assert abs(line.skew.ToTimedelta() - off) < timedelta(seconds=10), (number, other, line)


async def test_a_killed_node_is_shown_as_gone_with_when_it_was_last_seen_and_comes_back_under_its_name(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2, members=1) as made:
        await made.settled()
        lost = (await made.node(1).status()).node_id

        async def witnessed() -> bool | None:
            return True if lost in await made.node(0).members() else None

        assert await eventually(witnessed)
        await made.nodes[1].kill()
        killed = now()

        async def gone() -> cluster_pb2.ListedMember | None:
            member = (await made.node(0).members()).get(lost)
            return member if member is not None and not member.alive else None

        member = await eventually(gone)
        assert member.address
        assert member.version
        seen = member.last_seen.ToDatetime(UTC)
        assert killed - 2 * MINUTE < seen < killed + timedelta(seconds=5)
        await made.nodes[1].start()

        async def back() -> bool | None:
            return True if (await made.node(0).members())[lost].alive else None

        assert await eventually(back)
        assert len(await made.node(0).members()) == 2


async def test_a_stopped_node_leaves_at_once_and_not_by_the_end_of_its_lease(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2, members=1) as made:
        await made.settled()
        lost = (await made.node(1).status()).node_id
        await made.nodes[1].stop()
        keys = made.etcd.etcdctl("get", "--prefix", "--keys-only", "/keycache/test/members/").split()
        assert not [key for key in keys if lost in key]
        member = (await made.node(0).members()).get(lost)
        assert member is None or not member.alive
