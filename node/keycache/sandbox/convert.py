"""What passes between a node and its workers: domain values to and from the messages of sandbox.proto.

Tasks come from the node and are trusted. Answers come from a process that read hostile bytes: `..._from_wire` raise InvalidInput
for whatever no honest worker would say, and the pool takes that for the worker's death.
"""

from __future__ import annotations

from keycache.codec import enum_member, key_from_wire, key_to_wire, optional_moment, timestamp, wire_enum
from keycache.domain.entry import Protocol
from keycache.domain.errors import InvalidInput
from keycache.domain.examination import Direction, DirectionPolicy, Envelope, Examination, Finding, Gate, TrustBase
from keycache.domain.names import Domain, EmailAddress
from keycache.domain.verdict import Verdict
from keycache.v1 import cache_pb2, sandbox_pb2

_OUTCOMES: dict[bool | None, cache_pb2.Gate.Outcome.ValueType] = {
    True: cache_pb2.Gate.PASSED,
    False: cache_pb2.Gate.FAILED,
    None: cache_pb2.Gate.SKIPPED,
}
_PASSED = {outcome: passed for passed, outcome in _OUTCOMES.items()}


def trust_to_wire(base: TrustBase) -> sandbox_pb2.TrustBase:
    return sandbox_pb2.TrustBase(
        anchors=base.anchors,
        approved=base.approved,
        intermediates=base.intermediates,
        crls=base.crls,
        rejected=sorted(base.rejected),
    )


def trust_from_wire(message: sandbox_pb2.TrustBase) -> TrustBase:
    return TrustBase(
        anchors=tuple(message.anchors),
        approved=tuple(message.approved),
        intermediates=tuple(message.intermediates),
        crls=tuple(message.crls),
        rejected=frozenset(message.rejected),
    )


def envelope_to_wire(envelope: Envelope) -> cache_pb2.Envelope:
    """Not stated is UNKNOWN here as there."""
    return cache_pb2.Envelope(
        direction=wire_enum(envelope.stated),  # type: ignore[arg-type]
        listener=envelope.listener,
        client=envelope.client,
        user=envelope.user,
        mail_from=envelope.mail_from,
        recipients=envelope.recipients,
        received_at=timestamp(envelope.received_at),
    )


def envelope_from_wire(message: cache_pb2.Envelope) -> Envelope:
    """Raises InvalidInput."""
    return Envelope(
        stated=enum_member(Direction, message.direction) or Direction.UNKNOWN,
        listener=message.listener,
        client=message.client,
        user=message.user,
        mail_from=message.mail_from,
        recipients=tuple(message.recipients),
        received_at=optional_moment(message, "received_at"),
    )


def policy_to_wire(policy: DirectionPolicy) -> sandbox_pb2.DirectionPolicy:
    return sandbox_pb2.DirectionPolicy(
        managed_domains=[domain.text for domain in policy.managed_domains],
        inbound_listeners=policy.inbound_listeners,
        outbound_listeners=policy.outbound_listeners,
        internal_networks=policy.internal_networks,
    )


def policy_from_wire(message: sandbox_pb2.DirectionPolicy) -> DirectionPolicy:
    return DirectionPolicy(
        managed_domains=tuple(Domain(text) for text in message.managed_domains),
        inbound_listeners=tuple(message.inbound_listeners),
        outbound_listeners=tuple(message.outbound_listeners),
        internal_networks=tuple(message.internal_networks),
    )


def gate_to_wire(gate: Gate) -> cache_pb2.Gate:
    return cache_pb2.Gate(name=gate.name, outcome=_OUTCOMES[gate.passed], detail=_wire_text(gate.detail))


def gate_from_wire(message: cache_pb2.Gate) -> Gate:
    """Raises InvalidInput."""
    if message.outcome not in _PASSED:
        raise InvalidInput(f"{message.outcome} is no outcome of a gate.")
    return Gate(name=message.name, passed=_PASSED[message.outcome], detail=message.detail)


def finding_to_wire(finding: Finding) -> sandbox_pb2.Finding:
    return sandbox_pb2.Finding(
        protocol=wire_enum(finding.protocol),  # type: ignore[arg-type]
        key=None if finding.key is None else key_to_wire(finding.key),
        verdict="" if finding.verdict is None else finding.verdict.value,
        detail=_wire_text(finding.detail),
        label=_wire_text(finding.label),
        gates=[gate_to_wire(gate) for gate in finding.gates],
    )


def finding_from_wire(message: sandbox_pb2.Finding) -> Finding:
    """Raises InvalidInput."""
    protocol = enum_member(Protocol, message.protocol)
    key = key_from_wire(message.key) if message.HasField("key") else None
    verdict = _verdict(message.verdict)
    if protocol is None or (key is not None and key.protocol is not protocol) or (key is None and verdict is None):
        raise InvalidInput("A finding contradicts itself.")
    return Finding(
        protocol=protocol,
        key=key,
        verdict=verdict,
        detail=message.detail,
        label=message.label,
        gates=tuple(gate_from_wire(gate) for gate in message.gates),
    )


def examination_to_wire(examination: Examination) -> sandbox_pb2.Examination:
    return sandbox_pb2.Examination(
        direction=wire_enum(examination.direction),  # type: ignore[arg-type]
        sender="" if examination.sender is None else examination.sender.text,
        message_id=_wire_text(examination.message_id),
        verdict="" if examination.verdict is None else examination.verdict.value,
        detail=_wire_text(examination.detail),
        findings=[finding_to_wire(finding) for finding in examination.findings],
        chain=examination.chain,
        gates=[gate_to_wire(gate) for gate in examination.gates],
    )


def examination_from_wire(message: sandbox_pb2.Examination) -> Examination:
    """Raises InvalidInput."""
    direction = enum_member(Direction, message.direction)
    verdict = _verdict(message.verdict)
    if direction is None or (verdict is None) != bool(message.findings):
        raise InvalidInput("An examination contradicts itself.")
    return Examination(
        direction=direction,
        sender=EmailAddress.parse(message.sender) if message.sender else None,
        message_id=message.message_id,
        verdict=verdict,
        detail=message.detail,
        findings=tuple(finding_from_wire(finding) for finding in message.findings),
        chain=tuple(message.chain),
        gates=tuple(gate_from_wire(gate) for gate in message.gates),
    )


def _verdict(name: str) -> Verdict | None:
    if not name:
        return None
    verdict = Verdict.__members__.get(name)
    if verdict is None:
        raise InvalidInput("That is no verdict.")
    return verdict


def _wire_text(text: str) -> str:
    """Without surrogates, which no UTF-8 can hold; they stand for undecodable bytes of a mail."""
    return text.encode("utf-8", "replace").decode("utf-8")
