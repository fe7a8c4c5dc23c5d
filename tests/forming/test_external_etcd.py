"""A cluster over an etcd that others run, by the real commands."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

from keycache.app.certificates import certificate_cautions
from keycache.clock import SystemClock
from keycache.config import Cluster
from keycache.domain.entry import Origin
from keycache.domain.joining import EtcdAccess
from keycache.domain.names import ClusterIdentity
from keycache.domain.secret import Secret
from keycache.domain.standing import Phase, Standing
from support.command import spawn
from support.etcd import EtcdCluster, TlsFiles, tls_files
from support.forming import exported, filled, in_cluster, keycache, places, token_of
from support.join_host import host_pki
from support.scenario import eventually, running
from support.scenario_people import people

DAY = timedelta(days=1)


def _words(etcd: EtcdCluster, tls: TlsFiles) -> list[object]:
    return [
        *("--etcd-endpoints", ",".join(etcd.endpoints), "--etcd-ca", tls.ca),
        *("--etcd-cert", tls.client, "--etcd-key", tls.client_key),
    ]


async def test_a_cluster_over_an_etcd_of_others_is_begun_joined_left_and_given_other_certificates(tmp_path: Path) -> None:
    tls, others = tls_files(tmp_path / "tls"), tls_files(tmp_path / "others", root="Another Root")
    renewed = tls_files(tmp_path / "renewed")
    first, second, third = tmp_path / "first", tmp_path / "second", tmp_path / "third"
    with EtcdCluster.run(tmp_path / "etcd", tls=tls) as etcd:
        create = ("cluster", "create", "--name", "mail")
        async with running(first, **places()) as host, running(second, **places()) as joiner, running(third, **places()):
            await filled(host, people("hosts", 10), {Origin.HARVESTED: 499 * DAY})
            await filled(joiner, people("own", 5), {Origin.LOOKED_UP: timedelta(hours=23)})
            everything = await exported(first) | await exported(second)

            # What does not fit is told, and nothing is changed.
            mixed = [*_words(etcd, tls)[:6], "--etcd-key", third / "pki" / "admin.key"]
            assert "not the key" in await keycache(first, *create, *mixed, code=2)
            assert "--etcd-ca" in await keycache(first, *create, *_words(etcd, tls)[:2], code=2)
            assert "[etcd]" in await keycache(first, *create, *_words(etcd, others), code=1)
            assert not (first / "cluster.json").exists()

            dry = await keycache(first, *create, *_words(etcd, tls), "--dry-run")
            assert {check["name"] for check in dry["checks"]} == {"etcd", "cluster", "ports", "settings"}
            assert not (first / "cluster.json").exists()
            created = await keycache(first, *create, *_words(etcd, tls))
            assert (created["cluster"], created["entries"]) == ("mail", 10)
            assert not (first / "etcd").exists()
            assert (first / "cluster.json").stat().st_mode & 0o077 == 0
            for file in (tls.client, tls.client_key):
                file.unlink()  # the node has copies

            told = await keycache(third, *create, *_words(etcd, renewed), code=1)
            assert "A cluster mail is in that etcd already" in told
            assert "token" in told
            told = await keycache(third, *create, *_words(etcd, renewed), "--skip-check", "cluster", code=1)
            assert "A cluster mail is in that etcd already" in told

            joined = await keycache(second, "cluster", "join", "--token", await token_of(first))
            assert joined["compared"]["equal"]
            assert (joined["compared"]["entries"], joined["compared"]["their_entries"]) == (15, 15)
            assert joined["timeouts"]["looked_up"] == timedelta(hours=24).total_seconds()
            assert joined["restart"] | {"action": ""} == {
                "action": "",
                "kept": 15,
                "expired": 0,
                "held_back": 0,
                "held_reason": "",
            }
            assert {check["name"] for check in joined["checks"]} == {
                *("ports", "disk", "etcd-reachable", "timeouts", "version", "clock", "name", "reachable"),
            }
            assert await exported(second) == everything
            assert json.loads((second / "cluster.json").read_text())["access"]

            # Other certificates, for each node by the same command, which looks whether it is the same cluster.
            assert "[etcd]" in await keycache(second, *create, *_words(etcd, others), code=1)
            for node in (first, second):
                await keycache(node, *create, *_words(etcd, renewed))
                await in_cluster(node)
                assert json.loads((node / "cluster.json").read_text())["access"]["certificate"] == renewed.client.read_text()

            # Who began it leaves; who stays keeps the cluster.
            await keycache(first, "cluster", "leave", "--yes")
            assert (await keycache(first, "status"))["mode"] == "standalone"
            assert await exported(first) == everything
            assert await exported(second) == everything
            again = await keycache(first, "cluster", "join", "--token", await token_of(second))
            assert again["compared"]["equal"]
            assert await exported(first) == everything


async def test_a_node_that_is_removed_from_a_cluster_over_an_etcd_of_others_can_be_replaced(tmp_path: Path) -> None:
    first, second, third = tmp_path / "first", tmp_path / "second", tmp_path / "third"
    two = places()
    with EtcdCluster.run(tmp_path / "etcd") as etcd:
        async with running(first, **places()) as host:
            await filled(host, people("hosts", 3), {Origin.HARVESTED: DAY})
            create = ("cluster", "create", "--name", "mail", "--etcd-endpoints", etcd.endpoints[0])
            assert "Write https" in await keycache(first, *create, "--etcd-ca", __file__, code=2)
            await keycache(first, *create)
            async with running(second, **two) as joiner:
                await keycache(second, "cluster", "join", "--token", await token_of(first))
                await asyncio.to_thread(joiner.kill)
            async with running(third, **two):
                told = await keycache(third, "cluster", "join", "--token", await token_of(first), code=1)
                assert "[name]" in told

                async def removed() -> bool | None:
                    done = await asyncio.to_thread(
                        spawn, "cluster", "remove", two["LISTEN__GRPC"], "--yes", "--data-dir", first
                    )
                    return True if done.returncode == 0 else None

                assert await eventually(removed)
                joined = await keycache(third, "cluster", "join", "--token", await token_of(first))
                assert joined["compared"]["equal"]
                assert joined["entries"] == 3


def test_what_nodes_show_to_an_etcd_of_others_is_told_before_it_ends_with_what_to_do(tmp_path: Path) -> None:
    tls, pki, now = tls_files(tmp_path / "tls"), host_pki(tmp_path), SystemClock().now()
    standing = Standing(
        cluster="mail",
        identity=ClusterIdentity("identity"),
        phase=Phase.MEMBER,
        endpoints=("https://etcd.example.org:2379",),
        external=True,
        access=EtcdAccess(ca=tls.ca.read_bytes(), certificate=tls.client.read_bytes(), key=Secret(tls.client_key.read_bytes())),
    )
    assert certificate_cautions(Cluster(), pki, standing, now) == ()
    told = certificate_cautions(Cluster(), pki, standing, now + 25 * DAY)  # of 31
    assert len(told) == 2
    assert all("etcd" in one and "'keycache cluster create --name mail --etcd-endpoints ...'" in one for one in told)


async def test_a_log_that_was_begun_anew_by_an_administrator_is_the_one_that_others_join(tmp_path: Path) -> None:
    tls = tls_files(tmp_path / "tls")
    first, second = tmp_path / "first", tmp_path / "second"
    with EtcdCluster.run(tmp_path / "etcd", tls=tls) as etcd:
        async with running(first, **places()) as host:
            await filled(host, people("hosts", 10), {Origin.HARVESTED: 499 * DAY})
            await keycache(first, "cluster", "create", "--name", "mail", *_words(etcd, tls))
            everything = await exported(first)
            before = json.loads((first / "cluster.json").read_text())["identity"]
            await asyncio.to_thread(etcd.stop)
            for member in etcd.members:
                member.wipe()
            await asyncio.to_thread(etcd.start)

            async def resolved() -> bool | None:
                done = await asyncio.to_thread(spawn, "cluster", "resolve", "--merge", "--yes", "--data-dir", first)
                return True if done.returncode == 0 else None

            assert await eventually(resolved)

            async def noted() -> bool | None:
                return True if json.loads((first / "cluster.json").read_text())["identity"] != before else None

            assert await eventually(noted)
            async with running(second, **places()):
                await keycache(second, "cluster", "join", "--token", await token_of(first))
                assert await exported(second) == await exported(first) == everything
