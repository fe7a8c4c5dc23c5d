"""Certification authorities, people's certificates and revocation lists, made to order for tests, by `cryptography`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa, x448, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
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
    attributes = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Keycache Tests"),
        x509.NameAttribute(NameOID.COMMON_NAME, text),
    ]
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
        own = (
            x509.SubjectKeyIdentifier.from_public_key(public) if form.key_id is None else x509.SubjectKeyIdentifier(form.key_id)
        )
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
    except (x509.ExtensionNotFound, ValueError):
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
        "usage": usage(
            "digital_signature", "content_commitment", "key_encipherment" if kind.startswith("rsa") else "key_agreement"
        ),
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
