"""What the edges get back: values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from keycache.domain.administration import Block, IssuerState
from keycache.domain.capacity import EtcdEndpoint
from keycache.domain.entry import Entry, Origin, Protocol
from keycache.domain.examination import Direction, Gate
from keycache.domain.forming import Comparison
from keycache.domain.ports import Counts
from keycache.domain.settings import SettingChange, Settings
from keycache.domain.verdict import Verdict
from keycache.replication.purger import PurgeStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyResult:
    """One key of a message or file. `fingerprint` may be a label (file name, header) when no key could be read. `queued`: it is kept
    and served on this node alone so far."""

    fingerprint: str
    protocol: Protocol | None
    addresses: tuple[str, ...]
    verdict: Verdict
    detail: str = ""
    gates: tuple[Gate, ...] = ()
    queued: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageResult:
    """One message. `revision`: once a node applied it, its lookups see what was kept."""

    direction: Direction
    verdict: Verdict
    detail: str
    keys: tuple[KeyResult, ...]
    gates: tuple[Gate, ...]
    revision: int
    sender: str
    message_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An entry with what the settings in force make of it. `origin`: of the sighting that lasts longest."""

    entry: Entry
    expires_at: datetime
    expired: bool
    origin: Origin
    block: Block | None
    mod_revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeResult:
    """`matched` whether or not removed."""

    matched: int
    removed: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsResult:
    """`would_expire`: entries that the change expires at once."""

    settings: Settings
    would_expire: int
    changes: tuple[SettingChange, ...]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedIssuer:
    """An issuer of held keys, or one that was decided on (`state`)."""

    id: str
    name: str
    state: IssuerState | None
    held: int
    has_certificate: bool
    by: str = ""
    at: datetime | None = None
    sample_addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerResult:
    """`entries`: released or dropped. `still_held`: of an approved issuer, but held for a reason of their own."""

    entries: int
    still_held: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictLine:
    """One message that this node looked at, without its content."""

    at: datetime
    message_id: str
    sender: str
    direction: Direction
    verdict: Verdict
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """How a node stands to the log it shares. `link`: a `LinkState`; `reason`: why it is not FOLLOWING, and what to do. `log_age`: None
    while it was not heard. `purger`: label of the member whose turn it is, empty while there is none; the other purge fields are its
    own words, or this node's if there is none. `repaired`, `reconciled_at`: what differed from the log when it was last compared in
    whole. `members` alive, with this node; `worst_skew`: of the clock that is furthest from ours.
    `comparison`: of a node that joined since its start."""

    name: str
    link: str
    reason: str
    log_age: timedelta | None
    outbox_entries: int
    outbox_bytes: int
    outbox_limit_bytes: int
    purger: str
    purge_state: str
    purge_reason: str
    purge_waiting: int
    repaired: int
    reconciled_at: datetime | None
    members: int
    worst_skew: timedelta
    etcd: tuple[EtcdEndpoint, ...]
    comparison: Comparison | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedMember:
    """A node that shares the log, or did. `alive`: whether its lease lives. Of one that is gone only names, `version` and `last_seen`
    are known. `lag`: revisions that it had not applied when it last said so. `skew`: its clock minus ours, None: not measured."""

    node_id: str
    address: str
    version: str
    alive: bool
    is_this_node: bool
    last_seen: datetime
    started_at: datetime | None = None
    applied_revision: int = 0
    lag: int = 0
    skew: timedelta | None = None
    clock_trusted: bool = False
    purger: bool = False
    purge_state: str = ""
    purge_reason: str = ""
    purge_waiting: int = 0
    outbox: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """`mode`: standalone or cluster. `purge`: of this node's own purger. `warnings`: sentences for the administrator. `cluster` None:
    the node works alone. `forming`: what it does or waits for on its way into a cluster or out of one.
    `digest_revision`: at which the digest was this."""

    mode: str
    node_id: str
    version: str
    identity: str
    started_at: datetime
    now: datetime
    entries: Counts
    applied_revision: int
    digest: str
    digest_revision: int
    purge: PurgeStatus
    settings: Settings | None
    warnings: tuple[str, ...]
    cluster: ClusterStatus | None = None
    forming: str = ""
