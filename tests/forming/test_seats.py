"""Nodes that run the etcd of their cluster together: who votes there, and what is left when one of them goes."""

from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from keycache.domain.entry import Origin
from keycache.domain.errors import KeycacheError
from keycache.pki import rotation
from support.command import spawn
from support.forming import etcdctl, exported, filled, in_cluster, keycache, places, seated, seats, token_of
from support.scenario import Running, eventually, present, running
from support.scenario_people import people

DAY = timedelta(days=1)


async def begun(stack: AsyncExitStack, folder: Path, **settings: str) -> Running:
    """A node with 20 entries that has begun a cluster."""
    node = await stack.enter_async_context(running(folder, **settings))
    await filled(node, people("first", 20), {Origin.HARVESTED: 400 * DAY})
    await keycache(folder, "cluster", "create", "--name", "mail")
    return node


async def node_id(folder: Path) -> str:
    return str((await keycache(folder, "status"))["node_id"])


async def everywhere(everything: dict[str, Any], *folders: Path) -> None:
    async def look() -> bool | None:
        return True if [await exported(folder) for folder in folders] == [everything] * len(folders) else None

    assert await eventually(look)


async def filled_through(folder: Path, file: Path, count: int) -> dict[str, Any]:
    """What is imported into a running node by the command: only with a majority of etcd does it get there. As `exported`."""
    before = set(await exported(folder))
    lines = [person.line({Origin.IMPORTED: DAY}, present()) for person in people(file.name, count)]
    await asyncio.to_thread(file.write_text, "\n".join(lines) + "\n")

    async def imported() -> bool | None:
        done = await asyncio.to_thread(spawn, "import", file, "--data-dir", folder)
        return True if done.returncode == 0 else None  # refused while the members of etcd vote

    assert await eventually(imported)
    found = {key: value for key, value in (await exported(folder)).items() if key not in before}
    assert len(found) == count
    return found


async def test_the_first_node_is_lost_for_good_and_replaced(tmp_path: Path) -> None:
    """Two join at once; the voters are odd at each rest; without the first node writes go on, and another takes its place."""
    first, second, third, fourth = (tmp_path / name for name in ("first", "second", "third", "fourth"))
    async with AsyncExitStack() as stack:
        host = await begun(stack, first, **places())
        await filled(await stack.enter_async_context(running(second, **places())), people("second", 5), {Origin.IMPORTED: DAY})
        await stack.enter_async_context(running(third, **places()))
        tokens = [await token_of(first), await token_of(first)]
        await asyncio.gather(
            *(
                keycache(folder, "cluster", "join", "--token", token)
                for folder, token in zip((second, third), tokens, strict=True)
            )
        )
        found = await seated(first, voters=3)
        assert set(found) == {await node_id(folder) for folder in (first, second, third)}
        everything = await exported(first)
        assert len(everything) == 25

        lost = await node_id(first)
        host.kill()  # for good
        more = await filled_through(second, tmp_path / "more", 5)
        everything |= more
        await everywhere(everything, second, third)

        async def removed() -> bool | None:
            done = await asyncio.to_thread(spawn, "cluster", "remove", lost, "--yes", "--data-dir", third)
            return True if done.returncode == 0 else None  # it counts as alive for some seconds

        assert await eventually(removed)
        left = await seated(third, voters=1, learners=1)
        assert lost not in left
        await stack.enter_async_context(running(fourth, **places()))
        await keycache(fourth, "cluster", "join", "--token", await token_of(third))
        assert await node_id(fourth) in await seated(fourth, voters=3)
        await everywhere(everything, second, third, fourth)


async def test_the_first_node_leaves_and_the_others_go_on_and_it_joins_again(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    async with AsyncExitStack() as stack:
        await begun(stack, first, **places())
        authority = (first / "pki" / "ca.pem").read_bytes()
        await stack.enter_async_context(running(second, **places()))
        await keycache(second, "cluster", "join", "--token", await token_of(first))
        await seated(second, voters=1, learners=1)
        everything = await exported(second)
        assert len(everything) == 20
        old = await node_id(first)

        await keycache(first, "cluster", "leave", "--yes")
        assert await exported(first) == everything
        assert (await keycache(first, "status"))["mode"] == "standalone"
        assert (first / "pki" / "ca.pem").read_bytes() != authority
        assert await node_id(first) != old
        assert list(await seated(second, voters=1)) == [await node_id(second)]
        more = await filled_through(second, tmp_path / "more", 5)
        assert set(more) <= set(await exported(second))
        assert set(await exported(first)) == set(everything)

        await keycache(first, "cluster", "join", "--token", await token_of(second))
        await seated(first, voters=1, learners=1)
        await everywhere(everything | more, first, second)


async def test_a_node_whose_etcd_lost_its_data_gets_its_vote_back_by_itself(tmp_path: Path) -> None:
    first, second, third = tmp_path / "first", tmp_path / "second", tmp_path / "third"
    third_places = places()
    async with AsyncExitStack() as stack:
        await begun(stack, first, **places())
        await stack.enter_async_context(running(second, **places()))
        await keycache(second, "cluster", "join", "--token", await token_of(first))
        async with running(third, **third_places):
            await keycache(third, "cluster", "join", "--token", await token_of(second))
            await seated(first, voters=3)
            before = await node_id(third)
        shutil.rmtree(third / "etcd")
        everything = await exported(first) | await filled_through(second, tmp_path / "more", 5)
        await stack.enter_async_context(running(third, **third_places))
        await in_cluster(third)

        async def back() -> bool | None:
            found = await seats(third)
            return True if (third / "etcd" / "member").exists() and sum(found.values()) == 3 and before in found else None

        assert await eventually(back)
        await everywhere(everything, first, second, third)


async def test_a_node_that_was_removed_while_it_was_away_works_alone_with_every_entry(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    second_places = places()
    async with AsyncExitStack() as stack:
        await begun(stack, first, **places())
        async with running(second, **second_places):
            await keycache(second, "cluster", "join", "--token", await token_of(first))
            await seated(first, voters=1, learners=1)
            await filled_through(second, tmp_path / "more", 5)
            everything, gone = await exported(second), await node_id(second)
            assert len(everything) == 25

        async def removed() -> bool | None:
            done = await asyncio.to_thread(spawn, "cluster", "remove", gone, "--yes", "--data-dir", first)
            return True if done.returncode == 0 else None

        assert await eventually(removed)
        assert list(await seated(first, voters=1)) == [await node_id(first)]
        await stack.enter_async_context(running(second, **second_places))

        async def alone() -> bool | None:
            return None if (second / "cluster.json").exists() else True

        assert await eventually(alone)
        await everywhere(everything, first, second)
        assert (await keycache(second, "status"))["mode"] == "standalone"
        assert await node_id(second) != gone
        await keycache(second, "cluster", "join", "--token", await token_of(first))
        await seated(first, voters=1, learners=1)
        await everywhere(everything, first, second)


async def test_an_etcd_that_is_full_is_made_room_in_by_the_node_itself(tmp_path: Path) -> None:
    settings = {**places(), "CLUSTER__QUOTA": str(24 * 2**20)}
    async with AsyncExitStack() as stack:
        node = await begun(stack, tmp_path, **settings)
        before = await exported(tmp_path)
        junk = "x" * 2**20
        for _ in range(40):  # the same key again and again: history, which compaction forgets
            done = await etcdctl(tmp_path, "put", "/junk", stdin=junk.encode())
            if done.returncode:
                break
        assert b"database space exceeded" in done.stderr
        assert (await etcdctl(tmp_path, "alarm", "list")).stdout

        async def written() -> bool | None:
            try:
                await filled(node, people("later", 5), {Origin.HARVESTED: DAY})
            except (AssertionError, KeycacheError):
                return None
            return True

        assert await eventually(written)
        assert not (await etcdctl(tmp_path, "alarm", "list")).stdout
        assert set(before) < set(await exported(tmp_path))


async def test_a_leave_that_was_cut_off_at_its_very_end_keeps_the_nodes_own_authority(tmp_path: Path) -> None:
    """All is given back, and the word that the node leaves still stands: as after a kill -9 before the last step."""
    first, second = tmp_path / "first", tmp_path / "second"
    second_places = places()
    async with AsyncExitStack() as stack:
        await begun(stack, first, **places())
        async with running(second, **second_places):
            own = (second / "pki" / "ca.pem").read_bytes()
            await keycache(second, "cluster", "join", "--token", await token_of(first))
            everything = await exported(second)
            standing = json.loads((second / "cluster.json").read_text())
            assert (second / "pki" / "ca.pem").read_bytes() != own
            await keycache(second, "cluster", "leave", "--yes")
            assert (second / "pki" / "ca.pem").read_bytes() == own
        left = {"phase": "LEAVING", "founded": False, "authority": rotation.authority_id(first / "pki" / "ca.pem")}
        (second / "cluster.json").write_text(json.dumps(standing | left))
        async with running(second, **second_places):

            async def alone() -> bool | None:
                return None if (second / "cluster.json").exists() else True

            assert await eventually(alone)
            assert (second / "pki" / "ca.pem").read_bytes() == own
            assert await exported(second) == everything
