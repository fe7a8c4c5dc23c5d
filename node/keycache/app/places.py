"""Where a node is reached, as far as its configuration and its machine tell."""

from __future__ import annotations

from keycache.config import Config, Endpoint
from keycache.domain.join_token import HostPort
from keycache.domain.names import NodeId
from keycache.forming.desk import Place
from keycache.pki import machine_names
from keycache.services.server import Server

ETCD_CLIENT_PORT, ETCD_PEER_PORT = 7650, 7651

_ANY = frozenset({"0.0.0.0", "::"})  # noqa: S104 -- no names for a certificate


def certificate_names(config: Config) -> tuple[str, ...]:
    """For the node's certificate."""
    client, peer = etcd_places(config)
    names = (*config.listen.names, config.listen.grpc.host, client.host, peer.host, *machine_names())
    return tuple(name for name in dict.fromkeys(names) if name not in _ANY)


def etcd_places(config: Config) -> tuple[Endpoint, Endpoint]:
    """Where others reach the etcd that this node runs for a cluster of its own."""
    host = (config.cluster.address or reached_at(config.listen.grpc)).host
    return (
        config.cluster.etcd_client or Endpoint(host, ETCD_CLIENT_PORT),
        config.cluster.etcd_peer or Endpoint(host, ETCD_PEER_PORT),
    )


def place_of(config: Config, node: NodeId, number: str, server: Server) -> Place:
    """Once the server's ports are open."""
    client, peer = etcd_places(config)
    grpc = config.cluster.address or reached_at(Endpoint(config.listen.grpc.host, server.ports[0]))
    join = None
    if config.listen.join is not None and server.join_port is not None:
        there = reached_at(Endpoint(config.listen.join.host, server.join_port))
        join = HostPort(grpc.host if config.listen.join.host in _ANY else there.host, there.port)
    return Place(
        data_dir=config.data_dir,
        node=node,
        version=number,
        names=certificate_names(config),
        grpc=HostPort(grpc.host, grpc.port),
        etcd_client=str(client),
        etcd_peer=str(peer),
        configured=bool(config.cluster.endpoints),
        join=join,
        listen_join="" if config.listen.join is None else str(config.listen.join),
    )


def reached_at(listen: Endpoint) -> Endpoint:
    """Where others reach what listens there, as far as one can guess."""
    host = next(iter(machine_names()), listen.host) if listen.host in _ANY else listen.host
    return Endpoint(host, listen.port)
