"""Splits a blob into certificates under limits, before anything expensive is done with them.

A certificate is a primary key, signatures on it, and components (user IDs, subkeys) each with the signatures that follow it
(RFC 9580 section 10.1). What we never use is dropped here: user attributes, trust packets, padding, signatures that name another
issuer or are not for export.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from keycache.harvest.openpgp_packets import (
    MalformedPackets,
    Packet,
    PublicKey,
    Signature,
    Span,
    Tag,
    read_key,
    read_signature,
    spans,
)

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPgpLimits:
    """What keys may cost.

    `key_bytes`: of one key; Hockeypuck's limit (FACTS 2; the flooded key of CVE-2019-13050 had 17 MiB).
    `packet_bytes`: of a user ID, a key or a version 4 signature; Hockeypuck's too. Packets that are dropped may be longer.
    `large_packet_bytes`: of a version 6 key or signature: SLH-DSA-256s signatures have 29,792 bytes, a binding that carries the
    subkey's consent two of them (draft-ietf-openpgp-pqc).
    `packets`: of one key; the flooded key had 55,000, the most certified honest ones some 5,000.
    `own_signatures`: of one key, those that name it as their issuer, each of which costs a verification (0.1 ms). Twenty years of
    yearly renewals of five user IDs and five subkeys make 200.
    `components`: user IDs and subkeys of one key.
    `blob_bytes`, `blob_packets`, `keys`: of one blob; a mail has at most 25 MiB, the flooded key fits in twice, and the keyring of
    a small team stays below 64 keys. A packet costs a microsecond to step over.
    """

    key_bytes: int = MIB
    packet_bytes: int = 8 * KIB
    large_packet_bytes: int = 64 * KIB
    packets: int = 10_000
    own_signatures: int = 256
    components: int = 256
    blob_bytes: int = 32 * MIB
    blob_packets: int = 120_000
    keys: int = 64


HARVEST_LIMITS = OpenPgpLimits()
IMPORT_LIMITS = OpenPgpLimits(blob_bytes=256 * MIB, blob_packets=10_000_000, keys=100_000)
"""A whole keyring that an administrator hands over."""


@dataclass(slots=True, kw_only=True)
class Component:
    """A user ID or subkey and those signatures that claim to be its owner's. `key`: of a subkey."""

    packet: Packet
    key: PublicKey | None = None
    signatures: list[Signature] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Certificate:
    """What can be read of one key. Nothing in it is verified yet."""

    primary: PublicKey
    signatures: list[Signature] = field(default_factory=list)
    components: list[Component] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class TooLarge:
    text: str
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret key, of which nothing is kept. `fingerprint`: as its own signature states it, to name it to its owner."""

    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    text: str
    fingerprint: str = ""


Found = Certificate | TooLarge | Secret | Malformed

_SECRET = frozenset({Tag.SECRET_KEY, Tag.SECRET_SUBKEY})
_PRIMARY = frozenset({Tag.SECRET_KEY, Tag.PUBLIC_KEY})
_USED = frozenset({Tag.SIGNATURE, Tag.PUBLIC_KEY, Tag.USER_ID, Tag.PUBLIC_SUBKEY})
_PASSED_OVER = frozenset({Tag.MARKER, Tag.TRUST, Tag.USER_ATTRIBUTE, Tag.PADDING})
_FIRST_OPTIONAL_TAG = 40
"""Unknown packets from here on may be ignored, those below may not (RFC 9580 section 4.3)."""


def read(data: bytes, limits: OpenPgpLimits) -> Iterator[Found]:
    """What stands in binary `data`, in order. Never raises; a fault ends it, and the key it lies in is malformed."""
    if len(data) > limits.blob_bytes:
        yield TooLarge(text=f"{len(data):,} bytes of keys; the limit is {limits.blob_bytes:,}")
        return
    for count, (key_spans, fault) in enumerate(_split(data, limits), start=1):
        if count > limits.keys:
            yield TooLarge(text=f"more than {limits.keys:,} keys in one place; the rest was not looked at")
            return
        yield _read_one(data, key_spans, fault, limits)


def _split(data: bytes, limits: OpenPgpLimits) -> Iterator[tuple[list[Span], Malformed | TooLarge | None]]:
    """The packets of each key, at most one more than the limit, and what is wrong with them."""
    current: list[Span] = []
    try:
        for number, span in enumerate(spans(data), start=1):
            if number > limits.blob_packets:
                yield current, TooLarge(text=f"more than {limits.blob_packets:,} packets in one place")
                return
            if span.tag in _PRIMARY:
                if current:
                    yield current, None
                current = [span]
            elif current:
                if len(current) <= limits.packets:
                    current.append(span)
                else:  # counted, not kept; the last one says how far the key reaches
                    current[-1] = Span(_worse(current[-1].tag, span.tag), span.start, span.body, span.end)
            elif span.tag not in _PASSED_OVER:
                yield [], Malformed(text="it does not begin with a key")
                return
    except MalformedPackets as error:
        yield current, Malformed(text=str(error))
        return
    if current:
        yield current, None


def _worse(known: int, new: int) -> int:
    """A secret subkey is not overlooked even beyond the limit."""
    return known if known in _SECRET else new


def _read_one(data: bytes, found: list[Span], fault: Malformed | TooLarge | None, limits: OpenPgpLimits) -> Found:
    if any(span.tag in _SECRET for span in found):
        return Secret(fingerprint=_stated_fingerprint(data, found))
    if not found:
        return fault or Malformed(text="it is empty")
    fingerprint = ""
    try:
        if found[0].end - found[0].body <= limits.large_packet_bytes:
            fingerprint = read_key(_packet(data, found[0])).fingerprint
        excess = _excess(data, found, limits)
        if excess:
            return TooLarge(text=excess, fingerprint=fingerprint)
        if fault is not None:
            return replace(fault, fingerprint=fingerprint)
        certificate = _certificate(data, found)
    except MalformedPackets as error:
        return Malformed(text=str(error), fingerprint=fingerprint)
    own = len(certificate.signatures) + sum(len(component.signatures) for component in certificate.components)
    if own > limits.own_signatures:
        return TooLarge(
            text=f"{own:,} signatures in its own name; the limit is {limits.own_signatures:,}", fingerprint=fingerprint
        )
    return certificate


def _packet(data: bytes, span: Span) -> Packet:
    return Packet(span.tag, data[span.body : span.end])


def _excess(data: bytes, found: list[Span], limits: OpenPgpLimits) -> str:
    """In which respect the key is beyond a limit; empty if in none."""
    size = found[-1].end - found[0].start
    if size > limits.key_bytes:
        return f"the key has {size:,} bytes; the limit is {limits.key_bytes:,}"
    if len(found) > limits.packets:
        return f"the key has more than {limits.packets:,} packets"
    components = sum(span.tag in (Tag.USER_ID, Tag.PUBLIC_SUBKEY) for span in found)
    if components > limits.components:
        return f"the key has {components:,} user IDs and subkeys; the limit is {limits.components:,}"
    for span in found:
        length = span.end - span.body
        if span.tag in _USED and length > limits.packet_bytes:
            is_large_kind = span.tag != Tag.USER_ID and data[span.body] == 6
            if not is_large_kind or length > limits.large_packet_bytes:
                return f"the key has a packet of {length:,} bytes, which is beyond the limit"
    return ""


def _certificate(data: bytes, found: list[Span]) -> Certificate:
    primary = read_key(_packet(data, found[0]))
    certificate = Certificate(primary=primary)
    names = frozenset({primary.fingerprint, primary.key_id})
    place: list[Signature] | None = certificate.signatures
    for span in found[1:]:
        if span.tag == Tag.SIGNATURE:
            if place is not None:
                signature = _own_signature(_packet(data, span), names)
                if signature is not None:
                    place.append(signature)
        elif span.tag == Tag.USER_ID:
            component = Component(packet=_packet(data, span))
            certificate.components.append(component)
            place = component.signatures
        elif span.tag == Tag.PUBLIC_SUBKEY:
            place = _add_subkey(certificate, _packet(data, span))
        elif span.tag == Tag.USER_ATTRIBUTE or span.tag >= _FIRST_OPTIONAL_TAG:
            place = None  # what follows signs a thing that we drop
        elif span.tag not in _PASSED_OVER:
            raise MalformedPackets(f"it holds a packet of type {span.tag}, which no key has")
    return certificate


def _add_subkey(certificate: Certificate, packet: Packet) -> list[Signature] | None:
    """Where the subkey's signatures go; None when it is of a kind that we cannot read and thus drop."""
    try:
        key = read_key(packet)
    except MalformedPackets:
        return None
    component = Component(packet=packet, key=key)
    certificate.components.append(component)
    return component.signatures


def _own_signature(packet: Packet, names: frozenset[str]) -> Signature | None:
    """None for one that others made (or claim to have made), that stays at home (RFC 9580 section 5.2.3.19), or is damaged."""
    try:
        signature = read_signature(packet)
    except MalformedPackets:
        return None
    if signature is None or not signature.is_exportable or not signature.issuers or not signature.issuers <= names:
        return None
    return signature


def _stated_fingerprint(data: bytes, found: list[Span]) -> str:
    """Of the first self-signature that names its issuer in full. Only to name the key to a person; proves nothing."""
    for span in found[:50]:
        if span.tag == Tag.SIGNATURE:
            try:
                signature = read_signature(_packet(data, span))
            except MalformedPackets:
                continue
            for issuer in signature.issuers if signature else ():
                if len(issuer) > 16:
                    return issuer
    return ""
