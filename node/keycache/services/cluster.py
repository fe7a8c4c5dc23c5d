"""The service `Cluster`: the nodes that share a log, and the way on for one that refused it."""

from __future__ import annotations

from typing import Any

import grpc

from keycache.cache import KeyCache
from keycache.services import convert
from keycache.services.auth import Caller
from keycache.services.calls import Calls
from keycache.v1 import cluster_pb2 as pb

NAME = pb.DESCRIPTOR.services_by_name["Cluster"].full_name


class ClusterService:
    def __init__(self, cache: KeyCache) -> None:
        self._cache = cache

    def handlers(self, calls: Calls) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        return {
            "ListMembers": calls.unary(f"/{NAME}/ListMembers", pb.ListMembersRequest, self.list_members),
            "Check": calls.unary(f"/{NAME}/Check", pb.CheckRequest, self.check),
            "Resolve": calls.unary(f"/{NAME}/Resolve", pb.ResolveRequest, self.resolve),
        }

    async def list_members(self, _request: pb.ListMembersRequest, _caller: Caller) -> pb.ListMembersResponse:
        members = self._cache.cluster.members()
        return pb.ListMembersResponse(
            members=[convert.listed_member(member) for member in members], revision=self._cache.lookups.revision
        )

    async def check(self, _request: pb.CheckRequest, _caller: Caller) -> pb.CheckResponse:
        return convert.check_response(await self._cache.check(), self._cache.warnings())

    async def resolve(self, request: pb.ResolveRequest, caller: Caller) -> pb.ResolveResponse:
        way, waiting = convert.way(request.way), self._cache.cluster.waiting
        resolved = await self._cache.resolving.resolve(way, caller.name, dry_run=request.dry_run)
        return convert.resolve_response(resolved, outbox=waiting)
