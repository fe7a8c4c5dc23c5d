"""A joiner's calls to its host: no certificate of its own, but the authority that `pki.bootstrap` found to be the token's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc

from keycache.client.connection import OPTIONS
from keycache.client.errors import translated
from keycache.codec.admission import application_to_wire, greeting_from_wire, progress_from_wire
from keycache.domain.join_token import HostPort
from keycache.domain.joining import Application, Greeting, JoinProgress
from keycache.v1 import join_pb2 as pb
from keycache.v1.join_pb2_grpc import JoinStub

if TYPE_CHECKING:
    from keycache.v1.join_pb2_grpc import JoinAsyncStub

PING_TIMEOUT = 10.0
"""Seconds, as for looking at a host (`pki.bootstrap`)."""


class JoinConnection:
    def __init__(self, target: str, stub: JoinAsyncStub) -> None:
        self._target = target
        self._stub = stub

    async def ping(self) -> Greeting:
        """Raises KeycacheError."""
        with translated(self._target):
            return greeting_from_wire(await self._stub.Ping(pb.PingRequest(), timeout=PING_TIMEOUT))

    async def join(self, application: Application) -> AsyncGenerator[JoinProgress, None]:
        """Progress until the admission or the report of a dry run. Raises KeycacheError. Closing it early ends the join at the host.

        No deadline: a host waits for etcd as long as it takes, and says so; keepalive finds one that is gone.
        """
        call = self._stub.Join(application_to_wire(application))
        try:
            with translated(self._target):
                async for message in call:
                    yield progress_from_wire(message)
        finally:
            call.cancel()


@asynccontextmanager
async def join_connection(endpoint: HostPort, ca: bytes) -> AsyncIterator[JoinConnection]:
    """`ca`: PEM. gRPC verifies the host against it anew, name and all; nothing is sent before the first call."""
    channel = grpc.aio.secure_channel(str(endpoint), grpc.ssl_channel_credentials(ca), options=OPTIONS)
    async with channel:
        yield JoinConnection(str(endpoint), JoinStub(channel))
