"""A connection to one node that takes up new certificates.

gRPC channels cannot change their certificate (grpc#41779), so when one of the three files changes a new channel is built for the
calls that follow, while calls on the old one end in peace. Files are looked at when a call begins, at most every few seconds. A
pair that does not fit together, as in the middle of being replaced, is left for the next look.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from keycache.client.errors import translated
from keycache.domain.errors import ConfigError, KeycacheError
from keycache.v1.admin_pb2_grpc import AdminStub
from keycache.v1.cache_pb2_grpc import KeyCacheStub
from keycache.v1.cluster_pb2_grpc import ClusterStub

if TYPE_CHECKING:  # they stand in the .pyi alone
    from keycache.v1.admin_pb2_grpc import AdminAsyncStub
    from keycache.v1.cache_pb2_grpc import KeyCacheAsyncStub
    from keycache.v1.cluster_pb2_grpc import ClusterAsyncStub

CALL_TIMEOUT = 60.0
"""Seconds. A harvest of a message at every limit takes a worker's whole time budget; this is beyond it."""
FILE_CHECK_SECONDS = 5.0
OLD_CHANNEL_GRACE = 300.0

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_send_message_length", -1),  # the node has the limit, and says so
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),  # finds a node that vanished while a watch is silent
    ("grpc.keepalive_timeout_ms", 10_000),
    # By itself gRPC leaves a node that was away alone for up to two minutes; one that goes over is back after a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # how long one attempt may take
)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """PEM files of a client: the node's CA, the client's certificate and private key."""

    ca: Path
    certificate: Path
    key: Path

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """What changes when a file does. Raises OSError."""
        states = [path.stat() for path in (self.ca, self.certificate, self.key)]
        return tuple((state.st_mtime_ns, state.st_size, state.st_ino) for state in states)

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises ConfigError for files that are missing, unreadable or do not fit together."""
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(self.ca)
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
            return grpc.ssl_channel_credentials(self.ca.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes())
        except ssl.SSLError as error:
            raise ConfigError(
                f"{self.ca}, {self.certificate} and {self.key} are not a CA, a certificate and its private key in PEM.",
                hint="Get a client certificate with 'keycache client issue' on the node.",
            ) from error
        except OSError as error:
            files = (self.ca, self.certificate, self.key)
            culprit = next((path for path in files if not os.access(path, os.R_OK) or path.is_dir()), self.key)
            raise ConfigError(
                f"Cannot read {culprit}: {error.strerror or error}.",
                hint="Name the node's data directory, or CA, certificate and key; run it as the user they belong to.",
            ) from error


class Connection:
    """Calls to one node. Made by `connect`; used in one event loop."""

    def __init__(self, target: str, files: Files, *, check_seconds: float = FILE_CHECK_SECONDS) -> None:
        """Raises ConfigError for unusable files. Connects with the first call."""
        self.target = target
        self._files = files
        self._check_seconds = check_seconds
        self._loop = asyncio.get_running_loop()
        self._closing: set[asyncio.Task[None]] = set()
        self._stamp = self._look()
        self._open(files.credentials())

    def _open(self, credentials: grpc.ChannelCredentials) -> None:
        self._channel = grpc.aio.secure_channel(self.target, credentials, options=OPTIONS)
        self._cache = KeyCacheStub(self._channel)
        self._admin = AdminStub(self._channel)
        self._cluster = ClusterStub(self._channel)
        self._looked_at = self._loop.time()

    @property
    def cache(self) -> KeyCacheAsyncStub:
        """What mail processors call."""
        self._refresh()
        return self._cache

    @property
    def admin(self) -> AdminAsyncStub:
        """What administrators call."""
        self._refresh()
        return self._admin

    @property
    def cluster(self) -> ClusterAsyncStub:
        """What administrators call about the nodes that share a log."""
        self._refresh()
        return self._cluster

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        timeout: float | None = CALL_TIMEOUT,  # noqa: ASYNC109 -- it goes to the node as the call's deadline
    ) -> Response:
        """One request, one answer. Raises KeycacheError."""
        with translated(self.target):
            return await method(request, timeout=timeout)

    async def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 -- as above
    ) -> AsyncIterator[Response]:
        """One request, many answers. Raises KeycacheError. Leaving the loop early ends the call."""
        call = method(request, timeout=timeout)
        try:
            with translated(self.target):
                async for response in call:
                    yield response
        finally:
            call.cancel()

    async def health(self) -> AsyncIterator[bool]:
        """Whether the node is ready, at once and whenever that changes. Raises KeycacheError when it is lost."""
        self._refresh()
        watch = self._channel.unary_stream(
            f"/{_HEALTH}/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        async for answer in self.stream(watch, health_pb2.HealthCheckRequest()):
            yield answer.status == health_pb2.HealthCheckResponse.SERVING

    async def exchange(
        self,
        method: grpc.aio.StreamStreamMultiCallable[Request, Response],
        requests: AsyncIterator[Request],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 -- as above
    ) -> AsyncIterator[Response]:
        """Many requests, many answers, each as soon as there is one. Raises KeycacheError, and what `requests` raises, after the
        answers to what it yielded before."""
        failures: list[Exception] = []
        call = method(_noting(requests, failures), timeout=timeout)
        endings: list[grpc.aio.AioRpcError] = []
        call.add_done_callback(lambda ended: endings.append(_ending(ended)))
        try:
            with translated(self.target):
                try:
                    async for response in call:
                        yield response
                except grpc.aio.AioRpcError as error:
                    raise endings[0] if endings else error from None
        except KeycacheError:
            if failures:
                raise failures[0] from None
            raise
        finally:
            call.cancel()
        if failures:
            raise failures[0]

    async def close(self) -> None:
        """End all calls."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._channel.close(None)

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        try:
            return self._files.stamp()
        except OSError:
            return ()

    def _refresh(self) -> None:
        """Move to a new channel if the files changed and make sense; the old one ends when its calls have."""
        if self._loop.time() - self._looked_at < self._check_seconds:
            return
        self._looked_at = self._loop.time()
        stamp = self._look()
        if not stamp or stamp == self._stamp:
            return
        try:
            credentials = self._files.credentials()
        except ConfigError:
            return  # half replaced: look again
        old, self._stamp = self._channel, stamp
        self._open(credentials)
        task = self._loop.create_task(old.close(OLD_CHANNEL_GRACE))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


@asynccontextmanager
async def connect(
    target: str, *, ca: str | Path, certificate: str | Path, key: str | Path, check_seconds: float = FILE_CHECK_SECONDS
) -> AsyncIterator[Connection]:
    """A connection to the node at `target` (host:port, IPv6 in brackets). Raises ConfigError for unusable files.

    `check_seconds`: how often, at most, the files are looked at for a change.

    Nothing is sent before the first call, so a node that is down shows there, as Unreachable.
    """
    files = Files(ca=Path(ca), certificate=Path(certificate), key=Path(key))
    connection = Connection(target, files, check_seconds=check_seconds)
    try:
        yield connection
    finally:
        await connection.close()


async def _noting(requests: AsyncIterator[Request], failures: list[Exception]) -> AsyncIterator[Request]:
    """gRPC makes a cancellation of what a request iterator raises: keep it for the caller, and end the requests here."""
    try:
        async for request in requests:
            yield request
    except Exception as error:  # noqa: BLE001 -- `exchange` raises it once the node has answered what came before
        failures.append(error)


def _ending(call: Any) -> grpc.aio.AioRpcError:
    """How a call ends, as the node said. A request that is being sent at that moment fails, and grpc.aio then writes an internal
    error of its own over the node's word, so it must be read as soon as it is there."""
    code, details, trailing = (_at_once(part) for part in (call.code(), call.details(), call.trailing_metadata()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing or grpc.aio.Metadata(), details, None)


def _at_once(answer: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for."""
    try:
        answer.send(None)
    except StopIteration as stop:
        return stop.value
    answer.close()
    raise RuntimeError("a call that has ended does not tell how")


def _no_password() -> bytes:
    """Without this, an encrypted key would ask the terminal."""
    return b""
