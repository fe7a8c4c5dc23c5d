"""What `status` and `cluster` say of the nodes that share a log: as documents, and for people."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console, RenderableType

from keycache import codec
from keycache.cli import cluster_tables, present, tables
from keycache.domain.settings import Settings
from keycache.v1 import admin_pb2, cluster_pb2
from support.entries import T0

MIB = 1 << 20
NODE = "0f3c9a7e-1111-4222-8333-944444444444"


def rendered(*parts: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for part in parts:
        console.print(part, markup=False, highlight=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def words(text: str) -> str:
    """Without the breaks of lines."""
    return " ".join(text.split())


def status(**cluster: object) -> admin_pb2.Status:
    fields = {
        "name": "keycache",
        "link": "FOLLOWING",
        "log_age": Duration(seconds=1, nanos=500_000_000),
        "purger": f"mx1.example.org:7640 ({NODE[:8]})",
        "purge_state": "IDLE",
        "outbox_limit_bytes": 256 * MIB,
    }
    return admin_pb2.Status(mode="cluster", node_id=NODE, cluster=admin_pb2.ClusterStatus(**{**fields, **cluster}))


def shown(**cluster: object) -> str:
    return words(rendered(tables.status(present.status(status(**cluster)))))


def test_a_node_alone_has_no_block_of_a_cluster() -> None:
    document = present.status(admin_pb2.Status(mode="standalone"))
    assert document["cluster"] is None
    assert "Cluster" not in rendered(tables.status(document))


def test_the_cluster_of_a_status_is_one_document() -> None:
    answer = status(
        outbox_entries=2,
        outbox_bytes=3000,
        purge_state="HELD_CLOCK",
        purge_reason="The clock was set.",
        purge_waiting=7,
        repaired=1,
        reconciled_at=codec.timestamp(T0),
        etcd=[
            admin_pb2.EtcdEndpoint(
                endpoint="https://e1:2379",
                reachable=True,
                version="3.5.9",
                leader=True,
                db_bytes=30,
                db_bytes_in_use=20,
                quota_bytes=40,
                alarms=["NOSPACE"],
            )
        ],
    )
    assert present.status(answer)["cluster"] == {
        "name": "keycache",
        "link": "FOLLOWING",
        "reason": "",
        "log_age": 1.5,
        "outbox": {"entries": 2, "bytes": 3000, "limit_bytes": 256 * MIB},
        "purger": f"mx1.example.org:7640 ({NODE[:8]})",
        "purge": {"state": "HELD_CLOCK", "reason": "The clock was set.", "waiting": 7},
        "repaired": 1,
        "reconciled_at": "2026-03-01T12:00:00Z",
        "etcd": [
            {
                "endpoint": "https://e1:2379",
                "reachable": True,
                "version": "3.5.9",
                "leader": True,
                "learner": False,
                "db_bytes": 30,
                "db_bytes_in_use": 20,
                "quota_bytes": 40,
                "alarms": ["NOSPACE"],
                "problem": "",
            }
        ],
    }


def test_a_status_tells_how_the_node_stands_to_the_log() -> None:
    assert "Cluster keycache: FOLLOWING, heard 1.5 s ago Outbox empty Purger mx1.example.org:7640 (0f3c9a7e): IDLE" in shown()
    refused = shown(link="REFUSED", reason="The log went back in time.")
    assert "Cluster keycache: REFUSED, heard 1.5 s ago The log went back in time." in refused


def test_a_log_that_was_never_heard_has_no_age() -> None:
    answer = status(link="SERVE_ONLY")
    answer.cluster.ClearField("log_age")
    assert present.status(answer)["cluster"]["log_age"] is None
    assert "Cluster keycache: SERVE_ONLY Outbox" in words(rendered(tables.status(present.status(answer))))


def test_a_status_tells_what_waits_and_who_holds_the_purge() -> None:
    text = shown(
        outbox_entries=12,
        outbox_bytes=3 * MIB,
        purger="",
        purge_state="HELD_CLOCK",
        purge_reason="Two clocks.",
        purge_waiting=3,
    )
    assert "Outbox 12 entries wait for the log, 3.0 MiB of 256.0 MiB" in text
    assert "Purger none now: HELD_CLOCK: Two clocks. 3 expired entries wait" in text


def test_a_status_tells_of_each_endpoint_of_etcd() -> None:
    well = admin_pb2.EtcdEndpoint(
        endpoint="https://e1:2379",
        reachable=True,
        version="3.5.9",
        leader=True,
        db_bytes=600 * MIB,
        db_bytes_in_use=100 * MIB,
        quota_bytes=2048 * MIB,
        alarms=["NOSPACE"],
    )
    away = admin_pb2.EtcdEndpoint(endpoint="https://e2:2379", problem="connection refused")
    text = shown(etcd=[well, away], repaired=3, reconciled_at=codec.timestamp(T0))
    assert "etcd https://e1:2379 3.5.9, leader, 600.0 MiB of 2.0 GiB (100.0 MiB in use), alarm NOSPACE" in text
    assert "https://e2:2379 does not answer" in text
    assert "Compared 2026-03-01 12:00 UTC with the whole log: 3 differed" in text


def member(**fields: object) -> cluster_pb2.ListedMember:
    said = {
        "node_id": NODE,
        "address": "mx1.example.org:7640",
        "version": "0.1.0",
        "alive": True,
        "last_seen": codec.timestamp(T0),
        "started_at": codec.timestamp(T0),
        "clock_trusted": True,
        "purge_state": "IDLE",
    }
    return cluster_pb2.ListedMember(**{**said, **fields})


def listing(*members: cluster_pb2.ListedMember, width: int = 80) -> list[str]:
    rows = [cluster_tables.member_row(present.member(one)) for one in members]
    return rendered(tables.table(cluster_tables.MEMBER_COLUMNS, rows, fold=["Address", "Version"]), width=width).split("\n")


def test_a_member_is_one_document() -> None:
    answer = member(skew=codec.duration(timedelta(seconds=-1.5)), lag=2, outbox=1, purger=True, applied_revision=9)
    assert present.member(answer) == {
        "node_id": NODE,
        "address": "mx1.example.org:7640",
        "version": "0.1.0",
        "alive": True,
        "is_this_node": False,
        "last_seen": "2026-03-01T12:00:00Z",
        "started_at": "2026-03-01T12:00:00Z",
        "applied_revision": 9,
        "lag": 2,
        "skew": -1.5,
        "clock_trusted": True,
        "purger": True,
        "purge": {"state": "IDLE", "reason": "", "waiting": 0},
        "outbox": 1,
    }
    gone = present.member(cluster_pb2.ListedMember(node_id=NODE, last_seen=codec.timestamp(T0)))
    assert (gone["alive"], gone["started_at"], gone["skew"]) == (False, None, None)


def test_members_are_a_table_that_fits_eighty_columns() -> None:
    listed = (
        member(is_this_node=True, purger=True),
        member(address="127.0.0.1:7640", skew=codec.duration(timedelta(minutes=-3)), lag=12, outbox=5),
        cluster_pb2.ListedMember(node_id=NODE, address="mx3.example.org:7640", version="0.1.0", last_seen=codec.timestamp(T0)),
    )
    assert [line.split() for line in listing(*listed)[2:] if line] == [
        ["*0f3c9a7e", "mx1.example.org:7640", "0.1.0", "purger", "12:00:00", "0", "-", "0"],
        ["0f3c9a7e", "127.0.0.1:7640", "0.1.0", "alive", "12:00:00", "12", "-3m", "5"],
        ["0f3c9a7e", "mx3.example.org:7640", "0.1.0", "gone", "2026-03-01", "-", "-", "-"],
    ]
    assert max(map(len, listing(*listed))) <= 80


def test_members_that_need_a_person_are_told_of_below() -> None:
    members = [
        present.member(one)
        for one in (
            member(clock_trusted=False, purge_state="HELD_CLOCK", purge_reason="The clock was set."),
            member(),
            cluster_pb2.ListedMember(node_id=NODE),
        )
    ]
    assert cluster_tables.member_notes(members) == [
        "mx1.example.org:7640 (0f3c9a7e) does not trust its clock.",
        "mx1.example.org:7640 (0f3c9a7e): HELD_CLOCK: The clock was set.",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "+0.0s"),
        (-0.01, "+0.0s"),
        (-0.26, "-0.3s"),
        (59.0, "+59.0s"),
        (90.4, "+1m30s"),
        (-180.0, "-3m"),
        (86_400 * 400.0, "+400d"),
    ],
)
def test_a_skew_has_a_sign_and_no_more_digits_than_it_needs(seconds: float, text: str) -> None:
    assert cluster_tables.skew(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (2 << 30, "2.0 GiB"), (9 << 50, "9216.0 TiB")]
)
def test_sizes_are_told_in_the_largest_unit_that_they_fill(size: int, text: str) -> None:
    assert cluster_tables.sized(size) == text


def test_a_restart_check_is_one_document_and_says_all_of_it() -> None:
    answer = cluster_pb2.CheckResponse(
        action="REFUSE",
        reason="The log went back in time.",
        hint="Say which way on.",
        kept=5,
        expired=3,
        held_back=2,
        held_reason="The clock was set.",
        settings=codec.settings_to_wire(Settings()),
        replica_identity="aa",
        replica_revision=9,
        log_revision=4,
        warnings=["Beware."],
    )
    document = present.check(answer)
    assert {name: document[name] for name in ("action", "entries", "replica", "log", "warnings")} == {
        "action": "REFUSE",
        "entries": {"kept": 5, "expired": 3, "held_back": 2},
        "replica": {"identity": "aa", "revision": 9},
        "log": {"identity": None, "revision": 4},
        "warnings": ["Beware."],
    }
    text = words(rendered(tables.pairs(cluster_tables.check_rows(document, tables.timeouts(document["settings"])))))
    assert text == (
        "Restart REFUSE The log went back in time. Say which way on. Entries 5 kept, 3 expired, 2 of these held back The clock was set. "
        "Timeouts harvested 500d, looked-up 24h, imported 999d Replica aa, revision 9 Log nobody has begun it, revision 4 Warning Beware."
    )


def test_hostile_text_of_another_node_cannot_reach_the_terminal() -> None:
    evil = "\x1b]0;owned\x07"
    assert "\x1b" not in "".join(listing(member(address=evil, version=evil)))
    assert "\x1b" not in shown(reason=evil, purger=evil, purge_reason=evil, etcd=[admin_pb2.EtcdEndpoint(problem=evil)])
