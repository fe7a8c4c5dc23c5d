"""A cluster made of real nodes by the real commands, with an etcd of its own: nothing is flushed, time stamps are kept."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from datetime import timedelta
from pathlib import Path

import pytest

from keycache.domain.entry import Origin
from support.command import spawn
from support.forming import exported, filled, in_cluster, keycache, places
from support.scenario import all_gone, children, clock_off_by, eventually, running
from support.scenario_people import people

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def _address(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    return host, int(port)


async def test_the_seeds_case_creating_and_joining_flush_nothing_unexpired(tmp_path: Path) -> None:
    """Keys harvested 499 days ago, looked up 23 hours ago, and both; looked-up ones count 24 hours, harvested ones 500 days."""
    first, second = tmp_path / "first", tmp_path / "second"
    one, two = places(), places()
    theirs = people("joiner", 20)
    async with running(first, **one) as host:
        await filled(host, people("old", 20), {Origin.HARVESTED: 499 * DAY})
        await filled(host, people("sought", 20), {Origin.LOOKED_UP: 23 * HOUR})
        await filled(host, people("both", 20), {Origin.HARVESTED: 300 * DAY, Origin.LOOKED_UP: 40 * DAY})
        before = await exported(first)
        assert len(before) == 60

        checks = (await keycache(first, "cluster", "create", "--name", "mail", "--dry-run"))["checks"]
        assert checks
        assert all(check["passed"] for check in checks)
        assert not (first / "cluster.json").exists()
        created = await keycache(first, "cluster", "create", "--name", "mail")
        assert (created["cluster"], created["entries"]) == ("mail", 60)
        assert await exported(first) == before
        again = await keycache(first, "cluster", "create", "--name", "other", code=1)
        assert "belongs to cluster mail already" in again

        # The joiner's own configuration says one hour, which would leave it nothing of what the host has.
        async with running(second, **two) as joiner:
            await joiner.settle(harvested=HOUR, looked_up=HOUR, imported=HOUR)
            await filled(joiner, theirs, {Origin.HARVESTED: HOUR / 2})
            own = await exported(second)
            token = (await keycache(first, "cluster", "token"))["token"]
            joined = await keycache(second, "cluster", "join", "--token", token)
            assert joined["entries"] == 80
            everything = before | own
            assert await exported(second) == everything

            async def on_the_first() -> bool | None:
                return True if await exported(first) == everything else None

            assert await eventually(on_the_first)
            shown = await keycache(second, "settings", "show")
            assert shown["timeouts"]["harvested"] == (500 * DAY).total_seconds()
            used = await keycache(second, "cluster", "token", "--list")
            assert [bool(token["used_by"]) for token in used["tokens"]] == [True]

    for order in ((first, second), (second, first)):
        settings = {first: one, second: two}
        async with running(order[0], **settings[order[0]]), running(order[1], **settings[order[1]]):
            digests = {(await in_cluster(folder))["digest"] for folder in order}
            assert len(digests) == 1
            for folder in order:
                assert await exported(folder) == everything


async def test_a_node_killed_on_its_way_goes_on_at_its_next_start(tmp_path: Path) -> None:
    settings = places()
    async with running(tmp_path, **settings) as node:
        await filled(node, people("kept", 60), {Origin.HARVESTED: 100 * DAY})
        before = await exported(tmp_path)
        offspring = children(node.pid)
        command = asyncio.create_task(asyncio.to_thread(spawn, "cluster", "create", "--name", "mail", "--data-dir", tmp_path))

        async def written() -> bool | None:
            return True if (tmp_path / "cluster.json").exists() else None

        assert await eventually(written)
        os.kill(node.pid, signal.SIGKILL)
        node.kill()
        assert await all_gone(offspring)
    async with running(tmp_path, **settings):
        await in_cluster(tmp_path)
        assert await exported(tmp_path) == before
        assert (await command).returncode in {0, 3}


async def test_who_may_not_join_is_told_why_and_nothing_is_changed(tmp_path: Path) -> None:
    first, second, third = tmp_path / "first", tmp_path / "second", tmp_path / "third"
    third_places = places()
    async with running(first, **places()), running(second, **places()), running(third, **third_places):
        alone = await keycache(second, "cluster", "token", code=1)
        assert "belongs to no cluster" in alone
        await keycache(first, "cluster", "create", "--name", "mail")
        token = (await keycache(first, "cluster", "token"))["token"]
        assert "mistyped" in await keycache(
            second, "cluster", "join", "--token", token[:-1] + ("0" if token[-1] != "0" else "1"), code=2
        )
        with socket.create_server(_address(third_places["LISTEN__JOIN"])):
            assert "[ports]" in await keycache(third, "cluster", "join", "--token", token, code=1)
            assert "listen.join" in await keycache(third, "cluster", "create", "--name", "own", code=1)
        withdrawn = await keycache(first, "cluster", "token")
        await keycache(first, "cluster", "token", "--revoke", withdrawn["id"])
        assert "withdrawn" in await keycache(second, "cluster", "join", "--token", withdrawn["token"], code=1)
        assert (await keycache(second, "cluster", "join", "--token", token, "--dry-run"))["checks"]
        assert not (second / "pki.joining").exists()
        await keycache(second, "cluster", "join", "--token", token)
        assert "used by another node" in await keycache(third, "cluster", "join", "--token", token, code=1)
        assert not (third / "cluster.json").exists()
        assert (await keycache(third, "status"))["mode"] == "standalone"


async def test_a_node_that_leaves_keeps_every_entry_and_one_that_is_gone_can_be_removed(tmp_path: Path) -> None:
    first, second, third = tmp_path / "first", tmp_path / "second", tmp_path / "third"
    one, two, three = places(), places(), places()
    async with running(first, **one) as host:
        await filled(host, people("hosts", 30), {Origin.HARVESTED: 200 * DAY})
        await keycache(first, "cluster", "create", "--name", "mail")
        async with running(second, **two) as other:
            await filled(other, people("others", 10), {Origin.IMPORTED: 2 * DAY})
            own_authority = (second / "pki" / "ca.pem").read_bytes()
            await keycache(second, "cluster", "join", "--token", (await keycache(first, "cluster", "token"))["token"])
            everything = await exported(second)
            assert len(everything) == 40
            await keycache(second, "cluster", "leave", "--dry-run")
            left = await keycache(second, "cluster", "leave", "--yes")
            assert left["entries"] == 40
            assert await exported(second) == everything
            assert (await keycache(second, "status"))["mode"] == "standalone"
            assert (second / "pki" / "ca.pem").read_bytes() == own_authority
            assert not (second / "cluster.json").exists()
            assert (await keycache(second, "settings", "show"))["timeouts"]["harvested"] == (500 * DAY).total_seconds()
            # what is deleted here is deleted here alone, and comes back with the next join, since it is known there
            await keycache(second, "purge", "--all", "--yes")
            assert await exported(second) == {}
            assert await exported(first) == everything
            await keycache(second, "cluster", "join", "--token", (await keycache(first, "cluster", "token"))["token"])
            assert await exported(second) == everything

        async with running(third, **three):
            await keycache(third, "cluster", "join", "--token", (await keycache(first, "cluster", "token"))["token"])
            members = (await keycache(third, "cluster", "members"))["members"]
            gone = next(member for member in members if member["address"] == two["LISTEN__GRPC"] and not member["is_this_node"])
            assert "lives" in await keycache(third, "cluster", "remove", one["LISTEN__GRPC"], "--yes", code=1)

            async def removed() -> bool | None:
                done = await asyncio.to_thread(spawn, "cluster", "remove", two["LISTEN__GRPC"], "--yes", "--data-dir", third)
                return True if done.returncode == 0 else None

            assert await eventually(removed)
            assert gone["node_id"] not in {one["node_id"] for one in (await keycache(third, "cluster", "members"))["members"]}
            assert await exported(third) == everything


async def test_a_clock_that_is_off_and_a_name_that_is_taken_are_told_before_anything_is_changed(tmp_path: Path) -> None:
    first, second, third = tmp_path / "first", tmp_path / "second", tmp_path / "third"
    taken = places()
    late = clock_off_by(timedelta(minutes=-10))
    async with running(first, **taken), running(second, environ=late, **places()) as joiner:
        await filled(joiner, people("late", 5), {Origin.HARVESTED: DAY})
        before = await exported(second)
        await keycache(first, "cluster", "create", "--name", "mail")
        token = (await keycache(first, "cluster", "token"))["token"]
        told = await keycache(second, "cluster", "join", "--token", token, code=1)
        assert "[clock]" in told
        assert "10m behind" in told
        async with running(third, **{**places(), "CLUSTER__ADDRESS": taken["LISTEN__GRPC"]}):
            assert "[name]" in await keycache(third, "cluster", "join", "--token", token, code=1)
        assert await exported(second) == before
        assert not (second / "cluster.json").exists()
        assert not (second / "pki.joining").exists()
        unused = (await keycache(first, "cluster", "token", "--list"))["tokens"]
        assert [token["used_by"] for token in unused] == [""]


@pytest.mark.parametrize("seconds", [0.0, 0.3, 0.8, 1.5, 3.0])
async def test_a_joiner_that_is_killed_at_any_moment_comes_to_have_everything(tmp_path: Path, seconds: float) -> None:
    """From the moment in which the command is given: before, in the middle of and after each step, as the machine has it."""
    first, second = tmp_path / "first", tmp_path / "second"
    one, two = places(), places()
    async with running(first, **one) as host:
        await filled(host, people("hosts", 40), {Origin.HARVESTED: 200 * DAY})
        await keycache(first, "cluster", "create", "--name", "mail")
        token = (await keycache(first, "cluster", "token"))["token"]
        async with running(second, **two) as joiner:
            await filled(joiner, people("own", 40), {Origin.LOOKED_UP: 20 * HOUR})
            everything = await exported(first) | await exported(second)
            words = ("cluster", "join", "--token", token, "--data-dir", second)
            command = asyncio.create_task(asyncio.to_thread(spawn, *words))
            await asyncio.sleep(1 + seconds)  # a second until the command has started
            joiner.kill()
        async with running(second, **two):
            await command  # it waits for the node, or has told that it is gone
            if not (second / "cluster.json").exists():
                assert len(await exported(second)) == 40
                await keycache(second, "cluster", "join", "--token", token)
            await in_cluster(second)
            assert await exported(second) == everything

            async def on_the_first() -> bool | None:
                return True if await exported(first) == everything else None

            assert await eventually(on_the_first)
