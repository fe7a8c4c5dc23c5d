"""What will need a person soon, each as a sentence with the next step. Values in, sentences out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta

from keycache.domain.names import NodeId
from keycache.domain.nodes import ClusterNode
from keycache.domain.restart import RestartReport
from keycache.domain.settings import Settings
from keycache.domain.spans import format_span

NEAR = 2
"""A clock that is off by more than the bound divided by this is told of before it holds anything."""


def of_certificate(what: str, start: datetime, end: datetime, now: datetime, *, how: str) -> tuple[str, ...]:
    """Of one that an administrator renews: when a third of its life is left, as the node renews its own. `how`: to renew it."""
    if (end - now) * 3 >= end - start:
        return ()
    tense = "ended" if end <= now else "ends"
    return (f"{what} {tense} on {end:%Y-%m-%d %H:%M} UTC. {how}",)


def of_clocks(offsets: Mapping[str, timedelta], bound: timedelta) -> tuple[str, ...]:
    """`offsets`: of the members that live, by label, their clock minus ours."""
    return tuple(
        f"The clock of {label} is {format_span(timedelta(seconds=round(abs(off).total_seconds())))} "
        f"{'ahead of' if off > timedelta() else 'behind'} this node's, and beyond {format_span(bound)} nothing is purged: set the one "
        "that is wrong, and let NTP keep both."
        for label, off in sorted(offsets.items())
        if abs(off) * NEAR > bound
    )


def of_nodes(nodes: Iterable[ClusterNode], alive: Collection[NodeId], seen: Mapping[NodeId, datetime]) -> tuple[str, ...]:
    """`seen`: when those that do not live last said that all was well."""

    def last(node: NodeId) -> str:
        return f"was last seen at {seen[node]:%Y-%m-%d %H:%M} UTC" if node in seen else "was never seen"

    return tuple(
        f"Node {one.address} ({one.node.text[:8]}) belongs to the cluster and {last(one.node)}: start it, or take it out with "
        f"'keycache cluster remove {one.node.text[:8]}'."
        for one in sorted(nodes, key=lambda one: one.node.text)
        if one.node not in alive
    )


def of_settings(known: Settings | None, in_log: Settings | None, expiring: int) -> tuple[str, ...]:
    """`known`: that this node last knew. `expiring`: entries here that live by those and not by the log's."""
    if known is None or in_log is None or known.timeouts == in_log.timeouts:
        return ()
    names = ("harvested", "looked_up", "imported")
    pairs = ((name, getattr(known.timeouts, name), getattr(in_log.timeouts, name)) for name in names)
    told = ", ".join(f"{name} {format_span(new)} instead of {format_span(old)}" for name, old, new in pairs if old != new)
    caution = (
        f"The log has other timeouts than this node last knew: {told}. {expiring} keys here would be expired by them. If that is not "
        "meant, correct them with 'keycache settings set' on a node that follows the log, before this one does."
    )
    return (caution,)


def of_restart(report: RestartReport) -> tuple[str, ...]:
    if not report.held_back:
        return ()
    caution = (
        f"A restart would hold back {report.held_back} expired entries: {report.held_reason} They are not served, and wait for "
        "'keycache purge --confirm-held', or '--trust-clock' if the clock is right."
    )
    return (caution,)
