"""The parts around the process that need none: its command line, its versions, its words, and who sits where."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from keycache.cluster.etcd_binary import find_etcd
from keycache.cluster.etcd_members import Member, MemberReport
from keycache.cluster.etcd_output import CAUSES, Line, cause_of, read_line
from keycache.cluster.etcd_spec import EtcdSpec, HostPort, Peer, TlsPaths, command_line
from keycache.cluster.member_endpoint import MemberStatus
from keycache.cluster.seats import KnownNode, SeatWatch
from keycache.domain.errors import ConfigError, KeycacheError
from keycache.domain.names import Revision
from keycache.domain.voters import DEAD_AFTER, NodeSeat, Seat

TLS = TlsPaths(certificate=Path("/pki/node.pem"), key=Path("/pki/node.key"), ca=Path("/pki/ca.pem"))
SPEC = EtcdSpec(
    name="node-2",
    data_dir=Path("/data/etcd"),
    client=HostPort("10.0.0.2", 7650),
    peer=HostPort("10.0.0.2", 7651),
    client_tls=replace(TLS, allowed_name="node.keycache.internal"),
    peer_tls=TLS,
    initial_cluster=(Peer(name="node-1", url="https://10.0.0.1:7651"), Peer(name="node-2", url="https://10.0.0.2:7651")),
    is_new=False,
    token="mail",
)


def test_the_command_line_says_everything() -> None:
    assert command_line(SPEC) == (
        "--name=node-2",
        "--data-dir=/data/etcd",
        "--listen-client-urls=https://10.0.0.2:7650",
        "--advertise-client-urls=https://10.0.0.2:7650",
        "--listen-peer-urls=https://10.0.0.2:7651",
        "--initial-advertise-peer-urls=https://10.0.0.2:7651",
        "--initial-cluster=node-1=https://10.0.0.1:7651,node-2=https://10.0.0.2:7651",
        "--initial-cluster-state=existing",
        "--initial-cluster-token=mail",
        "--cert-file=/pki/node.pem",
        "--key-file=/pki/node.key",
        "--trusted-ca-file=/pki/ca.pem",
        "--client-cert-auth=true",
        "--client-cert-allowed-hostname=node.keycache.internal",
        "--peer-cert-file=/pki/node.pem",
        "--peer-key-file=/pki/node.key",
        "--peer-trusted-ca-file=/pki/ca.pem",
        "--peer-client-cert-auth=true",
        "--heartbeat-interval=100",
        "--election-timeout=1000",
        "--pre-vote=true",
        "--quota-backend-bytes=2147483648",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=1h",
        "--enable-grpc-gateway=false",
        "--logger=zap",
        "--log-outputs=stderr",
        "--log-level=info",
    )


def test_every_flag_is_one_that_the_installed_etcd_knows() -> None:
    """It tells of an unknown one before anything else; --version ends it once all are parsed."""
    words = command_line(replace(SPEC, metrics_port=7652))
    done = subprocess.run(["etcd", *words, "--version"], capture_output=True, check=False, timeout=20)
    assert done.returncode == 0, done.stderr.decode()


def test_a_founder_is_new_and_metrics_stay_on_loopback() -> None:
    words = command_line(replace(SPEC, is_new=True, metrics_port=7652))
    assert "--initial-cluster-state=new" in words
    assert "--listen-metrics-urls=http://127.0.0.1:7652" in words


def test_ipv6_stands_in_brackets_and_names_need_an_address_to_listen_on() -> None:
    six = HostPort("2001:db8::1", 7651)
    changed = {"peer": six, "initial_cluster": (Peer(name="node-2", url=six.url),)}
    assert "--listen-peer-urls=https://[2001:db8::1]:7651" in command_line(replace(SPEC, **changed))
    named = HostPort("node2.example.org", 7651)
    changed = {"peer": named, "initial_cluster": (Peer(name="node-2", url=named.url),)}
    with pytest.raises(ConfigError, match=r"cannot listen on the name node2\.example\.org"):
        replace(SPEC, **changed)
    words = command_line(replace(SPEC, listen_host="0.0.0.0", **changed))
    assert {"--listen-peer-urls=https://0.0.0.0:7651", "--initial-advertise-peer-urls=https://node2.example.org:7651"} <= {
        *words
    }
    assert "--listen-client-urls=https://0.0.0.0:7650" in words


@pytest.mark.parametrize(
    "cluster",
    [(), SPEC.initial_cluster[:1], (Peer(name="node-2", url="https://10.0.0.9:7651"),), (Peer(name="a,b", url="https://h:1"),)],
)
def test_an_initial_cluster_without_the_member_itself_is_refused(cluster: tuple[Peer, ...]) -> None:
    with pytest.raises(ConfigError):
        replace(SPEC, initial_cluster=cluster)


def _program(folder: Path, prints: str) -> Path:
    program = folder / "etcd"
    program.write_text(f"#!/bin/sh\nprintf '{prints}'\n")
    program.chmod(0o755)
    return program


async def test_the_installed_etcd_is_found() -> None:
    found = await find_etcd()
    assert (3, 4, 0) <= found.version < (4, 0, 0)
    assert await find_etcd(found.path) == found


async def test_without_etcd_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="etcd is not installed") as told:
        await find_etcd()
    assert "etcd-server" in told.value.hint
    with pytest.raises(ConfigError, match="There is no program at"):
        await find_etcd(tmp_path / "etcd")


@pytest.mark.parametrize(
    ("prints", "complaint"),
    [
        ("etcd Version: 3.3.25\\nGit SHA: x\\n", r"is etcd 3\.3\.25; Keycache needs 3\.4 or later"),
        ("etcd Version: 4.0.0\\n", "below 4"),
        ("etcd Version: 3.5.1\\n", "may lose what it acknowledged"),
        ("hello\\n", "is not etcd"),
        ("", "is not etcd"),
    ],
)
async def test_an_etcd_that_will_not_do_is_told(prints: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=complaint):
        await find_etcd(_program(tmp_path, prints))


@pytest.mark.parametrize("version", ["3.4.0", "3.5.3", "3.5.21", "3.6.4"])
async def test_versions_that_will_do(version: str, tmp_path: Path) -> None:
    found = await find_etcd(_program(tmp_path, f"etcd Version: {version}\\nGit SHA: x\\n"))
    assert ".".join(map(str, found.version)) == version


async def test_a_program_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    program = tmp_path / "etcd"
    program.write_bytes(b"\x7fELF no")
    program.chmod(0o755)
    with pytest.raises(ConfigError, match="cannot be started"):
        await find_etcd(program)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (
            b'{"level":"info","ts":"2026","caller":"a.go:1","msg":"ready","id":"7"}',
            Line(level="debug", text="ready", details={"caller": "a.go:1", "id": "7"}),
        ),
        (b'{"level":"warn","msg":"slow","took":"2s"}\r', Line(level="warning", text="slow", details={"took": "2s"})),
        (
            b'{"level":"warn","msg":"established TCP streaming connection with remote peer"}',
            Line(level="debug", text="established TCP streaming connection with remote peer"),
        ),
        (b'{"level":"fatal","msg":"no","stacktrace":"main"}', Line(level="error", text="no")),
        (b'{"level":"unheard of","msg":"no"}', Line(level="error", text="no")),
        (b"panic: runtime error", Line(level="warning", text="panic: runtime error")),
        (b"[1, 2]", Line(level="warning", text="[1, 2]")),
        (b"\xff\xfe", Line(level="warning", text="\ufffd\ufffd")),
    ],
)
def test_a_line_of_etcd_is_an_event_of_ours(raw: bytes, line: Line) -> None:
    assert read_line(raw) == line


def test_every_cause_can_be_found_and_says_what_to_do() -> None:
    for number, cause in enumerate(CAUSES):
        assert cause.message == cause.message.lower()
        assert cause.hint
        found = cause_of([b'{"level":"info"}', f'{{"level":"fatal","error":"{cause.message.upper()}"}}'.encode()])
        assert found is not None
        assert CAUSES.index(found) <= number
        assert (found.error, found.text) == (cause.error, cause.text), "an earlier line hides this one"


def test_what_one_client_did_wrong_is_no_cause_of_an_end() -> None:
    lines = [
        b'{"level":"warn","msg":"rejected connection","error":"tls: bad certificate"}',
        b'{"level":"info","msg":"tls: on"}',
    ]
    assert cause_of(lines) is None
    removed = b'{"level":"warn","msg":"server error","error":"the member has been permanently removed from the cluster"}'
    found = cause_of([*lines, removed])
    assert found is not None
    assert found.lasting


def test_causes_are_errors_for_administrators() -> None:
    assert all(issubclass(cause.error, KeycacheError) and re.match(r"[A-Z]|etcd", cause.text) for cause in CAUSES)


def _report(
    number: int, *, learner: bool = False, index: int | None = 100, leader: int = 1, name: str | None = None
) -> MemberReport:
    member = Member(
        id=number,
        name=f"n{number}" if name is None else name,
        peer_urls=(f"https://10.0.0.{number}:7651",),
        client_urls=(f"https://10.0.0.{number}:7650",),
        is_learner=learner,
    )
    status = None
    if index is not None:
        status = MemberStatus(
            member_id=number,
            leader=leader,
            is_learner=learner,
            version="3.4.23",
            db_size=0,
            db_in_use=0,
            raft_index=index,
            revision=Revision(1),
            problems=(),
        )
    return MemberReport(member=member, status=status)


def _known(number: int) -> KnownNode:
    return KnownNode(name=f"n{number}", peer_url=f"https://10.0.0.{number}:7651")


def test_nodes_and_members_are_brought_together_by_name_and_those_never_started_by_their_peer_url() -> None:
    nodes = [_known(1), _known(2), _known(3), KnownNode(name="n4", may_sit=False, leaving=True)]
    reports = [_report(1), _report(2, learner=True, index=95), _report(9, learner=True, index=None, name="")]
    seating = SeatWatch().look(nodes, reports, monotonic=5.0)
    assert seating.members == {"n1": 1, "n2": 2, "9": 9}
    first, second, third, fourth, stray = seating.nodes
    assert first == NodeSeat(name="n1", seat=Seat.VOTER, is_leader=True)
    assert second == NodeSeat(name="n2", seat=Seat.LEARNER, caught_up=True)
    assert third == NodeSeat(name="n3")
    assert fourth == NodeSeat(name="n4", may_sit=False, leaving=True)
    assert (stray.seat, stray.started, stray.answers, stray.caught_up) == (Seat.LEARNER, False, False, False)


def test_a_node_in_the_place_of_another_does_not_take_its_member_for_its_own() -> None:
    gone = KnownNode(name="n1", answers=False, may_sit=False, leaving=True)
    new = KnownNode(name="new", peer_url="https://10.0.0.1:7651")
    seating = SeatWatch().look([new, gone], [_report(1, index=None), _report(2)], monotonic=0.0)
    assert [(node.name, node.seat) for node in seating.nodes] == [("new", Seat.NONE), ("n1", Seat.VOTER), ("2", Seat.VOTER)]
    seating = SeatWatch().look([new], [_report(1, name="", learner=True, index=None)], monotonic=0.0)
    assert [(node.name, node.seat, node.started) for node in seating.nodes] == [("new", Seat.LEARNER, False)]


def test_silence_is_counted_from_when_it_was_first_seen_and_ends_with_an_answer() -> None:
    watch, nodes = SeatWatch(), [_known(1), _known(2)]
    silent = []
    for at, index in ((0.0, 100), (10.0, None), (310.0, None), (311.0, 100), (312.0, None)):
        seating = watch.look(nodes, [_report(1), _report(2, index=index)], monotonic=at)
        span = seating.nodes[1].silent
        silent.append(None if span is None else span.total_seconds())
    assert silent == [None, 10.0, 310.0, None, 1.0]


def test_a_learner_that_gets_no_further_counts_as_silent() -> None:
    """It answers, but takes up the one room there is."""
    watch, nodes = SeatWatch(), [_known(1), _known(2)]
    dead = []
    for at, index in ((0.0, 10), (100.0, 20), (399.0, 20), (400.0, 20), (401.0, 30)):
        seating = watch.look(nodes, [_report(1), _report(2, learner=True, index=index)], monotonic=at)
        dead.append(seating.nodes[1].is_dead)
    assert dead == [False, False, False, True, False]
    assert DEAD_AFTER.total_seconds() == 300
