"""Managed etcds for tests: specs on free loopback ports with real TLS, run as a node runs them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from keycache.clock import SystemClock
from keycache.cluster.etcd_binary import EtcdBinary, find_etcd
from keycache.cluster.etcd_members import EtcdMembers, Member
from keycache.cluster.etcd_spec import EtcdSpec, HostPort, Peer, TlsPaths
from keycache.cluster.managed_etcd import EtcdState, ManagedEtcd, Pauses
from keycache.etcd.connection import EtcdTls
from support.certificates import Form, authority, certify, name, private_key, usage
from support.etcd import free_port

SOON = Pauses(first=0.05, most=0.2, settled=60)
"""Restarts without much waiting."""

START_SECONDS = 40
"""Some 0.3 s; busy machines have been seen to need 5."""


NODE_NAME = "node.keycache.internal"
"""In the certificates of nodes alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTls:
    """PEM files: an authority, a node's certificate for all it does, and a mail processor's by the same authority."""

    ca: Path
    node: Path
    node_key: Path
    processor: Path
    processor_key: Path

    @property
    def client(self) -> EtcdTls:
        """As the node asks its etcd."""
        return EtcdTls(ca=self.ca.read_bytes(), certificate=self.node.read_bytes(), key=self.node_key.read_bytes())

    @property
    def processor_client(self) -> EtcdTls:
        return EtcdTls(ca=self.ca.read_bytes(), certificate=self.processor.read_bytes(), key=self.processor_key.read_bytes())


def make_tls(folder: Path, *, root: str = "Cluster Root") -> NodeTls:
    """Write them into `folder`, under the names of the fields. `root`: another name is another authority."""
    folder.mkdir(parents=True, exist_ok=True)
    now = SystemClock().now()
    span = {"not_before": now - timedelta(days=1), "not_after": now + timedelta(days=30)}
    issuer = authority(root, **span)
    both = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    forms: dict[str, tuple[tuple[x509.ObjectIdentifier, ...], tuple[x509.GeneralName, ...]]] = {
        "node": (both, (x509.IPAddress(IPv4Address("127.0.0.1")), x509.DNSName(NODE_NAME))),
        "processor": (both[1:], (x509.UniformResourceIdentifier("urn:keycache:role:mail-processor"),)),
    }
    paths = {"ca": folder / "ca.crt"}
    paths["ca"].write_bytes(issuer.pem)
    for role, (purposes, names) in forms.items():
        key = private_key("p256", len(role))
        form = Form(
            subject=name(role), key=key, usage=usage("digital_signature"), purposes=purposes, alternatives=names, **span
        )
        identity = certify(form, issuer)
        paths |= {role: folder / f"{role}.crt", f"{role}_key": folder / f"{role}.key"}
        paths[role].write_bytes(identity.pem)
        paths[f"{role}_key"].write_bytes(identity.key_pem)
    return NodeTls(**paths)


def make_spec(folder: Path, member: str, files: NodeTls, *, others: Sequence[Member] = (), **changes: object) -> EtcdSpec:
    """A member of its own, or one that was added to `others` (all that are listed, itself included: `changes['peer']` is its own)."""
    peer = changes.get("peer") or HostPort("127.0.0.1", free_port())
    assert isinstance(peer, HostPort)
    tls = TlsPaths(certificate=files.node, key=files.node_key, ca=files.ca, allowed_name=NODE_NAME)
    cluster = [Peer(name=other.name, url=other.peer_urls[0]) for other in others if other.has_started]
    values = {
        "name": member,
        "data_dir": folder / member,
        "client": HostPort("127.0.0.1", free_port()),
        "client_tls": tls,
        "peer_tls": tls,
        "initial_cluster": (*cluster, Peer(name=member, url=peer.url)),
        "is_new": not others,
        "token": "test",
        **changes,
        "peer": peer,
    }
    return EtcdSpec(**values)


@contextlib.asynccontextmanager
async def running(spec: EtcdSpec, files: NodeTls, *, healthy: bool = True) -> AsyncIterator[ManagedEtcd]:
    """As a node runs it; ended in order on leaving."""
    etcd = ManagedEtcd(spec, await installed(), files.client, pauses=SOON)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(etcd.run())
        try:
            if healthy:
                await etcd.wait_until_healthy(START_SECONDS)
            yield etcd
        finally:
            await etcd.stop()
            await task
    assert etcd.state is EtcdState.STOPPED


_found: list[EtcdBinary] = []


async def installed() -> EtcdBinary:
    """Asked once: each asking starts a process."""
    if not _found:
        _found.append(await find_etcd())
    return _found[0]


@contextlib.asynccontextmanager
async def members_of(*specs: EtcdSpec, files: NodeTls) -> AsyncIterator[EtcdMembers]:
    members = EtcdMembers([spec.client.url for spec in specs], files.client)
    try:
        yield members
    finally:
        await members.close()


async def until(condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Asked again and again; a test that hangs here fails."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 -- what it asks of sends no events
            await asyncio.sleep(0.02)
