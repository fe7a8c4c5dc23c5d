"""OpenPGP packets as far as judging a certificate needs them (RFC 9580 sections 4 and 5).

Reads lengths and fields, believes nothing: whether a signature is good is for `openpgp_judge`. Everything is iterative and
linear in the input, so that limits can be applied before anything expensive is done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple


class Tag(IntEnum):
    """Packet types (RFC 9580 section 5, table 3)."""

    SIGNATURE = 2
    SECRET_KEY = 5
    PUBLIC_KEY = 6
    SECRET_SUBKEY = 7
    MARKER = 10
    TRUST = 12
    USER_ID = 13
    PUBLIC_SUBKEY = 14
    USER_ATTRIBUTE = 17
    PADDING = 21


class SignatureType(IntEnum):
    """RFC 9580 section 5.2.1. Certifications are 0x10 to 0x13."""

    GENERIC = 0x10
    POSITIVE = 0x13
    SUBKEY_BINDING = 0x18
    DIRECT_KEY = 0x1F
    KEY_REVOCATION = 0x20
    SUBKEY_REVOCATION = 0x28
    CERTIFICATION_REVOCATION = 0x30


class MalformedPackets(Exception):
    """The bytes are not the packets they should be. The text says why, for people; it holds nothing of the content."""


def _length(size: int) -> bytes:
    """The shortest form; packets (RFC 9580 section 4.2.1) and subpackets (5.2.3.7) share it."""
    if size < 192:
        return bytes((size,))
    if size < 8384:
        return ((size - 192) + 0xC000).to_bytes(2, "big")
    return b"\xff" + size.to_bytes(4, "big")


class Packet(NamedTuple):
    tag: int
    body: bytes

    def encode(self) -> bytes:
        """With a header in the new format (RFC 9580 section 4.2.1)."""
        return bytes((0xC0 | self.tag,)) + _length(len(self.body)) + self.body


class Span(NamedTuple):
    """Where a packet lies: its tag, where its header begins, where its body begins, where it ends."""

    tag: int
    start: int
    body: int
    end: int


def spans(data: bytes) -> Iterator[Span]:
    """The packets of `data` in order, without copying. Raises MalformedPackets, after what came before the fault.

    Partial and indeterminate lengths are refused: only data packets may have them (RFC 9580 section 4.2.1.4). Blanks and zero
    bytes after the last packet, which mail programs add, are not a fault.
    """
    position, size = 0, len(data)
    while position < size:
        header = data[position]
        if not header & 0x80:
            if data[position:].strip(b"\x00 \t\r\n"):
                raise MalformedPackets("something that is no OpenPGP packet stands in it")
            return
        if header & 0x40:
            tag = header & 0x3F
            body, length = _new_length(data, position + 1)
        else:
            tag = (header >> 2) & 0x0F
            kind = header & 0x03
            if kind == 3:
                raise MalformedPackets("a packet has no length, which keys must not have")
            body = position + 1 + (1 << kind)
            length = int.from_bytes(data[position + 1 : body], "big")
        end = body + length
        if end > size:
            raise MalformedPackets("the last packet is cut off")
        yield Span(tag, position, body, end)
        position = end


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    """Where the body begins and how long it is, from the length octets at `at`."""
    octets = data[at : at + 5]
    if not octets:
        raise MalformedPackets("the last packet is cut off")
    first = octets[0]
    if first < 192:
        return at + 1, first
    if first < 224:
        if len(octets) < 2:
            raise MalformedPackets("the last packet is cut off")
        return at + 2, ((first - 192) << 8) + octets[1] + 192
    if first < 255:
        raise MalformedPackets("a packet comes in partial lengths, which keys must not have")
    if len(octets) < 5:
        raise MalformedPackets("the last packet is cut off")
    return at + 5, int.from_bytes(octets[1:], "big")


_CURVES = {
    bytes.fromhex("2b060104019755010501"): "X25519",
    bytes.fromhex("2b06010401da470f01"): "Ed25519",
    bytes.fromhex("2b656f"): "X448",
    bytes.fromhex("2b6571"): "Ed448",
    bytes.fromhex("2a8648ce3d030107"): "P-256",
    bytes.fromhex("2b81040022"): "P-384",
    bytes.fromhex("2b81040023"): "P-521",
    bytes.fromhex("2b2403030208010107"): "brainpoolP256r1",
    bytes.fromhex("2b240303020801010b"): "brainpoolP384r1",
    bytes.fromhex("2b240303020801010d"): "brainpoolP512r1",
}
"""RFC 9580 section 9.2, table 19. Others (secp256k1) are not for mail."""

_INTEGER = {1: "RSA", 2: "RSA", 3: "RSA", 16: "ElGamal", 17: "DSA", 20: "ElGamal"}
_CURVE = {18: "ECDH", 19: "ECDSA", 22: "EdDSA"}
_WHOLE = {
    25: "X25519",
    26: "X448",
    27: "Ed25519",
    28: "Ed448",
    30: "ML-DSA-65+Ed25519",
    31: "ML-DSA-87+Ed448",
    32: "SLH-DSA-128s",
    33: "SLH-DSA-128f",
    34: "SLH-DSA-256s",
    35: "ML-KEM-768+X25519",
    36: "ML-KEM-1024+X448",
}
"""RFC 9580 section 9.1 and draft-ietf-openpgp-pqc."""

_ENCRYPTS = frozenset({1, 2, 16, 18, 25, 26, 35, 36})


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A primary key or subkey. `created`: seconds since the epoch. `bits`: size of the modulus or prime, 0 for curves.

    `name`: for people, such as "RSA 3072" or "X25519". `is_known`: whether algorithm and curve are ones we can judge.
    """

    packet: Packet
    version: int
    created: int
    algorithm: int
    bits: int
    name: str
    is_known: bool
    fingerprint: str

    @property
    def key_id(self) -> str:
        """RFC 9580 section 5.5.4: the fingerprint's last 8 octets (v4) or first 8 (v6)."""
        return self.fingerprint[:16] if self.version == 6 else self.fingerprint[-16:]

    @property
    def can_encrypt(self) -> bool:
        """By its algorithm; whether it may is said by its binding."""
        return self.algorithm in _ENCRYPTS


def read_key(packet: Packet) -> PublicKey:
    """Raises MalformedPackets. Versions 4 and 6 (RFC 9580 section 5.5.2); version 3 is MD5's, version 5 another format's."""
    body = packet.body
    if len(body) < 8:
        raise MalformedPackets("a key packet is too short")
    version = body[0]
    if version == 4:
        material = body[6:]
        fingerprint = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest()
    elif version == 6:
        material = body[10:]
        fingerprint = hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest()
    else:
        raise MalformedPackets(f"it is a key of version {version}; versions 4 and 6 can be read")
    algorithm = body[5]
    bits, name, known = 0, _WHOLE.get(algorithm, f"algorithm {algorithm}"), algorithm in _WHOLE
    if algorithm in _INTEGER:
        bits = int.from_bytes(material[:2], "big")
        name, known = f"{_INTEGER[algorithm]} {bits}", True
    elif algorithm in _CURVE:
        curve = _CURVES.get(material[1 : 1 + material[0]]) if material else None
        name, known = curve or f"{_CURVE[algorithm]} on an unknown curve", curve is not None
    return PublicKey(
        packet=packet,
        version=version,
        created=int.from_bytes(body[1:5], "big"),
        algorithm=algorithm,
        bits=bits,
        name=name,
        is_known=known,
        fingerprint=fingerprint,
    )


class Subpacket(NamedTuple):
    """`kind` without the critical bit."""

    kind: int
    is_critical: bool
    body: bytes

    def encode(self) -> bytes:
        return _length(len(self.body) + 1) + bytes((self.kind | (0x80 if self.is_critical else 0),)) + self.body


def subpackets(area: bytes) -> Iterator[Subpacket]:
    """RFC 9580 section 5.2.3.7. Raises MalformedPackets."""
    position = 0
    while position < len(area):
        first = area[position]
        if first < 192:
            start, length = position + 1, first
        elif first < 255:
            start, length = position + 2, ((first - 192) << 8) + int.from_bytes(area[position + 1 : position + 2], "big") + 192
        else:
            start, length = position + 5, int.from_bytes(area[position + 1 : position + 5], "big")
        position = start + length
        if length == 0 or position > len(area):
            raise MalformedPackets("a signature's subpackets are damaged")
        yield Subpacket(area[start] & 0x7F, bool(area[start] & 0x80), area[start + 1 : position])


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature, version 4 or 6, as it claims to be. Instants in seconds since the epoch, spans in seconds.

    `issuers`: fingerprints and key ids it names, anywhere. `created` None: it says no time in its signed part.
    `expires`: when the signature itself ends. `key_span`: how long after its own creation the key lives; None: for ever.
    `flags` None: none given. `is_understood`: nothing in its signed part is critical and unknown (RFC 9580 section 5.2.3.7).
    `signed`: its packet's body up to the end of the signed part; `value`: the signature proper with what precedes it.
    """

    packet: Packet
    signed: bytes
    value: bytes
    version: int
    kind: int
    hash: int
    issuers: frozenset[str]
    created: int | None
    expires: int | None
    key_span: int | None
    flags: int | None
    is_primary: bool
    is_exportable: bool
    is_hard: bool
    is_understood: bool
    key_blocks: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def identity(self) -> tuple[bytes, bytes]:
        """Equal for copies that differ only in their unsigned part."""
        return self.signed, self.value


_UNDERSTOOD = frozenset(
    {2, 3, 4, 5, 6, 7, 9, 11, 12, 16, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 37, 38, 39}
)
"""Subpackets whose meaning is honoured or does not bear on us. A critical notation (20) does: nobody told us what it means."""

_KEPT_UNSIGNED = frozenset({16, 32, 33})
"""Of the unsigned part we keep who signed (16, 33) and a signing subkey's consent (32); anybody can write the rest."""


def read_signature(packet: Packet) -> Signature | None:
    """None for versions we do not judge by (3 names no time in its signed part's subpackets). Raises MalformedPackets."""
    body = packet.body
    if len(body) < 10:
        raise MalformedPackets("a signature packet is too short")
    version = body[0]
    if version not in (4, 6):
        return None
    wide = 4 if version == 6 else 2
    hashed_at = 4 + wide
    hashed_end = hashed_at + int.from_bytes(body[4:hashed_at], "big")
    unhashed_at = hashed_end + wide
    unhashed_end = unhashed_at + int.from_bytes(body[hashed_end:unhashed_at], "big")
    if unhashed_end + 2 > len(body):
        raise MalformedPackets("a signature's subpackets are damaged")
    hashed = list(subpackets(body[hashed_at:hashed_end]))
    unhashed = list(subpackets(body[unhashed_at:unhashed_end]))
    kept = b"".join(one.encode() for one in unhashed if one.kind in _KEPT_UNSIGNED)
    lean = body[:hashed_end] + len(kept).to_bytes(wide, "big") + kept + body[unhashed_end:]
    if len(kept) >= 1 << (8 * wide):
        raise MalformedPackets("a signature's subpackets are damaged")
    last = {one.kind: one.body for one in hashed}  # the last of a kind counts (RFC 9580 section 5.2.3.9)
    created = _number(last.get(2))
    span = _number(last.get(3))
    return Signature(
        packet=Packet(packet.tag, lean),
        signed=body[:hashed_end],
        value=body[unhashed_end:],
        version=version,
        kind=body[1],
        hash=body[3],
        issuers=frozenset(_issuer(one) for one in (*hashed, *unhashed) if one.kind in (16, 33)),
        created=created,
        expires=created + span if created is not None and span else None,
        key_span=_number(last.get(9)) or None,
        flags=int.from_bytes(last[27][:1], "big") if 27 in last else None,
        is_primary=bool(_number(last.get(25))),
        is_exportable=last.get(4, b"\x01") != b"\x00",
        # No reason, "no reason" and "compromised" are for ever (RFC 9580 section 5.2.3.31).
        is_hard=last.get(29, b"\x00")[:1] in (b"", b"\x00", b"\x02"),
        is_understood=all(one.kind in _UNDERSTOOD for one in hashed if one.is_critical),
        key_blocks=tuple(one.body[1:] for one in (*hashed, *unhashed) if one.kind == 38 and one.body[:1] == b"\x00"),
    )


def _number(body: bytes | None) -> int | None:
    return None if body is None else int.from_bytes(body[:4], "big")


def _issuer(subpacket: Subpacket) -> str:
    return subpacket.body.hex() if subpacket.kind == 16 else subpacket.body[1:].hex()
