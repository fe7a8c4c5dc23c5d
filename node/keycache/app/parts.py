"""What a node is built of, for those who build and those who change it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from keycache.cache import KeyCache
from keycache.cluster.external_etcd import access_tls
from keycache.cluster.own_etcd import tls_of
from keycache.cluster.standing import StandingFile
from keycache.config import Cluster
from keycache.domain.names import ClusterIdentity, NodeId
from keycache.domain.standing import Standing
from keycache.etcd.client import EtcdClient
from keycache.etcd.connection import EtcdTls
from keycache.etcd.log import EtcdLog
from keycache.etcd.monitor import EtcdMonitor
from keycache.forming.authority import AuthorityKeeper
from keycache.forming.desk import FormingDesk, Place
from keycache.forming.seating import SeatKeeper
from keycache.metrics import HttpServer
from keycache.pki import LivePki, NodePki, write_private
from keycache.pki.files import read
from keycache.services.server import Server

NODE_ID_FILE = "node-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The log that this node shares, and the eye on what carries it."""

    log: EtcdLog
    monitor: EtcdMonitor
    client: EtcdClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What was built. `shared` None: the node works alone. `keeper` None: or others run etcd. `turning`: it is to be built anew."""

    cache: KeyCache
    server: Server
    http: HttpServer
    pki: LivePki
    shared: Shared | None
    keeper: SeatKeeper | None
    authorities: AuthorityKeeper
    desk: FormingDesk
    standing: StandingFile
    own_log: ClusterIdentity
    place: Callable[[], Place]
    turning: asyncio.Event


def cluster_log(standing: Standing, pki: NodePki) -> Shared:
    client = EtcdClient(standing.endpoints, access_tls(standing.access) if standing.external else tls_of(pki))
    return Shared(log=EtcdLog(client, standing.cluster), monitor=EtcdMonitor(client), client=client)


def configured_log(cluster: Cluster) -> Shared | None:
    if not cluster.endpoints:
        return None
    client = EtcdClient(cluster.endpoints, configured_tls(cluster))
    return Shared(log=EtcdLog(client, cluster.name), monitor=EtcdMonitor(client), client=client)


def configured_tls(cluster: Cluster) -> EtcdTls | None:
    """As its files are now. Raises ConfigError."""
    if cluster.ca is None:
        return None
    files = (cluster.ca, cluster.certificate, cluster.key)
    ca, certificate, key = (b"" if path is None else read(path) or b"" for path in files)
    return EtcdTls(ca=ca, certificate=certificate, key=key)


def node_id_of(data_dir: Path) -> NodeId:
    """Made at the first start, kept until the node leaves a cluster."""
    path = data_dir / NODE_ID_FILE
    known = (read(path) or b"").decode("ascii", "replace").strip()
    if not known:
        known = str(uuid.uuid4())
        write_private(path, known.encode() + b"\n")
    return NodeId(known)
