"""The host's side of a join for tests of the edge: a node with a cluster's certificates, and an `Admitter` that follows a script."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc

from keycache.clock import SystemClock
from keycache.domain.join_token import ENTROPY_BYTES, HostPort, JoinToken
from keycache.domain.joining import (
    Admission,
    Applicant,
    Application,
    Check,
    Doing,
    DryRun,
    EtcdAccess,
    EtcdMember,
    EtcdMode,
    Greeting,
    JoinProgress,
)
from keycache.domain.names import ClusterIdentity, NodeId, Revision
from keycache.domain.secret import Secret
from keycache.domain.settings import Settings
from keycache.pki import NodePki, open_pki
from keycache.services.server import Certificates

NOON = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)

APPLICATION = Application(
    token_id="0a1b2c3d",
    secret=Secret(b"s" * 16),
    csr=b"-----BEGIN CERTIFICATE REQUEST-----",
    applicant=Applicant(
        node=NodeId("b"),
        version="1.0",
        names=("b.example", "192.0.2.8"),
        grpc=HostPort("b.example", 7640),
        etcd_client=HostPort("b.example", 7650),
        etcd_peer=HostPort("2001:db8::8", 7651),
        clock=NOON,
        entries=7,
    ),
)
ADMISSION = Admission(
    cluster="mail",
    identity=ClusterIdentity("identity"),
    ca=b"ca",
    ca_key=Secret(b"the authority's key"),
    certificate=b"certificate",
    etcd_mode=EtcdMode.EXTERNAL,
    etcd_members=(
        EtcdMember(
            id="8e9e05c52164694d", name="a", peer_urls=("https://a:7651",), client_urls=("https://a:7650",), learner=True
        ),
    ),
    etcd_access=EtcdAccess(ca=b"etcd's ca", certificate=b"etcd's certificate", key=Secret(b"etcd's key")),
    settings=Settings(),
    clock=NOON,
    clock_skew_bound=timedelta(minutes=2),
    digest="digest",
    revision=Revision(42),
    entries=1000,
)
CHECKS = DryRun(
    checks=(Check(name="token", passed=True, detail="good"), Check(name="versions", passed=False, detail="too old")),
    settings=Settings(),
    etcd_mode=EtcdMode.EXTERNAL,
    etcd_endpoints=("https://a:7650",),
    entries=1000,
)


class ScriptedAdmitter:
    """Greets, then tells `progress`; an exception among it is raised. `ended`: how many applications are over."""

    def __init__(self, *progress: JoinProgress | Exception) -> None:
        self.progress = progress or (Doing("Checking the token."), ADMISSION)
        self.applications: list[Application] = []
        self.ended = 0

    def greet(self) -> Greeting:
        return Greeting(version="1.0", clock=NOON)

    async def admit(self, application: Application) -> AsyncGenerator[JoinProgress, None]:
        self.applications.append(application)
        try:
            for step in (CHECKS,) if application.dry_run else self.progress:
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            self.ended += 1


def host_pki(directory: Path, *names: str, now: datetime | None = None) -> NodePki:
    return open_pki(directory / "pki", names=names, now=now or SystemClock().now(), node=NodeId("a"))


def token_for(pki: NodePki, *ports: int, host: str = "127.0.0.1") -> JoinToken:
    endpoints = [HostPort(host, port) for port in ports]
    return JoinToken.new(bytes(range(ENTROPY_BYTES)), endpoints=endpoints, authority=bytes.fromhex(pki.authority.id))


@asynccontextmanager
async def listening(credentials: grpc.ServerCredentials) -> AsyncIterator[int]:
    """A gRPC server that knows no call, on a free port."""
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


def joining_host(pki: NodePki) -> Any:
    """As a node's `listen.join` looks from outside."""
    return listening(Certificates(pki.server).join_credentials())
