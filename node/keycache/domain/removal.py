"""Nodes that were removed from the cluster, and must not come back by their old certificate.

A certificate cannot be recalled, but it names its node, and the log names the nodes that are gone. What this cannot do: a node holds
the authority's key (see `pki`), so one that fell into wrong hands can certify itself under any id. Against that helps only a new
authority, and tokens made under it for the nodes that stay. Removal answers the common case: a machine given up or set up anew.

An id that was removed stays removed: a node that comes back takes a new one, and has nothing of its own in the log anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from keycache.domain.errors import PermissionDenied
from keycache.domain.names import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What stands in the log under `removed/<node id>`. `actor`: who removed it, the node itself or an administrator."""

    node: NodeId
    at: datetime
    actor: str


FindRemoval = Callable[[NodeId], Removal | None]
"""Asked at every call of a node: from memory."""


def none_removed(_node: NodeId) -> None:
    """Of a node that works alone."""
    return


def refuse_removed(node: NodeId | None, find: FindRemoval) -> None:
    """Raises PermissionDenied for a node that was removed, and for one whose certificate does not say which node it is."""
    if node is None:
        raise PermissionDenied(
            "This certificate has the role node, but does not say which node.",
            hint="Nodes get their certificates by 'keycache cluster join'.",
        )
    removal = find(node)
    if removal is not None:
        raise PermissionDenied(
            f"Node {node} was removed from the cluster at {removal.at:%Y-%m-%d %H:%M} UTC by {removal.actor}.",
            hint="To take it in again, make a token with 'keycache cluster token' and run 'keycache cluster join' there.",
        )
