"""Autocrypt headers (Autocrypt Level 1, release 1.1): from a message's header fields to findings.

Beyond Autocrypt's own rules the key must name the sender in a self-signed user ID (DESIGN 2.9). Autocrypt itself takes the user
ID for decoration and trusts the From line; a cache that serves a whole organisation asks for the owner's word. All programs in
use write the address there.

A header that breaks a rule is one finding AUTOCRYPT_INVALID with the reason in words; one that speaks of another address than
From is ADDRESS_MISMATCH, since that tells the administrator more. Both are invalid in Autocrypt's sense and do not count when
several headers meet.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from keycache.domain.entry import Protocol
from keycache.domain.errors import InvalidInput
from keycache.domain.examination import Finding, Gate
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.openpgp import HARVEST_LIMITS, OpenPgpLimits, examine_keys

LABEL = "Autocrypt header"

HEADER_LIMIT = 10 * 1024
"""Bytes, with the name; Level 1.1, "The Autocrypt Header"."""

_NAME_BYTES = len("Autocrypt: ")

_HEADERS_LIMIT = 16
"""Headers read. One is what the rules allow; several of later versions may accompany it."""

_GATES = ("message", "size", "attributes", "address", "key data", "single")


class _Invalid(Exception):
    """A rule is broken. `gate`: which question it failed."""

    def __init__(self, gate: str, text: str, verdict: Verdict = Verdict.AUTOCRYPT_INVALID) -> None:
        super().__init__(text)
        self.gate = gate
        self.text = text
        self.verdict = verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    prefer_encrypt: bool
    key_data: bytes


def examine_headers(
    values: Sequence[str],
    sender: EmailAddress,
    sender_count: int,
    is_report: bool,  # noqa: FBT001 -- the caller's question, in its order
    date: datetime | None,
    received_at: datetime,
    now: datetime,
    *,
    limits: OpenPgpLimits = HARVEST_LIMITS,
) -> tuple[Finding, ...]:
    """What a message's Autocrypt fields bring; () without any.

    `values`: of all fields named Autocrypt in the message's own header, folded or not. `sender`: the From address;
    `sender_count`: how many From names. `is_report`: the message is a multipart/report or says "Auto-Submitted: auto-replied".
    `date`: of its Date field, None if there is none that can be read. Never raises.
    """
    if not values:
        return ()
    if is_report:
        return (_refused(_Invalid("message", "the message is an automatic answer, whose header does not count")),)
    if sender_count != 1:
        return (_refused(_Invalid("message", f"the message has {sender_count} From addresses")),)
    effective = effective_date(date, received_at, now)
    invalid: list[Finding] = []
    valid: list[Finding] = []
    for value in values[:_HEADERS_LIMIT]:
        try:
            valid.append(_examine(value, sender, effective, now, limits))
        except _Invalid as error:
            invalid.append(_refused(error))
    if len(values) > _HEADERS_LIMIT:
        invalid.append(_refused(_Invalid("message", f"the message has {len(values):,} such headers")))
    if len(valid) > 1:
        detail = f"The message has {len(valid)} valid Autocrypt headers."
        gates = _gates("single", detail)
        return (
            *invalid,
            Finding(
                protocol=Protocol.OPENPGP, key=None, verdict=Verdict.AUTOCRYPT_SEVERAL, detail=detail, label=LABEL, gates=gates
            ),
        )
    return (*valid, *invalid)


def effective_date(date: datetime | None, received_at: datetime, now: datetime) -> datetime:
    """When the message was sent by its own word, or received when that is missing or in the future (Level 1.1, 'Updating
    Autocrypt Peer State'). Never later than `now`: else one wrong clock would win over all later mails."""
    received_at = min(received_at, now)
    return received_at if date is None or date > received_at else date


def _examine(value: str, sender: EmailAddress, effective: datetime, now: datetime, limits: OpenPgpLimits) -> Finding:
    """Raises _Invalid."""
    header = _parse(value, sender)
    findings = examine_keys(
        header.key_data,
        sender,
        now,
        evidence_at=effective,
        prefer_encrypt=header.prefer_encrypt,
        label=LABEL,
        limits=limits,
    )
    if len(findings) != 1:
        raise _Invalid("key data", f"its key data holds {len(findings)} keys instead of one")
    (finding,) = findings
    if finding.verdict is Verdict.MALFORMED_KEY:
        raise _Invalid("key data", f"its key data is no key. {finding.detail}")
    passed = tuple(Gate(name=f"Autocrypt: {name}", passed=True) for name in _GATES)
    return Finding(
        protocol=finding.protocol,
        key=finding.key,
        verdict=finding.verdict,
        detail=finding.detail,
        label=finding.label,
        gates=passed + finding.gates,
    )


def _parse(value: str, sender: EmailAddress) -> _Header:
    """Raises _Invalid."""
    size = _NAME_BYTES + len(value.encode("utf-8", "surrogatepass"))
    if size > HEADER_LIMIT:
        raise _Invalid("size", f"it has {size:,} bytes; the limit is {HEADER_LIMIT:,}")
    attributes = _attributes(value)
    unknown = [name for name in attributes if name not in ("addr", "prefer-encrypt", "keydata") and not name.startswith("_")]
    if unknown:
        raise _Invalid("attributes", f"it has the attribute {unknown[0][:40]!r}, which is critical and unknown to Level 1")
    for name in ("addr", "keydata"):
        if not attributes.get(name):
            raise _Invalid("attributes", f"it lacks the attribute {name!r}")
    if list(attributes)[-1] != "keydata":
        raise _Invalid("attributes", "'keydata' is not its last attribute")
    try:
        address = EmailAddress.parse(attributes["addr"])
    except InvalidInput as error:
        raise _Invalid("address", "its 'addr' is not a mail address") from error
    if address.index != sender.index:
        raise _Invalid("address", f"it is for {address}, but the mail is from {sender}", Verdict.ADDRESS_MISMATCH)
    # Any other value than "mutual" means no preference.
    return _Header(prefer_encrypt=attributes.get("prefer-encrypt") == "mutual", key_data=_key_data(attributes["keydata"]))


def _attributes(value: str) -> dict[str, str]:
    """In their order. Raises _Invalid. An empty one after a last semicolon is forgiven."""
    attributes: dict[str, str] = {}
    pieces = value.split(";")
    if len(pieces) > 1 and not pieces[-1].strip():
        pieces.pop()
    for piece in pieces:
        name, equals, content = piece.partition("=")
        name = name.strip()
        if not name or not equals:
            raise _Invalid("attributes", "it is not a list of attributes")
        if name in attributes:
            raise _Invalid("attributes", f"it has the attribute {name[:40]!r} twice")
        attributes[name] = content.strip()
    return attributes


def _key_data(text: str) -> bytes:
    """Raises _Invalid. White space is folding and says nothing."""
    try:
        return binascii.a2b_base64("".join(text.split()).encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise _Invalid("key data", "its key data is not base64") from error


def _refused(error: _Invalid) -> Finding:
    detail = f"The Autocrypt header was ignored: {error.text.rstrip('.')}."
    return Finding(
        protocol=Protocol.OPENPGP, key=None, verdict=error.verdict, detail=detail, label=LABEL, gates=_gates(error.gate, detail)
    )


def _gates(failed: str, detail: str) -> tuple[Gate, ...]:
    at = _GATES.index(failed)
    return (
        *(Gate(name=f"Autocrypt: {name}", passed=True) for name in _GATES[:at]),
        Gate(name=f"Autocrypt: {failed}", passed=False, detail=detail),
        *(Gate(name=f"Autocrypt: {name}", passed=None) for name in _GATES[at + 1 :]),
    )
