"""A node as its callers see it: the shipped flows on the shipped in-memory log and replica, behind real TLS on a free port."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool

from keycache.cache import KeyCache, NodeFacts, Ports, build
from keycache.client import Connection, connect
from keycache.client.connection import OPTIONS
from keycache.clock import ManualClock, SystemClock
from keycache.domain.entry import Key, Protocol
from keycache.domain.examination import Direction, DirectionPolicy, Envelope, Examination, Finding, TrustBase
from keycache.domain.joining import Admitter
from keycache.domain.names import EmailAddress, NodeId
from keycache.domain.removal import FindRemoval, none_removed
from keycache.domain.verdict import Verdict
from keycache.metrics import Metrics
from keycache.pki import Identity, NodePki, Role, open_pki
from keycache.services.server import Server, ServerOptions
from keycache.store.memory import MemoryLog, MemoryOutbox, MemoryReplica
from support.entries import make_key

GRACE = 10.0


class NumberedExaminer:
    """The `Examiner` port for tests of the edges: knows only the keys of `support.entries`.

    A message "key 7" shows key 7 as its sender's; "wait" waits for `go`; "mistake" raises what no examiner should; any other holds
    nothing. Material is the key's own.
    """

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.go = asyncio.Event()
        self.envelopes: list[Envelope] = []

    def trust(self, base: TrustBase) -> None:
        pass

    async def examine(self, message: bytes, envelope: Envelope, policy: DirectionPolicy, now: Any) -> Examination:
        self.envelopes.append(envelope)
        if message == b"mistake":
            raise RuntimeError("the content of a mail")
        if message == b"wait":
            self.waiting.set()
            await self.go.wait()
        verdict: Verdict | None = Verdict.NO_KEY_MATERIAL
        findings: tuple[Finding, ...] = ()
        if message.startswith(b"key "):
            verdict, findings = None, (_finding(int(message[4:])),)
        return Examination(
            direction=Direction.INBOUND,
            sender=EmailAddress.parse("user@example.org"),
            message_id="<1@example.org>",
            verdict=verdict,
            findings=findings,
        )

    async def read_material(self, blob: bytes, addresses: Sequence[EmailAddress], now: Any) -> tuple[Finding, ...]:
        found = [_finding(number) for number in range(50) if make_key(number).material == blob]
        return tuple(found) or (Finding(protocol=Protocol.SMIME, key=None, verdict=Verdict.MALFORMED_KEY, label="file"),)

    async def merge(self, known: Key, seen: Key, now: Any) -> Key:
        return seen


def _finding(number: int) -> Finding:
    return Finding(protocol=Protocol.SMIME, key=make_key(number), verdict=None)


@dataclass
class ServiceNode:
    cache: KeyCache
    server: Server
    pki: NodePki
    clock: ManualClock
    examiner: NumberedExaminer
    metrics: Metrics
    log: MemoryLog
    directory: Path
    stopped: bool = field(default=False)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.server.ports[0]}"

    def files(self, identity: Identity, name: str = "client") -> dict[str, Path]:
        """The identity on disk, as arguments of `connect`."""
        files = {part: self.directory / f"{name}-{part}.pem" for part in ("ca", "certificate", "key")}
        files["ca"].write_bytes(identity.ca)
        files["certificate"].write_bytes(identity.certificate)
        files["key"].write_bytes(identity.key.pem)
        return files

    def client(self, role: Role, *, name: str = "tester", age: timedelta = timedelta(0)) -> Identity:
        """A client's certificate, made `age` ago; of a node it names node `name`."""
        if role is Role.NODE:
            return self.pki.authority.issue_node(NodeId(name), (), now=SystemClock().now() - age)
        return self.pki.authority.issue_client(role, name, now=SystemClock().now() - age)

    @asynccontextmanager
    async def connected(self, role: Role = Role.ADMIN, *, name: str = "tester") -> AsyncIterator[Connection]:
        async with connect(self.target, **self.files(self.client(role, name=name), f"{role.value}-{name}")) as connection:
            yield connection

    async def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            await self.server.stop(GRACE)


@asynccontextmanager
async def service_node(
    directory: Path, *, admitter: Admitter | None = None, removed: FindRemoval = none_removed, **options: Any
) -> AsyncIterator[ServiceNode]:
    """A running node. `admitter`, `removed` as in Server, `options` as in ServerOptions."""
    now = SystemClock().now()
    clock, log, examiner = ManualClock(now), MemoryLog(), NumberedExaminer()
    ports = Ports(
        log=log,
        replica=MemoryReplica(),
        outbox=MemoryOutbox(),
        examiner=examiner,
        clock=clock,
        offload=asyncio.to_thread,
    )
    facts = NodeFacts(node_id=NodeId("test"), version="0.0")
    metrics = Metrics(version="0.0")
    cache = build(ports, facts, on_removed=metrics.purged)
    cache.journal.on_verdict = metrics.message
    pki = open_pki(directory / "pki", names=(), now=now)
    server = Server(
        cache=cache,
        signer=pki,
        identity=pki.server,
        clock=clock,
        metrics=metrics,
        options=ServerOptions(listen=("127.0.0.1:0",), **options),
        admitter=admitter,
        removed=removed,
    )
    ready = asyncio.Event()
    running = asyncio.create_task(cache.run(ready))
    node = ServiceNode(cache, server, pki, clock, examiner, metrics, log, directory)
    try:
        await asyncio.wait_for(ready.wait(), 10)
        await server.start()
        server.ready()
        yield node
    finally:
        examiner.go.set()
        await node.stop()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def channel(node: ServiceNode, identity: Identity) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(identity.ca, identity.key.pem, identity.certificate)
    return grpc.aio.secure_channel(node.target, credentials, options=OPTIONS)


async def said(channel: grpc.aio.Channel, rpc: str, request: bytes = b"", within: float = 10) -> tuple[grpc.StatusCode, str]:
    """What one call ends with; a stream's first answer is good enough."""
    method = descriptor_pool.Default().FindMethodByName(rpc[1:].replace("/", "."))
    make = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, True): channel.stream_stream,
    }[method.client_streaming, method.server_streaming]
    call = make(rpc)([request] if method.client_streaming else request, timeout=within)
    try:
        if method.server_streaming:
            if await call.read() is grpc.aio.EOF:  # type: ignore[attr-defined]  # missing in grpc-stubs
                return await call.code(), await call.details() or ""  # the end of a stream may be heard before its status
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    if call.done():
        return await call.code(), await call.details() or ""
    call.cancel()
    return grpc.StatusCode.OK, ""
