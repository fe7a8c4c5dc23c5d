"""What `domain.voters` decides on, made of the nodes that are known and of what etcd's members say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from keycache.cluster.etcd_members import MemberReport
from keycache.domain.voters import NodeSeat, Seat

SYNC_SHARE = 0.9
"""etcd promotes a learner that has this much of the leader's log (its readyPercent)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNode:
    """A node of the cluster. `name`: of it and of its member of etcd. `peer_url`: by which its member is found as long as that has not
    started and has no name; empty if the node runs no etcd. The rest as in `NodeSeat`."""

    name: str
    peer_url: str = ""
    answers: bool = True
    may_sit: bool = True
    leaving: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seating:
    """`nodes`: for `next_step`. `members`: etcd's id by the node's name, of those that have a member. Members that belong to no known
    node come last, under their id in hexadecimal."""

    nodes: tuple[NodeSeat, ...]
    members: Mapping[str, int]


def report_of(name: str, peer_url: str, reports: Sequence[MemberReport]) -> MemberReport | None:
    """The member of the node of that name: by its name, or by its peer URL as long as it has not started and has none."""
    started = (one for one in reports if one.member.has_started and one.member.name == name)
    fresh = (one for one in reports if not one.member.has_started and peer_url in one.member.peer_urls)
    return next(started, None) or next(fresh, None)


class SeatWatch:
    """Remembers since when who has been silent; a new one knows nothing, and so waits for `DEAD_AFTER` anew."""

    def __init__(self) -> None:
        self._moved: dict[str, tuple[float, int]] = {}

    def look(self, nodes: Sequence[KnownNode], reports: Sequence[MemberReport], *, monotonic: float) -> Seating:
        """`reports`: of `EtcdMembers.survey`. `monotonic`: seconds."""
        owned = [(node, report_of(node.name, node.peer_url, reports)) for node in nodes]
        known = {report.member.id for _, report in owned if report is not None}
        owned += [(KnownNode(name=f"{report.member.id:x}"), report) for report in reports if report.member.id not in known]
        end = max((report.status.raft_index for report in reports if report.status is not None), default=0)
        self._moved = {name: self._moved[name] for name in (node.name for node, _ in owned) if name in self._moved}
        return Seating(
            nodes=tuple(self._seat(node, report, end, monotonic) for node, report in owned),
            members={node.name: report.member.id for node, report in owned if report is not None},
        )

    def _seat(self, node: KnownNode, report: MemberReport | None, end: int, monotonic: float) -> NodeSeat:
        if report is None:
            moves, caught_up = node.answers, False
        else:
            index = -1 if report.status is None else report.status.raft_index
            caught_up = report.member.is_learner and index >= end * SYNC_SHARE
            # A learner that answers but never gets any further is as much in the way as one that is down.
            moves = index >= 0 and (
                not report.member.is_learner or caught_up or index > self._moved.get(node.name, (0.0, -1))[1]
            )
        if moves:
            self._moved[node.name] = (monotonic, -1 if report is None or report.status is None else report.status.raft_index)
        since, _ = self._moved.setdefault(node.name, (monotonic, -1))
        return NodeSeat(
            name=node.name,
            seat=Seat.NONE if report is None else Seat.LEARNER if report.member.is_learner else Seat.VOTER,
            silent=None if moves else timedelta(seconds=monotonic - since),
            started=report is None or report.member.has_started,
            caught_up=caught_up,
            is_leader=report is not None and report.status is not None and report.status.leads,
            may_sit=node.may_sit,
            leaving=node.leaving,
        )
