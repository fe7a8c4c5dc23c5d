"""Of the service `Cluster`: the authority that certifies nodes and clients, and its change."""

from __future__ import annotations

from typing import Any

import grpc

from keycache.codec import enum_member, timestamp
from keycache.domain.authority import Authorities, AuthorityStatus, Confirmation
from keycache.domain.errors import InvalidInput, Refused
from keycache.services.auth import Caller
from keycache.services.calls import Calls
from keycache.v1 import cluster_pb2 as pb

NAME = pb.DESCRIPTOR.services_by_name["Cluster"].full_name


class AuthorityCalls:
    def __init__(self, authorities: Authorities | None) -> None:
        self._known = authorities

    def handlers(self, calls: Calls) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        def rpc(name: str) -> str:
            return f"/{NAME}/{name}"

        return {
            "GetAuthority": calls.unary(rpc("GetAuthority"), pb.GetAuthorityRequest, self.get),
            "BeginAuthorityChange": calls.unary(rpc("BeginAuthorityChange"), pb.BeginAuthorityChangeRequest, self.begin),
            "ConfirmAuthorityChange": calls.unary(
                rpc("ConfirmAuthorityChange"), pb.ConfirmAuthorityChangeRequest, self.confirm
            ),
            "WithdrawAuthorityChange": calls.unary(
                rpc("WithdrawAuthorityChange"), pb.WithdrawAuthorityChangeRequest, self.withdraw
            ),
            "FetchNextAuthority": calls.unary(rpc("FetchNextAuthority"), pb.FetchNextAuthorityRequest, self.fetch_next),
        }

    async def get(self, _request: pb.GetAuthorityRequest, _caller: Caller) -> pb.AuthorityResponse:
        return _told(self._authorities.status())

    async def begin(self, _request: pb.BeginAuthorityChangeRequest, caller: Caller) -> pb.AuthorityResponse:
        return _told(await self._authorities.begin(caller.name))

    async def confirm(self, request: pb.ConfirmAuthorityChangeRequest, caller: Caller) -> pb.AuthorityResponse:
        what = enum_member(Confirmation, request.what)
        if what is None:
            raise InvalidInput("It must be clear what is confirmed.", hint="Say CLIENTS_TRUST or CLIENTS_RENEWED.")
        return _told(await self._authorities.confirm(what, caller.name))

    async def withdraw(self, _request: pb.WithdrawAuthorityChangeRequest, caller: Caller) -> pb.AuthorityResponse:
        return _told(await self._authorities.withdraw(caller.name))

    async def fetch_next(self, request: pb.FetchNextAuthorityRequest, _caller: Caller) -> pb.FetchNextAuthorityResponse:
        certificate, key = await self._authorities.hand_out(request.following)
        return pb.FetchNextAuthorityResponse(certificate=certificate, key=key.reveal())

    @property
    def _authorities(self) -> Authorities:
        if self._known is None:
            raise Refused("The authority of this node cannot be changed.")
        return self._known


def _told(status: AuthorityStatus) -> pb.AuthorityResponse:
    change = status.change
    return pb.AuthorityResponse(
        signing=status.signing,
        ends_at=timestamp(status.ends_at),
        step=status.step.value,
        following="" if change is None else change.following,
        begun_at=None if change is None else timestamp(change.begun_at),
        begun_by="" if change is None else change.begun_by,
        waits=status.waits,
        nodes=[pb.AuthorityNode(node_id=one.node.text, address=one.address, there=one.there) for one in status.nodes],
        former_clients=sorted(status.former_clients),
        ca=status.ca,
    )
