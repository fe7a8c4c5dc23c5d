"""The nodes that belong to a cluster, whether they run now or not: `nodes/<node id>` in the log.

Written by the founder for itself and by the host of a join for the joiner; taken out when a node leaves or is removed. Membership
(a word under a lease) tells who lives, this who belongs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from keycache.domain.names import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNode:
    """`address`: host:port of its gRPC as others reach it. `etcd_client_url`, `etcd_peer_url`: https://host:port of its own etcd; empty
    where it runs none. `leaving`: somebody said that it goes."""

    node: NodeId
    address: str
    joined_at: datetime
    etcd_client_url: str = ""
    etcd_peer_url: str = ""
    leaving: bool = False
