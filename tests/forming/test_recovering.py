"""etcd lost its majority for good: what the nodes that are left hold is a cluster again, with every time stamp."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from keycache.domain.entry import Origin
from support.command import spawn
from support.forming import exported, filled, in_cluster, keycache, places, seated, token_of
from support.scenario import eventually, running
from support.scenario_people import people

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def unreachable(folder: Path) -> None:
    """Once the node knows that its log is out of reach."""

    async def look() -> bool | None:
        done = await asyncio.to_thread(spawn, "cluster", "recover", "--dry-run", "--data-dir", folder)
        return True if done.returncode == 0 else None

    assert await eventually(look)


async def test_two_of_three_nodes_are_lost_and_the_cluster_begins_anew_from_the_third(tmp_path: Path) -> None:
    first, second, third, fourth = (tmp_path / name for name in ("first", "second", "third", "fourth"))
    second_places, third_places = places(), places()
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(running(first, **places()))
        assert "works alone" in await keycache(first, "cluster", "recover", "--yes", code=1)
        await filled(host, people("old", 20), {Origin.HARVESTED: 499 * DAY})
        await filled(host, people("sought", 20), {Origin.LOOKED_UP: 23 * HOUR})
        await keycache(first, "settings", "set", "--looked-up", "3d", "--yes")
        await keycache(first, "cluster", "create", "--name", "mail")
        other = await stack.enter_async_context(running(second, **second_places))
        last = await stack.enter_async_context(running(third, **third_places))
        for folder in (second, third):
            await keycache(folder, "cluster", "join", "--token", await token_of(first))
        await seated(first, voters=3)
        assert "can be reached" in await keycache(third, "cluster", "recover", "--yes", code=1)
        everything = await exported(third)
        assert len(everything) == 40

        host.kill()  # for good
        other.kill()
        await asyncio.to_thread(shutil.rmtree, second / "etcd")
        await unreachable(third)
        last.kill()  # and a restart in the middle of the trouble
        await stack.enter_async_context(running(third, **third_places))
        await unreachable(third)
        assert await exported(third) == everything

        recovered = await keycache(third, "cluster", "recover", "--yes")
        assert (recovered["cluster"], recovered["entries"]) == ("mail", 40)
        assert await exported(third) == everything
        shown = await keycache(third, "settings", "show")
        assert shown["timeouts"]["looked_up"] == (3 * DAY).total_seconds()
        assert list((third).glob("etcd.before-*"))

        # The second comes back without its etcd's data, finds no log of its own, and keeps what it has until it is told.
        await stack.enter_async_context(running(second, **second_places))
        assert await exported(second) == everything
        await keycache(second, "cluster", "leave", "--yes")
        assert await exported(second) == everything
        await keycache(second, "cluster", "join", "--token", await token_of(third))
        await stack.enter_async_context(running(fourth, **places()))
        await keycache(fourth, "cluster", "join", "--token", await token_of(third))
        await seated(third, voters=3)
        for folder in (second, third, fourth):
            await in_cluster(folder)
            assert await exported(folder) == everything


@pytest.mark.parametrize("moment", ["put by", "written", "going over"])
async def test_a_recovery_that_is_killed_is_finished_by_the_next_start_or_the_next_command(tmp_path: Path, moment: str) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    own = places()
    async with running(first, **places()) as host:
        await filled(host, people("old", 30), {Origin.HARVESTED: 499 * DAY})
        await keycache(first, "cluster", "create", "--name", "mail")
        async with running(second, **own) as node:
            await keycache(second, "cluster", "join", "--token", await token_of(first))
            await seated(first, voters=1, learners=1)
            everything = await exported(second)
            host.kill()
            await unreachable(second)
            command = asyncio.create_task(asyncio.to_thread(spawn, "cluster", "recover", "--yes", "--data-dir", second))

            async def reached() -> bool | None:
                put_by = list(second.glob("etcd.before-*"))
                written = '"founded": true' in (second / "cluster.json").read_text()
                going = (second / "etcd").exists() and written
                return True if {"put by": put_by, "written": written, "going over": going}[moment] else None

            await eventually(reached)
            os.kill(node.pid, signal.SIGKILL)
            node.kill()
        async with running(second, **own):
            await command
            assert await exported(second) == everything
            if '"founded": true' not in await asyncio.to_thread((second / "cluster.json").read_text):
                await unreachable(second)
                await keycache(second, "cluster", "recover", "--yes")
            await in_cluster(second)
            assert await exported(second) == everything
            await seated(second, voters=1)
