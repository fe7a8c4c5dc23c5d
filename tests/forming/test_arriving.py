"""The end of a join: the node is healthy once it holds what another one holds, and says so; and a node that joins as it is started."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from keycache.domain.entry import Origin
from keycache.v1 import cluster_pb2
from support.command import EXECUTABLE, OWN_ENVIRONMENT, spawn
from support.etcd import EtcdCluster
from support.forming import exported, filled, in_cluster, keycache, places, token_of
from support.scenario import eventually, running
from support.scenario_people import people

DAY = timedelta(days=1)


async def forming(folder: Path, word: str) -> str:
    """What the node says that it waits for, once that word is in it."""

    async def look() -> str | None:
        done = await asyncio.to_thread(spawn, "status", "--json", "--data-dir", folder)
        told = str(json.loads(done.stdout)["forming"]) if done.returncode == 0 else ""
        return told if word in told else None

    return await eventually(look)


def digest_of(folder: Path) -> bytes:
    with sqlite3.connect(folder / "keycache.db") as database:
        (digest,) = database.execute("SELECT digest FROM replica_state").fetchone()
    return bytes(digest)


def write_digest(folder: Path, digest: bytes) -> None:
    """Of a node that does not run: what its copy comes to by its own account."""
    with sqlite3.connect(folder / "keycache.db") as database:
        database.execute("UPDATE replica_state SET digest = ?", (digest,))


async def test_a_node_that_finds_itself_different_from_the_others_is_not_healthy_and_says_so(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    one = places()
    async with running(first, **one) as host:
        await filled(host, people("hosts", 5), {Origin.HARVESTED: DAY})
        await keycache(first, "cluster", "create", "--name", "mail")
        token = await token_of(first)
    write_digest(first, bytes(byte ^ 1 for byte in digest_of(first)))
    async with running(second, **places()) as joiner:
        await filled(joiner, people("own", 2), {Origin.HARVESTED: DAY})
        async with running(first, **one):
            await in_cluster(first)
            request = cluster_pb2.JoinClusterRequest(token=token)
            await joiner.connection.call(joiner.connection.cluster.JoinCluster, request)
            told = await forming(second, "they differ")
            assert "7 unexpired entries" in told
            assert one["LISTEN__GRPC"] in told
            assert json.loads((second / "cluster.json").read_text())["phase"] == "ADOPTING"
            assert len(await exported(second)) == 7  # lookups are answered all the same
            right = bytes.fromhex((await keycache(second, "status"))["digest"])  # its copy is as the log has it
        write_digest(first, right)
        async with running(first, **one):
            assert (await in_cluster(second))["digest"] == right.hex()  # it goes on by itself
            assert json.loads((second / "cluster.json").read_text())["phase"] == "MEMBER"


async def test_a_joiner_whose_clusters_log_was_emptied_on_its_way_does_not_begin_it_anew(tmp_path: Path) -> None:
    """Neither one that brings entries, nor one that has nothing to lose."""
    first = tmp_path / "first"
    one = places()
    joiners = {tmp_path / "empty": (places(), 0), tmp_path / "full": (places(), 5)}
    with EtcdCluster.run(tmp_path / "etcd") as etcd:
        async with running(first, **one):
            await keycache(first, "cluster", "create", "--name", "mail", "--etcd-endpoints", etcd.endpoints[0])
            for folder, (settings, count) in joiners.items():
                async with running(folder, **settings) as joiner:
                    if count:
                        await filled(joiner, people("own", count), {Origin.HARVESTED: DAY})
                    await keycache(folder, "cluster", "join", "--token", await token_of(first))
                    await asyncio.to_thread(joiner.kill)
                on_its_way(folder)
        etcd.etcdctl("del", "--prefix", "/keycache/mail/")
        for folder, (settings, count) in joiners.items():
            async with running(folder, **settings):
                assert "cluster leave" in await forming(folder, "is gone")
                held = await exported(folder)
                assert len(held) == count
                assert etcd.etcdctl("get", "--prefix", "/keycache/mail/", "--keys-only").strip() == ""
                left = await keycache(folder, "cluster", "leave", "--yes")
                assert left["entries"] == len(held)
                assert (await keycache(folder, "status"))["mode"] == "standalone"
                assert await exported(folder) == held


def on_its_way(folder: Path) -> None:
    """As it is before it is there: its own record alone says that it has arrived."""
    file = folder / "cluster.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "phase": "ADOPTING"}))


def served(folder: Path, file: Path, settings: Mapping[str, str]) -> tuple[int, str]:
    """`serve --join-token-file` of a node that is to end by itself."""
    done = subprocess.run(
        [EXECUTABLE, "serve", "--data-dir", folder, "--join-token-file", file],
        env={
            **OWN_ENVIRONMENT,
            "KEYCACHE_LISTEN__METRICS": "off",
            **{f"KEYCACHE_{name}": value for name, value in settings.items()},
        },
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr.decode()


async def test_one_command_makes_an_installed_package_a_node_of_the_cluster(tmp_path: Path) -> None:
    first, second, file = tmp_path / "first", tmp_path / "second", tmp_path / "token"
    one, two = places(), places()
    assert (await asyncio.to_thread(served, second, file, two))[0] == 1
    file.write_text("kc1/nothing")
    code, told = await asyncio.to_thread(served, second, file, two)
    assert (code, "too short" in told or "not a token" in told) == (2, True)
    assert "keycache serve --join-token-file" in await keycache(second, "cluster", "join", "--token", "kc1/x", code=3)
    async with running(first, **one) as host:
        await filled(host, people("hosts", 5), {Origin.HARVESTED: 499 * DAY})
        await keycache(first, "cluster", "create", "--name", "mail")
        file.write_text(f"{await token_of(first)}\n")
        everything = await exported(first)
    async with running(second, options=("--join-token-file", file), **two):  # before its host is there
        assert "cannot be reached" in await forming(second, "It waits")
        async with running(first, **one):
            assert (await in_cluster(second))["cluster"]["name"] == "mail"
            assert await exported(second) == everything
    file.unlink()
    async with running(first, **one), running(second, options=("--join-token-file", file), **two):
        assert (await in_cluster(second))["cluster"]["name"] == "mail"
        assert await exported(second) == everything
