"""How a cluster changes its certificate authority without a moment in which two nodes cannot talk. Values in, a value out.

    SETTLED    one authority signs and is trusted
    SPREAD     the next one is trusted too; the present one signs
    SWITCHED   the next one signs; the former one is still trusted
    SETTLED    the former one is forgotten

Nodes at neighbouring steps understand each other: whoever shows a certificate of an authority meets only nodes that trust it. Nodes two
steps apart need not. So the cluster's step, which the log holds, goes on only when EVERY node has reported that it is there; a node
that is off is waited for, or removed. Each node follows the cluster's step by itself (`pki.rotation`), and each of its acts may be
repeated.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from keycache.domain.names import NodeId


class Step(Enum):
    SETTLED = "SETTLED"
    SPREAD = "SPREAD"
    SWITCHED = "SWITCHED"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityChange:
    """What the log holds of a change, until every node is through. `certificate`: of the following authority, PEM. `clients_trust`,
    `clients_renewed`: an administrator confirmed it."""

    former: str
    following: str
    certificate: bytes
    step: Step
    begun_at: datetime
    begun_by: str
    clients_trust: bool = False
    clients_renewed: bool = False


class Act(Enum):
    """What a node does on its own disk. TAKE: get the following authority from a node that has it, and trust it."""

    NOTHING = "NOTHING"
    TAKE = "TAKE"
    SWITCH = "SWITCH"
    FORGET = "FORGET"
    WITHDRAW = "WITHDRAW"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityReport:
    """What one node says of itself. Authorities by their id (SHA-256 of the SPKI, hex).

    `trusted`: what its gRPC AND its etcd trust by now: etcd reads its bundle only when it starts (etcd#11555).
    `shown`: the authority of the certificate that it shows. `former_clients`: names of clients that came by a certificate of the former
    authority lately.
    """

    node: NodeId
    signing: str
    trusted: frozenset[str]
    shown: str
    former_clients: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Write this step into the log."""

    step: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """`nodes`: those that are waited for; empty when it is for people. `reason`: a sentence with the next step."""

    nodes: tuple[NodeId, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Nothing is left to do."""


RotationDecision = Advance | Wait | Finished


def own_act(change: AuthorityChange | None, *, on_disk: Step, signing: str) -> Act:
    """What a node does that stands at `on_disk` and signs by the authority `signing`. `change` None: none is under way, for sure."""
    if change is None:
        return {Step.SETTLED: Act.NOTHING, Step.SPREAD: Act.WITHDRAW, Step.SWITCHED: Act.FORGET}[on_disk]
    if on_disk is Step.SETTLED:
        return Act.TAKE if signing == change.former and change.step is Step.SPREAD else Act.NOTHING
    if on_disk is Step.SPREAD:
        return Act.SWITCH if change.step is Step.SWITCHED else Act.NOTHING
    return Act.FORGET if change.step is Step.SETTLED else Act.NOTHING


def arrived(report: AuthorityReport | None, *, step: Step, former: str, following: str) -> bool:
    """Whether the node that says so, or nothing, is where the cluster is."""
    if report is None:
        return False
    if step is Step.SPREAD:
        return {former, following} <= report.trusted
    if step is Step.SWITCHED:
        return report.signing == report.shown == following
    return report.signing == report.shown == following and report.trusted == {following}


def is_turn(own: NodeId, seats: Collection[NodeId], there: Collection[NodeId]) -> bool:
    """Whether it is this node's turn to restart its etcd: after all with lesser ids (`seats`: who runs one) have, and are back. One
    that is off is waited for, as the whole change waits for it."""
    return all(seat in there for seat in seats if seat.text < own.text)


def rotation_step(
    *,
    step: Step,
    former: str,
    following: str,
    nodes: Collection[NodeId],
    reports: Collection[AuthorityReport],
    clients_know: bool,
    clients_renewed: bool,
    clients_of_former: Collection[str] = (),
) -> RotationDecision:
    """What the cluster, whose log says `step`, may do next on the way from the authority `former` to `following`.

    `nodes`: all that belong to the cluster, also those that are off. `reports`: the newest of each. `clients_know`: an administrator
    confirmed that the clients trust the new authority (their CA file is theirs to replace). `clients_renewed`: and that all have
    certificates of it, since those that seldom call are not seen. `clients_of_former`: names of clients that
    still showed a certificate of the former authority lately.
    """
    told = {report.node: report for report in reports}

    def there(report: AuthorityReport | None) -> bool:
        return arrived(report, step=step, former=former, following=following)

    missing = tuple(sorted((node for node in nodes if not there(told.get(node))), key=str))
    if missing:
        names = ", ".join(node.text for node in missing)
        what = {
            Step.SPREAD: "trust the new authority",
            Step.SWITCHED: "show a certificate of the new authority",
            Step.SETTLED: "forget the former authority",
        }[step]
        return Wait(nodes=missing, reason=f"Not every node has come to {what}: start {names}, or remove it from the cluster.")
    if step is Step.SETTLED:
        return Finished()
    if step is Step.SPREAD:
        if not clients_know:
            return Wait(
                nodes=(),
                reason="Clients that do not trust the new authority would not recognise the nodes any more. Give each the new CA file, "
                "then confirm it.",
            )
        return Advance(step=Step.SWITCHED)
    if clients_of_former:
        names = ", ".join(sorted(clients_of_former))
        return Wait(
            nodes=(), reason=f"These clients still use certificates of the former authority: {names}. Issue them new ones."
        )
    if not clients_renewed:
        return Wait(
            nodes=(),
            reason="Certificates of the former authority will be worth nothing. Issue every client a new one, then confirm it.",
        )
    return Advance(step=Step.SETTLED)
