"""When a member of etcd is defragmented, and when an alarm may be taken back.

Compaction forgets old revisions, but their room stays in the file until it is defragmented, which blocks that member for seconds:
1. ONE MEMBER AT A TIME, and only while all of them answer: the others keep the quorum.
2. THE LEADER LAST: it is not stopped for what may be over once the others are done. A lone member is stopped, too: nobody else is.
3. Learners are left alone (etcd's learners refuse it); they begin with a fresh copy anyway.
4. Not more often than `REST`, so that one whose file does not get smaller is not stopped again and again. Unless it is about to be full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

MIN_FREE_BYTES = 100 * 1024 * 1024
"""As OpenShift's etcd operator (minDefragBytes): below that there is little to win."""

MIN_FREE_SHARE = 0.45
"""As OpenShift's etcd operator (maxFragmentedPercentage)."""

REST = timedelta(hours=6)
"""Between two defragmentations of one member: a few seconds' stop four times a day at most."""

FULL_SHARE = 0.8
"""Of the quota: from here on any free room counts, and so does every hour (etcd-defrag's rule in the field: size above 80 %)."""

FULL_REST = timedelta(hours=1)
"""Then: as often as the history is compacted (`cluster.etcd_spec.COMPACTION`), for nothing gets free in between."""

FULL_MIN_FREE_SHARE = 0.1
"""Then: what is won must be worth the stop."""

DISARM_SHARE = 0.9
"""Of the quota: below that an alarm is taken back; above it, it would be back at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSize:
    """One member. Bytes; `last`: when it was defragmented, None for never or not known; `answers`: it takes part now.

    `is_full`: etcd has the alarm NOSPACE on. Then `db_in_use` is not to be believed: what compaction frees is counted only after the
    next writes, and there are none.
    """

    name: str
    db_size: int
    db_in_use: int
    is_leader: bool
    is_learner: bool = False
    answers: bool = True
    is_full: bool = False
    last: datetime | None = None

    @property
    def free(self) -> int:
        return max(0, self.db_size - self.db_in_use)


def next_defragmentation(members: Sequence[MemberSize], *, quota: int, now: datetime) -> MemberSize | None:
    """Whom to defragment now, or None. Afterwards look again: one at a time. `quota`: bytes, the same for all of them."""
    if not all(member.answers for member in members):
        return None
    wanting = [member for member in members if not member.is_learner and _wants(member, quota, now)]
    return min(wanting, key=lambda member: (member.is_leader, -member.free), default=None)


def may_disarm(members: Sequence[MemberSize], *, quota: int) -> bool:
    """Whether the alarm NOSPACE may be taken back: there is room on every member, as seen by each."""
    return bool(members) and all(member.answers and member.db_size < quota * DISARM_SHARE for member in members)


def _wants(member: MemberSize, quota: int, now: datetime) -> bool:
    rested = (
        timedelta.max if member.last is None else abs(now - member.last)
    )  # a clock that was set back must not forbid it for long
    if member.is_full:
        return rested >= FULL_REST
    if member.db_size >= quota * FULL_SHARE:
        return rested >= FULL_REST and member.free >= member.db_size * FULL_MIN_FREE_SHARE
    return rested >= REST and member.free >= max(MIN_FREE_BYTES, member.db_size * MIN_FREE_SHARE)
