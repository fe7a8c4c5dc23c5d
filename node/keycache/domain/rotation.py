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
from enum import Enum

from keycache.domain.names import NodeId


class Step(Enum):
    SETTLED = "SETTLED"
    SPREAD = "SPREAD"
    SWITCHED = "SWITCHED"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityReport:
    """What one node says of itself. Authorities by their id (SHA-256 of the SPKI, hex).

    `trusted`: what its gRPC AND its etcd trust by now: etcd reads its bundle only when it starts (etcd#11555).
    `shown`: the authority of the certificate that it shows.
    """

    node: NodeId
    signing: str
    trusted: frozenset[str]
    shown: str


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


def rotation_step(
    *,
    step: Step,
    former: str,
    following: str,
    nodes: Collection[NodeId],
    reports: Collection[AuthorityReport],
    clients_know: bool,
    clients_of_former: Collection[str] = (),
) -> RotationDecision:
    """What the cluster, whose log says `step`, may do next on the way from the authority `former` to `following`.

    `nodes`: all that belong to the cluster, also those that are off. `reports`: the newest of each. `clients_know`: an administrator
    confirmed that the clients trust the new authority (their CA file is theirs to replace). `clients_of_former`: names of clients that
    still showed a certificate of the former authority lately.
    """
    told = {report.node: report for report in reports}

    def there(report: AuthorityReport | None) -> bool:
        if report is None:
            return False
        if step is Step.SPREAD:
            return {former, following} <= report.trusted
        if step is Step.SWITCHED:
            return report.signing == report.shown == following
        return report.signing == report.shown == following and report.trusted == {following}

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
    return Advance(step=Step.SETTLED)
