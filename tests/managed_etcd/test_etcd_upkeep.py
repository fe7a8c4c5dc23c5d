"""A full etcd takes writes again, and fragments go."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aetcd import rpc

from keycache.cluster.etcd_members import EtcdMembers
from keycache.cluster.etcd_upkeep import EtcdUpkeep
from keycache.domain.errors import LogFull, LogUnavailable
from support.managed import NodeTls, make_spec, members_of, running

NOW = datetime(2026, 6, 1, tzinfo=UTC)
MIB = 1024 * 1024


async def put(members: EtcdMembers, key: bytes, value: bytes) -> None:
    await members.call(lambda end: end.kv.Put, rpc.PutRequest(key=key, value=value))


async def fill(members: EtcdMembers) -> None:
    """One key written over and over, until etcd takes no more."""
    for number in range(256):
        try:
            await put(members, b"large", bytes([number]) * 256 * 1024)
        except LogFull:
            return
    raise AssertionError("never full")


async def everything(members: EtcdMembers) -> list[tuple[Any, ...]]:
    answer = await members.call(lambda end: end.kv.Range, rpc.RangeRequest(key=b"\0", range_end=b"\0"))
    return [(item.key, item.value, item.create_revision, item.mod_revision, item.version) for item in answer.kvs]


async def test_room_is_made_in_a_full_etcd(tmp_path: Path, tls: NodeTls) -> None:
    spec = make_spec(tmp_path, "m0", tls, quota_bytes=4 * MIB)
    async with running(spec, tls), members_of(spec, files=tls) as members:
        upkeep = EtcdUpkeep(members, quota_bytes=spec.quota_bytes)
        assert await upkeep.alarms() == ()
        await fill(members)
        assert await upkeep.alarms() == ("m0: NOSPACE",)
        done = await upkeep.make_room(NOW)
        assert (done.disarmed, done.alarms) == (True, ())
        assert done.freed_bytes > 2 * MIB
        await put(members, b"small", b"x")
        assert [key for key, *_ in await everything(members)] == [b"large", b"small"]


async def test_a_step_defragments_what_compaction_freed_and_takes_the_alarm_back(tmp_path: Path, tls: NodeTls) -> None:
    spec = make_spec(tmp_path, "m0", tls, quota_bytes=4 * MIB)
    async with running(spec, tls), members_of(spec, files=tls) as members:
        upkeep = EtcdUpkeep(members, quota_bytes=spec.quota_bytes)
        await fill(members)
        (report,) = await members.survey()
        assert report.status is not None
        request = rpc.CompactionRequest(revision=report.status.revision, physical=True)
        await members.call(lambda end: end.kv.Compact, request)
        done = await upkeep.step(NOW)
        assert (done.defragmented, done.disarmed, done.alarms) == ("m0", True, ())
        assert (await upkeep.step(NOW)).defragmented == ""


async def test_room_is_not_made_while_a_member_is_silent(tmp_path: Path, tls: NodeTls) -> None:
    spec = make_spec(tmp_path, "m0", tls)
    async with running(spec, tls), members_of(spec, files=tls) as members:
        await members.add_learner("https://127.0.0.1:9")
        with pytest.raises(LogUnavailable, match="never started does not answer"):
            await EtcdUpkeep(members, quota_bytes=spec.quota_bytes).make_room(NOW)
