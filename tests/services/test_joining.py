"""The port for nodes that join: strangers may call `Join` there and nothing else; and nodes that were removed are heard nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from keycache.client.joining import join_connection
from keycache.clock import SystemClock
from keycache.domain.errors import ConfigError, InvalidInput, KeycacheError, PermissionDenied
from keycache.domain.join_token import HostPort, TokenVerdict
from keycache.domain.joining import Doing, Greeting
from keycache.domain.names import NodeId
from keycache.domain.removal import Removal
from keycache.pki import Role
from keycache.pki.authority import _role_uri
from keycache.pki.bootstrap import find_host
from keycache.services import admin, auth, cluster, health, join, key_cache
from keycache.services.admin import AdminService
from keycache.services.calls import Calls
from keycache.services.cluster import ClusterService
from keycache.services.health import HealthService
from keycache.services.join import CALLS_LIMIT, REQUEST_LIMIT, JoinService
from keycache.services.key_cache import KeyCacheService
from keycache.services.limits import ByteBudget
from keycache.v1 import join_pb2
from services.test_roles import every_rpc
from support.join_host import ADMISSION, APPLICATION, CHECKS, NOON, ScriptedAdmitter, token_for
from support.service_node import ServiceNode, channel, said, service_node

HEALTH = "/grpc.health.v1.Health/Check"


@pytest.fixture
def admitter() -> ScriptedAdmitter:
    return ScriptedAdmitter()


@pytest.fixture
async def host(tmp_path: Path, admitter: ScriptedAdmitter) -> AsyncIterator[ServiceNode]:
    async with service_node(tmp_path, admitter=admitter, join="127.0.0.1:0") as running:
        yield running


def endpoint(host: ServiceNode) -> HostPort:
    assert host.server.join_port is not None
    return HostPort("127.0.0.1", host.server.join_port)


def stranger(host: ServiceNode) -> grpc.aio.Channel:
    """To the port for joiners, without a certificate."""
    return grpc.aio.secure_channel(str(endpoint(host)), grpc.ssl_channel_credentials(host.pki.server.ca))


async def test_a_joiner_finds_the_host_asks_who_it_is_and_is_let_in(host: ServiceNode, admitter: ScriptedAdmitter) -> None:
    found = await find_host(token_for(host.pki, endpoint(host).port), now=SystemClock().now())
    async with join_connection(found.endpoint, found.ca) as ours:
        assert await ours.ping() == Greeting(version="1.0", clock=NOON)
        assert [step async for step in ours.join(APPLICATION)] == [Doing("Checking the token."), ADMISSION]
    assert admitter.applications == [APPLICATION]


async def test_without_a_certificate_nothing_but_join_can_be_called_on_the_port_for_joiners(host: ServiceNode) -> None:
    async with stranger(host) as ours:
        ends = {rpc: (await said(ours, rpc))[0] for rpc in every_rpc()}
    joining = {rpc for rpc in every_rpc() if rpc.startswith("/keycache.v1.Join/")}
    assert {rpc for rpc, code in ends.items() if code is not grpc.StatusCode.UNIMPLEMENTED} == joining
    assert ends["/keycache.v1.Join/Ping"] is grpc.StatusCode.OK


async def test_a_certificate_opens_nothing_more_on_the_port_for_joiners(host: ServiceNode) -> None:
    own = host.client(Role.ADMIN)
    credentials = grpc.ssl_channel_credentials(own.ca, own.key.pem, own.certificate)
    async with grpc.aio.secure_channel(str(endpoint(host)), credentials) as ours:
        assert (await said(ours, "/keycache.v1.Admin/GetStatus"))[0] is grpc.StatusCode.UNIMPLEMENTED
        assert (await said(ours, HEALTH))[0] is grpc.StatusCode.UNIMPLEMENTED


@asynccontextmanager
async def everything_on(host: ServiceNode, credentials: grpc.ServerCredentials) -> AsyncIterator[str]:
    """All services behind these credentials: as if the port for joiners were not a server of its own."""
    calls = Calls(host.metrics)
    services: dict[str, Any] = {
        key_cache.NAME: KeyCacheService(host.cache, ByteBudget(1)).handlers(calls),
        admin.NAME: AdminService(host.cache, host.pki, host.clock).handlers(calls),
        health.NAME: HealthService((key_cache.NAME,)).handlers(calls),
        cluster.NAME: ClusterService(host.cache, None).handlers(calls),
        join.NAME: JoinService(ScriptedAdmitter()).handlers(calls),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(*service) for service in services.items()])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_the_table_alone_would_refuse_everything_else_without_a_certificate(host: ServiceNode) -> None:
    ours = {rpc for rpc in every_rpc() if "reflection" not in rpc}  # the library's own, which asks no table
    trusting = grpc.ssl_channel_credentials(host.pki.server.ca)
    async with (
        everything_on(host, host.server.certificates.join_credentials()) as target,
        grpc.aio.secure_channel(target, trusting) as channel,
    ):
        ends = {rpc: await said(channel, rpc) for rpc in ours}
    refused = {rpc for rpc, (code, _) in ends.items() if code is grpc.StatusCode.PERMISSION_DENIED}
    assert refused == {rpc for rpc in ours if not rpc.startswith("/keycache.v1.Join/")}
    assert ends["/keycache.v1.Admin/GetStatus"][1] == "GetStatus needs a client certificate, and this connection has none."


@pytest.mark.parametrize("role", Role)
async def test_the_table_alone_would_refuse_join_to_who_has_a_certificate(host: ServiceNode, role: Role) -> None:
    own = host.client(role)
    async with everything_on(host, host.server.certificates.credentials()) as target:
        credentials = grpc.ssl_channel_credentials(own.ca, own.key.pem, own.certificate)
        async with grpc.aio.secure_channel(target, credentials) as channel:
            told = await said(channel, "/keycache.v1.Join/Ping")
    assert told == (grpc.StatusCode.PERMISSION_DENIED, "Ping is for nodes that join, and have no certificate yet.")


def test_no_certificate_is_no_role() -> None:
    assert auth.NO_CERTIFICATE not in set(Role)
    assert {rpc for rpc, callers in auth.ALLOWED.items() if auth.NO_CERTIFICATE in callers} == {
        "/keycache.v1.Join/Ping",
        "/keycache.v1.Join/Join",
    }


async def test_a_token_that_lets_nobody_in_is_told_with_its_sentence(host: ServiceNode, admitter: ScriptedAdmitter) -> None:
    admitter.progress = (Doing("Checking the token."), PermissionDenied(TokenVerdict.EXPIRED.sentence, hint="Make a new one."))
    async with join_connection(endpoint(host), host.pki.server.ca) as ours:
        progress = ours.join(APPLICATION)
        assert await anext(progress) == Doing("Checking the token.")
        with pytest.raises(PermissionDenied) as refused:
            await anext(progress)
    assert (refused.value.text, refused.value.hint) == ("The token has expired.", "Make a new one.")
    assert admitter.ended == 1


async def test_a_dry_run_brings_checks_and_no_admission(host: ServiceNode) -> None:
    async with join_connection(endpoint(host), host.pki.server.ca) as ours:
        assert [step async for step in ours.join(replace(APPLICATION, dry_run=True))] == [CHECKS]


async def test_a_joiner_that_goes_away_ends_the_hosts_part(host: ServiceNode) -> None:
    ended = asyncio.Event()

    class Waiting(ScriptedAdmitter):
        async def admit(self, application):  # type: ignore[no-untyped-def]
            try:
                yield Doing("Waiting for etcd.")
                await asyncio.Event().wait()
            finally:
                ended.set()

    async with (
        service_node(host.directory / "waiting", admitter=Waiting(), join="127.0.0.1:0") as waiting,
        join_connection(endpoint(waiting), waiting.pki.server.ca) as ours,
    ):
        progress = ours.join(APPLICATION)
        assert await anext(progress) == Doing("Waiting for etcd.")
        await progress.aclose()
        await asyncio.wait_for(ended.wait(), 10)


async def test_a_request_that_makes_no_sense_never_reaches_the_flow(host: ServiceNode, admitter: ScriptedAdmitter) -> None:
    async with stranger(host) as ours:
        call = ours.unary_stream("/keycache.v1.Join/Join")(join_pb2.JoinRequest(token_id="../x").SerializeToString())
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await call.read()
    assert told.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert admitter.applications == []


async def test_a_request_beyond_the_limit_is_not_taken(host: ServiceNode, admitter: ScriptedAdmitter) -> None:
    async with join_connection(endpoint(host), host.pki.server.ca) as ours:
        with pytest.raises(InvalidInput):
            await anext(ours.join(replace(APPLICATION, csr=bytes(REQUEST_LIMIT))))
    assert admitter.applications == []


async def test_more_joins_at_once_than_the_limit_are_refused(tmp_path: Path) -> None:
    class Waiting(ScriptedAdmitter):
        async def admit(self, application):  # type: ignore[no-untyped-def]
            yield Doing("Waiting for etcd.")
            await asyncio.Event().wait()

    async with (
        service_node(tmp_path, admitter=Waiting(), join="127.0.0.1:0") as host,
        join_connection(endpoint(host), host.pki.server.ca) as ours,
    ):
        waiting = [ours.join(APPLICATION) for _ in range(CALLS_LIMIT)]
        for one in waiting:
            await anext(one)
        with pytest.raises(KeycacheError, match="too many calls in flight"):
            await ours.ping()
        for one in waiting:
            await one.aclose()


async def test_joining_can_be_off(tmp_path: Path, admitter: ScriptedAdmitter) -> None:
    async with service_node(tmp_path, admitter=admitter) as host:
        assert host.server.join_port is None


async def test_a_port_that_is_taken_is_told_with_the_setting(
    tmp_path: Path, host: ServiceNode, admitter: ScriptedAdmitter
) -> None:
    with pytest.raises(ConfigError, match="for nodes that join") as refused:
        async with service_node(tmp_path / "second", admitter=admitter, join=str(endpoint(host))):
            pass
    assert "listen.join" in refused.value.hint


async def test_a_removed_node_is_refused_at_its_next_call_on_the_same_connection(tmp_path: Path) -> None:
    removed: dict[NodeId, Removal] = {}
    async with (
        service_node(tmp_path, removed=removed.get) as node,
        channel(node, node.client(Role.NODE, name="b")) as theirs,
        channel(node, node.client(Role.NODE, name="c")) as others,
    ):
        assert await said(theirs, HEALTH) == (grpc.StatusCode.OK, "")
        removed[NodeId("b")] = Removal(node=NodeId("b"), at=NOON, actor="alice")
        told = "Node b was removed from the cluster at 2026-03-01 12:00 UTC by alice."
        assert await said(theirs, HEALTH) == (grpc.StatusCode.PERMISSION_DENIED, told)
        assert await said(others, HEALTH) == (grpc.StatusCode.OK, "")
        del removed[NodeId("b")]
        assert await said(theirs, HEALTH) == (grpc.StatusCode.OK, "")


async def test_a_node_that_does_not_say_which_it_is_is_refused(host: ServiceNode) -> None:
    now = SystemClock().now()
    nameless = host.pki.authority._issue_own("x", [_role_uri(Role.NODE)], (ExtendedKeyUsageOID.CLIENT_AUTH,), now=now)
    async with channel(host, nameless) as theirs:
        code, text = await said(theirs, HEALTH)
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert text == "This certificate has the role node, but does not say which node."
