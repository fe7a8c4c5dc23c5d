"""An etcd that a node runs: started, mended, ended in order, never left behind, and what is in its way told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import structlog

import support
from keycache.cluster import leftover
from keycache.cluster.etcd_spec import EtcdSpec, HostPort, command_line
from keycache.cluster.leftover import Birth
from keycache.cluster.managed_etcd import EtcdState, ManagedEtcd
from keycache.cluster.member_endpoint import MemberEndpoint
from keycache.domain.errors import ConfigError, LogUnavailable, Refused, StoreError
from keycache.etcd.connection import EtcdTls
from support.disks import fill_up, give_back, small_disk
from support.etcd import free_port
from support.managed import SOON, START_SECONDS, NodeTls, installed, make_spec, make_tls, running, until

MIB = 1024 * 1024
needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount the small file system this needs")


async def test_it_starts_with_its_own_tls_and_stops_in_order(tmp_path: Path, tls: NodeTls) -> None:
    spec = make_spec(tmp_path, "m0", tls, metrics_port=free_port())
    with structlog.testing.capture_logs() as events:
        async with running(spec, tls) as etcd:
            pid = etcd.pid
            assert pid is not None
            assert etcd.state is EtcdState.RUNNING
            assert leftover.works_on(pid, spec.data_dir)
            assert stat.S_IMODE(spec.data_dir.stat().st_mode) == 0o700
            assert b"etcd_server_has_leader 1" in await asyncio.to_thread(_http_get, spec.metrics_port or 0)
    assert Birth.of(pid) is None
    assert not leftover.pid_file(spec.data_dir).exists()
    assert [event["event"] for event in events if event["event"] != "etcd"] == ["etcd started", "etcd stopped"]
    theirs = {event["text"]: event["log_level"] for event in events if event["event"] == "etcd"}
    assert theirs["starting an etcd server"] == "debug"
    assert "error" not in theirs.values()


def _http_get(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b""))


async def test_only_certificates_with_the_nodes_name_are_let_in(tmp_path: Path, tls: NodeTls) -> None:
    """The same authority certifies mail processors, too, who must not read or write the log directly."""
    good = tls.client
    strangers = make_tls(tmp_path / "strangers", root="Another Root").client
    spec = make_spec(tmp_path, "m0", tls)
    refused = {
        "a mail processor of the same authority": tls.processor_client,
        "a node of another authority": replace(strangers, ca=good.ca),
        "nobody": EtcdTls(ca=good.ca),
    }
    async with running(spec, tls):
        for who, credentials in refused.items():
            endpoint = MemberEndpoint(spec.client.url, credentials)
            assert await endpoint.trouble() is not None, who
            await endpoint.close()


async def test_one_that_is_killed_is_started_again_and_goes_on(tmp_path: Path, tls: NodeTls) -> None:
    with structlog.testing.capture_logs() as events:
        async with running(make_spec(tmp_path, "m0", tls), tls) as etcd:
            first = etcd.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            await until(lambda: etcd.pid not in {None, first})
            await etcd.wait_until_healthy(START_SECONDS)
            assert etcd.problem is None
    ends = [event for event in events if event["event"] == "etcd not running"]
    assert [(event["log_level"], event["again_in_seconds"]) for event in ends] == [("error", SOON.first)]
    assert ends[0]["problem"].startswith("The node's etcd was ended by SIGKILL.")


async def test_a_cancelled_owner_still_ends_it_in_order(tmp_path: Path, tls: NodeTls) -> None:
    etcd = ManagedEtcd(make_spec(tmp_path, "m0", tls), await installed(), tls.client)
    task = asyncio.create_task(etcd.run())
    await etcd.wait_until_healthy(START_SECONDS)
    pid = etcd.pid
    assert pid is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert Birth.of(pid) is None
    assert etcd.state is EtcdState.STOPPED


async def test_an_etcd_dies_with_its_node(tmp_path: Path, tls: NodeTls) -> None:
    """Kill -9 leaves the node no time to end anything."""
    tests = str(Path(support.__path__[0]).parent)
    path = os.pathsep.join([tests, *(entry for entry in sys.path if entry)])
    host = str(Path(__file__).with_name("host.py"))
    node = _begin(sys.executable, host, str(tmp_path), stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})
    try:
        assert node.stdout is not None
        etcd = os.pidfd_open(int(await asyncio.to_thread(node.stdout.readline)))
        try:
            node.kill()
            ended, _, _ = await asyncio.to_thread(select.select, [etcd], [], [], 20)
            assert ended == [etcd]
        finally:
            with contextlib.suppress(ProcessLookupError):  # a test that fails leaves no orphan either
                signal.pidfd_send_signal(etcd, signal.SIGKILL)
            os.close(etcd)
    finally:
        node.kill()
        node.communicate()


async def test_a_leftover_of_an_earlier_life_is_ended_first(tmp_path: Path, tls: NodeTls) -> None:
    spec = make_spec(tmp_path, "m0", tls)
    orphan = await _start_by_hand(spec, tmp_path)
    try:
        leftover.remember(spec.data_dir, orphan.pid)
        async with running(spec, tls) as etcd:
            assert etcd.pid not in {None, orphan.pid}
        assert orphan.wait(10) in {-signal.SIGTERM, 128 + signal.SIGTERM}
    finally:
        orphan.kill()
        orphan.wait()


async def test_an_etcd_of_somebody_who_lives_is_left_alone(tmp_path: Path, tls: NodeTls) -> None:
    """Once without any word of who started it, once by the pid file of another node."""
    spec = make_spec(tmp_path, "m0", tls)
    theirs = await _start_by_hand(spec, tmp_path)
    node = _begin("sleep", "600")
    try:
        async with running(spec, tls, healthy=False) as etcd:
            with pytest.raises(Refused, match=f"in use by process {theirs.pid}"):
                await etcd.wait_until_healthy(START_SECONDS)
        births = {"etcd": Birth.of(theirs.pid), "node": Birth.of(node.pid)}
        content = {who: asdict(birth) for who, birth in births.items() if birth is not None}
        leftover.pid_file(spec.data_dir).write_text(json.dumps(content))
        with pytest.raises(Refused, match=f"Another node \\(process {node.pid}\\)"):
            await leftover.end_leftover(spec.data_dir)
        assert theirs.poll() is None
    finally:
        for process in (theirs, node):
            process.kill()
            process.wait()


async def test_a_pid_that_came_again_means_nobody(tmp_path: Path) -> None:
    """1. Our etcd had this pid. 2. It ended with the machine. 3. Somebody else has the pid now."""
    innocent = _begin("sleep", "600")
    try:
        data_dir = tmp_path / "m0"
        leftover.remember(data_dir, innocent.pid)
        assert await leftover.end_leftover(data_dir) is None
        assert not leftover.pid_file(data_dir).exists()
        leftover.pid_file(data_dir).write_text("half a fi")
        assert await leftover.end_leftover(data_dir) is None
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def _begin(*command: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, **options)


async def _start_by_hand(spec: EtcdSpec, folder: Path) -> subprocess.Popen[bytes]:
    """As a leftover runs: by our command line, without our care. Returns once it has the data locked."""
    binary = await installed()
    with (folder / "log").open("wb") as log:
        process = _begin(str(binary.path), *command_line(spec), stdout=log, stderr=log)
    await until(lambda: "published local member" in (folder / "log").read_text())
    return process


async def test_a_taken_port_is_told_and_tried_again(tmp_path: Path, tls: NodeTls) -> None:
    taken = HostPort("127.0.0.1", free_port())
    other = socket.create_server((taken.host, taken.port))
    with other:
        async with running(make_spec(tmp_path, "m0", tls, client=taken), tls, healthy=False) as etcd:
            with pytest.raises(ConfigError, match=f"cannot listen on {taken}: another program does") as told:
                await etcd.wait_until_healthy(START_SECONDS)
            assert f"sport = {taken.port}" in told.value.hint
            other.close()
            await until(lambda: etcd.state is EtcdState.RUNNING)
            await etcd.wait_until_healthy(START_SECONDS)


async def test_an_address_of_another_machine_is_told(tmp_path: Path, tls: NodeTls) -> None:
    spec = make_spec(tmp_path, "m0", tls, client=HostPort("192.0.2.1", 7650))
    async with running(spec, tls, healthy=False) as etcd:
        with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:7650: Cannot assign"):
            await etcd.wait_until_healthy(START_SECONDS)


async def test_a_certificate_that_does_not_fit_its_key_is_told(tmp_path: Path, tls: NodeTls) -> None:
    spec = make_spec(tmp_path, "m0", tls)
    spec = replace(spec, client_tls=replace(spec.client_tls, key=tls.processor_key))
    async with running(spec, tls, healthy=False) as etcd:
        with pytest.raises(ConfigError, match="cannot use its certificate or key"):
            await etcd.wait_until_healthy(START_SECONDS)


async def test_without_a_majority_it_says_so(tmp_path: Path, tls: NodeTls) -> None:
    spec, absent = make_spec(tmp_path, "m0", tls), make_spec(tmp_path, "m1", tls)
    spec = replace(spec, initial_cluster=(*spec.initial_cluster, *absent.initial_cluster))
    async with running(spec, tls, healthy=False) as etcd:
        await until(lambda: etcd.state is EtcdState.RUNNING)
        with pytest.raises(LogUnavailable, match="did not become healthy within 1 s"):
            await etcd.wait_until_healthy(1)


@needs_mount
async def test_a_full_disk_is_told_and_etcd_goes_on_once_there_is_room(tmp_path: Path, tls: NodeTls) -> None:
    with small_disk(tmp_path / "disk", 300 * MIB) as disk:
        spec = make_spec(disk, "m0", tls)
        (spec.data_dir / "member").mkdir(parents=True)  # as a first start leaves it that got no further: etcd itself must tell
        ballast = fill_up(disk)
        give_back(ballast, MIB)
        async with running(spec, tls, healthy=False) as etcd:
            with pytest.raises(StoreError, match="disk of etcd is full"):
                await etcd.wait_until_healthy(START_SECONDS)
            give_back(ballast, 250 * MIB)
            await until(lambda: etcd.state is EtcdState.RUNNING)
            await etcd.wait_until_healthy(START_SECONDS)


@needs_mount
async def test_a_small_disk_is_refused_before_anything_is_made(tmp_path: Path, tls: NodeTls) -> None:
    with small_disk(tmp_path / "disk", 64 * MIB) as disk:
        async with running(make_spec(disk, "m0", tls), tls, healthy=False) as etcd:
            with pytest.raises(StoreError, match=r"Only \d+ MB are free"):
                await etcd.wait_until_healthy(START_SECONDS)
            assert not (etcd.spec.data_dir / "member").exists()


async def test_the_data_of_a_running_etcd_is_not_cleared(tmp_path: Path, tls: NodeTls) -> None:
    async with running(make_spec(tmp_path, "m0", tls), tls) as etcd:
        with pytest.raises(Refused):
            await etcd.clear()
    assert (etcd.spec.data_dir / "member").exists()
    await etcd.clear()
    assert not etcd.spec.data_dir.exists()
