"""Members' records. Each is written by the node it is about and by nobody else, so what a later version says beyond the fields known
here is passed over, not carried along."""

from __future__ import annotations

from keycache.codec import decode, moment, timestamp
from keycache.domain.errors import InvalidInput
from keycache.domain.membership import Member, Witness
from keycache.domain.names import NodeId, Revision
from keycache.v1 import record_pb2


def encode_member(member: Member) -> bytes:
    return record_pb2.Member(
        node_id=member.node_id.text,
        address=member.address,
        version=member.version,
        started_at=timestamp(member.started_at),
        clock=timestamp(member.clock),
        applied_revision=member.applied,
        purge_state=member.purge_state,
        purge_reason=member.purge_reason,
        purge_waiting=member.purge_waiting,
        clock_trusted=member.clock_trusted,
        outbox=member.outbox,
    ).SerializeToString(deterministic=True)


def decode_member(value: bytes) -> Member:
    """Raises InvalidInput, also when it does not say when it was written: no clock is better than one of 1970."""
    message = decode(record_pb2.Member, value)
    if not message.HasField("clock"):
        raise InvalidInput("A member's record lacks its clock.")
    return Member(
        node_id=NodeId(message.node_id),
        address=message.address,
        version=message.version,
        started_at=moment(message.started_at),
        clock=moment(message.clock),
        applied=Revision(message.applied_revision),
        purge_state=message.purge_state,
        purge_reason=message.purge_reason,
        purge_waiting=message.purge_waiting,
        clock_trusted=message.clock_trusted,
        outbox=message.outbox,
    )


def encode_witness(witness: Witness) -> bytes:
    return record_pb2.Witness(
        node_id=witness.node_id.text, address=witness.address, version=witness.version, at=timestamp(witness.at)
    ).SerializeToString(deterministic=True)


def decode_witness(value: bytes) -> Witness:
    """Raises InvalidInput."""
    message = decode(record_pb2.Witness, value)
    return Witness(node_id=NodeId(message.node_id), address=message.address, version=message.version, at=moment(message.at))
