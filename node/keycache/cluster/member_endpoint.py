"""One member of etcd as an administrator asks it: the log's own endpoint, with the calls about members beside it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from aetcd import rpc

from keycache.domain.errors import KeycacheError, LogUnavailable
from keycache.domain.names import Revision
from keycache.etcd.connection import Endpoint, EtcdTls, Unconnected
from keycache.etcd.errors import Failure, explain

CALL_SECONDS = 5.0
"""etcdctl's --command-timeout. Adding and promoting wait for a majority's disks."""

_RECEIVE_BYTES = 4 * 1024 * 1024
"""gRPC's own default: answers about members are small."""

_ALONE = "A majority of its members must be up and reach each other: check them, and the firewalls between them."

Method = Callable[["MemberEndpoint"], Callable[..., Awaitable[Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """What a member says of itself. Sizes in bytes: `db_size` on disk, `db_in_use` without the free pages. `leader`: 0 if none.

    `problems`: alarms and the like, in etcd's words.
    """

    member_id: int
    leader: int
    is_learner: bool
    version: str
    db_size: int
    db_in_use: int
    raft_index: int
    revision: Revision
    problems: tuple[str, ...]

    @property
    def leads(self) -> bool:
        return self.leader == self.member_id


class MemberEndpoint(Endpoint):
    """`url`: the member's client URL."""

    def __init__(self, url: str, tls: EtcdTls | None) -> None:
        super().__init__(url, tls, _RECEIVE_BYTES)
        self.cluster = rpc.ClusterStub(self._channel)

    async def attempt(self, method: Method, request: Any, *, seconds: float = CALL_SECONDS) -> Any | Failure:
        """The answer, or why there is none."""
        try:
            await self.connect()
            return await method(self)(request, timeout=seconds)
        except Unconnected as error:
            return error.failure
        except grpc.aio.AioRpcError as error:
            return explain(error.code(), error.details(), self.url)

    async def ask(self, method: Method, request: Any, *, seconds: float = CALL_SECONDS) -> Any:
        """The answer. Raises what `keycache.etcd.errors` makes of a refusal."""
        answer = await self.attempt(method, request, seconds=seconds)
        if isinstance(answer, Failure):
            raise answer.error
        return answer

    async def look(self) -> MemberStatus:
        """Learners answer this, too, and members without a leader. Raises as `ask`."""
        answer = await self.ask(lambda end: end.maintenance.Status, rpc.StatusRequest())
        return MemberStatus(
            member_id=answer.header.member_id,
            leader=answer.leader,
            is_learner=answer.isLearner,
            version=answer.version,
            db_size=answer.dbSize,
            db_in_use=answer.dbSizeInUse,
            raft_index=answer.raftIndex,
            revision=Revision(answer.header.revision),
            problems=tuple(answer.errors),
        )

    async def trouble(self) -> KeycacheError | None:
        """None if it is well: a voter reads through the quorum, as etcd's own /health does; a learner has a leader."""
        try:
            status = await self.look()
            if not status.leader:
                return LogUnavailable(f"etcd at {self.url} has no leader: it reaches no majority of the members.", hint=_ALONE)
            if not status.is_learner:
                await self.ask(lambda end: end.kv.Range, rpc.RangeRequest(key=b"health", count_only=True))
        except KeycacheError as error:
            return error
        return None
