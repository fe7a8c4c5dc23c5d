"""Cryptographic Message Syntax (RFC 5652), read into plain values. Nothing is verified here.

Only what S/MIME signatures need is read: certificates, signers, signed attributes. The structure was bounded before
(`smime_asn1`), and everything a sender can repeat has a limit of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from keycache.domain.verdict import Verdict
from keycache.harvest.smime_asn1 import (
    GENERALIZED_TIME,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    SET,
    UTC_TIME,
    Asn1Limits,
    Element,
    Unacceptable,
    malformed,
    parse,
    to_der,
)

DATA = "1.2.840.113549.1.7.1"
_SIGNED_DATA = "1.2.840.113549.1.7.2"
_ENVELOPED = frozenset(
    {
        "1.2.840.113549.1.7.3",  # envelopedData
        "1.2.840.113549.1.7.4",  # signedAndEnvelopedData of PKCS #7
        "1.2.840.113549.1.7.6",  # encryptedData
        "1.2.840.113549.1.9.16.1.23",  # authEnvelopedData, RFC 5083
    }
)
_CONTENT_TYPE, _MESSAGE_DIGEST, _SIGNING_TIME = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4", "1.2.840.113549.1.9.5"
_CAPABILITIES = "1.2.840.113549.1.9.15"
_KEY_PREFERENCE = "1.2.840.113549.1.9.16.2.11"
_CONTEXT_0, _CONTEXT_1 = 0xA0, 0xA1
SERIAL_OCTETS = 64
"""RFC 5280 4.1.2.2 allows 20; PKITS 4.1.16 brings 20 with a sign octet; threefold."""


class CmsKind(Enum):
    """What the outermost layer is. OTHER: compressed or unknown; CERTS_ONLY: signed data without a signature (RFC 8551 3.8)."""

    SIGNED = "SIGNED"
    ENVELOPED = "ENVELOPED"
    CERTS_ONLY = "CERTS_ONLY"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmimeLimits:
    """What one signature may hold. Honest ones: 1 signer (a gateway may add one), 2 to 6 certificates, 4 to 8 attributes."""

    asn1: Asn1Limits = field(default_factory=Asn1Limits)
    certificates: int = 64
    signers: int = 8
    attributes: int = 64
    capabilities: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateName:
    """How CMS points to a certificate: `issuer` (the Name in DER) with `serial`, or `key_id`."""

    issuer: bytes = b""
    serial: int = 0
    key_id: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedAttributes:
    """`encodings`: the bytes a signature may be over (RFC 5652 5.4): their DER, then as sent, if that is different.

    Attributes that S/MIME wants once and that came several times or broken are None, and `ignored` names them.
    """

    encodings: tuple[bytes, ...]
    content_type: str
    message_digest: bytes
    signing_time: datetime | None = None
    preference: CertificateName | None = None
    capabilities: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerInfo:
    """One signature. Algorithms are dotted OIDs; `signature_parameters`: DER, empty if absent."""

    signer: CertificateName
    digest: str
    signature_algorithm: str
    signature_parameters: bytes
    signature: bytes
    attributes: SignedAttributes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cms:
    """One ContentInfo. `content`: the encapsulated octets, None if detached. `certificates`: DER, as sent, each once."""

    kind: CmsKind
    content_type: str = ""
    content: bytes | None = None
    certificates: tuple[bytes, ...] = ()
    signers: tuple[SignerInfo, ...] = ()


def read_cms(data: bytes, limits: SmimeLimits) -> Cms:
    """A ContentInfo in DER or BER. Raises Unacceptable: MALFORMED_KEY or TOO_COMPLEX."""
    info = parse(data, limits.asn1).expect(SEQUENCE, "the content info")
    kind = info.child(0, OID, "the content type").oid("the content type")
    if kind in _ENVELOPED:
        return Cms(kind=CmsKind.ENVELOPED)
    if kind != _SIGNED_DATA:
        return Cms(kind=CmsKind.OTHER)
    return _signed_data(info.child(1, _CONTEXT_0, "the signed data").child(0, SEQUENCE, "the signed data"), limits)


def _signed_data(element: Element, limits: SmimeLimits) -> Cms:
    """RFC 5652 5.1."""
    encapsulated = element.child(2, SEQUENCE, "the encapsulated content")
    content_type = encapsulated.child(0, OID, "the encapsulated content type").oid("the encapsulated content type")
    content = _content(encapsulated)
    certificates: tuple[bytes, ...] = ()
    rest = element.children[3:]
    if rest and rest[0].tag == _CONTEXT_0:
        certificates = _certificates(rest.pop(0), limits)
    if rest and rest[0].tag == _CONTEXT_1:
        rest.pop(0)  # Revocation lists of the sender's choice are not ours to believe; the trust base has its own.
    if not rest:
        raise malformed("the set of signers is missing")
    signers = rest[0].expect(SET, "the set of signers").children
    if len(signers) > limits.signers:
        raise Unacceptable(Verdict.TOO_COMPLEX, f"The signature has {len(signers)} signers; the limit is {limits.signers}.")
    return Cms(
        kind=CmsKind.SIGNED if signers else CmsKind.CERTS_ONLY,
        content_type=content_type,
        content=content,
        certificates=certificates,
        signers=tuple(_signer_info(signer, limits) for signer in signers),
    )


def _content(encapsulated: Element) -> bytes | None:
    """The octets of eContent. PKCS #7 (RFC 2315) allowed other types than a string; their contents are then what is digested."""
    if len(encapsulated.children) < 2:
        return None
    wrapper = encapsulated.child(1, _CONTEXT_0, "the encapsulated content")
    if not wrapper.children:
        return None
    inner = wrapper.children[0]
    return inner.octets() if inner.tag & ~0x20 == OCTET_STRING else inner.contents


def _certificates(element: Element, limits: SmimeLimits) -> tuple[bytes, ...]:
    """The plain certificates; attribute certificates and other formats (RFC 5652 10.2.2) name no mail keys."""
    found = [child for child in element.children if child.tag == SEQUENCE]
    if len(found) > limits.certificates:
        text = f"The signature brings {len(found)} certificates; the limit is {limits.certificates}."
        raise Unacceptable(Verdict.TOO_COMPLEX, text)
    return tuple(dict.fromkeys(child.raw for child in found if child.is_definite()))


def _signer_info(element: Element, limits: SmimeLimits) -> SignerInfo:
    """RFC 5652 5.3."""
    fields = list(element.expect(SEQUENCE, "a signer").children[1:])
    if len(fields) < 4:
        raise malformed("a signer is incomplete")
    signer = _certificate_name(fields.pop(0))
    digest = fields.pop(0).child(0, OID, "a digest algorithm").oid("a digest algorithm")
    attributes = None
    if fields[0].tag == _CONTEXT_0:
        attributes = _signed_attributes(fields.pop(0), limits)
    if len(fields) < 2:
        raise malformed("a signer is incomplete")
    algorithm = fields[0].expect(SEQUENCE, "a signature algorithm")
    return SignerInfo(
        signer=signer,
        digest=digest,
        signature_algorithm=algorithm.child(0, OID, "a signature algorithm").oid("a signature algorithm"),
        signature_parameters=to_der(algorithm.children[1]) if len(algorithm.children) > 1 else b"",
        signature=_octet_string(fields[1], "a signature"),
        attributes=attributes,
    )


def _octet_string(element: Element, what: str) -> bytes:
    if element.tag & ~0x20 != OCTET_STRING:
        raise malformed(f"{what} is missing")
    return element.octets()


def _certificate_name(element: Element) -> CertificateName:
    """SignerIdentifier: IssuerAndSerialNumber, or [0] SubjectKeyIdentifier."""
    if element.tag & ~0x20 == 0x80:
        return CertificateName(key_id=element.octets() if not element.constructed else _joined(element))
    return _issuer_and_serial(element.expect(SEQUENCE, "the name of a signer"))


def _joined(element: Element) -> bytes:
    return b"".join(child.octets() for child in element.children)


def _issuer_and_serial(element: Element) -> CertificateName:
    issuer = element.child(0, SEQUENCE, "the issuer of a signer")
    serial = element.child(1, INTEGER, "the serial number of a signer").contents
    if not 1 <= len(serial) <= SERIAL_OCTETS:
        raise malformed("the serial number of a signer is out of bounds")
    return CertificateName(issuer=to_der(issuer), serial=int.from_bytes(serial, "big", signed=True))


def _signed_attributes(element: Element, limits: SmimeLimits) -> SignedAttributes:
    """RFC 5652 5.3 and 11: contentType and messageDigest must be there, once, with one value each."""
    if len(element.children) > limits.attributes:
        text = f"The signature has {len(element.children)} signed attributes; the limit is {limits.attributes}."
        raise Unacceptable(Verdict.TOO_COMPLEX, text)
    values: dict[str, list[Element]] = {}
    for attribute in element.children:
        name = attribute.expect(SEQUENCE, "a signed attribute").child(0, OID, "its type").oid("its type")
        values.setdefault(name, []).extend(attribute.child(1, SET, "its values").children or [attribute])
    digest = _once(values, _MESSAGE_DIGEST, "the message digest attribute")
    der = to_der(element, SET)
    sent = bytes((SET,)) + element.raw[1:]
    ignored: list[str] = []
    return SignedAttributes(
        encodings=(der,) if sent == der or not element.is_definite() else (der, sent),
        content_type=_once(values, _CONTENT_TYPE, "the content type attribute").oid("the content type attribute"),
        message_digest=_octet_string(digest, "the message digest attribute"),
        signing_time=_signing_time(values, ignored),
        preference=_preference(values, ignored),
        capabilities=_capabilities(values, ignored, limits),
        ignored=tuple(ignored),
    )


def _once(values: dict[str, list[Element]], name: str, what: str) -> Element:
    found = values.get(name, [])
    if len(found) != 1:
        raise Unacceptable(
            Verdict.SIGNATURE_INVALID, f"The signature must hold {what} exactly once, and holds it {len(found)} times."
        )
    return found[0]


def _optional(values: dict[str, list[Element]], name: str, what: str, ignored: list[str]) -> Element | None:
    """An attribute's only value. RFC 8551 2.5: several instances or values are against the rules, so none of them counts."""
    found = values.get(name, [])
    if len(found) > 1:
        ignored.append(f"{what} (given {len(found)} times)")
    return found[0] if len(found) == 1 else None


def _signing_time(values: dict[str, list[Element]], ignored: list[str]) -> datetime | None:
    """RFC 5652 11.3: UTCTime of 1950 to 2049, else GeneralizedTime; both to the second, in Z."""
    element = _optional(values, _SIGNING_TIME, "signing time", ignored)
    if element is None:
        return None
    text = element.contents.decode("ascii", "replace")
    if element.tag == UTC_TIME:
        text = ("20" if text[:2] < "50" else "19") + text
    try:
        if element.tag in (UTC_TIME, GENERALIZED_TIME) and len(text) == len("20260101000000Z"):
            return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        pass
    ignored.append("signing time (unreadable)")
    return None


def _preference(values: dict[str, list[Element]], ignored: list[str]) -> CertificateName | None:
    """SMIMEEncryptionKeyPreference, RFC 8551 2.5.3; its three forms carry implicit tags."""
    element = _optional(values, _KEY_PREFERENCE, "encryption key preference", ignored)
    if element is None:
        return None
    try:
        if element.tag == _CONTEXT_0:
            return _issuer_and_serial(element)
        if element.tag == _CONTEXT_1:
            return CertificateName(key_id=_octet_string(element.children[0], "a key identifier"))
        if element.tag & ~0x20 == 0x82:
            return CertificateName(key_id=_joined(element) if element.constructed else element.contents)
    except (Unacceptable, IndexError):
        pass
    ignored.append("encryption key preference (unreadable)")
    return None


def _capabilities(values: dict[str, list[Element]], ignored: list[str], limits: SmimeLimits) -> tuple[str, ...]:
    """SMIMECapabilities, RFC 8551 2.5.2: OIDs, best first, each once."""
    element = _optional(values, _CAPABILITIES, "capabilities", ignored)
    if element is None:
        return ()
    try:
        children = element.expect(SEQUENCE, "the capabilities").children[: limits.capabilities]
        return tuple(dict.fromkeys(child.child(0, OID, "a capability").oid("a capability") for child in children))
    except Unacceptable:
        ignored.append("capabilities (unreadable)")
        return ()
