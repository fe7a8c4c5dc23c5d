"""Records of who may join, of who belongs to the cluster, and of who is gone."""

from __future__ import annotations

from datetime import datetime

from keycache.codec import decode, enum_member, moment, timestamp, wire_enum
from keycache.domain.errors import InvalidInput
from keycache.domain.join_token import Joiner, TokenRecord, TokenState
from keycache.domain.log import authority_report_key, member_key, node_key, removed_key, witness_key
from keycache.domain.names import NodeId
from keycache.domain.nodes import ClusterNode
from keycache.domain.removal import Removal
from keycache.v1 import record_pb2


def encode_token(record: TokenRecord) -> bytes:
    message = record_pb2.JoinToken(
        id=record.id,
        secret_sha256=record.secret_sha256,
        created_at=timestamp(record.created_at),
        created_by=record.created_by,
        expires_at=timestamp(record.expires_at),
        state=wire_enum(record.state),  # type: ignore[arg-type]
    )
    if record.used_by is not None:
        message.used_by, message.used_by_key = record.used_by.node.text, record.used_by.key
        message.used_at.CopyFrom(timestamp(record.used_at))  # type: ignore[arg-type]
    return message.SerializeToString(deterministic=True)


def decode_token(value: bytes) -> TokenRecord:
    """Raises InvalidInput, also when a time or the state is missing: a token that cannot be read in full lets nobody in."""
    message = decode(record_pb2.JoinToken, value)
    state = enum_member(TokenState, message.state)
    if state is None or not message.HasField("expires_at") or not message.HasField("created_at"):
        raise InvalidInput(f"The record of token {message.id!r} lacks its state or a time.", hint="Make a new token.")
    used = state is TokenState.USED
    return TokenRecord(
        id=message.id,
        secret_sha256=message.secret_sha256,
        created_at=moment(message.created_at),
        created_by=message.created_by,
        expires_at=moment(message.expires_at),
        used_by=Joiner(node=NodeId(message.used_by), key=message.used_by_key) if used else None,
        used_at=moment(message.used_at) if used else None,
    )


def token_used(value: bytes, joiner: Joiner, *, at: datetime) -> bytes:
    """The record again, used by `joiner`. What a later version wrote into it stays there. Raises InvalidInput."""
    message = decode(record_pb2.JoinToken, value)
    message.state = record_pb2.JoinToken.USED
    message.used_by, message.used_by_key = joiner.node.text, joiner.key
    message.used_at.CopyFrom(timestamp(at))  # type: ignore[arg-type]
    return message.SerializeToString(deterministic=True)


def encode_removal(removal: Removal) -> bytes:
    return record_pb2.Removal(node_id=removal.node.text, at=timestamp(removal.at), actor=removal.actor).SerializeToString(
        deterministic=True
    )


def removal_changes(removal: Removal) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """What the log is to hold of a node that is gone, and what it is to hold no more: puts and deletes of one transaction."""
    node = removal.node
    return {removed_key(node): encode_removal(removal)}, (
        node_key(node),
        witness_key(node),
        member_key(node),
        authority_report_key(node),
    )


def decode_removal(value: bytes) -> Removal:
    """Raises InvalidInput."""
    message = decode(record_pb2.Removal, value)
    return Removal(node=NodeId(message.node_id), at=moment(message.at), actor=message.actor)


def encode_node(node: ClusterNode) -> bytes:
    return record_pb2.ClusterNode(
        node_id=node.node.text,
        address=node.address,
        joined_at=timestamp(node.joined_at),
        etcd_client_url=node.etcd_client_url,
        etcd_peer_url=node.etcd_peer_url,
        leaving=node.leaving,
    ).SerializeToString(deterministic=True)


def decode_node(value: bytes) -> ClusterNode:
    """Raises InvalidInput."""
    message = decode(record_pb2.ClusterNode, value)
    return ClusterNode(
        node=NodeId(message.node_id),
        address=message.address,
        joined_at=moment(message.joined_at),
        etcd_client_url=message.etcd_client_url,
        etcd_peer_url=message.etcd_peer_url,
        leaving=message.leaving,
    )


def node_leaving(value: bytes, *, leaving: bool = True) -> bytes:
    """The record again, of a node that leaves, or does not after all. What a later version wrote into it stays there. Raises
    InvalidInput."""
    message = decode(record_pb2.ClusterNode, value)
    message.leaving = leaving
    return message.SerializeToString(deterministic=True)
