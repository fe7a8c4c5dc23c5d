"""Which members of etcd vote: named situations, and any sequence of joins, leaves and deaths against a model of what etcd allows."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.domain.voters import DEAD_AFTER, Move, NodeSeat, Seat, Step, next_step, quorum
from support.properties import bounded

MOMENT = timedelta(seconds=20)


def voter(name: str, **changes) -> NodeSeat:
    return NodeSeat(**{"name": name, "seat": Seat.VOTER, **changes})


def learner(name: str, **changes) -> NodeSeat:
    return NodeSeat(**{"name": name, "seat": Seat.LEARNER, "caught_up": True, **changes})


def waiting(name: str, **changes) -> NodeSeat:
    return NodeSeat(**{"name": name, **changes})


A = voter("a", is_leader=True)

SITUATIONS = {
    "one node votes": ([A], Move.KEEP, ""),
    "the second node becomes a learner": ([A, waiting("b")], Move.ADD_LEARNER, "b"),
    "the second node stays a learner": ([A, learner("b")], Move.KEEP, ""),
    "a node without an etcd of its own takes no seat": ([A, waiting("b", may_sit=False)], Move.KEEP, ""),
    "the second votes once the third is there": ([A, learner("b"), waiting("c")], Move.PROMOTE, "b"),
    "two voters take the third in": ([A, voter("b"), waiting("c")], Move.ADD_LEARNER, "c"),
    "the third is waited for": ([A, voter("b"), learner("c", caught_up=False)], Move.WAIT, ""),
    "the third votes once it has caught up": ([A, voter("b"), learner("c")], Move.PROMOTE, "c"),
    "a third that goes silent is waited for": ([A, voter("b"), learner("c", silent=MOMENT)], Move.WAIT, ""),
    "two voters become one if the third dies": ([A, voter("b"), learner("c", silent=DEAD_AFTER)], Move.DEMOTE, "b"),
    "two voters become one again": ([A, voter("b")], Move.DEMOTE, "b"),
    "the leader keeps its vote": ([voter("a"), voter("b", is_leader=True)], Move.DEMOTE, "a"),
    "a fourth node stays a learner": ([A, voter("b"), voter("c"), learner("d")], Move.KEEP, ""),
    "beyond five nobody gets a seat": ([A, *map(voter, "bcde"), waiting("f")], Move.KEEP, ""),
    "six voters become five": ([A, *map(voter, "bcdef")], Move.DEMOTE, "f"),
    "a dead learner makes room": ([A, learner("b", silent=DEAD_AFTER), waiting("c")], Move.REMOVE_DEAD_LEARNER, "b"),
    "a dead learner in nobody's way stays": ([A, learner("b", silent=DEAD_AFTER)], Move.KEEP, ""),
    "a learner that never started is removed": (
        [A, learner("?", silent=DEAD_AFTER, started=False, caught_up=False)],
        Move.REMOVE_DEAD_LEARNER,
        "?",
    ),
    "a voter that is down keeps its vote": ([A, voter("b"), voter("c", silent=DEAD_AFTER)], Move.KEEP, ""),
    "nobody is added while a voter is down": (
        [A, voter("b"), voter("c", silent=DEAD_AFTER), learner("d"), waiting("e")],
        Move.KEEP,
        "",
    ),
    "of four the dead one loses its vote": ([A, voter("b"), voter("c"), voter("d", silent=DEAD_AFTER)], Move.DEMOTE, "d"),
    "of four a silent one is waited for": ([A, voter("b"), voter("c"), voter("d", silent=MOMENT)], Move.WAIT, ""),
    "a learner leaves": ([A, learner("b", leaving=True)], Move.REMOVE_MEMBER, "b"),
    "the leader hands over before it leaves": ([replace(A, leaving=True), voter("b"), voter("c")], Move.MOVE_LEADER, "a"),
    "one that leaves is replaced first": ([A, voter("b", leaving=True), voter("c"), learner("d")], Move.PROMOTE, "d"),
    "one that is down and leaves is removed": (
        [A, voter("b", leaving=True, silent=MOMENT), voter("c"), learner("d")],
        Move.REMOVE_MEMBER,
        "b",
    ),
    "the only voter waits for its successor": ([replace(A, leaving=True), learner("b", caught_up=False)], Move.WAIT, ""),
    "the only voter gives its learner a vote": ([replace(A, leaving=True), learner("b")], Move.PROMOTE, "b"),
    "the only voter looks for a successor": ([replace(A, leaving=True), waiting("b")], Move.ADD_LEARNER, "b"),
    "the last one cannot leave": ([replace(A, leaving=True)], Move.BLOCKED, "a"),
    "nobody leaves at the cost of the quorum": (
        [A, voter("b", leaving=True), voter("c", silent=DEAD_AFTER)],
        Move.BLOCKED,
        "b",
    ),
    "without quorum nothing is done": ([A, voter("b", silent=MOMENT), waiting("c")], Move.BLOCKED, ""),
    "without etcd nothing is done": ([waiting("a")], Move.BLOCKED, ""),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_next_step(situation: str) -> None:
    nodes, move, node = SITUATIONS[situation]
    step = next_step(nodes)
    assert (step.move, step.node) == (move, node), step.reason
    assert step.reason


def test_the_new_leader_is_one_that_answers_and_stays() -> None:
    nodes = [replace(A, leaving=True), voter("b", leaving=True), voter("c", silent=MOMENT), *map(voter, "de")]
    down_first = next_step(nodes)
    assert (down_first.move, down_first.node) == (Move.REMOVE_MEMBER, "b")
    assert next_step([nodes[0], *nodes[2:]]) == Step(move=Move.MOVE_LEADER, node="a", to="d", reason="It leaves, and leads.")


class Model:
    """Nodes as they come and go, and what etcd does and refuses."""

    def __init__(self) -> None:
        self.nodes = [A]
        self.made = 1

    def count(self, seat: Seat) -> int:
        return sum(node.seat is seat for node in self.nodes)

    @property
    def live(self) -> int:
        return sum(node.seat is Seat.VOTER and node.answers for node in self.nodes)

    @property
    def has_quorum(self) -> bool:
        return self.live >= quorum(self.count(Seat.VOTER))

    def change(self, name: str, **changes) -> None:
        self.nodes = [replace(node, **changes) if node.name == name else node for node in self.nodes]

    def drop(self, name: str) -> None:
        self.nodes = [node for node in self.nodes if node.name != name]

    def elect(self) -> None:
        """A live voter leads, the same as long as it can."""
        leaders = [node for node in self.nodes if node.is_leader]
        if leaders and leaders[0].answers and leaders[0].seat is Seat.VOTER:
            return
        candidates = [node.name for node in self.nodes if node.seat is Seat.VOTER and node.answers]
        for node in list(self.nodes):
            self.change(node.name, is_leader=self.has_quorum and node.name == candidates[0])

    def happen(self, event: str, number: int) -> None:
        if event == "join":
            self.nodes.append(waiting(f"n{self.made}"))
            self.made += 1
        elif event == "time passes":
            self.wait()
        elif self.nodes:
            node = self.nodes[number % len(self.nodes)]
            change = {"leave": {"leaving": True}, "die": {"silent": MOMENT}, "come back": {"silent": None}}[event]
            self.change(node.name, **change)
        self.elect()

    def wait(self) -> None:
        """Long enough for everything that comes by itself."""
        for node in list(self.nodes):
            if not node.answers:
                self.change(node.name, silent=DEAD_AFTER)
            elif node.seat is Seat.LEARNER and self.has_quorum:
                self.change(node.name, caught_up=True, started=True)

    def carry_out(self, step: Step) -> None:
        """As etcd would; a step that it refuses, or that costs the quorum, is a failure of the test."""
        assert self.has_quorum, step
        node = next(node for node in self.nodes if node.name == step.node)
        voters = self.count(Seat.VOTER)
        match step.move:
            case Move.ADD_LEARNER:
                assert node.seat is Seat.NONE
                assert node.may_sit
                assert self.count(Seat.LEARNER) == 0, "too many learner members"
                assert self.live == voters, "unhealthy cluster"
                self.change(step.node, seat=Seat.LEARNER, caught_up=False, started=False)
            case Move.PROMOTE:
                assert (node.seat, node.caught_up, node.answers) == (Seat.LEARNER, True, True)
                self.change(step.node, seat=Seat.VOTER)
            case Move.MOVE_LEADER:
                assert node.is_leader
                self.change(step.node, is_leader=False)
                self.change(step.to, is_leader=True)
            case Move.DEMOTE:
                assert node.seat is Seat.VOTER
                assert voters > 1
                assert not node.is_leader
                self.change(step.node, seat=Seat.NONE, caught_up=False)
            case Move.REMOVE_MEMBER:
                assert node.leaving
                assert not node.is_leader
                self.drop(step.node)
            case Move.REMOVE_DEAD_LEARNER:
                assert node.seat is Seat.LEARNER
                assert node.is_dead
                self.change(step.node, seat=Seat.NONE)
            case _:
                raise AssertionError(step)
        assert self.has_quorum, f"{step} gave the quorum away"
        self.elect()


DONE = {Move.KEEP, Move.BLOCKED}


def settle(model: Model) -> Step:
    """Step by step until nothing more is to be done; time passes where something is waited for."""
    for _ in range(60):
        step = next_step(model.nodes)
        if step.move in DONE:
            return step
        if step.move is Move.WAIT:
            model.wait()
        else:
            model.carry_out(step)
    raise AssertionError(f"no end: {step} {model.nodes}")


EVENTS = st.tuples(
    st.sampled_from(["join", "join", "leave", "die", "come back", "time passes"]), st.integers(0, 9), st.integers(0, 3)
)


@bounded(200)
@given(st.lists(EVENTS, max_size=25))
def test_any_sequence_ends_in_odd_voters_and_no_step_gives_the_quorum_away(events: list[tuple[str, int, int]]) -> None:
    """Each event, then a few steps only, so that events also fall between the steps; in the end all of them."""
    model = Model()
    for event, number, steps in events:
        model.happen(event, number)
        for _ in range(steps):
            step = next_step(model.nodes)
            if step.move in DONE or step.move is Move.WAIT:
                break
            model.carry_out(step)
    end = settle(model)
    if end.move is Move.KEEP:
        assert model.count(Seat.VOTER) in {1, 3, 5}
        assert not any(node.leaving and node.seat is not Seat.NONE for node in model.nodes)
    else:
        leaving = any(node.leaving and node.seat is Seat.VOTER for node in model.nodes)
        assert not model.has_quorum or leaving, f"{end} for no reason: {model.nodes}"


@bounded(100)
@given(st.integers(1, 8), st.lists(st.integers(0, 7), max_size=7, unique=True))
def test_as_many_vote_as_may_once_all_are_there_and_stay(joined: int, leaving: list[int]) -> None:
    model = Model()
    for _ in range(joined - 1):
        model.happen("join", 0)
    assert settle(model).move is Move.KEEP
    assert model.count(Seat.VOTER) == min(5, joined - 1 + joined % 2)
    assert model.count(Seat.LEARNER) == (1 if joined in {2, 4} else 0)
    names = [f"n{number}" if number else "a" for number in leaving if number < joined][: joined - 1]
    for name in names:
        model.change(name, leaving=True)
    assert settle(model).move is Move.KEEP
    left = joined - len(names)
    assert model.count(Seat.VOTER) == min(5, left - 1 + left % 2)


def test_two_voters_are_seen_only_while_the_third_catches_up() -> None:
    """The moment of two voters begins when the third is there, and its only wait is for the third's copy."""
    model = Model()
    model.happen("join", 0)
    assert settle(model).move is Move.KEEP
    model.wait()
    model.happen("join", 0)
    seen = []
    for _ in range(5):
        step = next_step(model.nodes)
        seen.append((model.count(Seat.VOTER), step.move, step.node))
        if step.move is Move.WAIT:
            model.wait()
        elif step.move is not Move.KEEP:
            model.carry_out(step)
    assert seen == [
        (1, Move.PROMOTE, "n1"),
        (2, Move.ADD_LEARNER, "n2"),
        (2, Move.WAIT, ""),
        (2, Move.PROMOTE, "n2"),
        (3, Move.KEEP, ""),
    ]
