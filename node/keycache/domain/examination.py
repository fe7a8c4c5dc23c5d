"""What is asked of the parsers and what they answer. Values only; the parsers run apart (DESIGN 3)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from keycache.domain.entry import Key, Protocol
from keycache.domain.names import Domain, EmailAddress
from keycache.domain.verdict import Verdict


class Direction(Enum):
    INBOUND = "INBOUND"
    OUTBOUND = "OUTBOUND"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What the mail processor knows of a message beside its bytes. Empty means not told.

    `stated`: the caller's own word on the direction. `listener`: address[:port] that took the mail. `client`: IP address it
    came from. `user`: who authenticated, if anybody. `mail_from`, `recipients`: SMTP envelope addresses as received.
    `received_at`: when the mail came in; None: now. Keys are judged at the node's present, whatever this says.
    """

    stated: Direction = Direction.UNKNOWN
    listener: str = ""
    client: str = ""
    user: str = ""
    mail_from: str = ""
    recipients: tuple[str, ...] = ()
    received_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionPolicy:
    """The configuration that decides directions (seed questions 3 and 4). Networks are CIDR texts, listeners address[:port]."""

    managed_domains: tuple[Domain, ...] = ()
    inbound_listeners: tuple[str, ...] = ()
    outbound_listeners: tuple[str, ...] = ()
    internal_networks: tuple[str, ...] = ()

    def manages(self, address: EmailAddress) -> bool:
        return any(domain.covers(address) for domain in self.managed_domains)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One check on the way into the cache. `passed` is None when it was not reached or does not apply."""

    name: str
    passed: bool | None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One key found in a message or a file.

    Exactly one of two cases: `verdict` None, and `key` may enter the cache (its `trust` says how); or `verdict` says why not,
    and `key` is what could be read of it, if anything (a revoked key is here with its Key, so that the revocation is learnt).
    `label`: fingerprint, file name or header, to name it to a person when there is no key.
    """

    protocol: Protocol
    key: Key | None
    verdict: Verdict | None
    detail: str = ""
    label: str = ""
    gates: tuple[Gate, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What one message holds. `verdict` is set when the message as a whole ends the matter; findings are then empty.

    `chain`: DER of intermediate CA certificates that served in a path of a finding.
    """

    direction: Direction
    sender: EmailAddress | None
    message_id: str
    verdict: Verdict | None
    detail: str = ""
    findings: tuple[Finding, ...] = ()
    chain: tuple[bytes, ...] = ()
    gates: tuple[Gate, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustBase:
    """Whom S/MIME paths may end in and what helps to build them; all DER.

    `anchors`: configured roots. `approved`: issuers (or single self-signed certificates) an administrator approved.
    `intermediates`: CA certificates seen before. `crls`: revocation lists. `rejected`: ids of rejected issuers.
    """

    anchors: tuple[bytes, ...] = ()
    approved: tuple[bytes, ...] = ()
    intermediates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()
    rejected: frozenset[str] = frozenset()
