"""A cluster goes on to the next authority only when every node can follow."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product

import pytest

from keycache.domain.names import NodeId
from keycache.domain.rotation import (
    Act,
    Advance,
    AuthorityChange,
    AuthorityReport,
    Finished,
    RotationDecision,
    Step,
    Wait,
    is_turn,
    own_act,
    rotation_step,
)

A, B = "a" * 64, "b" * 64
ONE, TWO, THREE = NodeId("1"), NodeId("2"), NodeId("3")
BEFORE, SPREAD, SWITCHED, AFTER = (A, {A}, A), (A, {A, B}, A), (B, {A, B}, B), (B, {B}, B)


def report(node: NodeId, state: tuple[str, set[str], str]) -> AuthorityReport:
    signing, trusted, shown = state
    return AuthorityReport(node=node, signing=signing, trusted=frozenset(trusted), shown=shown)


def decide(
    step: Step,
    *states: tuple[str, set[str], str],
    clients_know: bool = True,
    clients_renewed: bool = True,
    old: tuple[str, ...] = (),
) -> RotationDecision:
    reports = [report(node, state) for node, state in zip((ONE, TWO, THREE), states, strict=False)]
    return rotation_step(
        step=step,
        former=A,
        following=B,
        nodes=(THREE, ONE, TWO),
        reports=reports,
        clients_know=clients_know,
        clients_renewed=clients_renewed,
        clients_of_former=old,
    )


def test_a_rotation_goes_through_its_steps_when_all_nodes_do() -> None:
    assert decide(Step.SPREAD, SPREAD, SPREAD, SPREAD) == Advance(step=Step.SWITCHED)
    assert decide(Step.SWITCHED, SWITCHED, SWITCHED, SWITCHED) == Advance(step=Step.SETTLED)
    assert decide(Step.SETTLED, AFTER, AFTER, AFTER) == Finished()


@pytest.mark.parametrize(
    ("step", "there", "behind", "what"),
    [
        (Step.SPREAD, SPREAD, BEFORE, "trust the new authority"),
        (Step.SWITCHED, SWITCHED, SPREAD, "show a certificate of the new authority"),
        (Step.SWITCHED, SWITCHED, (B, {A, B}, A), "show a certificate of the new authority"),
        (Step.SETTLED, AFTER, SWITCHED, "forget the former authority"),
    ],
)
def test_nodes_that_are_behind_are_waited_for_and_named(step: Step, there, behind, what: str) -> None:
    told = f"Not every node has come to {what}: start 2, 3, or remove it from the cluster."
    assert decide(step, there, behind, behind) == Wait(nodes=(TWO, THREE), reason=told)


@pytest.mark.parametrize("step", Step)
def test_a_node_that_says_nothing_is_waited_for(step: Step) -> None:
    decision = decide(step, *[{Step.SPREAD: SPREAD, Step.SWITCHED: SWITCHED, Step.SETTLED: AFTER}[step]] * 2)
    assert isinstance(decision, Wait)
    assert decision.nodes == (THREE,)


def test_nodes_change_their_certificates_only_once_the_clients_would_recognise_them() -> None:
    decision = decide(Step.SPREAD, SPREAD, SPREAD, SPREAD, clients_know=False)
    assert isinstance(decision, Wait)
    assert decision.nodes == ()
    assert "new CA file" in decision.reason


def test_the_former_authority_stays_while_clients_come_by_it() -> None:
    decision = decide(Step.SWITCHED, SWITCHED, SWITCHED, SWITCHED, old=("mta2", "mta1"))
    assert decision == Wait(
        nodes=(), reason="These clients still use certificates of the former authority: mta1, mta2. Issue them new ones."
    )


def test_the_former_authority_stays_until_somebody_says_that_every_client_has_a_new_certificate() -> None:
    """None that came by it was seen; but one that calls once a week would not have been."""
    decision = decide(Step.SWITCHED, SWITCHED, SWITCHED, SWITCHED, clients_renewed=False)
    assert isinstance(decision, Wait)
    assert "Issue every client a new one" in decision.reason


def change(step: Step) -> AuthorityChange:
    return AuthorityChange(
        former=A, following=B, certificate=b"", step=step, begun_at=datetime(2026, 11, 26, tzinfo=UTC), begun_by="x"
    )


@pytest.mark.parametrize(
    ("known", "on_disk", "signing", "act"),
    [
        (Step.SPREAD, Step.SETTLED, A, Act.TAKE),
        (Step.SPREAD, Step.SPREAD, A, Act.NOTHING),
        (Step.SWITCHED, Step.SPREAD, A, Act.SWITCH),
        (Step.SWITCHED, Step.SWITCHED, B, Act.NOTHING),
        (Step.SETTLED, Step.SWITCHED, B, Act.FORGET),
        (Step.SETTLED, Step.SETTLED, B, Act.NOTHING),
        (None, Step.SETTLED, A, Act.NOTHING),
        (None, Step.SPREAD, A, Act.WITHDRAW),
        (None, Step.SWITCHED, B, Act.FORGET),
    ],
)
def test_a_node_follows_the_clusters_step_and_what_a_crash_left_without_a_change_is_cleared_away(
    known: Step | None, on_disk: Step, signing: str, act: Act
) -> None:
    assert own_act(None if known is None else change(known), on_disk=on_disk, signing=signing) is act


def test_etcds_are_restarted_one_after_the_other() -> None:
    turns = [
        [node.text for node in (ONE, TWO, THREE) if is_turn(node, (ONE, THREE), there)] for there in ((), (ONE,), (ONE, THREE))
    ]
    assert turns == [["1"], ["1", "2", "3"], ["1", "2", "3"]]


def test_whatever_the_nodes_report_no_two_steps_are_ever_apart() -> None:
    """If the cluster's step may go on, every node trusts every authority of which any node shows a certificate, now and next."""
    now = {Step.SPREAD: (BEFORE, SPREAD), Step.SWITCHED: (SPREAD, SWITCHED), Step.SETTLED: (SWITCHED, AFTER)}
    following = {Step.SPREAD: SWITCHED, Step.SWITCHED: AFTER, Step.SETTLED: AFTER}
    for step in Step:
        for states in product(now[step], repeat=3):
            if isinstance(decide(step, *states), Advance):
                possible = [*states, following[step]]
                assert all(one[2] in other[1] for one in possible for other in possible), (step, states)
