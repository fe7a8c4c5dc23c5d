"""An etcd that fills up, and what its members say of themselves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aetcd import rpc

from contract.log_words import committed, delete, heard, put
from keycache.domain.capacity import EtcdEndpoint, advise
from keycache.domain.errors import LogFull
from keycache.etcd.client import EtcdClient
from keycache.etcd.log import EtcdLog
from keycache.etcd.monitor import EtcdMonitor, read_status
from support.etcd import EtcdCluster, shared_etcd
from support.etcd_log import founded

MIB = 1024**2


async def fill(log: EtcdLog) -> None:
    for number in range(20):
        await committed(log, put(**{f"k{number}": b"x" * MIB}))


async def seen_at(etcd: EtcdCluster) -> tuple[EtcdEndpoint, ...]:
    client = EtcdClient(etcd.endpoints)
    try:
        return await EtcdMonitor(client).endpoints()
    finally:
        await client.close()


async def test_a_full_etcd_says_so_serves_on_and_takes_writes_again_once_there_is_room(tmp_path: Path) -> None:
    with EtcdCluster.run(tmp_path, flags=[f"--quota-backend-bytes={8 * MIB}"]) as etcd:
        async with founded(etcd.endpoints) as log:
            start = await log.head()
            with pytest.raises(LogFull) as caught:
                await fill(log)
            assert etcd.endpoints[0] in caught.value.text
            (seen,) = await seen_at(etcd)
            assert (seen.reachable, seen.alarms, seen.problem) == (True, ("NOSPACE",), "")
            assert "etcd is full and takes no writes (alarm NOSPACE)" in advise([seen])[0]
            with pytest.raises(LogFull):
                await log.commit(put(small=b"1"))
            # Reading, watching and deleting go on.
            watch = log.watch(after=start)
            assert [event.key for _, event in (await heard(watch)).events][:1] == ["k0"]
            await committed(log, delete(*(f"k{number}" for number in range(20))))
            # What the hint says.
            await asyncio.to_thread(etcd.compact)
            await asyncio.to_thread(etcd.etcdctl, "defrag")
            await asyncio.to_thread(etcd.etcdctl, "alarm", "disarm")
            await committed(log, put(small=b"1"))
            (seen,) = await seen_at(etcd)
            assert seen.alarms == ()


async def test_each_endpoint_is_seen_as_it_is_also_when_it_is_away(tmp_path: Path) -> None:
    with EtcdCluster.run(tmp_path, size=3) as etcd:
        leader = etcd.leader()
        killed, paused = [member for member in etcd.members if member is not leader]
        killed.kill()
        paused.pause()
        seen = {one.endpoint: one for one in await seen_at(etcd)}
        assert list(seen) == list(etcd.endpoints)
        assert not seen[killed.endpoint].reachable
        assert "refuses connections" in seen[killed.endpoint].problem
        assert not seen[paused.endpoint].reachable
        assert paused.endpoint in seen[paused.endpoint].problem
        here = seen[leader.endpoint]
        (status,) = json.loads(etcd.etcdctl("endpoint", "status", "-w", "json", endpoints=(leader.endpoint,)))
        assert here.reachable
        assert (here.version, here.db_bytes, here.quota_bytes) == (status["Status"]["version"], status["Status"]["dbSize"], 0)
        assert 0 < here.db_bytes_in_use <= here.db_bytes
        paused.resume()


async def test_a_history_that_nobody_compacts_is_noticed() -> None:
    async with founded(shared_etcd().endpoints) as log:
        client = EtcdClient(shared_etcd().endpoints)
        monitor = EtcdMonitor(client)
        await asyncio.to_thread(shared_etcd().compact)
        for number in range(4):
            await committed(log, put(a=b"%d" % number))
        assert await monitor.keeps_history(revisions=3)
        assert not await monitor.keeps_history(), "it is younger than that"
        await asyncio.to_thread(shared_etcd().compact)
        assert not await monitor.keeps_history(revisions=3)
        await client.close()


def test_alarms_and_the_quota_are_read_from_what_a_member_says() -> None:
    status = rpc.StatusResponse(
        header=rpc.ResponseHeader(member_id=7),
        version="3.6.1",
        dbSize=20,
        dbSizeInUse=10,
        leader=7,
        errors=["memberID:7 alarm:NOSPACE ", "memberID:8 alarm:NOSPACE ", "memberID:8 alarm:CORRUPT ", "etcdserver: no leader"],
    )
    status.MergeFromString(b"\x60\x80\x80\x80\x80\x08")  # field 12, 2 GiB: as 3.6 sends it, and the stubs do not know
    assert read_status("http://etcd:2379", status) == EtcdEndpoint(
        endpoint="http://etcd:2379",
        reachable=True,
        version="3.6.1",
        leader=True,
        db_bytes=20,
        db_bytes_in_use=10,
        quota_bytes=2 * 1024**3,
        alarms=("CORRUPT", "NOSPACE"),
        problem="etcdserver: no leader",
    )
