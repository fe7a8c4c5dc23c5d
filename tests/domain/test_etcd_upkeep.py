"""Whom to defragment, and when an alarm may be taken back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from keycache.domain.etcd_upkeep import FULL_REST, REST, MemberSize, may_disarm, next_defragmentation

NOW = datetime(2026, 6, 1, tzinfo=UTC)
MIB = 1024 * 1024
QUOTA = 2048 * MIB


def member(name: str, size: int, in_use: int, **changes) -> MemberSize:
    """Sizes in MiB."""
    return MemberSize(**{"name": name, "db_size": size * MIB, "db_in_use": in_use * MIB, "is_leader": False, **changes})


WORN = {"size": 600, "in_use": 200}

CASES = {
    "nothing to win": ([member("a", 600, 500)], None),
    "much to win in share but little in bytes": ([member("a", 90, 1)], None),
    "worth it": ([member("a", **WORN)], "a"),
    "a lone leader, too": ([member("a", **WORN, is_leader=True)], "a"),
    "the leader last": ([member("a", 1000, 1, is_leader=True), member("b", **WORN)], "b"),
    "the most to win first": ([member("a", **WORN), member("b", 900, 200)], "b"),
    "not while one is silent": ([member("a", **WORN), member("b", 1, 1, answers=False)], None),
    "no learner": ([member("a", **WORN, is_learner=True)], None),
    "not again so soon": ([member("a", **WORN, last=NOW - REST + timedelta(seconds=1))], None),
    "again after its rest": ([member("a", **WORN, last=NOW - REST)], "a"),
    "a clock that was set back does not forbid it": ([member("a", **WORN, last=NOW + timedelta(days=9))], "a"),
    "nearly full: little is enough": ([member("a", 1700, 1500)], "a"),
    "nearly full: but not nothing": ([member("a", 1700, 1650)], None),
    "nearly full: sooner again": ([member("a", 1700, 1500, last=NOW - FULL_REST)], "a"),
    "nearly full: but not at once": ([member("a", 1700, 1500, last=NOW - FULL_REST + timedelta(seconds=1))], None),
    "full: whatever is said to be free": ([member("a", 2048, 2048, is_full=True)], "a"),
    "full: but not at once again": ([member("a", 2048, 2048, is_full=True, last=NOW)], None),
    "nobody": ([], None),
}


@pytest.mark.parametrize("case", CASES)
def test_whom_to_defragment(case: str) -> None:
    members, chosen = CASES[case]
    found = next_defragmentation(members, quota=QUOTA, now=NOW)
    assert (found.name if found else None) == chosen


def test_an_alarm_is_taken_back_only_when_there_is_room_on_all() -> None:
    roomy, full = member("a", 1000, 1000), member("b", 1900, 10)
    assert may_disarm([roomy], quota=QUOTA)
    assert not may_disarm([roomy, full], quota=QUOTA)
    assert not may_disarm([roomy, member("c", 0, 0, answers=False)], quota=QUOTA)
    assert not may_disarm([], quota=QUOTA)
