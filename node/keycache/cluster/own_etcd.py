"""The etcd that a node runs for its cluster, made of what the node is."""

from __future__ import annotations

from pathlib import Path

from keycache.cluster.etcd_binary import find_etcd
from keycache.cluster.etcd_spec import EtcdSpec, HostPort, Peer, TlsPaths
from keycache.cluster.managed_etcd import ManagedEtcd, check_free
from keycache.domain.names import NodeId
from keycache.domain.standing import Standing
from keycache.etcd.connection import EtcdTls
from keycache.pki import NodePki
from keycache.pki.authority import NODE_HOST

DIRECTORY = "etcd"
_EVERYWHERE = "0.0.0.0"  # noqa: S104 -- for a host that is named and not numbered: etcd listens on addresses only


def host_port(text: str) -> HostPort:
    """From host:port, an IPv6 address in brackets."""
    host, _, port = text.rpartition(":")
    return HostPort(host.strip("[]"), int(port))


def listening(where: HostPort) -> HostPort:
    """What the socket for `where` is bound to."""
    return where if where.is_address else HostPort(_EVERYWHERE, where.port)


def check_places(*where: HostPort, join: str = "") -> None:
    """Raises ConfigError when etcd could not listen there, or the node on `join` for those that join (host:port; empty: it does not)."""
    for one in where:
        check_free(listening(one))
    if join:
        check_free(listening(host_port(join)), "The node, for nodes that join (listen.join),")


def tls_of(pki: NodePki) -> EtcdTls:
    """As a node shows itself to the etcd of its cluster."""
    return EtcdTls(ca=pki.trusted, certificate=pki.server.certificate, key=pki.server.key.pem)


async def own_etcd(standing: Standing, *, data_dir: Path, node: NodeId, pki: NodePki, quota: int) -> ManagedEtcd | None:
    """None: this node runs none. `quota`: bytes, 0 for etcd's default. Raises ConfigError: no etcd that will do is installed."""
    if not standing.etcd_client:
        return None
    client, peer = host_port(standing.etcd_client), host_port(standing.etcd_peer)
    tls = TlsPaths(certificate=pki.etcd_file, key=pki.etcd_file, ca=pki.trusted_file, allowed_name=NODE_HOST)
    spec = EtcdSpec(
        name=node.text,
        data_dir=data_dir / DIRECTORY,
        client=client,
        peer=peer,
        listen_host="" if client.is_address and peer.is_address else _EVERYWHERE,
        client_tls=tls,
        peer_tls=tls,
        initial_cluster=(Peer(name=node.text, url=peer.url),),
        is_new=True,
        token=standing.cluster,
        **({"quota_bytes": quota} if quota else {}),
    )
    return ManagedEtcd(spec, await find_etcd(), tls_of(pki))
