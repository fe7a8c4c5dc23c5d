"""Whether etcd has room and is well: what its members say of themselves in, sentences for an administrator out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_QUOTA_BYTES = 2 * 1024**3
"""etcd's --quota-backend-bytes where it was not set; only from 3.6 on a member tells its own."""

NEAR_QUOTA = 0.8
"""At a fifth left there is time to act: etcd's own documentation alerts at 95 %, when a compaction may no longer fit."""

FREE_SHARE = 0.5
FREE_BYTES = 256 * 1024**2
"""Free space is reused and does no harm; above half of the file and a quarter of a GiB it is worth the second that defragmenting
blocks a member."""

HISTORY_REVISIONS = 100_000
"""At some 2 KiB a revision 200 MB, a tenth of the default quota."""

WATCH_FIXES = {(3, 4): 36, (3, 5): 18}
"""First versions that lose no watch events around a compaction: etcd#17529 (3.4.31, 3.5.13), #18089 (3.4.34, 3.5.16), #19179 (3.4.36,
3.5.18). 3.6 has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdEndpoint:
    """One endpoint of etcd as this node sees it. Sizes in bytes; `quota_bytes` 0: not known. `alarms`: NOSPACE, CORRUPT. `problem`: why
    it is not reachable, or what it says is wrong."""

    endpoint: str
    reachable: bool
    version: str = ""
    leader: bool = False
    learner: bool = False
    db_bytes: int = 0
    db_bytes_in_use: int = 0
    quota_bytes: int = 0
    alarms: tuple[str, ...] = ()
    problem: str = ""


def advise(endpoints: Sequence[EtcdEndpoint], *, keeps_history: bool = False) -> tuple[str, ...]:
    """What to do, the most urgent first. `keeps_history`: more than HISTORY_REVISIONS old revisions are held."""
    reached = [one for one in endpoints if one.reachable]
    return (
        *_on_alarms(reached),
        *(f"{one.endpoint} is not reachable: {one.problem}" for one in endpoints if not one.reachable),
        *(f"{one.endpoint} says: {one.problem}" for one in reached if one.problem),
        *_on_room(reached),
        *_on_history(keeps_history),
        *_on_versions(reached),
    )


def fixes_watches(version: str) -> bool:
    """Whether this version of etcd loses no watch events around a compaction. A version that cannot be read counts as old."""
    parts = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if parts is None:
        return False
    major, minor, patch = map(int, parts.groups())
    return (major, minor) > (3, 5) or patch >= WATCH_FIXES.get((major, minor), patch + 1)


def _on_alarms(reached: Sequence[EtcdEndpoint]) -> list[str]:
    raised = {alarm for one in reached for alarm in one.alarms}
    sentences = []
    if "CORRUPT" in raised:
        sentences.append(
            "etcd has found its members' data to differ and takes no writes (alarm CORRUPT). Compare them with 'etcdctl endpoint hashkv "
            "--cluster', remove the one that differs and add it again with an empty data directory, then 'etcdctl alarm disarm'."
        )
    if "NOSPACE" in raised:
        every = ",".join(one.endpoint for one in reached)
        sentences.append(
            "etcd is full and takes no writes (alarm NOSPACE). Make room: "
            f"revision=$(etcdctl --endpoints={every} endpoint status -w json | grep -o '\"revision\":[0-9]*' | grep -o '[0-9]*' | sort -n "
            f"| tail -1); etcdctl --endpoints={reached[0].endpoint} compact $revision; etcdctl --endpoints={every} defrag; "
            f"etcdctl --endpoints={reached[0].endpoint} alarm disarm. If it is full of what is needed, raise --quota-backend-bytes first "
            "(etcd advises at most 8 GiB)."
        )
    return sentences


def _on_room(reached: Sequence[EtcdEndpoint]) -> list[str]:
    sentences = []
    for one in reached:
        quota = one.quota_bytes or DEFAULT_QUOTA_BYTES
        whose = "its quota" if one.quota_bytes else "the default quota (it does not tell its own)"
        if one.db_bytes >= NEAR_QUOTA * quota and "NOSPACE" not in one.alarms:
            sentences.append(
                f"{one.endpoint} has used {_size(one.db_bytes)} of {_size(quota)}, {whose}; at the quota etcd takes no more writes. "
                "Compact and defragment it, or raise --quota-backend-bytes."
            )
        free = one.db_bytes - one.db_bytes_in_use
        if free >= FREE_BYTES and free >= FREE_SHARE * one.db_bytes:
            sentences.append(
                f"{one.endpoint} has {_size(free)} of free space in a database of {_size(one.db_bytes)}. "
                f"'etcdctl --endpoints={one.endpoint} defrag' gives it back; the member does not answer meanwhile, so take one at a time."
            )
    return sentences


def _on_history(keeps_history: bool) -> list[str]:  # noqa: FBT001 -- named at the only call
    sentence = (
        f"etcd keeps more than {HISTORY_REVISIONS:,} old revisions. Start its members with --auto-compaction-mode=periodic "
        "--auto-compaction-retention=1h, or its database grows until it is full."
    )
    return [sentence] if keeps_history else []


def _on_versions(reached: Sequence[EtcdEndpoint]) -> list[str]:
    old = [f"{one.endpoint} ({one.version or 'unknown'})" for one in reached if not fixes_watches(one.version)]
    sentence = (
        f"{', '.join(old)}: this version of etcd may lose changes around a compaction. Nodes find and repair that when they compare "
        "themselves with the log; 3.4.36, 3.5.18 and 3.6 lose none."
    )
    return [sentence] if old else []


def _size(number: int) -> str:
    return f"{number / 1024**3:.1f} GiB" if number >= 1024**3 else f"{number / 1024**2:.0f} MiB"
