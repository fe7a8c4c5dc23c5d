"""Purging where nodes share a log: one does it, all show how it goes, anybody may say the word, and a wrong clock stands aside
(DESIGN 2.1 to 2.4)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from keycache.domain.entry import Origin
from keycache.v1 import admin_pb2
from support.cluster import ClusterNode, cluster
from support.scenario import Running, eventually, present
from support.scenario_people import people

HOUR, DAY, MINUTE, SECOND = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1), timedelta(seconds=1)


async def test_what_expires_is_removed_once_by_the_one_purger_and_gone_everywhere(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        await made.node(0).settle(imported=HOUR)
        old, young = people("old", 10), people("young", 10)
        lines = [one.line({Origin.IMPORTED: HOUR - 3 * SECOND}, present()) for one in old]
        lines += [one.line({Origin.IMPORTED: MINUTE}, present()) for one in young]
        await made.node(0).import_lines(lines)
        for node in made.nodes:
            await node.running.until(lambda status: (status.entries.live, status.entries.expired) == (10, 0))
            assert set(await node.running.export()) == {one.fingerprint for one in young}
        statuses = [await node.running.status() for node in made.nodes]
        assert len({status.cluster.purger for status in statuses}) == 1, "all agree who purges"
        assert [status.purge.last_sweep_removed > 0 for status in statuses].count(True) <= 1, "the others did not sweep"
        members = await made.node(0).members()
        assert [member.purger for member in members.values()].count(True) == 1


async def test_the_purger_killed_another_takes_its_place(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        await made.node(0).settle(imported=HOUR)

        async def chosen() -> str | None:
            told = {node.running.node.run_file["pid"]: (await node.running.status()).cluster.purger for node in made.up}
            return told.popitem()[1] if len(set(told.values())) == 1 and all(told.values()) else None

        label = await eventually(chosen)
        ids = {(await node.running.status()).node_id: node for node in made.nodes}
        purging = next(node for node_id, node in ids.items() if node_id[:8] in label)
        await purging.kill()
        old = people("old", 5)
        survivor = made.up[0].running
        await survivor.import_lines([one.line({Origin.IMPORTED: HOUR - SECOND}, present()) for one in old])
        for node in made.up:
            await node.running.until(lambda status: (status.entries.live, status.entries.expired) == (0, 0))
        assert await eventually(chosen) != label
        await purging.start()
        await made.settled()


async def test_a_mass_expiry_is_held_shown_on_every_node_and_confirmed_on_any(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        await made.node(0).settle(imported=10 * DAY)
        everybody = people("mass", 130)
        await made.node(0).import_lines([one.line({Origin.IMPORTED: 5 * DAY}, present()) for one in everybody])
        await made.settled()
        before = await made.node(0).export()
        await made.node(1).settle(imported=DAY)
        for node in made.nodes:
            held = await node.running.until(lambda status: status.cluster.purge_state == "HELD_MASS_EXPIRY")
            assert held.cluster.purge_waiting == 130
            assert "130 of 130" in held.cluster.purge_reason
            assert any("--confirm-held" in warning for warning in held.warnings), list(held.warnings)
            assert await node.running.served(one.address for one in everybody) == set()
            assert await node.running.export() == before
        idle = await not_the_purger(made.nodes)
        confirmed = await idle.purge(confirm_held=True)
        assert (confirmed.matched, confirmed.removed) == (130, 130)
        for node in made.nodes:
            await node.running.until(
                lambda status: not any(getattr(status.entries, kind) for kind in ("live", "expired", "held"))
            )


async def not_the_purger(nodes: Sequence[ClusterNode]) -> Running:
    for node in nodes:
        status = await node.running.status()
        if status.node_id[:8] not in status.cluster.purger:
            return node.running
    raise AssertionError("all purge")


async def test_a_clock_ten_minutes_off_holds_its_own_node_alone_and_all_say_so(tmp_path: Path) -> None:
    async with cluster(tmp_path, clocks=True) as made:
        await made.node(0).settle(imported=HOUR)
        wrong = made.nodes[0]
        await wrong.stop()
        wrong.set_clock(10 * MINUTE)
        node = await wrong.start()
        held = await node.until(lambda status: status.purge.state == "HELD_CLOCK")
        assert "disagrees" in held.purge.reason
        assert held.purge.reason in held.warnings
        node_id = held.node_id
        for other in made.nodes[1:]:

            async def told(other: ClusterNode = other) -> admin_pb2.Status | None:
                member = (await other.running.members())[node_id]
                off = member.skew.ToTimedelta() if member.HasField("skew") else timedelta()
                return True if not member.clock_trusted and abs(off - 10 * MINUTE) < MINUTE else None

            assert await eventually(told)
            status = await other.running.status()
            assert status.purge.state == "IDLE"
            assert node_id[:8] not in status.cluster.purger
        old = people("old", 5)
        # Expired by the wrong clock at once, by the right ones in a few seconds: it is not removed before.
        lines = [one.line({Origin.IMPORTED: HOUR - 15 * SECOND}, present()) for one in old]
        await made.node(1).import_lines(lines)
        await made.settled()
        assert await node.served(one.address for one in old) == set()
        assert len(await made.node(1).served(one.address for one in old)) == 5
        for other in made.nodes[1:]:
            await other.running.until(lambda status: (status.entries.live, status.entries.expired) == (0, 0))


async def test_of_two_clocks_that_disagree_neither_is_believed(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2, members=1, clocks=True) as made:
        await made.nodes[1].stop()
        made.nodes[1].set_clock(-10 * MINUTE)
        await made.nodes[1].start()
        for node in made.nodes:
            await node.running.until(lambda status: status.purge.state == "HELD_CLOCK")
        made.nodes[1].set_clock(timedelta())
        await made.nodes[1].restart()
        for node in made.nodes:
            await node.running.until(lambda status: status.purge.state == "IDLE")


async def test_an_administrators_purge_through_any_node_stays_done(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2, members=1) as made:
        everybody = people("purged", 150)
        await made.node(0).import_lines([one.line({Origin.IMPORTED: HOUR}, present()) for one in everybody])
        await made.settled()
        done = await made.node(1).purge(all=True)
        assert (done.matched, done.removed) == (150, 150)
        await made.settled()
        await asyncio.gather(*(node.restart() for node in made.nodes))
        for status in await made.settled():
            assert (status.entries.live, status.entries.expired, status.entries.held) == (0, 0, 0)
