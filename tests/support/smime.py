"""Certification authorities, people's certificates, CMS signatures and signed mails, made to order for tests.

Certificates are made by `cryptography`; signatures are put together here, field by field, so that tests can bend them.
`openssl` serves as the foreign maker and judge where it is installed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa, x448, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
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
USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@cache
def private_key(kind: str, number: int = 0) -> Any:
    """One key per kind and number in a test run. Kinds: rsa, rsa3072, rsa1024, p256, p384, p521, ed25519, ed448, x25519, x448, dsa."""
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:] or 2048))
    if kind == "dsa":
        return dsa.generate_private_key(2048)
    curves = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1(), "p192": ec.SECP192R1()}
    if kind in curves:
        return ec.generate_private_key(curves[kind])
    edwards: dict[str, Any] = {
        "ed25519": ed25519.Ed25519PrivateKey,
        "ed448": ed448.Ed448PrivateKey,
        "x25519": x25519.X25519PrivateKey,
        "x448": x448.X448PrivateKey,
    }
    return edwards[kind].generate()


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: Any

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.der).hexdigest()


def name(text: str, email: str = "") -> x509.Name:
    """`O=Keycache Tests, CN=text`, with an emailAddress if given."""
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Keycache Tests"), x509.NameAttribute(NameOID.COMMON_NAME, text)]
    if email:
        attributes.append(x509.NameAttribute(NameOID.EMAIL_ADDRESS, email))
    return x509.Name(attributes)


def usage(*names: str) -> x509.KeyUsage:
    """Key usage with the named flags of USAGES set."""
    return x509.KeyUsage(**{flag: flag in names for flag in USAGES})


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a certificate is to look like. None leaves an extension out; `extra` adds (extension, critical) pairs."""

    subject: x509.Name
    key: Any
    authority: bool = False
    constraints: x509.BasicConstraints | None = None
    usage: x509.KeyUsage | None = None
    purposes: tuple[x509.ObjectIdentifier, ...] | None = None
    alternatives: tuple[x509.GeneralName, ...] = ()
    not_before: datetime = NOW - 300 * DAY
    not_after: datetime = NOW + 300 * DAY
    key_ids: bool = True
    key_id: bytes | None = None
    digest: hashes.HashAlgorithm | None = field(default_factory=hashes.SHA256)
    pss: bool = False
    serial: int | None = None
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = ()


def certify(form: Form, issuer: Identity | None = None) -> Identity:
    """A certificate in this form, by the issuer or self-signed."""
    public = form.key.public_key()
    issuer_name = form.subject if issuer is None else issuer.certificate.subject
    signing_key = form.key if issuer is None else issuer.key
    builder = (
        x509.CertificateBuilder()
        .subject_name(form.subject)
        .issuer_name(issuer_name)
        .public_key(public)
        .serial_number(form.serial or x509.random_serial_number())
        .not_valid_before(form.not_before)
        .not_valid_after(form.not_after)
    )
    if form.constraints is not None:
        builder = builder.add_extension(form.constraints, critical=True)
    if form.key_ids:
        own = x509.SubjectKeyIdentifier.from_public_key(public) if form.key_id is None else x509.SubjectKeyIdentifier(form.key_id)
        builder = builder.add_extension(own, critical=False)
        if issuer is not None:
            builder = builder.add_extension(_authority_key_id(issuer), critical=False)
    if form.usage is not None:
        builder = builder.add_extension(form.usage, critical=True)
    if form.purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(form.purposes), critical=False)
    if form.alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(form.alternatives), critical=False)
    for extension, critical in form.extra:
        builder = builder.add_extension(extension, critical=critical)
    edwards = isinstance(signing_key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH) if form.pss else None
    return Identity(builder.sign(signing_key, None if edwards else form.digest, rsa_padding=scheme), form.key)


def _authority_key_id(issuer: Identity) -> x509.AuthorityKeyIdentifier:
    try:
        own = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def authority(text: str = "Test Root", issuer: Identity | None = None, **changes: Any) -> Identity:
    """A certification authority: a root, or below `issuer`. `changes`: fields of Form; `path_length`."""
    form: dict[str, Any] = {
        "subject": name(text),
        "key": private_key("p256", int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")),
        "constraints": x509.BasicConstraints(ca=True, path_length=changes.pop("path_length", None)),
        "usage": usage("key_cert_sign", "crl_sign"),
        "not_before": NOW - 1000 * DAY,
        "not_after": NOW + 1000 * DAY,
    }
    return certify(Form(**{**form, **changes}), issuer)


def person(address: str = "alice@example.org", issuer: Identity | None = None, kind: str = "p256", **changes: Any) -> Identity:
    """A mail user's certificate that can sign and encrypt. `kind`: of `private_key`. `changes`: fields of Form."""
    form: dict[str, Any] = {
        "subject": name(address.partition("@")[0].title()),
        "key": private_key(kind, int.from_bytes(hashlib.sha256(address.encode()).digest()[:6], "big")),
        "constraints": x509.BasicConstraints(ca=False, path_length=None),
        "usage": usage("digital_signature", "content_commitment", "key_encipherment" if kind.startswith("rsa") else "key_agreement"),
        "purposes": (ExtendedKeyUsageOID.EMAIL_PROTECTION,),
        "alternatives": (x509.RFC822Name(address),),
    }
    return certify(Form(**{**form, **changes}), issuer)


def revocation_list(
    issuer: Identity,
    revoked: Sequence[Identity] = (),
    *,
    reason: x509.ReasonFlags | None = None,
    last_update: datetime = NOW - DAY,
    next_update: datetime = NOW + 7 * DAY,
) -> bytes:
    """A CRL in DER."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    builder = builder.last_update(last_update).next_update(next_update)
    builder = builder.add_extension(_authority_key_id(issuer), critical=False).add_extension(x509.CRLNumber(1), critical=False)
    for identity in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(identity.certificate.serial_number)
        entry = entry.revocation_date(last_update)
        if reason is not None:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)


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
        arc = {SHA1: "1.2.840.10045.4.1", SHA256: "1.2.840.10045.4.3.2", SHA384: "1.2.840.10045.4.3.3", SHA512: "1.2.840.10045.4.3.4"}
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


def signed_mail(signer: Identity, *others: Identity, body: bytes = BODY, sender: str = "alice@example.org", **how: Any) -> bytes:
    """A multipart/signed mail from `sender`. `how`: fields of Signature."""
    return multipart_signed(sign(body, signer, *others, **how), body, sender=sender)
