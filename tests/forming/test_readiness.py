"""Whether a node is ready is one truth, whoever asks for it: gRPC health, /readyz, or the gauge `keycache_up`."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2
from prometheus_client.parser import text_string_to_metric_families

from keycache.domain.standing import Phase
from support.command import spawn
from support.forming import keycache, places
from support.scenario import Running, eventually, running


async def readiness(node: Running) -> dict[str, bool]:
    return {"health": await _health(node), **await asyncio.to_thread(_over_http, node.node.run_file["metrics"])}


async def _health(node: Running) -> bool:
    pki = node.node.data_dir / "pki"
    files = [(pki / name).read_bytes() for name in ("ca.pem", "admin.key", "admin.pem")]
    async with grpc.aio.secure_channel(node.node.run_file["grpc"], grpc.ssl_channel_credentials(*files)) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check", response_deserializer=health_pb2.HealthCheckResponse.FromString
        )
        return bool((await check(b"", timeout=10)).status == health_pb2.HealthCheckResponse.SERVING)


def _over_http(target: str) -> dict[str, bool]:
    with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
        families = {one.name: one for one in text_string_to_metric_families(answer.read().decode())}
    try:
        with urllib.request.urlopen(f"http://{target}/readyz", timeout=10) as answer:
            code = answer.status
    except urllib.error.HTTPError as refusal:
        code = refusal.code
    return {"readyz": {200: True, 503: False}[code], "up": families["keycache_up"].samples[0].value == 1}


async def test_a_joiner_is_ready_for_nobody_until_it_has_what_the_cluster_has(tmp_path: Path) -> None:
    """It is killed on its way, and the host stopped, so that it stays on its way."""
    first, second = tmp_path / "first", tmp_path / "second"
    one, two = places(), places()
    async with running(first, **one) as host:
        await keycache(first, "cluster", "create", "--name", "mail")
        assert set((await readiness(host)).values()) == {True}
        token = (await keycache(first, "cluster", "token"))["token"]
        async with running(second, **two) as joiner:
            command = asyncio.create_task(asyncio.to_thread(spawn, "cluster", "join", "--token", token, "--data-dir", second))
            while not (second / "cluster.json").exists():  # noqa: ASYNC110 -- a file tells nobody
                await asyncio.sleep(0.005)
            joiner.kill()
    assert json.loads((second / "cluster.json").read_bytes())["phase"] == Phase.ADOPTING.value
    async with running(second, **two) as joiner:
        assert await readiness(joiner) == {"health": False, "readyz": False, "up": False}
        async with running(first, **one):

            async def ready() -> bool | None:
                return True if set((await readiness(joiner)).values()) == {True} else None

            assert await eventually(ready)
            await command
