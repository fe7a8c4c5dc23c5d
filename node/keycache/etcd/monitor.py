"""What etcd's members say of themselves, for the status page."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.unknown_fields import UnknownFieldSet

from keycache.domain.capacity import HISTORY_REVISIONS, EtcdEndpoint
from keycache.domain.errors import KeycacheError, LogCompacted
from keycache.domain.names import Revision
from keycache.etcd import transactions
from keycache.etcd.client import EtcdClient
from keycache.etcd.connection import Endpoint, Unconnected
from keycache.etcd.errors import explain

_QUOTA_FIELD = 12
"""`dbSizeQuota` of StatusResponse, since 3.6 (etcd's api/etcdserverpb/rpc.proto); the stubs are older."""

_ALARM = re.compile(r"alarm:([A-Z]+)")
"""A member lists the alarms it knows among its `errors`, as printed messages; asking by the Alarm call would need a quorum."""


class EtcdMonitor:
    """Looks at every endpoint by itself, with or without a quorum. The client stays its owner's to close."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client

    async def endpoints(self) -> tuple[EtcdEndpoint, ...]:
        """In the order the client was given them, within two seconds. Never raises for a member that is not there."""
        return tuple(await asyncio.gather(*(_look_at(one) for one in self._client.endpoints)))

    async def keeps_history(self, *, revisions: int = HISTORY_REVISIONS) -> bool:
        """Whether etcd still holds at least so many old revisions. Raises LogUnavailable."""
        key = b"/keycache/"  # any will do: it is the revision that is asked for
        answer = await self._read([transactions.get(key)])
        old = Revision(answer.header.revision - revisions)
        if old <= 0:
            return False
        try:
            await self._read([transactions.get(key, revision=old)])
        except LogCompacted:
            return False
        return True

    async def _read(self, ranges: Sequence[Any]) -> Any:
        answer = await self._client.call(lambda endpoint: endpoint.kv.Txn, transactions.read(ranges))
        return answer.value


async def _look_at(endpoint: Endpoint) -> EtcdEndpoint:
    try:
        await endpoint.connect()
        status = await endpoint.status()
    except Unconnected as error:
        return _unreachable(endpoint, error.failure.error)
    except grpc.aio.AioRpcError as error:
        return _unreachable(endpoint, explain(error.code(), error.details(), endpoint.url).error)
    return read_status(endpoint.url, status)


def _unreachable(endpoint: Endpoint, error: KeycacheError) -> EtcdEndpoint:
    return EtcdEndpoint(endpoint=endpoint.url, reachable=False, problem=str(error))


def read_status(url: str, status: Any) -> EtcdEndpoint:
    """From etcd's StatusResponse."""
    further: Any = UnknownFieldSet(status)
    quota = next((int(field.data) for field in further if field.field_number == _QUOTA_FIELD), 0)
    found = [_ALARM.search(said) for said in status.errors]
    others = [said for said, alarm in zip(status.errors, found, strict=True) if alarm is None]
    return EtcdEndpoint(
        endpoint=url,
        reachable=True,
        version=status.version,
        leader=status.leader != 0 and status.leader == status.header.member_id,
        learner=status.isLearner,
        db_bytes=status.dbSize,
        db_bytes_in_use=status.dbSizeInUse,
        quota_bytes=quota,
        alarms=tuple(sorted({alarm[1] for alarm in found if alarm is not None})),
        problem="; ".join(others),
    )
