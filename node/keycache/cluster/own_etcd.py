"""The etcd that a node runs for its cluster, made of what the node is."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path

from keycache.cluster.etcd_binary import find_etcd
from keycache.cluster.etcd_spec import EtcdSpec, HostPort, Peer, TlsPaths
from keycache.cluster.managed_etcd import EtcdState, ManagedEtcd, check_free
from keycache.domain.errors import ConfigError
from keycache.domain.names import NodeId
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


def put_away(data_dir: Path) -> None:
    """An etcd that no standing speaks of belongs to nothing of now; it is not removed all the same. `data_dir`: of the node. Raises
    ConfigError."""
    directory = data_dir / DIRECTORY
    if directory.exists():
        try:
            directory.rename(directory.with_name(f"{DIRECTORY}.before-{secrets.token_hex(4)}"))
        except OSError as error:
            raise ConfigError(
                f"The data of an earlier etcd in {directory} cannot be put by: {error.strerror}.",
                hint="Move what is in it elsewhere by hand (it may be a disk of its own), then try again.",
            ) from error


class OwnEtcd:
    """At most one process, on one data directory, in the life of one node. `client`, `peer`: host:port as others reach it."""

    def __init__(self, *, token: str, client: str, peer: str, data_dir: Path, node: NodeId, pki: NodePki, quota: int) -> None:
        """`token`: of this lifetime of the cluster: members that are left of an earlier one at the same place must not take it for
        theirs. `data_dir`: of the node. `quota`: bytes, 0 for etcd's default."""
        self.client, self.peer = host_port(client), host_port(peer)
        self._token = token
        self._data_dir = data_dir / DIRECTORY
        self._node = node
        self._pki = pki
        self._quota = quota
        self.trusted: frozenset[str] = frozenset()
        """Authorities whose certificates the running etcd takes: it reads its bundle only when it starts (etcd#11555)."""
        self._etcd: ManagedEtcd | None = None
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()  # the keepers of seats and of the authority know nothing of each other

    @property
    def has_data(self) -> bool:
        return (self._data_dir / "member").exists()

    @property
    def is_started(self) -> bool:
        """Whether somebody looks after it, though the process may have ended."""
        return self._etcd is not None

    @property
    def is_useless(self) -> bool:
        """etcd said that this member was removed: no start of it would help."""
        return self._etcd is not None and self._etcd.state is EtcdState.UNUSABLE

    async def start(self, others: Sequence[Peer] = (), *, found: bool = False) -> None:
        """`others`: the members beside it, if it has no data. `found`: there are none and there is to be a new etcd. Raises ConfigError:
        no etcd that will do is installed."""
        binary = await find_etcd()
        tls = TlsPaths(
            certificate=self._pki.etcd_file, key=self._pki.etcd_file, ca=self._pki.trusted_file, allowed_name=NODE_HOST
        )
        spec = EtcdSpec(
            name=self._node.text,
            data_dir=self._data_dir,
            client=self.client,
            peer=self.peer,
            listen_host="" if self.client.is_address and self.peer.is_address else _EVERYWHERE,
            client_tls=tls,
            peer_tls=tls,
            initial_cluster=(Peer(name=self._node.text, url=self.peer.url), *others),
            is_new=found,
            token=self._token,
            **({"quota_bytes": self._quota} if self._quota else {}),
        )
        self.trusted = self._pki.trusted_ids
        self._etcd = ManagedEtcd(spec, binary, tls_of(self._pki))
        self._task = asyncio.create_task(self._etcd.run(), name="etcd")

    def trust(self, pki: NodePki) -> None:
        """These are the node's certificates from now on. A running etcd shows them at its next handshake."""
        self._pki = pki
        if self._etcd is not None:
            self._etcd.trust(tls_of(pki))

    async def restart(self) -> None:
        """Ended in order and started again: it takes whom the node trusts now. Harmless if it was not started."""
        async with self._turn:
            if self._etcd is not None and self._task is not None:
                await self._etcd.stop()
                await self._task
                self.trusted = self._pki.trusted_ids
                self._task = asyncio.create_task(self._etcd.run(), name="etcd")

    async def wait_until_healthy(self, seconds: float) -> None:
        """As `ManagedEtcd.wait_until_healthy`; at once if it was not started."""
        if self._etcd is not None:
            await self._etcd.wait_until_healthy(seconds)

    async def stop(self) -> None:
        """In order. Harmless if it was not started."""
        async with self._turn:
            if self._etcd is not None and self._task is not None:
                await self._etcd.stop()
                await self._task
            self._etcd = self._task = None

    async def clear(self) -> None:
        """Stop it and remove its data, which etcd has no more use for. Raises ConfigError."""
        etcd = self._etcd
        await self.stop()
        if etcd is not None:
            await etcd.clear()
