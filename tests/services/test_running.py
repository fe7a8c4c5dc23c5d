"""Health, reflection, counting, and the end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from keycache.client import Unreachable
from keycache.domain import errors
from keycache.domain.errors import InvalidInput, PermissionDenied, Unavailable
from keycache.pki import Role
from keycache.services import auth
from keycache.services.server import Server, ServerOptions
from keycache.v1 import admin_pb2, cache_pb2
from support.service_node import ServiceNode, channel


async def test_reflection_lists_every_service(node: ServiceNode) -> None:
    async with channel(node, node.client(Role.MAIL_PROCESSOR)) as ours:
        stub = reflection_pb2_grpc.ServerReflectionStub(ours)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        listed = {service.name async for answer in call for service in answer.list_services_response.service}
    assert listed == {rpc.split("/")[1] for rpc, callers in auth.ALLOWED.items() if auth.NO_CERTIFICATE not in callers}


async def test_health_tells_each_service_and_flips_when_told(node: ServiceNode) -> None:
    async with channel(node, node.client(Role.NODE)) as ours:
        stub = health_pb2_grpc.HealthStub(ours)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="keycache.v1.KeyCache"))
        seen = [(await watch.read()).status]
        listed = await stub.List(health_pb2.HealthListRequest())
        node.server.ready(serving=False)
        seen.append((await watch.read()).status)
        states = [(await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in sorted(listed.statuses)]
        node.server.ready()
        seen.append((await watch.read()).status)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="nothing"))
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="nothing"))
        seen.append((await unknown.read()).status)
        watch.cancel()
        unknown.cancel()
    serving, not_serving, no_service = 1, 2, 3
    assert sorted(listed.statuses) == ["", "keycache.v1.Admin", "keycache.v1.Cluster", "keycache.v1.KeyCache"]
    assert (seen, states) == ([serving, not_serving, serving, no_service], [not_serving] * 4)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_stop_finishes_the_call_in_flight_ends_watches_and_refuses_new_calls(node: ServiceNode) -> None:
    async with node.connected(Role.MAIL_PROCESSOR) as mta, channel(node, node.client(Role.NODE)) as ours:
        health = health_pb2_grpc.HealthStub(ours).Watch(health_pb2.HealthCheckRequest())
        states = [(await health.read()).status]
        watch = mta.stream(mta.cache.Watch, cache_pb2.WatchRequest())
        await anext(watch)
        in_flight = asyncio.create_task(mta.call(mta.cache.Harvest, cache_pb2.HarvestRequest(message=b"wait")))
        await node.examiner.waiting.wait()
        stopping = asyncio.create_task(node.stop())
        with pytest.raises(Unavailable, match="The node is stopping"):
            await anext(watch)
        states.append((await health.read()).status)
        async with node.connected(Role.MAIL_PROCESSOR, name="late") as late:
            with pytest.raises(Unreachable):
                await late.call(late.cache.Lookup, cache_pb2.LookupRequest(address="a@example.org"), timeout=5)
        assert not in_flight.done()
        node.examiner.go.set()
        assert (await in_flight).verdict == "NO_KEY_MATERIAL"
        await asyncio.wait_for(stopping, 5)
    assert states == [1, 2]


async def test_two_nodes_cannot_share_a_port(node: ServiceNode, tmp_path: Path) -> None:
    second = Server(
        cache=node.cache,
        signer=node.pki,
        identity=node.pki.server,
        clock=node.clock,
        metrics=node.metrics,
        options=ServerOptions(listen=(node.target,)),
    )
    with pytest.raises(errors.ConfigError, match=f"Cannot listen on {node.target}"):
        await second.start()
    await second.stop(0)


async def test_calls_and_verdicts_are_counted(node: ServiceNode) -> None:
    async with node.connected(Role.MAIL_PROCESSOR) as mta:
        await mta.call(mta.cache.Harvest, cache_pb2.HarvestRequest(message=b"key 1"))
        with pytest.raises(InvalidInput):
            await mta.call(mta.cache.Lookup, cache_pb2.LookupRequest())
        with pytest.raises(PermissionDenied):
            await mta.call(mta.admin.GetStatus, admin_pb2.GetStatusRequest())
    text = node.metrics.text().decode()
    for line in (
        'keycache_calls_total{code="OK",rpc="Harvest"} 1.0',
        'keycache_call_seconds_count{rpc="Harvest"} 1.0',
        'keycache_calls_total{code="INVALID_ARGUMENT",rpc="Lookup"} 1.0',
        'keycache_calls_total{code="PERMISSION_DENIED",rpc="GetStatus"} 1.0',
        'keycache_messages_total{verdict="CACHED"} 1.0',
    ):
        assert line in text
