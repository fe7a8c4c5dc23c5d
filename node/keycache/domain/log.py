"""The entry log as values: records, events, transactions, and the names of its keys (DESIGN 6).

Keys are relative to the cluster's prefix. The log orders transactions by revision; one transaction has one revision, and its
events are never split over two batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keycache.domain.entry import Protocol
from keycache.domain.names import ClusterIdentity, Fingerprint, NodeId, Revision

IDENTITY = "identity"
"""Whose log it is. The log writes it when it is founded and compares it in every write; no transaction of ours names it."""

SETTINGS = "settings"
SETTINGS_HISTORY = "settings-history/"
ENTRIES = "entries/"
BLOCKS = "blocks/"
ISSUERS = "anchors/"
CHAIN = "chain/"
AUDIT = "audit/"
MEMBERS = "members/"
"""A running node's word about itself, under a lease: gone some seconds after the node."""
WITNESSES = "witnesses/"
"""What each node last wrote while it was well; stays when the node is gone. A log in which one is older than a node remembers has
gone back in time."""
DELETIONS = "deletions/"
"""That an administrator removed an entry, and when, kept for a while: what a node that was cut off has still to deliver may be from
before, and must not bring the key back."""
TOKENS = "tokens/"
"""With which nodes may join, by id; the hash of the secret only."""
NODES = "nodes/"
"""Nodes that belong to the cluster, whether they run or not (`domain.nodes`)."""
REMOVED = "removed/"
"""Nodes whose certificate is worth nothing any more."""

AUTHORITY = "authority/"
"""A change of the authority that is under way, by the id of the former one (`domain.rotation`): nodes that share a log, but no
authority, are not in each other's way."""
AUTHORITY_REPORTS = "authority-reports/"
"""How far each node is with it."""

ABSENT = Revision(0)
"""As a compared mod_revision: the key must not exist."""


def entry_prefix(protocol: Protocol) -> str:
    return f"{ENTRIES}{protocol.value.lower()}/"


def entry_key(protocol: Protocol, fingerprint: Fingerprint) -> str:
    return entry_prefix(protocol) + fingerprint.text


def deletion_key(protocol: Protocol, fingerprint: Fingerprint) -> str:
    return f"{DELETIONS}{protocol.value.lower()}/{fingerprint.text}"


def member_key(node: NodeId) -> str:
    return MEMBERS + node.text


def witness_key(node: NodeId) -> str:
    return WITNESSES + node.text


def token_key(token_id: str) -> str:
    return TOKENS + token_id


def node_key(node: NodeId) -> str:
    return NODES + node.text


def removed_key(node: NodeId) -> str:
    return REMOVED + node.text


def authority_key(former: str) -> str:
    return AUTHORITY + former


def authority_report_key(node: NodeId) -> str:
    return AUTHORITY_REPORTS + node.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    key: str
    value: bytes
    mod_revision: Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`value` None: deleted."""

    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """All events of one or more whole revisions up to `revision`, in order. May be empty: the log was heard, and all of its events up
    to `revision` were told."""

    revision: Revision
    events: tuple[tuple[Revision, Event], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a listing; all pages of a listing are of the same `revision`."""

    revision: Revision
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A log looked at before anything of it is believed, all at one revision.

    `identity` None: nobody has founded it. `compacted`: what came after the revision asked for is not held in full any more.
    `records`: of the keys asked for (None: absent). `then`: the same as they were at the revision asked for; None where the log keeps
    no older values, or has let them go.
    """

    identity: ClusterIdentity | None
    head: Revision
    compacted: bool
    records: Mapping[str, Record | None]
    then: Mapping[str, Record | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """All or nothing. `compare`: key to the mod_revision it must still have (ABSENT: must not exist). The log itself adds the
    comparison of its identity (DESIGN 2.2)."""

    compare: dict[str, Revision]
    puts: dict[str, bytes]
    deletes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    revision: Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuted:
    """A comparison failed; nothing was written. `current`: the compared keys as they are now (None: absent)."""

    revision: Revision
    current: dict[str, Record | None]


CommitResult = Committed | Refuted
