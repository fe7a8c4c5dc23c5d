"""What may go wrong when a node joins: each a sentence with the next step, nothing left half-done, no entry lost."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from keycache.domain.entry import Origin
from keycache.domain.join_token import ENTROPY_BYTES, HASH_BYTES, HostPort, JoinToken
from support.command import spawn
from support.disks import fill_up, give_back, small_disk
from support.etcd import free_port
from support.forming import exported, filled, in_cluster, keycache, log_keys, places, token_of
from support.scenario import ClockFile, Running, eventually, running
from support.scenario_people import people

HOUR, DAY = timedelta(hours=1), timedelta(days=1)

NO_ETCD = {"PATH": "/nonexistent"}
"""For a node that is to find none."""


async def alone_as_before(folder: Path, before: dict[str, Any]) -> None:
    """The node works alone, with what it had, and nothing of a join is left."""
    assert not (folder / "cluster.json").exists()
    assert not (folder / "pki.joining" / "ca.key").exists()
    assert (await keycache(folder, "status"))["mode"] == "standalone"
    assert await exported(folder) == before


async def unused_tokens(folder: Path) -> bool:
    tokens = (await keycache(folder, "cluster", "token", "--list"))["tokens"]
    return bool(tokens) and not any(token["used_by"] for token in tokens)


def forged(place: str) -> str:
    """A token for that place, by an authority of nobody's."""
    authority = secrets.token_bytes(HASH_BYTES)
    return JoinToken.new(secrets.token_bytes(ENTROPY_BYTES), endpoints=[HostPort.parse(place)], authority=authority).reveal()


async def test_what_forbids_a_join_is_told_before_the_token_is_used_and_nothing_is_changed(tmp_path: Path) -> None:
    first, second, other = tmp_path / "first", tmp_path / "second", tmp_path / "other"
    one = places()
    async with running(first, **one) as host, running(second, environ=NO_ETCD, **places()) as joiner:
        await filled(host, people("hosts", 5), {Origin.HARVESTED: 499 * DAY})
        await joiner.settle(looked_up=30 * DAY)
        await filled(joiner, people("lasting", 5), {Origin.LOOKED_UP: 2 * DAY})
        before = await exported(second)
        assert len(before) == 5

        # etcd is missing: for who begins a cluster, and for who joins.
        told = await keycache(second, "cluster", "create", "--name", "own", code=1)
        assert "[etcd] etcd is not installed" in told
        assert "etcd-server" in told
        await keycache(first, "cluster", "create", "--name", "mail")
        token = await token_of(first)
        join = ("cluster", "join", "--token", token)

        # Keys that live by this node's timeouts would not by the cluster's: nobody may pass over that, but say that they are to go.
        for words in ((), ("--skip-check", "timeouts"), ("--dry-run",)):
            told = await keycache(second, *join, "--skip-check", "etcd", *words, code=1)
            assert "[timeouts] 5 keys of this node are unexpired by its own timeouts" in told
            assert "--discard-local" in told
        told = await keycache(second, *join, "--discard-local", "--yes", code=1)
        assert "[etcd] etcd is not installed" in told

        # A host that is another one, or none.
        told = await keycache(second, "cluster", "join", "--token", forged(one["LISTEN__JOIN"]), code=1)
        assert "which is not the token's" in told
        assert "Nothing was sent" in told
        told = await keycache(second, "cluster", "join", "--token", forged(f"127.0.0.1:{free_port()}"), code=1)
        assert "cannot be reached" in told
        assert "Check that the host runs" in told

        await alone_as_before(second, before)
        assert await unused_tokens(first)
        assert len(await log_keys(first, "nodes/")) == 1

        # A node of another cluster stays there.
        async with running(other, **places()):
            await keycache(other, "cluster", "create", "--name", "other")
            told = await keycache(other, *join, code=1)
            assert "belongs to cluster other already" in told
            assert "other" in await keycache(other, "cluster", "create", "--name", "another", code=1)
            assert (await keycache(other, "status"))["cluster"]["name"] == "other"
        assert await unused_tokens(first)

        # And then it joins, without an etcd of its own.
        joined = await keycache(second, *join, "--skip-check", "etcd", "--discard-local", "--yes")
        assert joined["compared"]["equal"]
        assert await exported(second) == await exported(first)
        assert not (second / "etcd").exists()


async def test_a_token_that_has_expired_lets_nobody_in(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    clock = ClockFile(tmp_path / "clock")
    async with running(first, environ=clock.environ, **places()), running(second, **places()) as joiner:
        await filled(joiner, people("own", 3), {Origin.HARVESTED: DAY})
        before = await exported(second)
        await keycache(first, "cluster", "create", "--name", "mail")
        join = ("cluster", "join", "--token", await token_of(first))
        clock.go(2 * HOUR)

        async def refused() -> str | None:
            done = await asyncio.to_thread(spawn, *join, "--dry-run", "--data-dir", second)
            return done.stderr.decode() if b"expired" in done.stderr else None

        assert "keycache cluster token" in await eventually(refused)
        assert "The token has expired" in await keycache(second, *join, code=1)
        await alone_as_before(second, before)


async def test_a_disk_that_is_full_half_way_leaves_the_node_as_it_was_and_the_token_good_for_it(tmp_path: Path) -> None:
    first = tmp_path / "first"
    with small_disk(tmp_path / "disk", 16 * 2**20) as disk:
        second, log = disk / "node", tmp_path / "second.log"
        async with running(first, **places()) as host, running(second, environ=NO_ETCD, log_file=log, **places()) as joiner:
            await filled(host, people("hosts", 5), {Origin.HARVESTED: 499 * DAY})
            await filled(joiner, people("own", 3), {Origin.LOOKED_UP: 23 * HOUR})
            before = await exported(second)
            await keycache(first, "cluster", "create", "--name", "mail")
            join = ("cluster", "join", "--token", await token_of(first), "--skip-check", "etcd")
            ballast = await asyncio.to_thread(fill_up, disk)
            assert "Cannot" in await keycache(second, *join, code=1)
            give_back(ballast, 2 * 4096)  # for the request and its directory, and not for the answer
            assert "[disk]" in await keycache(second, *join, code=1)
            told = await keycache(second, *join, "--skip-check", "disk", code=1)
            assert "No space left" in told
            await alone_as_before(second, before)
            give_back(ballast, ballast.stat().st_size)
            joined = await keycache(second, *join)
            assert joined["compared"]["equal"]
            assert len(await exported(second)) == 8
            assert len(await log_keys(first, "nodes/")) == 2


async def ended(node: Running) -> None:
    """kill -9, with the etcd that it runs."""
    await asyncio.to_thread(node.kill)


@pytest.mark.parametrize("seconds", [0.0, 0.3, 0.6, 1.0, 1.6])
async def test_a_host_that_is_killed_at_any_moment_of_a_join_and_started_again_lets_the_node_in_by_the_same_token(
    tmp_path: Path, seconds: float
) -> None:
    """From the moment in which the command asks the node: before, in the middle of and after each step, as the machine has it."""
    first, second = tmp_path / "first", tmp_path / "second"
    one, two = places(), places()
    async with running(second, **two) as joiner:
        await filled(joiner, people("own", 20), {Origin.LOOKED_UP: 20 * HOUR})
        async with running(first, **one) as host:
            await filled(host, people("hosts", 20), {Origin.HARVESTED: 200 * DAY})
            await keycache(first, "cluster", "create", "--name", "mail")
            token = await token_of(first)
            everything = await exported(first) | await exported(second)
            command = asyncio.create_task(_join(second, token))
            await asked(second)
            await asyncio.sleep(seconds)
            await ended(host)
        async with running(first, **one):
            code, told = await command
            if code:
                assert "keycache: " in told
                assert not (second / "cluster.json").exists()
                assert len(await exported(second)) == 20
                await in_cluster(first)
                await keycache(second, "cluster", "join", "--token", token)
            await in_cluster(second)
            assert await exported(second) == everything

            async def on_the_first() -> bool | None:
                return True if await exported(first) == everything else None

            assert await eventually(on_the_first)
            assert len(await log_keys(first, "nodes/")) == 2


async def asked(folder: Path) -> None:
    """Once the node has been told to join: the request for its certificate is the first thing that it makes."""

    async def look() -> bool | None:
        return True if (folder / "pki.joining").exists() or (folder / "cluster.json").exists() else None

    assert await eventually(look)


async def _join(folder: Path, token: str) -> tuple[int, str]:
    done = await asyncio.to_thread(spawn, "cluster", "join", "--token", token, "--data-dir", folder)
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stderr.decode()
