"""Domain values to and from the records of the log and the pipes of the workers.

Fields of a later version survive a round through an older node: what a message holds beyond the fields known here is carried in
the value's `extra` and put back when it is written.

An entry's record is the concatenation of its two halves, field 1 (the key) and the rest. Concatenated protobuf messages merge,
so a replica keeps the halves apart and a lookup passes the key's bytes on without decoding them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from keycache.domain.administration import AuditRecord, Block, BlockKind, Deletion, IssuerDecision, IssuerState
from keycache.domain.entry import Change, Defect, Entry, HeldReason, Issuer, Key, Origin, Protocol, Sighting, Trust
from keycache.domain.errors import InvalidInput
from keycache.domain.names import EmailAddress, Fingerprint
from keycache.domain.settings import SettingChange, Settings, Timeouts
from keycache.v1 import entry_pb2, record_pb2

E = TypeVar("E", bound=Enum)
M = TypeVar("M", bound=Message)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(moment: datetime) -> int:
    """Microseconds since the epoch, exact."""
    return (moment - EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


def timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    seconds, fraction = divmod(to_us(moment), 1_000_000)
    return Timestamp(seconds=seconds, nanos=fraction * 1000)


def moment(stamp: Timestamp) -> datetime:
    """Raises InvalidInput beyond the calendar."""
    try:
        return EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)
    except OverflowError as error:
        raise InvalidInput(f"{stamp.seconds} seconds since 1970 is not a date.") from error


def optional_moment(message: Message, field: str) -> datetime | None:
    return moment(getattr(message, field)) if message.HasField(field) else None


def duration(span: timedelta) -> Duration:
    """Both parts of one sign, as the type demands."""
    sign = -1 if span < timedelta() else 1
    seconds, fraction = divmod(abs(span) // _MICROSECOND, 1_000_000)
    return Duration(seconds=sign * seconds, nanos=sign * fraction * 1000)


def span(value: Duration) -> timedelta:
    """Raises InvalidInput beyond what a calendar holds."""
    try:
        return timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
    except OverflowError as error:
        raise InvalidInput(f"{value.seconds} seconds is not a usable span of time.") from error


# Wire enums carry their type's name as a prefix and stand in the order of the domain's.
def wire_enum(member: Enum | None) -> int:
    """The number on the wire; None is 0, UNSPECIFIED."""
    return 0 if member is None else list(type(member)).index(member) + 1


def enum_member(enum: type[E], number: int) -> E | None:
    """The member, or None for 0 and for numbers of a later version."""
    members = list(enum)
    return members[number - 1] if 1 <= number <= len(members) else None


def _required(enum: type[E], number: int, what: str) -> E:
    member = enum_member(enum, number)
    if member is None:
        raise InvalidInput(f"{number} is not a known {what}.", hint="It may come from a later version; upgrade this node.")
    return member


def _optional(enum: type[E], number: int, what: str) -> E | None:
    """None for 0 only: a defect that this version does not know must not pass for none at all."""
    return None if number == 0 else _required(enum, number, what)


def _extra(message: Message) -> bytes:
    """The encoded fields of `message` that this version does not know. Empties the known ones."""
    for descriptor, _ in message.ListFields():
        message.ClearField(descriptor.name)
    return message.SerializeToString(deterministic=True)


def decode(kind: type[M], data: bytes) -> M:
    """Raises InvalidInput when the bytes are no such message."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidInput(f"These bytes are not a {kind.__name__}.") from error


def _issuer_to_wire(issuer: Issuer) -> entry_pb2.Issuer:
    message = entry_pb2.Issuer.FromString(issuer.extra)
    message.id, message.name, message.certificate = issuer.id, issuer.name, issuer.certificate
    return message


def _issuer_from_wire(message: entry_pb2.Issuer) -> Issuer:
    rest = entry_pb2.Issuer()
    rest.CopyFrom(message)
    return Issuer(id=message.id, name=message.name, certificate=message.certificate, extra=_extra(rest))


def key_to_wire(key: Key) -> entry_pb2.Key:
    message = entry_pb2.Key.FromString(key.extra)
    message.protocol = wire_enum(key.protocol)  # type: ignore[assignment]
    message.fingerprint = key.fingerprint.text
    message.material = key.material
    message.addresses.extend(address.text for address in key.addresses)
    message.names.extend(key.names)
    message.trust = wire_enum(key.trust)  # type: ignore[assignment]
    message.held = wire_enum(key.held)  # type: ignore[assignment]
    if key.issuer is not None:
        message.issuer.CopyFrom(_issuer_to_wire(key.issuer))
    message.defect = wire_enum(key.defect)  # type: ignore[assignment]
    for field, value in (("not_before", key.not_before), ("not_after", key.not_after), ("evidence_at", key.evidence_at)):
        if value is not None:
            getattr(message, field).CopyFrom(timestamp(value))
    message.capabilities.extend(key.capabilities)
    message.prefer_encrypt = key.prefer_encrypt
    message.algorithm = key.algorithm
    return message


def key_from_wire(message: entry_pb2.Key) -> Key:
    """Raises InvalidInput."""
    rest = entry_pb2.Key()
    rest.CopyFrom(message)
    return Key(
        protocol=_required(Protocol, message.protocol, "protocol"),
        fingerprint=Fingerprint.parse(message.fingerprint),
        material=message.material,
        addresses=tuple(EmailAddress.parse(address) for address in message.addresses),
        names=tuple(message.names),
        trust=_required(Trust, message.trust, "trust"),
        held=_optional(HeldReason, message.held, "reason to hold a key"),
        issuer=_issuer_from_wire(message.issuer) if message.HasField("issuer") else None,
        not_before=optional_moment(message, "not_before"),
        not_after=optional_moment(message, "not_after"),
        defect=_optional(Defect, message.defect, "defect of a key"),
        evidence_at=optional_moment(message, "evidence_at"),
        capabilities=tuple(message.capabilities),
        prefer_encrypt=message.prefer_encrypt,
        algorithm=message.algorithm,
        extra=_extra(rest),
    )


def sighting_to_wire(sighting: Sighting) -> entry_pb2.Sighting:
    message = entry_pb2.Sighting.FromString(sighting.extra)
    message.origin = wire_enum(sighting.origin)  # type: ignore[assignment]
    message.source = sighting.source
    message.cached_at.CopyFrom(timestamp(sighting.cached_at))  # type: ignore[arg-type]
    message.refreshed_at.CopyFrom(timestamp(sighting.refreshed_at))  # type: ignore[arg-type]
    return message


def sighting_from_wire(message: entry_pb2.Sighting) -> Sighting:
    """Raises InvalidInput, also when a time is missing: a missing time read as 1970 would expire the key."""
    if not message.HasField("cached_at") or not message.HasField("refreshed_at"):
        raise InvalidInput("A sighting lacks cached_at or refreshed_at.")
    rest = entry_pb2.Sighting()
    rest.CopyFrom(message)
    return Sighting(
        origin=_required(Origin, message.origin, "origin"),
        source=message.source,
        cached_at=moment(message.cached_at),
        refreshed_at=moment(message.refreshed_at),
        extra=_extra(rest),
    )


def _change_to_wire(change: Change) -> entry_pb2.Change:
    message = entry_pb2.Change.FromString(change.extra)
    message.at.CopyFrom(timestamp(change.at))  # type: ignore[arg-type]
    message.what, message.by = change.what, change.by
    return message


def _change_from_wire(message: entry_pb2.Change) -> Change:
    rest = entry_pb2.Change()
    rest.CopyFrom(message)
    return Change(at=moment(message.at), what=message.what, by=message.by, extra=_extra(rest))


def entry_to_wire(entry: Entry) -> entry_pb2.Entry:
    message = entry_pb2.Entry.FromString(entry.extra)
    message.key.CopyFrom(key_to_wire(entry.key))
    message.sightings.extend(sighting_to_wire(sighting) for sighting in entry.sightings)
    message.history.extend(_change_to_wire(change) for change in entry.history)
    return message


def entry_from_wire(message: entry_pb2.Entry) -> Entry:
    """Raises InvalidInput, naming what is wrong with the entry."""
    sightings = tuple(sighting_from_wire(sighting) for sighting in message.sightings)
    rest = entry_pb2.Entry()
    rest.CopyFrom(message)
    try:
        return Entry(
            key=key_from_wire(message.key),
            sightings=tuple(sorted(sightings, key=lambda one: list(Origin).index(one.origin))),
            history=tuple(_change_from_wire(change) for change in message.history),
            extra=_extra(rest),
        )
    except ValueError as error:
        raise InvalidInput(f"This entry cannot be: {error}.") from error


def encode_entry(entry: Entry) -> bytes:
    """The record's bytes; equal entries give equal bytes."""
    return entry_to_wire(entry).SerializeToString(deterministic=True)


def decode_entry(value: bytes) -> Entry:
    return entry_from_wire(decode(entry_pb2.Entry, value))


def halves(message: entry_pb2.Entry) -> tuple[bytes, bytes]:
    """Of an entry's record: the encoded Key, and the record without it. Takes the key out of `message`."""
    key = message.key.SerializeToString(deterministic=True)
    message.ClearField("key")
    return key, message.SerializeToString(deterministic=True)


def entry_of_halves(key: bytes, rest: bytes) -> Entry:
    message = decode(entry_pb2.Entry, rest)
    message.key.CopyFrom(decode(entry_pb2.Key, key))
    return entry_from_wire(message)


def settings_to_wire(settings: Settings) -> record_pb2.Settings:
    message = record_pb2.Settings.FromString(settings.extra)
    message.harvested_timeout.CopyFrom(duration(settings.timeouts.harvested))
    message.looked_up_timeout.CopyFrom(duration(settings.timeouts.looked_up))
    message.imported_timeout.CopyFrom(duration(settings.timeouts.imported))
    message.purge_hold_share = settings.purge_hold_share
    message.purge_hold_floor = settings.purge_hold_floor
    message.clock_skew_bound.CopyFrom(duration(settings.clock_skew_bound))
    return message


def settings_from_wire(message: record_pb2.Settings) -> Settings:
    """Raises InvalidInput when a field is missing or out of range: nothing is assumed in its place (DESIGN 2.3)."""
    for field in ("harvested_timeout", "looked_up_timeout", "imported_timeout", "clock_skew_bound"):
        if not message.HasField(field):
            raise InvalidInput(f"The settings lack {field}.", hint="Nothing is removed until they are whole again.")
    rest = record_pb2.Settings()
    rest.CopyFrom(message)
    return Settings(
        timeouts=Timeouts(
            harvested=span(message.harvested_timeout),
            looked_up=span(message.looked_up_timeout),
            imported=span(message.imported_timeout),
        ),
        purge_hold_share=message.purge_hold_share,
        purge_hold_floor=message.purge_hold_floor,
        clock_skew_bound=span(message.clock_skew_bound),
        extra=_extra(rest),
    )


def encode_settings(settings: Settings) -> bytes:
    return settings_to_wire(settings).SerializeToString(deterministic=True)


def decode_settings(value: bytes) -> Settings:
    return settings_from_wire(decode(record_pb2.Settings, value))


def setting_change_to_wire(change: SettingChange) -> record_pb2.SettingChange:
    return record_pb2.SettingChange(
        at=timestamp(change.at), actor=change.actor, name=change.name, old=change.old, new=change.new
    )


def setting_change_from_wire(message: record_pb2.SettingChange) -> SettingChange:
    return SettingChange(at=moment(message.at), actor=message.actor, name=message.name, old=message.old, new=message.new)


def block_to_wire(block: Block) -> record_pb2.Block:
    return record_pb2.Block(
        kind=wire_enum(block.kind),  # type: ignore[arg-type]
        value=block.value,
        until=timestamp(block.until),
        reason=block.reason,
        by=block.by,
        at=timestamp(block.at),
    )


def block_from_wire(message: record_pb2.Block) -> Block:
    return Block(
        kind=_required(BlockKind, message.kind, "kind of block"),
        value=message.value,
        until=optional_moment(message, "until"),
        reason=message.reason,
        by=message.by,
        at=moment(message.at),
    )


def issuer_to_wire(decision: IssuerDecision) -> record_pb2.IssuerDecision:
    return record_pb2.IssuerDecision(
        id=decision.id,
        name=decision.name,
        state=wire_enum(decision.state),  # type: ignore[arg-type]
        certificate=decision.certificate,
        by=decision.by,
        at=timestamp(decision.at),
    )


def issuer_from_wire(message: record_pb2.IssuerDecision) -> IssuerDecision:
    return IssuerDecision(
        id=message.id,
        name=message.name,
        state=_required(IssuerState, message.state, "state of an issuer"),
        certificate=message.certificate,
        by=message.by,
        at=moment(message.at),
    )


def audit_to_wire(record: AuditRecord) -> record_pb2.AuditRecord:
    return record_pb2.AuditRecord(
        at=timestamp(record.at), actor=record.actor, action=record.action, subject=record.subject, detail=record.detail
    )


def audit_from_wire(message: record_pb2.AuditRecord) -> AuditRecord:
    return AuditRecord(
        at=moment(message.at),
        actor=message.actor,
        action=message.action,
        subject=message.subject,
        detail=message.detail,
    )


def deletion_to_wire(deletion: Deletion) -> record_pb2.Deletion:
    return record_pb2.Deletion(at=timestamp(deletion.at), actor=deletion.actor)


def deletion_from_wire(message: record_pb2.Deletion) -> Deletion:
    """Raises InvalidInput without a time: read as 1970 it would hold nothing back."""
    if not message.HasField("at"):
        raise InvalidInput("A deletion lacks its time.")
    return Deletion(at=moment(message.at), actor=message.actor)
