"""One endpoint of etcd: its channel and the stubs on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio
from aetcd import rpc

from keycache.domain.errors import ConfigError, LogUnavailable
from keycache.etcd.errors import Failure, Outcome, explain

CONNECT_SECONDS = 1.0
"""For TCP and TLS: some ten round trips between continents. What takes longer is tried elsewhere."""

RECEIVE_BYTES = 64 * 1024 * 1024
"""One answer at most: 32 of the largest records (1.5 MiB, etcd's --max-request-bytes) and some room."""

REQUIRE_LEADER = (("hasleader", "true"),)
"""A member that lost its leader then refuses at once and breaks its watches off, instead of staying silent (etcd's clientv3)."""

_OPTIONS = (
    ("grpc.max_send_message_length", -1),  # etcd says what is too large
    # etcd hangs up on pings more frequent than one in 5 s (--grpc-keepalive-min-time).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # A member that is back is found within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),  # `client` decides what may be sent twice
    ("grpc.enable_http_proxy", 0),  # what the environment has for the web is not for this
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),  # a channel made anew connects anew, with the certificates it was given
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdTls:
    """PEM. `ca`: of the authority that signed etcd's certificates. `certificate` and `key`: this node's own, empty if etcd asks for
    none."""

    ca: bytes
    certificate: bytes = b""
    key: bytes = field(default=b"", repr=False)


RETIRED_SECONDS = 60.0
"""A channel lives on for so long beside the one that took its place: longer than any call on it but a watch, which goes over by itself."""


class Unconnected(Exception):
    """No connection came to be, so nothing of a request has left."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error.text)
        self.failure = failure


class Endpoint:
    """`url`: http://HOST:PORT or https://HOST:PORT. Belongs to the event loop in which it is made. `leases` and the like: stubs."""

    def __init__(self, url: str, tls: EtcdTls | None, receive_bytes: int) -> None:
        self.url = url
        self.is_retired = False
        options = (*_OPTIONS, ("grpc.max_receive_message_length", receive_bytes))
        target = target_of(url)
        if url.startswith("https:"):
            pair = (tls.key, tls.certificate) if tls is not None and tls.certificate else (None, None)
            credentials = grpc.ssl_channel_credentials(tls.ca if tls is not None else None, *pair)
            self._channel = grpc.aio.secure_channel(target, credentials, options=options)
        else:
            self._channel = grpc.aio.insecure_channel(target, options=options)
        self.kv = rpc.KVStub(self._channel)
        self.watches = rpc.WatchStub(self._channel)
        self.leases = rpc.LeaseStub(self._channel)
        self.maintenance = rpc.MaintenanceStub(self._channel)

    async def connect(self) -> None:
        """Return once there is a connection. Raises Unconnected with the reason."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                state = self._channel.get_state(try_to_connect=True)
                while state is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        await self._ask_why()
                        return
                    await self._channel.wait_for_state_change(state)
                    state = self._channel.get_state(try_to_connect=True)
        except TimeoutError:
            error = LogUnavailable(
                f"etcd at {self.url} accepts no connection within {CONNECT_SECONDS:g} s.",
                hint="Check that it runs and is not stopped, and that no firewall is between.",
            )
            raise Unconnected(Failure(error=error, outcome=Outcome.ELSEWHERE)) from None

    async def _ask_why(self) -> None:
        """Only a call is told the reason; this one does no harm if it gets through after all."""
        try:
            await self.status()
        except grpc.aio.AioRpcError as error:
            failure = explain(error.code(), error.details(), self.url)
            raise Unconnected(Failure(error=failure.error, outcome=Outcome.ELSEWHERE)) from error

    async def status(self, *, seconds: float = CONNECT_SECONDS) -> Any:
        """What the member says of itself, with or without a leader. Raises AioRpcError."""
        return await self.maintenance.Status(rpc.StatusRequest(), timeout=seconds)

    async def keep_alive(self, request: Any, *, timeout: float, metadata: Any) -> Any:  # noqa: ASYNC109 -- as the stubs' methods
        """One lease, once; its answer has TTL 0 if the lease is gone."""
        call = self.leases.LeaseKeepAlive(timeout=timeout, metadata=metadata)
        try:
            await call.write(request)
            answer = await call.read()
            if answer is grpc.aio.EOF:  # type: ignore[attr-defined]  # missing in grpc-stubs
                nothing = grpc.aio.Metadata()
                raise grpc.aio.AioRpcError(await call.code(), nothing, nothing, await call.details(), "")
            return answer
        finally:
            call.cancel()

    async def close(self) -> None:
        with contextlib.suppress(grpc.aio.UsageError):
            await self._channel.close(None)


class Retired:
    """Endpoints in whose place there are others, with other certificates: what is under way on them is finished, then they are closed.

    A channel cannot change its certificate (grpc#41779), and one that etcd has accepted stays good; but it connects again with what
    it was made of, which has an end.
    """

    def __init__(self) -> None:
        self._closing: set[asyncio.Task[None]] = set()

    def add(self, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            endpoint.is_retired = True
            task = asyncio.get_running_loop().create_task(_close_later(endpoint))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Now, whatever is under way."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)


async def _close_later(endpoint: Endpoint) -> None:
    try:
        await asyncio.sleep(RETIRED_SECONDS)
    finally:
        await endpoint.close()


def target_of(url: str) -> str:
    """HOST:PORT, with IPv6 in brackets. Raises ConfigError."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme not in {"http", "https"} or not host or not port or parts.path not in {"", "/"}:
        raise ConfigError(f"{url!r} is not an endpoint of etcd.", hint="Write it as https://HOST:PORT.")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
