"""CMS signatures and signed mails, made to order for tests, put together field by field so that tests can bend them.

The certificates come from `support.certificates`, whose names can be had from here as well.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding

from support.certificates import (
    DAY,
    NOW,
    Form,
    Identity,
    authority,
    certify,
    name,
    person,
    private_key,
    revocation_list,
    usage,
)

__all__ = [
    "BODY",
    "DATA",
    "DAY",
    "MD5",
    "NOW",
    "SHA1",
    "SHA256",
    "SHA384",
    "SHA512",
    "SHAKE256",
    "SIGNED_DATA",
    "Form",
    "Identity",
    "Signature",
    "algorithm",
    "attribute",
    "authority",
    "capabilities",
    "certify",
    "certs_only",
    "content_type",
    "headers",
    "integer",
    "issuer_and_serial",
    "key_id_of",
    "message_digest",
    "multipart_signed",
    "name",
    "oid",
    "opaque_signed",
    "person",
    "preference",
    "private_key",
    "pss_parameters",
    "raw_signature",
    "revocation_list",
    "set_of",
    "sign",
    "signed_data",
    "signed_mail",
    "signer_info",
    "signing_time",
    "tlv",
    "usage",
]

DATA = "1.2.840.113549.1.7.1"
SIGNED_DATA = "1.2.840.113549.1.7.2"
SHA1, SHA256, SHA384, SHA512 = "1.3.14.3.2.26", "2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.2", "2.16.840.1.101.3.4.2.3"
MD5, SHAKE256 = "1.2.840.113549.2.5", "2.16.840.1.101.3.4.2.12"
_HASHES: dict[str, hashes.HashAlgorithm] = {
    SHA1: hashes.SHA1(),
    SHA256: hashes.SHA256(),
    SHA384: hashes.SHA384(),
    SHA512: hashes.SHA512(),
    MD5: hashes.MD5(),
}
# DER, by hand.


def tlv(tag: int, *parts: bytes) -> bytes:
    """One DER element."""
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes((tag, len(body))) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body


def oid(dotted: str) -> bytes:
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    body = b""
    for arc in (first * 40 + second, *rest):
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.append(0x80 | arc & 0x7F)
        body += bytes(reversed(septets))
    return tlv(0x06, body)


def integer(value: int) -> bytes:
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def algorithm(dotted: str, parameters: bytes = b"") -> bytes:
    return tlv(0x30, oid(dotted), parameters)


def set_of(*parts: bytes) -> bytes:
    return tlv(0x31, *sorted(parts))


def attribute(dotted: str, *values: bytes) -> bytes:
    return tlv(0x30, oid(dotted), set_of(*values))


def issuer_and_serial(certificate: x509.Certificate, tag: int = 0x30) -> bytes:
    return tlv(tag, certificate.issuer.public_bytes(), integer(certificate.serial_number))


def key_id_of(certificate: x509.Certificate) -> bytes:
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def preference(certificate: x509.Certificate, form: str = "issuer") -> bytes:
    """SMIMEEncryptionKeyPreference's attribute; `form`: issuer, recipient or subject (RFC 8551 2.5.3)."""
    value = {
        "issuer": lambda: issuer_and_serial(certificate, 0xA0),
        "recipient": lambda: tlv(0xA1, tlv(0x04, key_id_of(certificate))),
        "subject": lambda: tlv(0x82, key_id_of(certificate)),
    }[form]()
    return attribute("1.2.840.113549.1.9.16.2.11", value)


def capabilities(*dotted: str) -> bytes:
    return attribute("1.2.840.113549.1.9.15", tlv(0x30, *(algorithm(one) for one in dotted)))


def signing_time(moment: datetime) -> bytes:
    return attribute("1.2.840.113549.1.9.5", tlv(0x17, moment.astimezone(UTC).strftime("%y%m%d%H%M%SZ").encode()))


def content_type(dotted: str = DATA) -> bytes:
    return attribute("1.2.840.113549.1.9.3", oid(dotted))


def message_digest(content: bytes, digest: str = SHA256) -> bytes:
    if digest == SHAKE256:
        return attribute("1.2.840.113549.1.9.4", tlv(0x04, hashlib.shake_256(content).digest(64)))
    return attribute("1.2.840.113549.1.9.4", tlv(0x04, hashlib.new(_HASHES[digest].name, content).digest()))


def pss_parameters(digest: str, salt: int) -> bytes:
    mask = algorithm("1.2.840.113549.1.1.8", algorithm(digest))
    return tlv(0x30, tlv(0xA0, algorithm(digest)), tlv(0xA1, mask), tlv(0xA2, integer(salt)))


def raw_signature(key: Any, message: bytes, digest: str = SHA256, *, pss: bool = False) -> tuple[bytes, bytes]:
    """The signature algorithm (DER) and the signature's octets."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return algorithm("1.3.101.112"), key.sign(message)
    if isinstance(key, ed448.Ed448PrivateKey):
        return algorithm("1.3.101.113"), key.sign(message)
    chosen = _HASHES[digest]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        arc = {
            SHA1: "1.2.840.10045.4.1",
            SHA256: "1.2.840.10045.4.3.2",
            SHA384: "1.2.840.10045.4.3.3",
            SHA512: "1.2.840.10045.4.3.4",
        }
        return algorithm(arc[digest]), key.sign(message, ec.ECDSA(chosen))
    if isinstance(key, dsa.DSAPrivateKey):
        return algorithm("2.16.840.1.101.3.4.3.2"), key.sign(message, chosen)
    if pss:
        scheme = padding.PSS(padding.MGF1(chosen), chosen.digest_size)
        parameters = pss_parameters(digest, chosen.digest_size)
        return algorithm("1.2.840.113549.1.1.10", parameters), key.sign(message, scheme, chosen)
    return algorithm("1.2.840.113549.1.1.1", b"\x05\x00"), key.sign(message, padding.PKCS1v15(), chosen)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """How to sign. `attributes`: added to content type and digest; None: no signed attributes at all."""

    digest: str = SHA256
    pss: bool = False
    by_key_id: bool = False
    attributes: tuple[bytes, ...] | None = ()
    digest_attribute: bytes | None = None
    type_attribute: bytes | None = None


def signer_info(content: bytes, signer: Identity, how: Signature, inner: str = DATA) -> bytes:
    """One SignerInfo (RFC 5652 5.3)."""
    signed = content
    field_ = b""
    if how.attributes is not None:
        everything = sorted(
            (
                how.type_attribute if how.type_attribute is not None else content_type(inner),
                how.digest_attribute if how.digest_attribute is not None else message_digest(content, how.digest),
                *how.attributes,
            )
        )
        signed, field_ = tlv(0x31, *everything), tlv(0xA0, *everything)
    chosen, octets = raw_signature(signer.key, signed, how.digest, pss=how.pss)
    identifier = tlv(0x80, key_id_of(signer.certificate)) if how.by_key_id else issuer_and_serial(signer.certificate)
    return tlv(0x30, integer(3 if how.by_key_id else 1), identifier, algorithm(how.digest), field_, chosen, tlv(0x04, octets))


def signed_data(
    infos: Sequence[bytes],
    certificates: Sequence[bytes] = (),
    enclosed: bytes | None = None,
    *,
    inner: str = DATA,
    digests: Sequence[str] = (SHA256,),
) -> bytes:
    """A ContentInfo of SignedData (RFC 5652 5.1)."""
    encapsulated = tlv(0x30, oid(inner), *(() if enclosed is None else (tlv(0xA0, tlv(0x04, enclosed)),)))
    bag = (tlv(0xA0, *certificates),) if certificates else ()
    inside = tlv(0x30, integer(1), set_of(*(algorithm(one) for one in digests)), encapsulated, *bag, tlv(0x31, *infos))
    return tlv(0x30, oid(SIGNED_DATA), tlv(0xA0, inside))


def sign(
    content: bytes,
    signer: Identity,
    *others: Identity,
    opaque: bool = False,
    **how: Any,
) -> bytes:
    """The CMS signature of `signer` over `content`, with its certificate and those of `others`. `how`: fields of Signature."""
    chosen = Signature(**how)
    certificates = [identity.der for identity in (signer, *others)]
    info = signer_info(content, signer, chosen)
    return signed_data([info], certificates, content if opaque else None, digests=(chosen.digest,))


def certs_only(*identities: Identity) -> bytes:
    return signed_data([], [identity.der for identity in identities])


# Mails.

BODY = b"Content-Type: text/plain; charset=utf-8\r\n\r\nDear Bob,\r\nhere is my certificate.\r\n"


def headers(sender: str = "alice@example.org", to: str = "bob@example.net", subject: str = "signed") -> bytes:
    identifier = hashlib.sha256(f"{sender} {to} {subject}".encode()).hexdigest()[:16]
    return (
        f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\nDate: Mon, 01 Jun 2026 10:00:00 +0000\r\n"
        f"Message-ID: <{identifier}@example.org>\r\nMIME-Version: 1.0\r\n"
    ).encode()


def multipart_signed(signature: bytes, body: bytes = BODY, **fields: str) -> bytes:
    """multipart/signed (RFC 8551 3.5.3); `body`: the signed part with its headers and CRLF line ends."""
    return b"".join(
        (
            headers(**fields),
            b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary="=-keycache-="\r\n\r\n',
            b"--=-keycache-=\r\n",
            body,
            b'\r\n--=-keycache-=\r\nContent-Type: application/pkcs7-signature; name="smime.p7s"\r\n',
            b"Content-Transfer-Encoding: base64\r\n\r\n",
            base64.encodebytes(signature).replace(b"\n", b"\r\n"),
            b"\r\n--=-keycache-=--\r\n",
        )
    )


def opaque_signed(signature: bytes, **fields: str) -> bytes:
    """application/pkcs7-mime; smime-type=signed-data (RFC 8551 3.5.2)."""
    return b"".join(
        (
            headers(**fields),
            b'Content-Type: application/pkcs7-mime; smime-type=signed-data; name="smime.p7m"\r\n',
            b"Content-Transfer-Encoding: base64\r\n\r\n",
            base64.encodebytes(signature).replace(b"\n", b"\r\n"),
        )
    )


def signed_mail(
    signer: Identity, *others: Identity, body: bytes = BODY, sender: str = "alice@example.org", **how: Any
) -> bytes:
    """A multipart/signed mail from `sender`. `how`: fields of Signature."""
    return multipart_signed(sign(body, signer, *others, **how), body, sender=sender)
