"""What etcd does not do by itself: defragmentation, and taking its alarm back once there is room.

`step` is for one node at a time (`domain.membership` says whose turn it is), every few minutes; whom it stops, and when, is decided by
`domain.etcd_upkeep`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from aetcd import rpc

from keycache.cluster.etcd_members import EtcdMembers, Member, MemberReport
from keycache.domain.errors import LogCompacted, LogUnavailable
from keycache.domain.etcd_upkeep import MemberSize, may_disarm, next_defragmentation
from keycache.logs import get_logger

_log = get_logger(__name__)

DEFRAGMENT_SECONDS = 120.0
"""etcd rewrites the whole file: at 100 MB/s, 8 GiB (the most it advises) take 80 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """What one step did. `alarms`: still there afterwards, `NAME: ALARM`."""

    defragmented: str = ""
    freed_bytes: int = 0
    disarmed: bool = False
    alarms: tuple[str, ...] = ()


class EtcdUpkeep:
    """Remembers when it defragmented whom; another node's memory is its own, which costs one defragmentation more at most."""

    def __init__(self, members: EtcdMembers, *, quota_bytes: int) -> None:
        self._members = members
        self._quota = quota_bytes
        self._last: dict[int, datetime] = {}

    async def step(self, now: datetime) -> Upkeep:
        """At most one defragmentation, and the alarm if there is room. Raises LogUnavailable."""
        reports = await self._members.survey()
        chosen = next_defragmentation(self._sizes(reports), quota=self._quota, now=now)
        done, freed = "", 0
        if chosen is not None:
            report = next(report for report in reports if _name(report.member) == chosen.name)
            self._last[report.member.id] = now
            freed = await self._defragment(report)
            done = str(report.member)
            reports = await self._members.survey()
        disarmed = await self._disarm(reports)
        return Upkeep(defragmented=done, freed_bytes=freed, disarmed=disarmed, alarms=await self.alarms())

    async def make_room(self, now: datetime) -> Upkeep:
        """All that can be done when etcd is full: forget all history, defragment every voter, the leader last, take the alarm back.

        Watches that were behind are told, and list anew. Raises LogUnavailable, also when not every member answers.
        """
        reports = await self._members.survey()
        silent = [str(report.member) for report in reports if report.status is None]
        if silent:
            raise LogUnavailable(
                f"etcd is not made room in while {' and '.join(silent)} does not answer.",
                hint="Defragmenting stops one member at a time, which the others must be able to bear: start that one first.",
            )
        revision = max(report.status.revision for report in reports if report.status is not None)
        await self._compact(revision)
        freed = 0
        for report in sorted(reports, key=lambda report: report.status is not None and report.status.leads):
            if not report.member.is_learner:
                freed += await self._defragment(report)
                self._last[report.member.id] = now
        disarmed = await self._disarm(await self._members.survey())
        return Upkeep(defragmented="all", freed_bytes=freed, disarmed=disarmed, alarms=await self.alarms())

    async def alarms(self) -> tuple[str, ...]:
        """`NAME: NOSPACE` or `NAME: CORRUPT`, of any member. Raises LogUnavailable."""
        members = {member.id: str(member) for member in await self._members.list()}
        return tuple(f"{members.get(alarm.memberID, hex(alarm.memberID))}: {kind}" for alarm, kind in await self._alarms())

    async def _defragment(self, report: MemberReport) -> int:
        """Bytes freed."""
        endpoint = self._members.endpoint(report.member.client_urls[0])
        before = (await endpoint.look()).db_size
        await endpoint.ask(lambda end: end.maintenance.Defragment, rpc.DefragmentRequest(), seconds=DEFRAGMENT_SECONDS)
        after = (await endpoint.look()).db_size
        _log.info("etcd defragmented", member=str(report.member), before_bytes=before, after_bytes=after)
        return max(0, before - after)

    async def _compact(self, revision: int) -> None:
        """`physical`: done when this returns, or defragmenting would find nothing."""
        request = rpc.CompactionRequest(revision=revision, physical=True)
        try:
            await self._members.call(lambda end: end.kv.Compact, request, seconds=DEFRAGMENT_SECONDS)
        except LogCompacted:
            return  # somebody was first

    async def _disarm(self, reports: Sequence[MemberReport]) -> bool:
        full = [alarm for alarm, kind in await self._alarms() if kind == "NOSPACE"]
        if not full or not may_disarm(self._sizes(reports), quota=self._quota):
            return False
        for alarm in full:
            request = rpc.AlarmRequest(action=rpc.AlarmRequest.DEACTIVATE, memberID=alarm.memberID, alarm=rpc.NOSPACE)
            await self._members.call(lambda end: end.maintenance.Alarm, request)
        _log.info("etcd takes writes again", alarm="NOSPACE", members=len(full))
        return True

    async def _alarms(self) -> list[tuple[rpc.AlarmMember, str]]:
        request = rpc.AlarmRequest(action=rpc.AlarmRequest.GET, memberID=0, alarm=rpc.NONE)
        answer = await self._members.call(lambda end: end.maintenance.Alarm, request)
        return [(alarm, rpc.AlarmType.Name(alarm.alarm)) for alarm in answer.alarms]

    def _sizes(self, reports: Sequence[MemberReport]) -> list[MemberSize]:
        return [
            MemberSize(
                name=_name(report.member),
                db_size=report.status.db_size if report.status else 0,
                db_in_use=report.status.db_in_use if report.status else 0,
                is_leader=report.status is not None and report.status.leads,
                is_learner=report.member.is_learner,
                answers=report.status is not None,
                is_full=report.status is not None and any("NOSPACE" in problem for problem in report.status.problems),
                last=self._last.get(report.member.id),
            )
            for report in reports
        ]


def _name(member: Member) -> str:
    """Not its own name, which two might share."""
    return f"{member.id:x}"
