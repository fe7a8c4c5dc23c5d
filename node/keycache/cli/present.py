"""Answers of the node as the documents that `--json` prints: stable names, plain values. Pure.

Closed sets are their names in capitals, instants RFC 3339, bytes left out, what is absent null.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from keycache import codec
from keycache.cli.entry_line import entry_fields
from keycache.cli.instants import optional_rfc3339, rfc3339
from keycache.domain.spans import format_span
from keycache.v1 import admin_pb2, cache_pb2, cluster_pb2, entry_pb2, record_pb2

Document = dict[str, Any]


class _WireEnum(Protocol):
    """What protobuf generates for an enum."""

    def Name(self, number: Any) -> str: ...  # noqa: N802 -- protobuf's spelling


def word(enum: _WireEnum, number: int, prefix: str) -> str | None:
    """The member's own name; None for UNSPECIFIED, the bare number for a member of a later version."""
    if number == 0:
        return None
    try:
        return enum.Name(number).removeprefix(prefix)
    except ValueError:
        return str(number)


def protocol(number: int) -> str | None:
    return word(entry_pb2.Protocol, number, "PROTOCOL_")


def origin(number: int) -> str | None:
    return word(entry_pb2.Origin, number, "ORIGIN_")


def trust(number: int) -> str | None:
    return word(entry_pb2.Trust, number, "TRUST_")


def moment(message: Message, field: str) -> str | None:
    return optional_rfc3339(codec.optional_moment(message, field))


def gates(listed: Iterable[cache_pb2.Gate]) -> list[Document]:
    return [
        {"name": gate.name, "outcome": word(cache_pb2.Gate.Outcome, gate.outcome, ""), "detail": gate.detail} for gate in listed
    ]


def key_verdict(key: cache_pb2.KeyVerdict, *, with_gates: bool) -> Document:
    fields: Document = {
        "fingerprint": key.fingerprint,
        "protocol": protocol(key.protocol),
        "addresses": list(key.addresses),
        "verdict": key.verdict,
        "detail": key.detail,
        "advice": key.advice,
        "queued": key.queued,
    }
    if with_gates:
        fields["gates"] = gates(key.gates)
    return fields


def harvested(file: str, answer: cache_pb2.HarvestResponse, *, with_gates: bool = False) -> Document:
    fields: Document = {
        "file": file,
        "direction": word(cache_pb2.Direction, answer.direction, "DIRECTION_") or "UNKNOWN",
        "verdict": answer.verdict,
        "detail": answer.detail,
        "advice": answer.advice,
        "sender": answer.sender or None,
        "message_id": answer.message_id or None,
        "revision": answer.revision,
        "keys": [key_verdict(key, with_gates=with_gates) for key in answer.keys],
    }
    if with_gates:
        fields["gates"] = gates(answer.gates)
    return fields


def looked_up(result: cache_pb2.LookupResult) -> Document:
    miss = None
    if result.HasField("miss"):
        miss = {"code": word(cache_pb2.MissCode, result.miss.code, "MISS_CODE_"), "detail": result.miss.detail}
    return {"address": result.address, "keys": [found_key(key) for key in result.keys], "miss": miss}


def found_key(found: cache_pb2.FoundKey) -> Document:
    return {
        "fingerprint": found.key.fingerprint,
        "protocol": protocol(found.key.protocol),
        "trust": trust(found.key.trust),
        "origin": origin(found.origin),
        "cached_at": moment(found, "cached_at"),
        "refreshed_at": moment(found, "refreshed_at"),
        "expires_at": moment(found, "expires_at"),
        "not_before": moment(found.key, "not_before"),
        "not_after": moment(found.key, "not_after"),
        "addresses": list(found.key.addresses),
        "names": list(found.key.names),
        "algorithm": found.key.algorithm,
    }


def listed_entry(listed: admin_pb2.ListedEntry) -> Document:
    """The entry as `export` writes it, and what is computed from the settings in force."""
    entry = codec.entry_from_wire(listed.entry)
    sighting = next((one for one in entry.sightings if codec.wire_enum(one.origin) == listed.origin), entry.sightings[0])
    return {
        **entry_fields(entry),
        "origin": sighting.origin.value,
        "cached_at": rfc3339(sighting.cached_at),
        "refreshed_at": rfc3339(sighting.refreshed_at),
        "expires_at": moment(listed, "expires_at"),
        "expired": listed.expired,
        "block": block(listed.block) if listed.HasField("block") else None,
        "mod_revision": listed.mod_revision,
    }


def block(one: record_pb2.Block) -> Document:
    return {
        "kind": word(record_pb2.BlockKind, one.kind, "BLOCK_KIND_"),
        "value": one.value,
        "until": moment(one, "until"),
        "reason": one.reason,
        "by": one.by,
        "at": moment(one, "at"),
    }


def status(answer: admin_pb2.Status) -> Document:
    return {
        "mode": answer.mode,
        "node_id": answer.node_id,
        "version": answer.version,
        "identity": answer.identity,
        "started_at": moment(answer, "started_at"),
        "now": moment(answer, "now"),
        "entries": {"live": answer.entries.live, "expired": answer.entries.expired, "held": answer.entries.held},
        "applied_revision": answer.applied_revision,
        "digest": answer.digest,
        "purge": {
            "state": answer.purge.state,
            "reason": answer.purge.reason,
            "waiting": answer.purge.waiting,
            "last_sweep_at": moment(answer.purge, "last_sweep_at"),
            "last_sweep_removed": answer.purge.last_sweep_removed,
        },
        "settings": settings(answer.settings) if answer.HasField("settings") else None,
        "warnings": list(answer.warnings),
        "cluster": _cluster(answer.cluster) if answer.HasField("cluster") else None,
        "forming": answer.forming,
    }


def _cluster(answer: admin_pb2.ClusterStatus) -> Document:
    return {
        "name": answer.name,
        "link": answer.link,
        "reason": answer.reason,
        "log_age": _optional_seconds(answer, "log_age"),
        "outbox": {
            "entries": answer.outbox_entries,
            "bytes": answer.outbox_bytes,
            "limit_bytes": answer.outbox_limit_bytes,
        },
        "purger": answer.purger or None,
        "purge": {"state": answer.purge_state, "reason": answer.purge_reason, "waiting": answer.purge_waiting},
        "repaired": answer.repaired,
        "reconciled_at": moment(answer, "reconciled_at"),
        "etcd": [_endpoint(one) for one in answer.etcd],
    }


def _endpoint(one: admin_pb2.EtcdEndpoint) -> Document:
    return {
        "endpoint": one.endpoint,
        "reachable": one.reachable,
        "version": one.version,
        "leader": one.leader,
        "learner": one.learner,
        "db_bytes": one.db_bytes,
        "db_bytes_in_use": one.db_bytes_in_use,
        "quota_bytes": one.quota_bytes,
        "alarms": list(one.alarms),
        "problem": one.problem,
    }


def member(one: cluster_pb2.ListedMember) -> Document:
    """`skew` in seconds: its clock minus that of the node that answers."""
    return {
        "node_id": one.node_id,
        "address": one.address,
        "version": one.version,
        "alive": one.alive,
        "is_this_node": one.is_this_node,
        "last_seen": moment(one, "last_seen"),
        "started_at": moment(one, "started_at"),
        "applied_revision": one.applied_revision,
        "lag": one.lag,
        "skew": _optional_seconds(one, "skew"),
        "clock_trusted": one.clock_trusted,
        "purger": one.purger,
        "purge": {"state": one.purge_state, "reason": one.purge_reason, "waiting": one.purge_waiting},
        "outbox": one.outbox,
    }


def check(answer: cluster_pb2.CheckResponse) -> Document:
    return {
        "action": answer.action,
        "reason": answer.reason,
        "hint": answer.hint,
        "entries": {"kept": answer.kept, "expired": answer.expired, "held_back": answer.held_back},
        "held_reason": answer.held_reason,
        "settings": settings(answer.settings) if answer.HasField("settings") else None,
        "replica": {"identity": answer.replica_identity or None, "revision": answer.replica_revision},
        "log": {"identity": answer.log_identity or None, "revision": answer.log_revision},
        "warnings": list(answer.warnings),
    }


def resolved(way: str, answer: cluster_pb2.ResolveResponse, *, dry_run: bool) -> Document:
    return {
        "way": way,
        "dry_run": dry_run,
        "entries": answer.entries,
        "known": answer.known,
        "deleted": answer.deleted,
        "outbox": answer.outbox,
        "identity": answer.identity,
        "revision": answer.revision,
    }


def settings(answer: record_pb2.Settings) -> Document:
    """Spans in whole seconds, and beside them as `settings set` takes them."""
    spans = {
        "harvested": answer.harvested_timeout,
        "looked_up": answer.looked_up_timeout,
        "imported": answer.imported_timeout,
    }
    return {
        "timeouts": {name: _seconds(value) for name, value in spans.items()},
        "timeouts_text": {name: span_text(value) for name, value in spans.items()},
        "purge_hold_share": answer.purge_hold_share,
        "purge_hold_floor": answer.purge_hold_floor,
        "clock_skew_bound": _seconds(answer.clock_skew_bound),
        "clock_skew_bound_text": span_text(answer.clock_skew_bound),
    }


def setting_change(change: record_pb2.SettingChange) -> Document:
    return {"at": moment(change, "at"), "actor": change.actor, "name": change.name, "old": change.old, "new": change.new}


def issuer(one: admin_pb2.ListedIssuer) -> Document:
    return {
        "id": one.id,
        "name": one.name,
        "state": word(record_pb2.IssuerState, one.state, "ISSUER_STATE_") or "UNDECIDED",
        "held": one.held,
        "has_certificate": one.has_certificate,
        "sample_addresses": list(one.sample_addresses),
        "by": one.by,
        "at": moment(one, "at"),
    }


def audit_record(record: record_pb2.AuditRecord) -> Document:
    return {
        "at": moment(record, "at"),
        "actor": record.actor,
        "action": record.action,
        "subject": record.subject,
        "detail": record.detail,
    }


def verdict_line(line: admin_pb2.VerdictLine) -> Document:
    return {
        "at": moment(line, "at"),
        "message_id": line.message_id,
        "sender": line.sender,
        "direction": word(cache_pb2.Direction, line.direction, "DIRECTION_") or "UNKNOWN",
        "verdict": line.verdict,
        "detail": line.detail,
    }


def import_result(result: admin_pb2.ImportResult) -> Document:
    return {
        "source": result.source,
        "verdict": result.verdict,
        "detail": result.detail,
        "keys": [key_verdict(key, with_gates=False) for key in result.keys],
    }


def when(text: str | None) -> datetime | None:
    """An instant of a document, back as a value."""
    return None if text is None else datetime.fromisoformat(text)


def span_text(value: Duration) -> str:
    return format_span(codec.span(value))


def _seconds(value: Duration) -> int:
    return value.seconds


def _optional_seconds(message: Message, field: str) -> float | None:
    """To the millisecond."""
    return round(codec.span(getattr(message, field)).total_seconds(), 3) if message.HasField(field) else None
