from __future__ import annotations

from dataclasses import replace

import pytest

from keycache.domain.capacity import EtcdEndpoint, advise, fixes_watches

GIB, MIB = 1024**3, 1024**2
WELL = EtcdEndpoint(
    endpoint="https://etcd-1:2379", reachable=True, version="3.5.18", leader=True, db_bytes=100 * MIB, db_bytes_in_use=90 * MIB
)


def only(*endpoints: EtcdEndpoint, keeps_history: bool = False) -> str:
    (sentence,) = advise(endpoints, keeps_history=keeps_history)
    return sentence


def test_nothing_is_said_of_members_that_are_well() -> None:
    other = replace(WELL, endpoint="https://etcd-2:2379", leader=False, version="3.6.0", quota_bytes=8 * GIB, db_bytes=GIB)
    assert advise([WELL, replace(other, db_bytes_in_use=GIB)]) == ()
    assert advise([]) == ()


@pytest.mark.parametrize(
    ("used", "quota", "words"),
    [
        (1800 * MIB, 0, "has used 1.8 GiB of 2.0 GiB, the default quota (it does not tell its own)"),
        (400 * MIB, 500 * MIB, "has used 400 MiB of 500 MiB, its quota"),
    ],
)
def test_from_four_fifths_of_the_quota_on_it_is_told(used: int, quota: int, words: str) -> None:
    near = replace(WELL, db_bytes=used, db_bytes_in_use=used, quota_bytes=quota)
    assert words in only(near)
    assert "--quota-backend-bytes" in only(near)
    assert advise([replace(near, db_bytes=used * 3 // 4, db_bytes_in_use=used * 3 // 4)]) == ()


def test_a_full_etcd_comes_with_the_commands_that_make_room() -> None:
    other = replace(WELL, endpoint="https://etcd-2:2379", leader=False)
    sentence = only(replace(WELL, alarms=("NOSPACE",), db_bytes=2 * GIB, db_bytes_in_use=2 * GIB), other)
    assert "etcdctl --endpoints=https://etcd-1:2379 compact $revision" in sentence
    assert "etcdctl --endpoints=https://etcd-1:2379,https://etcd-2:2379 defrag" in sentence
    assert "etcdctl --endpoints=https://etcd-1:2379 alarm disarm" in sentence


def test_members_whose_data_differ_come_first() -> None:
    first, second = advise([replace(WELL, alarms=("CORRUPT", "NOSPACE"))])
    assert "CORRUPT" in first
    assert "NOSPACE" in second


def test_much_free_space_is_worth_defragmenting() -> None:
    assert "'etcdctl --endpoints=https://etcd-1:2379 defrag'" in only(
        replace(WELL, db_bytes=800 * MIB, db_bytes_in_use=300 * MIB)
    )
    assert advise([replace(WELL, db_bytes=800 * MIB, db_bytes_in_use=500 * MIB)]) == ()
    assert advise([replace(WELL, db_bytes=100 * MIB, db_bytes_in_use=MIB)]) == ()


def test_history_that_nobody_compacts_comes_with_the_flags() -> None:
    assert "--auto-compaction-mode=periodic --auto-compaction-retention=1h" in only(WELL, keeps_history=True)


def test_a_member_that_is_away_is_told_with_the_reason() -> None:
    away = EtcdEndpoint(endpoint="https://etcd-3:2379", reachable=False, problem="It refuses connections.")
    assert only(WELL, away) == "https://etcd-3:2379 is not reachable: It refuses connections."


def test_what_a_member_says_is_wrong_is_passed_on() -> None:
    assert only(replace(WELL, problem="etcdserver: no leader")) == "https://etcd-1:2379 says: etcdserver: no leader"


@pytest.mark.parametrize(
    ("version", "expected"),
    [("3.4.23", False), ("3.4.36", True), ("3.5.17", False), ("3.5.18", True), ("3.6.0", True), ("3.3.27", False), ("", False)],
)
def test_versions_whose_watches_lose_events_are_named(version: str, expected: bool) -> None:
    assert fixes_watches(version) is expected
    told = advise([replace(WELL, version=version)])
    assert told == () if expected else "may lose changes around a compaction" in told[0]
