"""A node never takes another log, or one that went back in time, for its own: it serves on, and an administrator says what shall be
(DESIGN 4, the restart check)."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest

from keycache.domain.entry import Origin
from keycache.domain.errors import KeycacheError
from keycache.v1 import admin_pb2
from support.cluster import Cluster, ClusterNode, cluster
from support.command import spawn
from support.scenario import Running, eventually, present
from support.scenario_people import Person, people

DAY = timedelta(days=1)


async def refused(node: Running) -> admin_pb2.Status:
    return await node.until(lambda status: status.cluster.link == "REFUSED")


def replace_etcd(made: Cluster) -> None:
    """Data directories gone, same URLs and token: what a rebuilt machine, or a well-meaning colleague, makes of it."""
    for member in made.etcd.members:
        member.kill()
        member.wipe()
    made.etcd.start()


async def filled(made: Cluster, count: int = 8) -> dict[str, str]:
    """Entries of several ages and origins; what every node exports."""
    mailed = people("mailed", count // 2)
    lines = [
        one.line(
            {Origin.HARVESTED: number * DAY, Origin.LOOKED_UP: timedelta(hours=number)}, present() - timedelta(microseconds=7)
        )
        for number, one in enumerate(people("brought", count - len(mailed)))
    ]
    for one in mailed:
        await made.node(0).harvest(one.mail())
    await made.node(0).import_lines(lines)
    await made.settled()
    return await made.node(0).export()


async def serves_and_writes_nothing(node: Running, lines: dict[str, str], told: str) -> None:
    """A node that refused its log."""
    status = await refused(node)
    assert told in status.cluster.reason, status.cluster.reason
    assert "resolve --merge" in status.cluster.reason or any("resolve --merge" in warning for warning in status.warnings)
    assert await node.export() == lines
    check = await node.check()
    assert (check.action, check.kept) == ("REFUSE", len(lines))
    assert "--merge" in check.hint
    assert "--discard" in check.hint
    with pytest.raises(KeycacheError, match="log"):
        await node.delete(next(iter(lines)))
    assert await node.export() == lines


async def test_a_wiped_etcd_is_refused_and_a_merge_brings_everything_back_to_the_microsecond(tmp_path: Path) -> None:
    async with cluster(tmp_path, members=1) as made:
        lines = await filled(made)
        identity = (await made.node(0).status()).identity
        await asyncio.to_thread(replace_etcd, made)
        for node in made.nodes:
            await serves_and_writes_nothing(node.running, lines, identity)
        late = Person("late")
        answer = await made.node(1).harvest(late.mail())
        assert answer.keys[0].queued, "mail is taken all the same"
        await made.nodes[2].kill()
        await made.nodes[2].start()
        await serves_and_writes_nothing(made.node(2), lines, identity)

        foreseen = await made.node(0).resolve("MERGE", dry_run=True)
        assert foreseen.entries == len(lines)
        assert (await made.node(0).status()).cluster.link == "REFUSED", "a dry run changes nothing"
        merged = await made.node(0).resolve("MERGE")
        assert (merged.entries, merged.known) == (len(lines), 0)
        assert merged.identity != identity
        await made.settled(made.nodes[:1])
        for number in (1, 2):
            await refused(made.node(number))
            joined = await made.node(number).resolve("MERGE")
            assert joined.known == len(lines)
        await made.settled()
        for node in made.nodes:
            everything = await node.running.export()
            assert {key: sightings(line) for key, line in everything.items() if key in lines} == {
                key: sightings(line) for key, line in lines.items()
            }
            assert set(everything) == {*lines, late.fingerprint}


def sightings(line: str) -> list[dict[str, str]]:
    return json.loads(line)["sightings"]


async def test_a_merge_into_a_log_that_others_began_anew_joins_both(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2, members=1) as made:
        lines = await filled(made)
        await made.nodes[1].stop()
        await asyncio.to_thread(replace_etcd, made)
        await refused(made.node(0))
        newcomer = ClusterNode(
            "n9", tmp_path, made.etcd, host=None, clock=False, environ={}, settings={}
        )  # a fresh node founds a log there, and takes mail
        made.nodes.append(newcomer)
        await newcomer.start()
        shared = Person("mailed0")
        fresh = await newcomer.running.harvest(shared.mail())
        assert fresh.verdict == "CACHED"
        known = sightings((await newcomer.running.export())[shared.fingerprint])
        merged = await made.node(0).resolve("MERGE")
        assert (merged.entries, merged.known) == (len(lines), 1)
        await made.settled([made.nodes[0], newcomer])
        everything = await newcomer.running.export()
        assert set(everything) == set(lines)
        (old,), (new,), (both,) = sightings(lines[shared.fingerprint]), known, sightings(everything[shared.fingerprint])
        assert (both["cached_at"], both["refreshed_at"]) == (old["cached_at"], new["refreshed_at"]), (
            "first of one, last of the other"
        )


async def test_a_discard_says_what_it_forgets_and_takes_what_is_there(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=1, members=1) as made:
        lines = await filled(made)
        await asyncio.to_thread(replace_etcd, made)
        await refused(made.node(0))
        queued = await made.node(0).harvest(Person("late").mail())
        assert queued.keys[0].queued
        data_dir = made.nodes[0].data_dir
        dry = await asyncio.to_thread(spawn, "cluster", "resolve", "--discard", "--dry-run", "--data-dir", data_dir)
        assert dry.returncode == 0, dry
        assert f"{len(lines)} entries" in dry.stdout.decode() + dry.stderr.decode()
        assert await made.node(0).export() == {**lines, **await made.node(0).export()}
        done = await asyncio.to_thread(spawn, "cluster", "resolve", "--discard", "--yes", "--data-dir", data_dir)
        assert done.returncode == 0, done
        assert "forgotten" in done.stdout.decode() + done.stderr.decode()
        (status,) = await made.settled()
        assert (status.entries.live, status.cluster.outbox_entries) == (0, 0)
        assert (await made.node(0).harvest(Person("mailed0").mail())).verdict == "CACHED"


@pytest.mark.parametrize("passed", [False, True], ids=["it is behind", "it has passed the old revision again"])
@pytest.mark.parametrize("down", [False, True], ids=["nodes run", "nodes are down meanwhile"])
async def test_an_etcd_restored_from_an_older_backup_is_refused_as_gone_back(
    tmp_path: Path, *, passed: bool, down: bool
) -> None:
    async with cluster(tmp_path, nodes=2, members=1) as made:
        await filled(made)
        backup = tmp_path / "backup"
        await asyncio.to_thread(made.etcd.save, backup)
        lost = people("lost", 5)
        for one in lost:
            await made.node(1).harvest(one.mail())
        await made.settled()
        lines = await made.node(0).export()
        if down:
            for node in made.nodes:
                await node.stop()
        head = await asyncio.to_thread(made.etcd.revision)
        await asyncio.to_thread(restore_older, made, backup, head + 50 if passed else 0)
        for node in made.nodes:
            if down:
                await node.start()
            await serves_and_writes_nothing(node.running, lines, "went back")
        assert (await made.node(0).resolve("MERGE")).entries == len(lines)
        await made.settled(made.nodes[:1])
        if (await made.node(1).status()).cluster.link != "FOLLOWING":
            await made.node(1).resolve("MERGE")
        await made.settled()
        for node in made.nodes:
            assert {key: sightings(line) for key, line in (await node.running.export()).items()} == {
                key: sightings(line) for key, line in lines.items()
            }


def restore_older(made: Cluster, backup: Path, until: int) -> None:
    """And others write on until its revision is that."""
    for member in made.etcd.members:
        member.kill()
    made.etcd.restore(backup)
    made.etcd.members[0].start()
    made.etcd.members[0].wait_until_healthy()
    while made.etcd.revision() < until:
        made.etcd.etcdctl("put", "somebody/else", "x")


async def test_the_right_log_put_back_ends_the_refusal_by_itself(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2, members=1) as made:
        lines = await filled(made)
        member = made.etcd.members[0]
        member.kill()
        kept = member.folder / "kept"
        (member.folder / "data").rename(kept)
        member.start()
        member.wait_until_healthy()
        for node in made.nodes:
            await refused(node.running)
        member.kill()
        member.wipe()
        kept.rename(member.folder / "data")
        member.start()
        await made.settled()
        for node in made.nodes:
            assert await node.running.export() == lines


async def test_a_fresh_node_at_a_fresh_etcd_needs_no_word_of_anybody(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=1, members=1) as made:
        await asyncio.to_thread(replace_etcd, made)

        async def again() -> bool | None:
            return True if (await made.node(0).status()).cluster.link == "FOLLOWING" else None

        assert await eventually(again)
        assert (await made.node(0).harvest(Person("first").mail())).verdict == "CACHED"
