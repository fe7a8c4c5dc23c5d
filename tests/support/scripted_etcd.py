"""An endpoint that speaks etcd's protocol and says what a test tells it to: for what a real one says only when it is in bad trouble."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from aetcd import rpc

Failing = tuple[grpc.StatusCode, str]
NO_LEADER = (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
TOO_MANY_REQUESTS = (grpc.StatusCode.UNKNOWN, "etcdserver: too many requests")
LEASE_NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found")


class ScriptedEtcd(rpc.KV, rpc.Lease):  # type: ignore[misc]
    """Transactions fail by `script`, one after the other; when it is at its end they succeed, at revision 1. `always`: then fail by
    this instead. `asked`: the requests so far. Leases are granted by number and always alive."""

    def __init__(self, *script: Failing, always: Failing | None = None) -> None:
        self._script = list(script)
        self.always = always
        self.asked: list[Any] = []
        self.leases = 0
        self.endpoint = ""

    @classmethod
    @asynccontextmanager
    async def run(cls, *script: Failing, always: Failing | None = None) -> AsyncIterator[ScriptedEtcd]:
        one = cls(*script, always=always)
        server = grpc.aio.server()
        rpc.rpc_pb2_grpc.add_KVServicer_to_server(one, server)
        rpc.rpc_pb2_grpc.add_LeaseServicer_to_server(one, server)
        one.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            yield one
        finally:
            await server.stop(None)

    def fail_next(self, failing: Failing) -> None:
        self._script.append(failing)

    async def Txn(self, request: Any, context: Any) -> Any:  # noqa: N802 -- as the service has it
        self.asked.append(request)
        failing = self._script.pop(0) if self._script else self.always
        if failing is not None:
            await context.abort(*failing)
        ranges = [rpc.ResponseOp(response_range=rpc.RangeResponse()) for _ in request.success]
        return rpc.TxnResponse(header=rpc.ResponseHeader(revision=1), succeeded=True, responses=ranges)

    async def LeaseGrant(self, request: Any, context: Any) -> Any:  # noqa: N802 -- as the service has it
        self.leases += 1
        return rpc.LeaseGrantResponse(ID=self.leases, TTL=request.TTL)

    async def LeaseKeepAlive(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 -- as the service has it
        async for request in requests:
            yield rpc.LeaseKeepAliveResponse(ID=request.ID, TTL=15)
