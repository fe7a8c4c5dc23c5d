"""Who may speak, and who may call what: over real TLS on the loopback."""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool

from keycache.client import Unreachable, connect
from keycache.clock import SystemClock
from keycache.domain.errors import PermissionDenied
from keycache.pki import Identity, Role, open_pki
from keycache.pki.authority import LEAF_LIFE
from keycache.services import auth
from keycache.v1 import admin_pb2, cache_pb2, cluster_pb2
from support.service_node import ServiceNode, channel, said


def every_rpc() -> set[str]:
    pool = descriptor_pool.Default()
    ours = ("keycache.v1.KeyCache", "keycache.v1.Admin", "keycache.v1.Cluster", "keycache.v1.Join")
    names = (*ours, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")
    return {f"/{name}/{method.name}" for name in names for method in pool.FindServiceByName(name).methods}


def test_the_table_of_roles_names_every_rpc_and_no_other() -> None:
    assert set(auth.ALLOWED) == every_rpc()


@pytest.mark.parametrize("role", Role)
async def test_a_role_may_call_exactly_what_the_table_allows(node: ServiceNode, role: Role) -> None:
    async with channel(node, node.client(role)) as ours:
        ends = {rpc: (await said(ours, rpc))[0] for rpc in every_rpc()}
    refused = {rpc for rpc, code in ends.items() if code is grpc.StatusCode.PERMISSION_DENIED}
    joining = {rpc for rpc in every_rpc() if rpc.startswith("/keycache.v1.Join/")}
    assert {rpc for rpc, code in ends.items() if code is grpc.StatusCode.UNIMPLEMENTED} == joining
    anybody = {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/List", "/grpc.health.v1.Health/Watch"}
    anybody.add("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    processors = anybody | {rpc for rpc in every_rpc() if rpc.startswith("/keycache.v1.KeyCache/")}
    fetching = {"/keycache.v1.Cluster/FetchNextAuthority"}
    may = {
        Role.ADMIN: every_rpc() - joining - fetching,
        Role.MAIL_PROCESSOR: processors,
        Role.NODE: anybody | fetching | {"/keycache.v1.Admin/GetStatus"},
    }
    assert refused == every_rpc() - joining - may[role]


async def test_a_refusal_names_the_role_that_it_takes(node: ServiceNode) -> None:
    async with node.connected(Role.MAIL_PROCESSOR) as mta:
        with pytest.raises(PermissionDenied) as caught:
            await mta.call(mta.admin.GetStatus, admin_pb2.GetStatusRequest())
    assert caught.value.text == "GetStatus needs the role admin, but your certificate has the role mail-processor."
    assert caught.value.hint.startswith("Use a certificate of that role")
    async with node.connected(Role.ADMIN) as admin:
        with pytest.raises(PermissionDenied, match="FetchNextAuthority is for nodes of the cluster"):
            await admin.call(admin.cluster.FetchNextAuthority, cluster_pb2.FetchNextAuthorityRequest())


async def test_a_stranger_with_an_authority_of_their_own_cannot_speak(node: ServiceNode, tmp_path: Path) -> None:
    stranger = open_pki(tmp_path / "stranger", names=(), now=SystemClock().now()).admin
    disguised = Identity(
        certificate=stranger.certificate, key=stranger.key, ca=node.pki.server.ca, not_after=stranger.not_after
    )
    async with channel(node, disguised) as ours:
        assert await turned_away(ours)


async def turned_away(ours: grpc.aio.Channel) -> bool:
    """Not one call is answered, not even the health check that anybody with a certificate may make."""
    ends = [await said(ours, "/grpc.health.v1.Health/Check", within=5) for _ in range(2)]
    return all(code is grpc.StatusCode.UNAVAILABLE for code, _ in ends)


async def test_who_shows_no_certificate_cannot_speak(node: ServiceNode) -> None:
    async with grpc.aio.secure_channel(node.target, grpc.ssl_channel_credentials(node.pki.server.ca)) as ours:
        assert await turned_away(ours)


async def test_who_speaks_without_tls_is_not_heard(node: ServiceNode) -> None:
    async with grpc.aio.insecure_channel(node.target) as ours:
        assert await turned_away(ours)


async def test_a_certificate_opens_the_node_to_its_last_day_and_not_after(node: ServiceNode) -> None:
    day = timedelta(days=1)
    async with channel(node, node.client(Role.ADMIN, age=LEAF_LIFE - day)) as ours:
        assert await said(ours, "/grpc.health.v1.Health/Check") == (grpc.StatusCode.OK, "")
    async with channel(node, node.client(Role.ADMIN, age=LEAF_LIFE + day)) as ours:
        assert await turned_away(ours)


async def test_the_servers_own_certificate_is_no_clients(node: ServiceNode) -> None:
    async with channel(node, node.pki.server) as ours:
        assert (await said(ours, "/grpc.health.v1.Health/Check", within=5))[0] is grpc.StatusCode.UNAVAILABLE


async def test_a_client_recognises_another_node(node: ServiceNode, tmp_path: Path) -> None:
    stranger = open_pki(tmp_path / "stranger", names=(), now=SystemClock().now())
    async with connect(node.target, **node.files(stranger.admin)) as ours:
        with pytest.raises(Unreachable, match="not the one that the CA certificate vouches for"):
            await ours.call(ours.cache.Lookup, cache_pb2.LookupRequest(address="a@example.org"), timeout=5)


async def test_a_renewed_certificate_is_shown_to_new_connections_without_a_restart(node: ServiceNode) -> None:
    renewed = node.pki.authority.issue_server(("127.0.0.1",), now=SystemClock().now())
    async with node.connected(name="before") as before:
        await before.call(before.admin.GetStatus, admin_pb2.GetStatusRequest())
        node.server.certificates.replace(renewed)
        await before.call(before.admin.GetStatus, admin_pb2.GetStatusRequest())
        async with node.connected(name="after") as after:
            await after.call(after.admin.GetStatus, admin_pb2.GetStatusRequest())
    assert await shown(node) == renewed.certificate


async def shown(node: ServiceNode) -> bytes:
    context = ssl.create_default_context(cadata=node.pki.server.ca.decode())
    files = node.files(node.client(Role.ADMIN), "look")
    context.load_cert_chain(files["certificate"], files["key"])
    _, writer = await asyncio.open_connection("127.0.0.1", node.server.ports[0], ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(der).encode()
