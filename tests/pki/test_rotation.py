"""An authority is changed step by step; at every step every two nodes at neighbouring steps talk: over real TLS, by OpenSSL and by
gRPC's BoringSSL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest

from keycache.clock import SystemClock
from keycache.domain.errors import ConfigError, Refused
from keycache.domain.names import NodeId
from keycache.domain.rotation import Step
from keycache.pki import Authority, NodePki, PrivateKey, Role, new_request, open_pki
from keycache.pki.rotation import announce, forget_former, new_authority, step_on_disk, switch, withdraw
from keycache.services.server import Certificates
from support.handshakes import handshake, node_client, node_server

STEPS = ("before", "spread", "switched", "after")


def opened(place: Path, now: datetime, node: str = "a") -> NodePki:
    return open_pki(place, names=(), now=now, node=NodeId(node))


@pytest.fixture(scope="module")
def now() -> datetime:
    return SystemClock().now()


@pytest.fixture(scope="module")
def following(now: datetime) -> Authority:
    return new_authority("cluster", now=now)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, now: datetime, following: Authority) -> dict[str, NodePki]:
    """One node of the same cluster at each step."""
    root = tmp_path_factory.mktemp("nodes")
    former = Authority.create(PrivateKey.generate(), name="cluster", now=now)
    acts: list[Callable[[Path], object]] = [lambda place: announce(place, following), switch, forget_former]
    made = {}
    for number, step in enumerate(STEPS):
        place = root / step
        place.mkdir(mode=0o700)
        (place / "ca.key").write_bytes(former.key.pem)
        (place / "ca.key").chmod(0o600)
        (place / "ca.pem").write_bytes(former.pem)
        opened(place, now, step)
        for act in acts[:number]:
            act(place)
        made[step] = opened(place, now, step)
    return made


def test_the_steps_show_in_what_is_trusted_and_what_signs(nodes: dict[str, NodePki], following: Authority) -> None:
    former = nodes["before"].authority.id
    told = {step: (node.step, node.authority.id, node.trusted_ids) for step, node in nodes.items()}
    assert told == {
        "before": (Step.SETTLED, former, {former}),
        "spread": (Step.SPREAD, former, {former, following.id}),
        "switched": (Step.SWITCHED, following.id, {former, following.id}),
        "after": (Step.SETTLED, following.id, {following.id}),
    }
    assert all(node.trusted.startswith(node.authority.pem) for node in nodes.values()), "the one that signs stands first"
    assert all(node.trusted_file.read_bytes() == node.trusted for node in nodes.values())


def test_nodes_at_the_same_or_at_neighbouring_steps_talk_both_ways(nodes: dict[str, NodePki]) -> None:
    for one, other in [*pairwise(STEPS), *((step, step) for step in STEPS)]:
        ends = (
            handshake(node_client(nodes[one]), node_server(nodes[other])),
            handshake(node_client(nodes[other]), node_server(nodes[one])),
        )
        assert ends == ("OK", "OK"), (one, other)


def test_nodes_two_steps_apart_do_not_which_is_why_every_step_waits_for_all(nodes: dict[str, NodePki]) -> None:
    assert handshake(node_client(nodes["before"]), node_server(nodes["switched"])) == "CERTIFICATE_VERIFY_FAILED"
    assert handshake(node_client(nodes["spread"]), node_server(nodes["after"])) == "CERTIFICATE_VERIFY_FAILED"


class _Echo(grpc.GenericRpcHandler):
    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        async def answer(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            return b",".join(context.peer_identities() or ())

        return grpc.unary_unary_rpc_method_handler(answer)  # type: ignore[arg-type]


async def called(client: NodePki, server: NodePki) -> bytes:
    """Over gRPC, on credentials as the node makes them."""
    listener = grpc.aio.server()
    listener.add_generic_rpc_handlers((_Echo(),))
    port = listener.add_secure_port("127.0.0.1:0", Certificates(server.server).credentials())
    await listener.start()
    own = client.server
    credentials = grpc.ssl_channel_credentials(own.ca, own.key.pem, own.certificate)
    try:
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
            return await channel.unary_unary("/any/Call")(b"", timeout=10)
    finally:
        await listener.stop(None)


async def test_grpc_agrees(nodes: dict[str, NodePki]) -> None:
    for one, other in pairwise(STEPS):
        assert b"urn:keycache:node:" + one.encode() in await called(nodes[one], nodes[other])
        assert b"urn:keycache:node:" + other.encode() in await called(nodes[other], nodes[one])


async def test_a_running_server_takes_up_each_step_at_the_next_handshake(nodes: dict[str, NodePki]) -> None:
    certificates = Certificates(nodes["before"].server)
    listener = grpc.aio.server()
    listener.add_generic_rpc_handlers((_Echo(),))
    port = listener.add_secure_port("127.0.0.1:0", certificates.credentials())
    await listener.start()
    try:
        for before, step in pairwise(STEPS):
            certificates.replace(nodes[step].server)
            for client in (before, step):
                own = nodes[client].server
                credentials = grpc.ssl_channel_credentials(own.ca, own.key.pem, own.certificate)
                options = (("grpc.use_local_subchannel_pool", 1),)
                async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
                    assert await asyncio.wait_for(channel.unary_unary("/any/Call")(b""), 10)
    finally:
        await listener.stop(None)


def test_clients_that_come_by_the_former_authority_are_let_in_until_it_is_forgotten(
    nodes: dict[str, NodePki], tmp_path, now
) -> None:
    client = nodes["before"].authority.issue_client(Role.ADMIN, "mta1", now=now)
    for name, content in (
        ("trusted.pem", nodes["spread"].trusted),
        ("server.pem", client.certificate),
        ("server.key", client.key.pem),
    ):
        (tmp_path / name).write_bytes(content)
    context = node_client(_at(tmp_path, nodes["spread"]))
    ends = {step: handshake(context, node_server(node)) for step, node in nodes.items()}
    assert ends == {"before": "OK", "spread": "OK", "switched": "OK", "after": "CERTIFICATE_VERIFY_FAILED"}


def _at(directory: Path, like: NodePki) -> NodePki:
    return replace(like, directory=directory)


def test_a_client_that_is_certified_meanwhile_gets_both_authorities(nodes: dict[str, NodePki], now: datetime) -> None:
    _, csr = new_request("mta1")
    assert nodes["spread"].sign_client(csr, role=Role.ADMIN, name="mta1", now=now).ca == nodes["spread"].trusted


def test_every_step_may_be_repeated(tmp_path: Path, now: datetime, following: Authority) -> None:
    place = tmp_path / "pki"
    opened(place, now)
    acts: tuple[Callable[[], object], ...] = (
        lambda: announce(place, following),
        lambda: switch(place),
        lambda: forget_former(place),
    )
    for act, step in zip(acts, (Step.SPREAD, Step.SWITCHED, Step.SETTLED), strict=True):
        act()
        once = {path.name: path.read_bytes() for path in place.iterdir()}
        act()
        assert {path.name: path.read_bytes() for path in place.iterdir()} == once
        assert step_on_disk(place) is step
    announce(place, following)
    assert step_on_disk(place) is Step.SETTLED, "it is in force already"


def test_a_change_that_was_announced_can_be_withdrawn_and_another_cannot_begin_before(
    tmp_path, now, following: Authority
) -> None:
    place = tmp_path / "pki"
    before = opened(place, now)
    announce(place, following)
    with pytest.raises(Refused, match="under way"):
        announce(place, new_authority("cluster", now=now))
    withdraw(place)
    after = opened(place, now)
    assert (after.trusted, after.server) == (before.trusted, before.server)
    with pytest.raises(Refused, match="no next authority"):
        switch(place)


FILES = ("ca.key", "ca.pem", "next-ca.key", "next-ca.pem", "former-ca.pem")


def state(place: Path) -> dict[str, bytes]:
    return {name: (place / name).read_bytes() for name in FILES if (place / name).exists()}


def test_a_switch_that_is_cut_off_anywhere_is_finished_by_the_next_start(
    tmp_path: Path, now: datetime, following: Authority
) -> None:
    """Its writes in their order; every prefix of them is a state in which the power may fail."""
    whole = tmp_path / "whole"
    opened(whole, now)
    announce(whole, following)
    spread = state(whole)
    writes: list[tuple[str, bytes | None]] = [
        ("former-ca.pem", spread["ca.pem"]),
        ("ca.key", spread["next-ca.key"]),
        ("ca.pem", spread["next-ca.pem"]),
        ("next-ca.pem", None),
        ("next-ca.key", None),
    ]
    switch(whole)
    assert state(whole) == dict(_after(spread, writes)), "the list above is what a switch does"
    for length in range(1, len(writes) + 1):
        place = tmp_path / str(length)
        place.mkdir(mode=0o700)
        for name, content in _after(spread, writes[:length]):
            (place / name).write_bytes(content)
            (place / name).chmod(0o600)
        assert opened(place, now).authority.id == following.id
        assert state(place) == state(whole)


def _after(before: dict[str, bytes], writes: list[tuple[str, bytes | None]]) -> list[tuple[str, bytes]]:
    after: dict[str, bytes | None] = {**before, **dict(writes)}
    return [(name, content) for name, content in after.items() if content is not None]


def test_a_key_whose_certificate_never_came_is_cleared_away(tmp_path: Path, now: datetime, following: Authority) -> None:
    place = tmp_path / "pki"
    opened(place, now)
    (place / "next-ca.key").write_bytes(following.key.pem)
    opened(place, now)
    assert not (place / "next-ca.key").exists()


@pytest.mark.parametrize("name", ["next-ca.pem", "former-ca.pem"])
def test_a_damaged_authority_is_told_and_not_passed_over(name: str, tmp_path: Path, now: datetime) -> None:
    place = tmp_path / "pki"
    opened(place, now)
    (place / name).write_bytes(b"rubbish")
    with pytest.raises(ConfigError, match=rf"{name} is not a certificate.*backup"):
        opened(place, now)


def test_a_node_reports_only_what_its_etcd_trusts_too(nodes: dict[str, NodePki], following: Authority) -> None:
    node, former = nodes["spread"], nodes["before"].authority.id
    name = NodeId("spread")
    told = node.report(name)
    assert (told.node, told.signing, told.shown, told.trusted) == (name, former, former, {former, following.id})
    assert node.report(name, etcd_trusts=frozenset({former})).trusted == {former}
    after = nodes["after"].report(name, etcd_trusts=frozenset({former, following.id}), forgetting=True)
    assert after.trusted == {former, following.id}, "etcd was not restarted yet"
