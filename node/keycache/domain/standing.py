"""How a node belongs to a cluster, by its own written word (`cluster.standing` keeps it). A node without one works alone.

ADOPTING is written BEFORE anything of the cluster is founded or taken: a node that is cut off anywhere finds at its next start what it
was about, and goes on. Its own entries are in its replica all the time, and nothing replaces that before the log has them
(`cache.resolving`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from keycache.domain.joining import EtcdAccess
from keycache.domain.names import ClusterIdentity


class Phase(Enum):
    """ADOPTING: what this node has is brought into the cluster's log. MEMBER: it has been. LEAVING: it is brought into the node's own."""

    ADOPTING = "ADOPTING"
    MEMBER = "MEMBER"
    LEAVING = "LEAVING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`identity`: of the log that is to be founded here, or was found. `endpoints`: URLs of etcd. `etcd_client`, `etcd_peer`: host:port of
    the etcd that this node runs itself; empty: none. `authority`: of a node that joined, the hash in its token (hex). `founded`: this node
    began the cluster (while it leaves: and is the last in it). `external`: others run etcd; `access`: to
    that, None: without TLS. `discard`: an administrator said that this node's own entries are to be forgotten."""

    cluster: str
    identity: ClusterIdentity
    phase: Phase
    endpoints: tuple[str, ...]
    etcd_client: str = ""
    etcd_peer: str = ""
    authority: str = ""
    founded: bool = False
    external: bool = False
    access: EtcdAccess | None = None
    discard: bool = False
