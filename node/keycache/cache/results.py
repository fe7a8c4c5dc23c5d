"""What the edges get back: values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from keycache.domain.administration import Block, IssuerState
from keycache.domain.entry import Entry, Origin, Protocol
from keycache.domain.examination import Direction, Gate
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
class NodeStatus:
    """`mode`: standalone or cluster. `warnings`: sentences for the administrator."""

    mode: str
    node_id: str
    version: str
    identity: str
    started_at: datetime
    now: datetime
    entries: Counts
    applied_revision: int
    digest: str
    purge: PurgeStatus
    settings: Settings | None
    warnings: tuple[str, ...]
