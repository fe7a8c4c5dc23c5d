"""grpc.health.v1 for the node ("") and each of its services. One state for all: what serves one serves the others.

Our own servicer of a few lines, because the library's never ends its watches, so that every graceful stop would take its whole
grace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb

from keycache.domain.errors import NotFound
from keycache.services.auth import Caller
from keycache.services.calls import Calls

NAME = pb.DESCRIPTOR.services_by_name["Health"].full_name

_SERVING = pb.HealthCheckResponse.SERVING
_NOT_SERVING = pb.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN


class HealthService:
    """Not serving until told otherwise."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = frozenset(("", *services))
        self._serving = False
        self._changed = asyncio.Event()

    def handlers(self, calls: Calls) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        return {
            "Check": calls.unary(f"/{NAME}/Check", pb.HealthCheckRequest, self.check),
            "List": calls.unary(f"/{NAME}/List", pb.HealthListRequest, self.list_services),
            "Watch": calls.stream(f"/{NAME}/Watch", pb.HealthCheckRequest, self.watch, endless=True),
        }

    def set(self, *, serving: bool) -> None:
        """Tell everybody who watches."""
        self._serving = serving
        self._changed.set()
        self._changed = asyncio.Event()

    async def check(self, request: pb.HealthCheckRequest, _caller: Caller) -> pb.HealthCheckResponse:
        if request.service not in self._services:
            raise NotFound(f"There is no service {request.service[:80]!r} here.")
        return self._response(request.service)

    async def list_services(self, _request: pb.HealthListRequest, _caller: Caller) -> pb.HealthListResponse:
        return pb.HealthListResponse(statuses={service: self._response(service) for service in sorted(self._services)})

    async def watch(self, request: pb.HealthCheckRequest, _caller: Caller) -> AsyncGenerator[pb.HealthCheckResponse, None]:
        """The present state, then every other. A service that is not here is SERVICE_UNKNOWN, as the protocol wants it."""
        told: pb.HealthCheckResponse | None = None
        while True:
            changed, response = self._changed, self._response(request.service)
            if response != told:
                yield response
                told = response
            await changed.wait()

    def _response(self, service: str) -> pb.HealthCheckResponse:
        if service not in self._services:
            return pb.HealthCheckResponse(status=_SERVICE_UNKNOWN)
        return pb.HealthCheckResponse(status=_SERVING if self._serving else _NOT_SERVING)
