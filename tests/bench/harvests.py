"""Harvest of a known key through a node, beside parsing and verifying the same mail in one process alone."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from datetime import timedelta
from pathlib import Path

import nodes
import uvloop

from keycache.clock import SystemClock
from keycache.domain.examination import Direction, DirectionPolicy, Envelope, TrustBase
from keycache.harvest.paths import PathJudge
from keycache.harvest.pipeline import examine
from keycache.v1 import cache_pb2

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import smime

ROUNDS = 7
ROUND_SECONDS = 2.0
IN_FLIGHT = 8
BODY_BYTES = 20_000
"""A usual mail with a little formatting."""


def measure(scratch: Path) -> None:
    data_dir = scratch / "node"
    data_dir.mkdir(mode=0o700)
    now = SystemClock().now()
    valid = {"not_before": now - timedelta(days=1), "not_after": now + timedelta(days=1)}
    root = smime.authority(**valid)
    body = b"Content-Type: text/plain\r\n\r\n" + b"The quick brown fox jumps over the lazy dog.\r\n" * (BODY_BYTES // 46)
    signer = smime.person("alice@sender.example", root, kind="rsa2048", **valid)
    mail = smime.signed_mail(signer, body=body, sender="alice@sender.example")
    (data_dir / "root.pem").write_bytes(root.pem)
    (data_dir / "keycache.toml").write_text(f'[trust]\nanchors = ["{data_dir / "root.pem"}"]\nsystem_anchors = false\n')
    with nodes.node(data_dir, lookup=False) as running:
        uvloop.run(_rounds(data_dir, running, root.der, mail))


async def _rounds(data_dir: Path, running: nodes.RunningNode, root: bytes, mail: bytes) -> None:
    judge, now = PathJudge(TrustBase(anchors=(root,))), SystemClock().now()
    envelope = Envelope(stated=Direction.INBOUND)
    alone: list[float] = []
    through: list[float] = []
    async with nodes.channel(data_dir, running.target) as channel:
        call = channel.unary_unary("/keycache.v1.KeyCache/Harvest")
        request = cache_pb2.HarvestRequest(message=mail, envelope={"direction": cache_pb2.DIRECTION_INBOUND})
        raw = request.SerializeToString()
        first = cache_pb2.HarvestResponse.FromString(await call(raw))
        again = cache_pb2.HarvestResponse.FromString(await call(raw))
        assert (first.verdict, again.verdict) == ("CACHED", "ALREADY_FRESH"), (first, again)
        for number in range(ROUNDS + 1):
            done, began = 0, time.perf_counter()
            while time.perf_counter() - began < ROUND_SECONDS:
                examine(mail, envelope, DirectionPolicy(), judge, now)
                done += 1
            rate = done / (time.perf_counter() - began)
            harvested = await _load(call, raw)
            if number:  # the first round warms up
                alone.append(rate)
                through.append(harvested)
    cores = os.cpu_count() or 1
    ratio = statistics.median(t / a for t, a in zip(through, alone, strict=True))
    print(f"  parsing and verifying alone, one process   {statistics.median(alone):8,.0f} mails/s")
    print(
        f"  Harvest of the known key, {IN_FLIGHT} in flight       {statistics.median(through):8,.0f} mails/s ({cores} cores, client too)"
    )
    print(f"  ratio {ratio:.2f}")


async def _load(call: object, raw: bytes) -> float:
    until, done = time.perf_counter() + ROUND_SECONDS, 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await call(raw)  # type: ignore[operator]
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return done / (time.perf_counter() - began)
