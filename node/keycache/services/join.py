"""The service `Join` and its own port: the one place where callers without a certificate are heard.

A server of its own, not a second port of the other: nothing but `Join` is registered on it, so nothing else can be called there whatever
a table says; its limits are those for strangers; and it can be off.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc

from keycache.codec.admission import application_from_wire, greeting_to_wire, progress_to_wire
from keycache.domain.errors import ConfigError
from keycache.domain.joining import Admitter
from keycache.services.auth import Caller
from keycache.services.calls import Calls
from keycache.v1 import join_pb2 as pb

NAME = pb.DESCRIPTOR.services_by_name["Join"].full_name

REQUEST_LIMIT = 64 * 1024
"""Bytes. A request with an RSA-8192 key and 64 long names has 20 KiB."""
CALLS_LIMIT = 16
"""In flight. etcd takes one new member at a time; what comes beyond is refused before it costs a look at the log."""

_OPTIONS = (
    ("grpc.max_receive_message_length", REQUEST_LIMIT),
    ("grpc.so_reuseport", 0),
    ("grpc.max_connection_idle_ms", 60_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class JoinService:
    def __init__(self, admitter: Admitter) -> None:
        self._admitter = admitter

    def handlers(self, calls: Calls) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        return {
            "Ping": calls.unary(f"/{NAME}/Ping", pb.PingRequest, self.ping),
            "Join": calls.stream(f"/{NAME}/Join", pb.JoinRequest, self.join),
        }

    async def ping(self, _request: pb.PingRequest, _caller: Caller) -> pb.PingResponse:
        return greeting_to_wire(self._admitter.greet())

    async def join(self, request: pb.JoinRequest, _caller: Caller) -> AsyncGenerator[pb.JoinProgress, None]:
        async with aclosing(self._admitter.admit(application_from_wire(request))) as progress:
            async for step in progress:
                yield progress_to_wire(step)


class JoinPort:
    """Built, started, stopped once. `port`: what `address` became."""

    def __init__(self, address: str, admitter: Admitter, calls: Calls) -> None:
        self.port = 0
        self._address = address
        self._server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=CALLS_LIMIT)
        handlers = JoinService(admitter).handlers(calls)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))

    async def start(self, credentials: grpc.ServerCredentials) -> None:
        """Raises ConfigError when the address cannot be had."""
        try:
            self.port = self._server.add_secure_port(self._address, credentials)
        except RuntimeError as error:
            raise ConfigError(
                f"Cannot listen on {self._address} for nodes that join.",
                hint='Set listen.join to an address of this machine with a free port, or to "off".',
            ) from error
        await self._server.start()

    async def stop(self, grace: float) -> None:
        await self._server.stop(grace)
