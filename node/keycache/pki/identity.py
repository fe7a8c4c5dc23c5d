"""Who somebody is by certificate: private keys that cannot be printed, pairs of key and certificate, peers and their roles."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from keycache.domain.errors import ConfigError, PermissionDenied
from keycache.domain.names import NodeId

ROLE_URI = "urn:keycache:role:"
NODE_URI = "urn:keycache:node:"


class Role(Enum):
    """What a client may do. `value` is the word in its certificate, in commands and in requests."""

    ADMIN = "admin"
    MAIL_PROCESSOR = "mail-processor"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key as PKCS#8 PEM. Neither `repr` nor `str` show it; whoever needs it says `.pem`."""

    pem: bytes

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new EC key on P-256: what every TLS stack takes, gRPC's BoringSSL included (which takes no Ed25519)."""
        return cls(ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def load(self) -> ec.EllipticCurvePrivateKey:
        """Raises ConfigError when this is no EC key in PEM."""
        try:
            key = load_pem_private_key(self.pem, password=None)
        except (ValueError, TypeError) as error:
            raise ConfigError("This is not an unencrypted private key in PEM.") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError("This private key is not one on an elliptic curve.")
        return key

    def fits(self, certificate: x509.Certificate) -> bool:
        """Whether the certificate names this key's public half."""
        return _spki(certificate.public_key()) == _spki(self.load().public_key())

    def __repr__(self) -> str:
        return "PrivateKey(redacted)"

    __str__ = __repr__


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_hash(key: CertificatePublicKeyTypes) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo, as RFC 7469 section 2.4 pins keys."""
    return hashlib.sha256(_spki(key)).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A private key, its certificate and the authorities whom its holder trusts, the one that signed it first; all PEM."""

    certificate: bytes
    key: PrivateKey
    ca: bytes
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A client as its certificate tells. `name` is what the audit log calls it. `node`: of the role node alone. `issuer`: the key
    identifier of the authority, which changes nobody (RFC 5280 section 4.2.1.1)."""

    role: Role
    name: str
    not_after: datetime
    node: NodeId | None = None
    issuer: bytes = field(default=b"", compare=False)


def read_peer(certificate: bytes) -> Peer:
    """Who holds this PEM certificate, whose chain the TLS handshake has verified.

    Raises PermissionDenied for a certificate without exactly one known role.
    """
    try:
        parsed = x509.load_pem_x509_certificate(certificate)
        uris = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.UniformResourceIdentifier
        )
    except (ValueError, x509.ExtensionNotFound):
        uris = []
    words = [uri.removeprefix(ROLE_URI) for uri in uris if uri.startswith(ROLE_URI)]
    roles = [role for role in Role if words == [role.value]]
    if not roles:
        told = "no role" if not words else f"the role {', '.join(words)!r}, which is none here"
        raise PermissionDenied(
            f"This certificate gives {told}.", hint="Get a client certificate with 'keycache client issue --role ROLE'."
        )
    names = [str(attribute.value) for attribute in parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    ids = [uri.removeprefix(NODE_URI) for uri in uris if uri.startswith(NODE_URI)]
    return Peer(
        role=roles[0],
        name=names[0] if names else roles[0].value,
        not_after=parsed.not_valid_after_utc,
        issuer=_issuer(parsed),
        node=NodeId(ids[0]) if roles[0] is Role.NODE and len(ids) == 1 else None,
    )


def _issuer(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
    except (ValueError, x509.ExtensionNotFound):
        return b""
