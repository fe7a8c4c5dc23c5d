"""The authority is changed while nodes run: one that works alone, and three with an etcd each; killed at every step; clients follow."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from cryptography import x509

from keycache.client import connect
from keycache.domain.errors import ConfigError, KeycacheError
from keycache.v1 import cache_pb2
from support.command import spawn
from support.forming import exported, keycache, places, seated, seats, token_of
from support.scenario import Running, eventually, running


async def authority(folder: Path, *words: object, code: int = 0) -> Any:
    return await keycache(folder, "authority", *words, code=code)


async def at(folder: Path, step: str, *, waits: str = "") -> dict[str, Any]:
    """What it tells, once the change is at that step and waits for people (`waits`), or is over."""

    async def look() -> dict[str, Any] | None:
        done = await asyncio.to_thread(spawn, "authority", "show", "--json", "--data-dir", folder)
        told = json.loads(done.stdout) if done.returncode == 0 else {}
        return told if told.get("step") == step and (waits in told["waits"] if waits else not told["following"]) else None

    return await eventually(look)


def issuer(folder: Path) -> x509.Name:
    return x509.load_pem_x509_certificate((folder / "pki" / "server.pem").read_bytes()).issuer


HTTP1 = b"GET /version HTTP/1.0\r\n\r\n"
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def taken(place: str, certificate: Path, key: Path, ca: Path, *, peer: bool = False) -> bool:
    """Whether a server takes a client by that certificate: OpenSSL's word. TLS 1.3 tells a client of a refusal only when it reads, so
    something is said first. `peer`: etcd's port for its members, which speaks HTTP/1."""
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, key)
    if not peer:
        context.set_alpn_protocols(["h2"])
    host, _, port = place.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as raw:
        try:
            with context.wrap_socket(raw, server_hostname=host) as tls:
                tls.sendall(HTTP1 if peer else HTTP2)
                return bool(tls.recv(1))
        except (ssl.SSLError, ConnectionError):
            return False


CLIENTS_KNOW, CLIENTS_RENEWED = "new CA file", "Issue every client a new one"


async def test_a_node_that_works_alone_changes_its_authority_and_its_clients_follow(tmp_path: Path) -> None:
    node_dir, mta = tmp_path / "node", tmp_path / "mta"
    async with running(node_dir, **places()) as node:
        before = (node_dir / "pki" / "ca.pem").read_bytes()
        await keycache(node_dir, "client", "issue", "--role", "mail-processor", "--name", "mta1", "--out", mta)
        async with connect(
            node.node.run_file["grpc"], ca=mta / "ca.pem", certificate=mta / "mta1.pem", key=mta / "mta1.key", check_seconds=0
        ) as client:

            async def lookup() -> bool:
                request = cache_pb2.LookupRequest(address="anybody@example.org")
                return bool(await client.call(client.cache.Lookup, request))

            assert await lookup()
            assert "under way" in await authority(node_dir, "confirm", "--clients-trust", "--yes", code=1)
            begun = await authority(node_dir, "begin", "--yes")
            assert begun["step"] == "SPREAD"
            assert "being changed" in await keycache(node_dir, "cluster", "create", "--name", "mail", code=1)
            assert "being changed" in await authority(node_dir, "begin", "--yes", code=1)
            told = await at(node_dir, "SPREAD", waits=CLIENTS_KNOW)
            assert "belongs to SWITCHED" in await authority(node_dir, "confirm", "--clients-renewed", "--yes", code=1)
            assert (node_dir / "pki" / "ca.pem").read_bytes() == before
            assert await lookup()
            await authority(node_dir, "show", "--ca-out", mta / "ca.pem")
            assert (mta / "ca.pem").read_bytes().count(b"BEGIN CERTIFICATE") == 2
            await authority(node_dir, "confirm", "--clients-trust", "--yes")

            async def switched() -> dict[str, Any] | None:
                told = await authority(node_dir, "show")
                return told if told["step"] == "SWITCHED" and told["authority"] == begun["following"] else None

            assert (await eventually(switched))["following"] == told["following"]
            assert await lookup()

            async def seen() -> bool | None:
                assert await lookup()
                return True if (await authority(node_dir, "show"))["former_clients"] == ["mta1"] else None

            assert await eventually(seen)
            assert "mta1" in await authority(node_dir, "confirm", "--clients-renewed", "--yes", code=1)
            old = {name: (mta / name).read_bytes() for name in ("mta1.pem", "mta1.key")}
            await keycache(node_dir, "client", "renew", "--name", "mta1", "--out", mta)
            assert (mta / "mta1.pem").read_bytes() != old["mta1.pem"]
            assert await lookup()
            await at(node_dir, "SWITCHED", waits=CLIENTS_RENEWED)
            await authority(node_dir, "confirm", "--clients-renewed", "--yes")
            over = await at(node_dir, "SETTLED")
            assert over["authority"] == begun["following"]
            assert await lookup()
        for name, content in old.items():
            (mta / f"old-{name}").write_bytes(content)
        target = node.node.run_file["grpc"]
        assert taken(target, mta / "mta1.pem", mta / "mta1.key", mta / "ca.pem")
        assert not taken(target, mta / "old-mta1.pem", mta / "old-mta1.key", mta / "ca.pem")
        assert {path.name for path in (node_dir / "pki").glob("*ca.*")} == {"ca.pem", "ca.key"}
        actions = [line.split()[0] for line in await audit(node_dir)]
        assert [action for action in actions if action.startswith("AUTHORITY")] == [
            "AUTHORITY_END",
            "AUTHORITY_SETTLED",
            "AUTHORITY_CLIENTS_RENEWED",
            "AUTHORITY_SWITCHED",
            "AUTHORITY_CLIENTS_TRUST",
            "AUTHORITY_BEGIN",
        ]


async def audit(folder: Path) -> list[str]:
    return [f"{one['action']} {one['subject']}" for one in (await keycache(folder, "audit"))["records"]]


async def test_a_change_can_be_withdrawn_and_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, **places()):
        await authority(tmp_path, "begin", "--yes")
        await at(tmp_path, "SPREAD", waits=CLIENTS_KNOW)
        await authority(tmp_path, "withdraw")
        await at(tmp_path, "SETTLED")
        assert not list((tmp_path / "pki").glob("next-ca.*"))
        assert (tmp_path / "pki" / "trusted.pem").read_bytes() == (tmp_path / "pki" / "ca.pem").read_bytes()


class Three:
    """Three nodes, each with an etcd that votes; any may be killed and is started again."""

    def __init__(self, root: Path) -> None:
        self.folders = [root / name for name in ("first", "second", "third")]
        self.places = {folder: places() for folder in self.folders}
        self.running: dict[Path, Running] = {}
        self._stacks: dict[Path, AsyncExitStack] = {}

    async def start(self, folder: Path) -> None:
        stack = AsyncExitStack()
        self.running[folder] = await stack.enter_async_context(running(folder, **self.places[folder]))
        self._stacks[folder] = stack

    async def restart(self, folder: Path) -> None:
        """kill -9, and start."""
        self.running[folder].kill()
        await self._stacks.pop(folder).aclose()
        await self.start(folder)

    async def close(self) -> None:
        for stack in self._stacks.values():
            await stack.aclose()

    async def form(self) -> None:
        for folder in self.folders:
            await self.start(folder)
        await keycache(self.folders[0], "cluster", "create", "--name", "mail")
        for folder in self.folders[1:]:
            await keycache(folder, "cluster", "join", "--token", await token_of(self.folders[0]))
        await seated(self.folders[0], voters=3)


async def everywhere(folders: list[Path], true: Callable[[Path], bool]) -> None:
    async def look() -> bool | None:
        return True if all(true(folder) for folder in folders) else None

    await eventually(look)


async def changed(three: Three, *, disturb: Callable[[str], Any]) -> None:
    """All the way, with a disturbance after each step was begun."""
    first, third = three.folders[0], three.folders[2]
    old_issuer, stale = issuer(first), await token_of(first)
    # The last to restart its etcd: the others need what it alone has, while it waits for them.
    last = max(three.folders, key=lambda folder: (folder / "node-id").read_text())
    begun = await authority(last, "begin", "--yes")
    await disturb("spread")
    refused = await asyncio.to_thread(spawn, "cluster", "token", "--data-dir", first)
    assert b"being changed" in refused.stderr
    for folder in three.folders:
        told = await at(folder, "SPREAD", waits=CLIENTS_KNOW)
        assert all(one["there"] for one in told["nodes"])
        assert len(told["nodes"]) == 3
        assert told["following"] == begun["following"]
    await confirmed(third, "--clients-trust")
    await disturb("switch")
    await at(first, "SWITCHED", waits=CLIENTS_RENEWED)
    await everywhere(three.folders, lambda folder: issuer(folder) != old_issuer)
    await confirmed(first, "--clients-renewed")
    await disturb("forget")
    for folder in three.folders:
        assert (await at(folder, "SETTLED"))["authority"] == begun["following"]
        assert {path.name for path in (folder / "pki").glob("*ca.*")} == {"ca.pem", "ca.key"}
    assert stale not in str(await keycache(first, "cluster", "token", "--list"))
    assert (await keycache(first, "cluster", "token", "--list"))["tokens"] == []


async def confirmed(folder: Path, what: str) -> None:
    async def said() -> bool | None:
        done = await asyncio.to_thread(spawn, "authority", "confirm", what, "--yes", "--data-dir", folder)
        return True if done.returncode == 0 else None

    await eventually(said)


async def test_three_nodes_change_their_authority_under_load_and_the_former_one_is_worth_nothing(tmp_path: Path) -> None:
    three = Three(tmp_path)
    try:
        await three.form()
        old = tmp_path / "old"
        old.mkdir()
        for name in ("server.pem", "server.key"):
            (old / name).write_bytes((three.folders[2] / "pki" / name).read_bytes())
        first = three.folders[0]
        trusted, place = first / "pki" / "trusted.pem", three.places[first]
        for name in ("CLUSTER__ETCD_CLIENT", "CLUSTER__ETCD_PEER", "LISTEN__GRPC"):
            assert taken(place[name], old / "server.pem", old / "server.key", trusted, peer="PEER" in name)
        ended, failed = asyncio.Event(), []

        async def look_up() -> int:
            done = 0
            while not ended.is_set():
                try:
                    async with connected_anew(three.folders[done % 3]) as client:
                        request = cache_pb2.LookupRequest(address="anybody@example.org")
                        await client.call(client.cache.Lookup, request)
                    done += 1
                except ConfigError:
                    pass  # its own two files were being replaced at this very moment; nothing was asked
                except KeycacheError as error:
                    failed.append(str(error))
                await asyncio.sleep(0.02)
            return done

        looking = asyncio.create_task(look_up())

        async def nothing(_step: str) -> None:
            return

        await changed(three, disturb=nothing)
        ended.set()
        assert await looking > 50
        assert failed == []
        for name in ("CLUSTER__ETCD_CLIENT", "CLUSTER__ETCD_PEER", "LISTEN__GRPC"):
            assert not taken(place[name], old / "server.pem", old / "server.key", trusted, peer="PEER" in name), name
        assert sorted((await seats(first)).values()) == [True, True, True]
        # What the nodes share goes on, and a fourth is let in.
        fourth = tmp_path / "fourth"
        async with running(fourth, **places()):
            await keycache(fourth, "cluster", "join", "--token", await token_of(first))
            assert await exported(fourth) == await exported(first)
    finally:
        await three.close()


def connected_anew(folder: Path) -> Any:
    """A client with the files that lie there now: both authorities while they change."""
    pki = folder / "pki"
    target = json.loads((folder / "run.json").read_bytes())["grpc"]
    return connect(target, ca=pki / "trusted.pem", certificate=pki / "admin.pem", key=pki / "admin.key")


async def test_nodes_that_are_killed_at_every_step_follow_when_they_are_back(tmp_path: Path) -> None:
    three = Three(tmp_path)
    try:
        await three.form()

        async def kill(step: str) -> None:
            for folder in three.folders if step != "switch" else reversed(three.folders):
                await asyncio.sleep(0.7)
                await three.restart(folder)

        await changed(three, disturb=kill)
    finally:
        with contextlib.suppress(AssertionError):
            await three.close()
