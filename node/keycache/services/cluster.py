"""The service `Cluster`: the nodes that share a log, the way on for one that refused it, and how there come to be more of them."""

from __future__ import annotations

from typing import Any

import grpc

from keycache.cache import KeyCache
from keycache.codec import timestamp
from keycache.codec.admission import access_from_wire
from keycache.domain.authority import Authorities
from keycache.domain.errors import Refused
from keycache.domain.forming import Begun, ExternalEtcd, Forming
from keycache.domain.join_token import TTL_DEFAULT, TokenRecord
from keycache.services import convert
from keycache.services.auth import Caller
from keycache.services.authority import AuthorityCalls
from keycache.services.calls import Calls
from keycache.v1 import cluster_pb2 as pb

NAME = pb.DESCRIPTOR.services_by_name["Cluster"].full_name


class ClusterService:
    def __init__(self, cache: KeyCache, forming: Forming | None, authorities: Authorities | None = None) -> None:
        """`forming` None: this node neither makes nor enters clusters. `authorities` None: nor is its authority changed."""
        self._authorities = authorities
        self._cache = cache
        self._forming = forming

    def handlers(self, calls: Calls) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        return {
            "ListMembers": calls.unary(f"/{NAME}/ListMembers", pb.ListMembersRequest, self.list_members),
            "Check": calls.unary(f"/{NAME}/Check", pb.CheckRequest, self.check),
            "Resolve": calls.unary(f"/{NAME}/Resolve", pb.ResolveRequest, self.resolve),
            "Create": calls.unary(f"/{NAME}/Create", pb.CreateRequest, self.create),
            "JoinCluster": calls.unary(f"/{NAME}/JoinCluster", pb.JoinClusterRequest, self.join_cluster),
            "LeaveCluster": calls.unary(f"/{NAME}/LeaveCluster", pb.LeaveClusterRequest, self.leave_cluster),
            "RecoverCluster": calls.unary(f"/{NAME}/RecoverCluster", pb.RecoverClusterRequest, self.recover_cluster),
            "RemoveNode": calls.unary(f"/{NAME}/RemoveNode", pb.RemoveNodeRequest, self.remove_node),
            "CreateToken": calls.unary(f"/{NAME}/CreateToken", pb.CreateTokenRequest, self.create_token),
            "ListTokens": calls.unary(f"/{NAME}/ListTokens", pb.ListTokensRequest, self.list_tokens),
            "RevokeToken": calls.unary(f"/{NAME}/RevokeToken", pb.RevokeTokenRequest, self.revoke_token),
            **AuthorityCalls(self._authorities).handlers(calls),
        }

    async def list_members(self, _request: pb.ListMembersRequest, _caller: Caller) -> pb.ListMembersResponse:
        members = self._cache.cluster.members()
        return pb.ListMembersResponse(
            members=[convert.listed_member(member) for member in members], revision=self._cache.lookups.revision
        )

    async def check(self, _request: pb.CheckRequest, _caller: Caller) -> pb.CheckResponse:
        report = await self._cache.check()
        warnings = dict.fromkeys((*self._cache.warnings(), *await self._cache.foresight.cautions(report)))
        return convert.check_response(report, warnings)

    async def resolve(self, request: pb.ResolveRequest, caller: Caller) -> pb.ResolveResponse:
        way, waiting = convert.way(request.way), self._cache.cluster.waiting
        resolved = await self._cache.resolving.resolve(way, caller.name, dry_run=request.dry_run)
        return convert.resolve_response(resolved, outbox=waiting)

    async def create(self, request: pb.CreateRequest, _caller: Caller) -> pb.FormingResponse:
        etcd = None
        if request.etcd_endpoints:
            access = access_from_wire(request.etcd_access) if request.HasField("etcd_access") else None
            etcd = ExternalEtcd(endpoints=tuple(request.etcd_endpoints), access=access)
        skip = frozenset(request.skip_checks)
        return _begun(await self._desk().create(request.name, etcd=etcd, dry_run=request.dry_run, skip=skip))

    async def join_cluster(self, request: pb.JoinClusterRequest, _caller: Caller) -> pb.FormingResponse:
        skip = frozenset(request.skip_checks)
        return _begun(await self._desk().join(request.token, dry_run=request.dry_run, skip=skip, discard=request.discard_local))

    async def leave_cluster(self, request: pb.LeaveClusterRequest, _caller: Caller) -> pb.FormingResponse:
        return _begun(await self._desk().leave(dry_run=request.dry_run))

    async def recover_cluster(self, request: pb.RecoverClusterRequest, _caller: Caller) -> pb.FormingResponse:
        return _begun(await self._desk().recover(dry_run=request.dry_run, skip=frozenset(request.skip_checks)))

    async def remove_node(self, request: pb.RemoveNodeRequest, caller: Caller) -> pb.RemoveNodeResponse:
        return pb.RemoveNodeResponse(node_id=await self._desk().remove(request.node, caller.name))

    async def create_token(self, request: pb.CreateTokenRequest, caller: Caller) -> pb.CreateTokenResponse:
        ttl = request.ttl.ToTimedelta() if request.HasField("ttl") else TTL_DEFAULT
        made = await self._desk().make_token(ttl, caller.name)
        return pb.CreateTokenResponse(token=made.text, listed=_listed(made.record))

    async def list_tokens(self, _request: pb.ListTokensRequest, _caller: Caller) -> pb.ListTokensResponse:
        return pb.ListTokensResponse(tokens=[_listed(record) for record in self._cache.tokens.known()])

    async def revoke_token(self, request: pb.RevokeTokenRequest, caller: Caller) -> pb.RevokeTokenResponse:
        await self._cache.tokens.revoke(request.id, caller.name)
        return pb.RevokeTokenResponse()

    def _desk(self) -> Forming:
        if self._forming is None:
            raise Refused("This node neither makes nor enters clusters.")
        return self._forming


def _begun(begun: Begun) -> pb.FormingResponse:
    checks = [pb.FormingCheck(name=one.name, passed=one.passed, detail=one.detail) for one in begun.checks]
    return pb.FormingResponse(cluster=begun.cluster, checks=checks, entries=begun.entries)


def _listed(record: TokenRecord) -> pb.ListedToken:
    return pb.ListedToken(
        id=record.id,
        created_at=timestamp(record.created_at),
        created_by=record.created_by,
        expires_at=timestamp(record.expires_at),
        used_by="" if record.used_by is None else record.used_by.node.text,
    )
