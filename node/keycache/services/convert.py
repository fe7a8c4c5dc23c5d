"""Requests and answers as domain values, and back. What is malformed raises InvalidInput, naming the field."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from enum import Enum
from typing import Any, TypedDict, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from keycache.cache.resolving import Resolved
from keycache.cache.restoring import SettingsFrom, Terms
from keycache.cache.results import (
    ClusterStatus,
    KeyResult,
    Listed,
    ListedIssuer,
    ListedMember,
    MessageResult,
    NodeStatus,
    VerdictLine,
)
from keycache.codec import (
    block_to_wire,
    decode_settings,
    duration,
    entry_to_wire,
    enum_member,
    moment,
    optional_moment,
    settings_to_wire,
    span,
    timestamp,
    wire_enum,
)
from keycache.codec.backup import Source
from keycache.domain.administration import IssuerState
from keycache.domain.capacity import EtcdEndpoint
from keycache.domain.entry import Origin, Protocol, Trust
from keycache.domain.errors import InvalidInput, OutOfRange
from keycache.domain.examination import Direction, Envelope, Gate
from keycache.domain.forming import Comparison
from keycache.domain.log import Record
from keycache.domain.lookup import DEFAULT_FILTER, LookupFilter
from keycache.domain.ports import SortBy
from keycache.domain.restart import RestartReport, Way
from keycache.replication.replicator import Watched
from keycache.v1 import admin_pb2, cache_pb2, cluster_pb2

E = TypeVar("E", bound=Enum)

PAGE_DEFAULT = 100
PAGE_LIMIT = 1_000
_CENTURY = timedelta(days=36_525)

_OUTCOMES = {True: cache_pb2.Gate.PASSED, False: cache_pb2.Gate.FAILED, None: cache_pb2.Gate.SKIPPED}


def optional(enum: type[E], number: int) -> E | None:
    """None for UNSPECIFIED."""
    member = enum_member(enum, number)
    if member is None and number:
        raise InvalidInput(
            f"{number} is not a known {enum.__name__}.", hint="It may come from a later version; upgrade this node."
        )
    return member


def _several(enum: type[E], numbers: Iterable[int], default: frozenset[E]) -> frozenset[E]:
    members = [optional(enum, number) for number in numbers]
    return frozenset(member for member in members if member is not None) or default


def lookup_filter(message: cache_pb2.LookupFilter) -> LookupFilter:
    return LookupFilter(
        protocols=_several(Protocol, message.protocols, DEFAULT_FILTER.protocols),
        origins=_several(Origin, message.origins, DEFAULT_FILTER.origins),
        trusts=_several(Trust, message.trusts, DEFAULT_FILTER.trusts),
    )


def envelope(message: cache_pb2.Envelope) -> Envelope:
    return Envelope(
        stated=optional(Direction, message.direction) or Direction.UNKNOWN,
        listener=message.listener,
        client=message.client,
        user=message.user,
        mail_from=message.mail_from,
        recipients=tuple(message.recipients),
        received_at=optional_moment(message, "received_at"),
    )


def _gates(gates: Iterable[Gate]) -> list[cache_pb2.Gate]:
    return [cache_pb2.Gate(name=gate.name, outcome=_OUTCOMES[gate.passed], detail=gate.detail) for gate in gates]


def key_verdict(result: KeyResult) -> cache_pb2.KeyVerdict:
    return cache_pb2.KeyVerdict(
        fingerprint=result.fingerprint,
        protocol=_number(result.protocol),
        addresses=result.addresses,
        verdict=result.verdict.value,
        detail=result.detail,
        advice=result.verdict.advice,
        gates=_gates(result.gates),
        queued=result.queued,
    )


def harvest_response(result: MessageResult) -> cache_pb2.HarvestResponse:
    return cache_pb2.HarvestResponse(
        direction=_number(result.direction),
        verdict=result.verdict.value,
        detail=result.detail,
        advice=result.verdict.advice,
        keys=[key_verdict(key) for key in result.keys],
        gates=_gates(result.gates),
        revision=result.revision,
        sender=result.sender,
        message_id=result.message_id,
    )


def watch_event(change: Watched) -> cache_pb2.WatchEvent:
    return cache_pb2.WatchEvent(
        kind=cache_pb2.WatchEvent.Kind.Value(change.kind),
        revision=change.revision,
        protocol=_number(change.protocol),
        fingerprint=change.fingerprint,
        addresses=change.addresses,
    )


class Criteria(TypedDict):
    """The arguments of `Entries.query` that an EntryFilter tells."""

    text: str
    address: str
    domain: str
    protocol: Protocol | None
    origin: Origin | None
    trust: Trust | None
    issuer: str
    older_than: timedelta | None
    expired: bool | None


def criteria(message: admin_pb2.EntryFilter) -> Criteria:
    return Criteria(
        text=message.text,
        address=message.address,
        domain=message.domain,
        protocol=optional(Protocol, message.protocol),
        origin=optional(Origin, message.origin),
        trust=optional(Trust, message.trust),
        issuer=message.issuer,
        older_than=age(message, "older_than"),
        expired=message.expired if message.HasField("expired") else None,
    )


def age(message: Message, field: str) -> timedelta | None:
    """A span of time from 0 to a century, or None. Raises OutOfRange."""
    if not message.HasField(field):
        return None
    value: Duration = getattr(message, field)
    length = span(value)
    if not timedelta(0) <= length <= _CENTURY:
        raise OutOfRange(f"{field} of {value.seconds} seconds is out of range.", hint="Choose 0 to 100 years.")
    return length


def optional_span(message: Message, field: str) -> timedelta | None:
    """Whether it is in range, the settings know."""
    return span(getattr(message, field)) if message.HasField(field) else None


def page_size(number: int) -> int:
    """0: the default. Raises OutOfRange."""
    if number > PAGE_LIMIT:
        raise OutOfRange(f"{number} at once is too many.", hint=f"Ask for 1 to {PAGE_LIMIT}.")
    return number or PAGE_DEFAULT


def sort_by(number: int) -> SortBy:
    return optional(SortBy, number) or SortBy.ADDRESS


def issuer_state(number: int) -> IssuerState:
    state = optional(IssuerState, number)
    if state is None:
        raise InvalidInput("The request does not say what to decide about the issuer.", hint="APPROVED or REJECTED.")
    return state


def listed_entry(listed: Listed) -> admin_pb2.ListedEntry:
    return admin_pb2.ListedEntry(
        entry=entry_to_wire(listed.entry),
        expires_at=timestamp(listed.expires_at),
        expired=listed.expired,
        origin=_number(listed.origin),
        block=None if listed.block is None else block_to_wire(listed.block),
        mod_revision=listed.mod_revision,
    )


def listed_issuer(issuer: ListedIssuer) -> admin_pb2.ListedIssuer:
    return admin_pb2.ListedIssuer(
        id=issuer.id,
        name=issuer.name,
        state=_number(issuer.state),
        held=issuer.held,
        has_certificate=issuer.has_certificate,
        by=issuer.by,
        at=timestamp(issuer.at),
        sample_addresses=issuer.sample_addresses,
    )


def verdict_line(line: VerdictLine) -> admin_pb2.VerdictLine:
    return admin_pb2.VerdictLine(
        at=timestamp(line.at),
        message_id=line.message_id,
        sender=line.sender,
        direction=_number(line.direction),
        verdict=line.verdict.value,
        detail=line.detail,
    )


def status(node: NodeStatus) -> admin_pb2.Status:
    return admin_pb2.Status(
        mode=node.mode,
        node_id=node.node_id,
        version=node.version,
        identity=node.identity,
        started_at=timestamp(node.started_at),
        now=timestamp(node.now),
        entries=admin_pb2.EntryCounts(live=node.entries.live, expired=node.entries.expired, held=node.entries.held),
        applied_revision=node.applied_revision,
        digest=node.digest,
        digest_revision=node.digest_revision,
        purge=admin_pb2.PurgeStatus(
            state=node.purge.state.value,
            reason=node.purge.reason,
            waiting=node.purge.waiting,
            last_sweep_at=timestamp(node.purge.last_sweep_at),
            last_sweep_removed=node.purge.last_sweep_removed,
        ),
        settings=None if node.settings is None else settings_to_wire(node.settings),
        warnings=node.warnings,
        cluster=None if node.cluster is None else _cluster(node.cluster),
        forming=node.forming,
    )


def _cluster(cluster: ClusterStatus) -> admin_pb2.ClusterStatus:
    return admin_pb2.ClusterStatus(
        name=cluster.name,
        link=cluster.link,
        reason=cluster.reason,
        log_age=_optional_duration(cluster.log_age),
        outbox_entries=cluster.outbox_entries,
        outbox_bytes=cluster.outbox_bytes,
        outbox_limit_bytes=cluster.outbox_limit_bytes,
        purger=cluster.purger,
        purge_state=cluster.purge_state,
        purge_reason=cluster.purge_reason,
        purge_waiting=cluster.purge_waiting,
        repaired=cluster.repaired,
        reconciled_at=timestamp(cluster.reconciled_at),
        etcd=[_endpoint(endpoint) for endpoint in cluster.etcd],
        comparison=None if cluster.comparison is None else _comparison(cluster.comparison),
    )


def _comparison(comparison: Comparison) -> admin_pb2.Comparison:
    return admin_pb2.Comparison(
        address=comparison.address,
        revision=comparison.revision,
        digest=comparison.digest,
        their_digest=comparison.their_digest,
        entries=comparison.entries,
        their_entries=comparison.their_entries,
        equal=comparison.is_equal,
    )


def _endpoint(endpoint: EtcdEndpoint) -> admin_pb2.EtcdEndpoint:
    return admin_pb2.EtcdEndpoint(
        endpoint=endpoint.endpoint,
        reachable=endpoint.reachable,
        version=endpoint.version,
        leader=endpoint.leader,
        learner=endpoint.learner,
        db_bytes=endpoint.db_bytes,
        db_bytes_in_use=endpoint.db_bytes_in_use,
        quota_bytes=endpoint.quota_bytes,
        alarms=endpoint.alarms,
        problem=endpoint.problem,
    )


def listed_member(member: ListedMember) -> cluster_pb2.ListedMember:
    return cluster_pb2.ListedMember(
        node_id=member.node_id,
        address=member.address,
        version=member.version,
        alive=member.alive,
        is_this_node=member.is_this_node,
        last_seen=timestamp(member.last_seen),
        started_at=timestamp(member.started_at),
        applied_revision=member.applied_revision,
        lag=member.lag,
        skew=_optional_duration(member.skew),
        clock_trusted=member.clock_trusted,
        purger=member.purger,
        purge_state=member.purge_state,
        purge_reason=member.purge_reason,
        purge_waiting=member.purge_waiting,
        outbox=member.outbox,
    )


def check_response(report: RestartReport, warnings: Iterable[str]) -> cluster_pb2.CheckResponse:
    return cluster_pb2.CheckResponse(
        action=report.action.value,
        reason=report.reason,
        hint=report.hint,
        kept=report.kept,
        expired=report.expired,
        held_back=report.held_back,
        held_reason=report.held_reason,
        settings=None if report.settings is None else settings_to_wire(report.settings),
        replica_identity="" if report.replica_identity is None else report.replica_identity.text,
        replica_revision=report.replica_revision,
        log_identity="" if report.log_identity is None else report.log_identity.text,
        log_revision=report.log_revision,
        warnings=warnings,
    )


def resolve_response(resolved: Resolved, *, outbox: int) -> cluster_pb2.ResolveResponse:
    """`outbox`: entries that waited in it."""
    return cluster_pb2.ResolveResponse(
        entries=resolved.entries,
        known=resolved.known,
        outbox=outbox,
        identity=resolved.identity,
        revision=resolved.revision,
        deleted=resolved.deleted,
    )


def backup_item(item: Source | Record) -> admin_pb2.BackupItem:
    if isinstance(item, Record):
        return admin_pb2.BackupItem(record=admin_pb2.BackupRecord(key=item.key, value=item.value))
    source = admin_pb2.BackupSource(
        made_at=timestamp(item.made_at),
        cluster=item.cluster,
        identity=item.identity,
        revision=item.revision,
        version=item.version,
    )
    return admin_pb2.BackupItem(source=source)


def restore_terms(item: admin_pb2.RestoreItem) -> Terms:
    choices = list(SettingsFrom)
    if not 0 <= item.settings_from < len(choices):
        raise InvalidInput(f"{item.settings_from} is no known way to choose settings.", hint="Upgrade this node.")
    return Terms(
        settings=decode_settings(item.settings),
        made_at=moment(item.made_at),
        choice=choices[item.settings_from],
        dry_run=item.dry_run,
        records=item.total,
    )


def way(number: int) -> Way:
    chosen = optional(Way, number)
    if chosen is None:
        raise InvalidInput("The request does not say which way on.", hint="MERGE or DISCARD.")
    return chosen


def _optional_duration(length: timedelta | None) -> Duration | None:
    return None if length is None else duration(length)


def _number(member: Enum | None) -> Any:
    """As `wire_enum`; Any, because each generated enum has a type of its own for the same numbers."""
    return wire_enum(member)
