"""Which members of etcd vote: one step at a time, from what is there now.

1. Voters are odd: 1, 3 or 5. An even number survives no more failures than the odd one below it, and loses its quorum more easily.
   With two nodes (and with four) the last one stays a learner: a copy, warm, without a vote.
2. Beyond five nobody votes: each further vote makes every write wait for more disks (etcd FAQ, "What is maximum cluster size?").
3. NO STEP GIVES THE QUORUM AWAY: the voters that answer are a quorum before and after each one. A step that would is not taken.
4. A voter is removed only if somebody said that it leaves, or if the voters are even and one of them has to go. A voter that is down
   keeps its vote: it is probably starting again.
5. etcd has room for ONE learner (its --max-learners, new in 3.6, is 1 by default), so joins are one after the other, and a learner
   that died is removed as soon as somebody else needs the room; one that never started is removed in any case, for it holds nothing.
6. etcd adds nobody while a voter is down (--strict-reconfig-check), and cannot take a vote away: DEMOTE removes the member, whose
   node is then a waiting one with an empty data directory, and may become a learner.

The moment of two voters (and of four). Members change one by one, so 1 to 3 leads through 2, where each of the two must be up for
writes. It begins only when the third node is there and ready (`may_sit`), so it lasts as long as that one's first copy: seconds
(node/ARCHITECTURE.md has measurements). What it costs: if one of the two goes down in between, writes wait (harvested keys in the
outbox) and lookups go on; nothing is lost; and the one voter of before would have been one point of failure, too. If the third one
fails, it is given up after DEAD_AFTER and the second becomes a learner again. Adding the third as learner *before* the second votes
would make the moment shorter, but rule 5 leaves no room; giving the second's seat to the third only moves the copying to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

VOTERS_AT_MOST = 5
"""etcd FAQ: "a suggested cluster size is 5 ... should never exceed 7"; five survive two failures."""

DEAD_AFTER = timedelta(minutes=5)
"""A learner silent, or not moving on, for so long is given up: k3s' learnerMaxStallTime, for a restart of the machine is shorter."""


class Seat(Enum):
    """What a node is to etcd."""

    NONE = "no member"
    LEARNER = "learner"
    VOTER = "voter"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeat:
    """One node and its member of etcd, as seen now.

    `name`: of the node; of a learner that never started, whatever names it. `silent`: for how long it has not answered (a learner:
    or not moved on); None: it answers. `caught_up`: of learners. `may_sit`: it has an etcd of its own that is ready to be started;
    False also after an attempt that failed, until somebody tries again. `leaving`: somebody said so.
    """

    name: str
    seat: Seat = Seat.NONE
    silent: timedelta | None = None
    started: bool = True
    caught_up: bool = False
    is_leader: bool = False
    may_sit: bool = True
    leaving: bool = False

    @property
    def answers(self) -> bool:
        return self.silent is None

    @property
    def is_dead(self) -> bool:
        return self.silent is not None and self.silent >= DEAD_AFTER


class Move(Enum):
    """What to do now."""

    KEEP = "Nothing: this is as it should be."
    WAIT = "Something is on its way: ask again soon."
    BLOCKED = "Nothing can be done before a person or a member that is down acts; the reason says what."
    ADD_LEARNER = "Add the node to etcd as a learner, and start its etcd."
    PROMOTE = "Give the learner a vote."
    MOVE_LEADER = "Hand the leadership to `to`."
    REMOVE_MEMBER = "Remove the leaving node's member from etcd."
    REMOVE_DEAD_LEARNER = "Remove a learner that is dead from etcd."
    DEMOTE = "Remove the member from etcd and empty its data directory; it may come back as a learner."


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`node`: whom it is about. `to`: the new leader, for MOVE_LEADER."""

    move: Move
    reason: str
    node: str = ""
    to: str = ""


def quorum(voters: int) -> int:
    """How many of them must answer."""
    return voters // 2 + 1


def next_step(nodes: Sequence[NodeSeat]) -> Step:
    """The one step to take now; carry it out, look again, ask again. Nodes in the order in which they joined."""
    table = _Table(nodes)
    if not table.voters:
        return Step(move=Move.BLOCKED, reason="No member of etcd votes: there is no etcd yet, or it was not looked at.")
    if not table.has_quorum:
        return Step(
            move=Move.BLOCKED,
            reason=f"Of {len(table.voters)} voters only {len(table.live)} answer, {quorum(len(table.voters))} are needed. "
            f"Start etcd on {_names(table.down)}; if that is not possible, build the cluster anew from a node's replica.",
        )
    return _clear(table) or _leave(table) or _balance(table)


class _Table:
    """The nodes by what they are to etcd."""

    def __init__(self, nodes: Sequence[NodeSeat]) -> None:
        self.voters = [node for node in nodes if node.seat is Seat.VOTER]
        self.live = [node for node in self.voters if node.answers]
        self.down = [node for node in self.voters if not node.answers]
        self.learners = [node for node in nodes if node.seat is Seat.LEARNER]
        self.hopeful = [node for node in self.learners if not node.is_dead and not node.leaving]
        self.ready = [node for node in self.hopeful if node.answers and node.caught_up]
        self.waiting = [node for node in nodes if node.seat is Seat.NONE and node.may_sit and node.answers and not node.leaving]

    @property
    def has_quorum(self) -> bool:
        return len(self.live) >= quorum(len(self.voters))

    @property
    def target(self) -> int:
        """Voters there should be: odd, at most five."""
        count = min(len(self.voters) + len(self.hopeful) + len(self.waiting), VOTERS_AT_MOST)
        return count - 1 + count % 2


def _clear(table: _Table) -> Step | None:
    """Learners that are of no use to anybody."""
    for node in table.learners:
        if node.leaving:
            return Step(move=Move.REMOVE_MEMBER, node=node.name, reason="It leaves, and has no vote.")
        if node.is_dead and not node.started:
            return Step(move=Move.REMOVE_DEAD_LEARNER, node=node.name, reason="It was added and never started.")
    return None


def _leave(table: _Table) -> Step | None:
    """Voters that leave: first those that are down, whose removal makes the quorum safer; the leader last."""
    leaving = sorted((node for node in table.voters if node.leaving), key=lambda node: (node.answers, node.is_leader))
    if not leaving:
        return None
    node = leaving[0]
    stay = [voter for voter in table.voters if voter is not node]
    if not stay:
        return _succeed(table, node)
    if not node.answers:
        return Step(move=Move.REMOVE_MEMBER, node=node.name, reason="It leaves, and is down.")
    if table.ready and len(stay) % 2 == 0:
        return Step(move=Move.PROMOTE, node=table.ready[0].name, reason=f"It takes the place of {node.name}, which leaves.")
    live = [voter for voter in stay if voter.answers]
    if len(live) < quorum(len(stay)):
        return Step(
            move=Move.BLOCKED,
            node=node.name,
            reason=f"Without {node.name} only {len(live)} of {len(stay)} voters would answer, and nothing could be written. "
            f"First start etcd on {_names(table.down)}, or let that node leave.",
        )
    if node.is_leader:
        heir = next((voter for voter in live if not voter.leaving), live[0])
        return Step(move=Move.MOVE_LEADER, node=node.name, to=heir.name, reason="It leaves, and leads.")
    return Step(move=Move.REMOVE_MEMBER, node=node.name, reason="It leaves.")


def _succeed(table: _Table, node: NodeSeat) -> Step:
    """The only voter leaves: somebody must have its vote first."""
    if table.ready:
        return Step(move=Move.PROMOTE, node=table.ready[0].name, reason=f"It takes the place of {node.name}, which leaves.")
    if table.hopeful:
        return Step(move=Move.WAIT, reason=f"{table.hopeful[0].name} has not caught up yet, and {node.name} has the only vote.")
    if table.waiting:
        return _seat(table, f"It shall take the place of {node.name}, which leaves.")
    return Step(
        move=Move.BLOCKED,
        node=node.name,
        reason=f"{node.name} has the only vote and there is nobody to take its place. Let another node join, or start one.",
    )


def _balance(table: _Table) -> Step:
    if len(table.voters) > table.target:
        return _shrink(table)
    if len(table.voters) < table.target:
        return _grow(table)
    if len(table.voters) < VOTERS_AT_MOST and table.waiting and not table.hopeful and not table.down:
        return _seat(table, "It keeps a copy without a vote: an even number of voters would survive less.")
    down = f" {_names(table.down)} is down and keeps its vote; if it does not come back, let it leave." if table.down else ""
    return Step(move=Move.KEEP, reason=f"{len(table.voters)} of the nodes vote.{down}")


def _shrink(table: _Table) -> Step:
    dead = [node for node in table.down if node.is_dead]
    count = len(table.voters)
    reason = f"{count} voters survive no more than {count - 1}."
    if dead:
        return Step(move=Move.DEMOTE, node=dead[-1].name, reason=f"{reason} It is down.")
    if table.down:
        return Step(move=Move.WAIT, reason=f"{reason} {_names(table.down)} is down: if it stays so, it loses its vote.")
    node = [voter for voter in table.voters if not voter.is_leader][-1]
    return Step(move=Move.DEMOTE, node=node.name, reason=reason)


def _grow(table: _Table) -> Step:
    count = len(table.voters)
    is_even = count % 2 == 0
    if table.down and not is_even:
        return Step(
            move=Move.KEEP,
            reason=f"etcd takes no further voters while {_names(table.down)} is down. Start it, or let it leave.",
        )
    if table.ready and (is_even or table.waiting or len(table.ready) > 1):
        reason = f"It makes the voters {count + 1}." if is_even else f"{count} voters become {count + 2}, one by one."
        return Step(move=Move.PROMOTE, node=table.ready[0].name, reason=reason)
    if table.hopeful:
        return Step(move=Move.WAIT, reason=f"{table.hopeful[0].name} has not caught up yet.")
    if table.down:
        return _shrink(table)
    return _seat(table, "It shall get a vote once it has caught up.")


def _seat(table: _Table, reason: str) -> Step:
    """The first of those who wait becomes a learner; a dead one makes room."""
    node = table.waiting[0]
    if table.learners:
        return Step(
            move=Move.REMOVE_DEAD_LEARNER, node=table.learners[0].name, reason=f"It is dead, and {node.name} needs its room."
        )
    return Step(move=Move.ADD_LEARNER, node=node.name, reason=reason)


def _names(nodes: Sequence[NodeSeat]) -> str:
    return " and ".join(node.name for node in nodes)
