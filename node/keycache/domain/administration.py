"""What administrators decide and what is remembered of it: blocks, issuers, deletions, the audit log."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from keycache.domain.names import EmailAddress, Fingerprint


class BlockKind(Enum):
    FINGERPRINT = "FINGERPRINT"
    ADDRESS = "ADDRESS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Never serve this key, or any key to this address, until `until` (None: until unblocked).

    A blocked key stays in the cache and still learns of revocations (FACTS 2). `value`: normalised fingerprint or indexed address.
    """

    kind: BlockKind
    value: str
    until: datetime | None = None
    reason: str = ""
    by: str = ""
    at: datetime

    def holds(self, now: datetime) -> bool:
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True)
class BlockList:
    """All blocks, for quick questions. Build once per change."""

    blocks: tuple[Block, ...] = ()
    _by_value: dict[tuple[BlockKind, str], Block] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_value", {(block.kind, block.value): block for block in self.blocks})

    def of_fingerprint(self, fingerprint: Fingerprint, now: datetime) -> Block | None:
        return self._holding(BlockKind.FINGERPRINT, fingerprint.text, now)

    def of_address(self, address: EmailAddress, now: datetime) -> Block | None:
        return self._holding(BlockKind.ADDRESS, address.index, now)

    def _holding(self, kind: BlockKind, value: str, now: datetime) -> Block | None:
        block = self._by_value.get((kind, value))
        return block if block is not None and block.holds(now) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """That an administrator removed an entry. Goes in the removal's own transaction."""

    at: datetime
    actor: str


class IssuerState(Enum):
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerDecision:
    """An administrator's word on an issuer. `id` as in `Issuer`; `certificate`: DER that paths may end in, if approved."""

    id: str
    name: str
    state: IssuerState
    certificate: bytes = b""
    by: str = ""
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """Who did what to what, when. `detail` holds no mail content and no secrets."""

    at: datetime
    actor: str
    action: str
    subject: str
    detail: str = ""
