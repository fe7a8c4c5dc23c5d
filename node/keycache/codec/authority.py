"""Records of a change of the authority. Nodes follow it together, so what a later version adds is kept when one amends it."""

from __future__ import annotations

from keycache.codec import decode, enum_member, moment, timestamp, wire_enum
from keycache.domain.errors import InvalidInput
from keycache.domain.names import NodeId
from keycache.domain.rotation import AuthorityChange, AuthorityReport, Step
from keycache.v1 import record_pb2


def encode_change(change: AuthorityChange, *, over: bytes = b"") -> bytes:
    """`over`: the record as it was, if there was one."""
    message = decode(record_pb2.AuthorityChange, over)
    message.former, message.following, message.certificate = change.former, change.following, change.certificate
    message.step = wire_enum(change.step)  # type: ignore[assignment]
    message.begun_at.CopyFrom(timestamp(change.begun_at))  # type: ignore[arg-type]
    message.begun_by = change.begun_by
    message.clients_trust, message.clients_renewed = change.clients_trust, change.clients_renewed
    return message.SerializeToString(deterministic=True)


def decode_change(value: bytes) -> AuthorityChange:
    """Raises InvalidInput, also for a step of a later version: then nothing is done."""
    message = decode(record_pb2.AuthorityChange, value)
    step = enum_member(Step, message.step)
    if step is None:
        raise InvalidInput(
            "The change of the authority is at a step that this version does not know.", hint="Upgrade this node."
        )
    return AuthorityChange(
        former=message.former,
        following=message.following,
        certificate=message.certificate,
        step=step,
        begun_at=moment(message.begun_at),
        begun_by=message.begun_by,
        clients_trust=message.clients_trust,
        clients_renewed=message.clients_renewed,
    )


def encode_report(report: AuthorityReport) -> bytes:
    return record_pb2.AuthorityReport(
        node_id=report.node.text,
        signing=report.signing,
        trusted=sorted(report.trusted),
        shown=report.shown,
        former_clients=sorted(report.former_clients),
    ).SerializeToString(deterministic=True)


def decode_report(value: bytes) -> AuthorityReport:
    """Raises InvalidInput."""
    message = decode(record_pb2.AuthorityReport, value)
    return AuthorityReport(
        node=NodeId(message.node_id),
        signing=message.signing,
        trusted=frozenset(message.trusted),
        shown=message.shown,
        former_clients=frozenset(message.former_clients),
    )
