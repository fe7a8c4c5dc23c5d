"""The authority: what it signs, for whom, for how long. Certificates follow RFC 5280."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keycache.domain.errors import ConfigError, InvalidInput
from keycache.domain.names import Domain, NodeId
from keycache.pki.identity import NODE_URI, ROLE_URI, Identity, PrivateKey, Role, key_hash

CA_LIFE = timedelta(days=3653)
"""Ten years: the life of an appliance; its replacement means new certificates for every client."""
LEAF_LIFE = timedelta(days=398)
"""What the CA/Browser Forum allowed a server's certificate (BR 6.3.2, 2020): long for a service restarted twice a year."""
CLIENT_LIFE = timedelta(days=1095)
"""Three years: issued by hand, to machines that nobody looks at for as long as mail flows."""
RENEW_BELOW = 3
"""Renew when less than a third of the life is left, as ACME clients do."""
BACKDATE = timedelta(days=365)
"""The authority's start lies this far back, and every certificate of its own starts with it: a machine whose clock is behind,
or was ahead when a certificate was renewed, must still be reached, to be told so."""

CA_NAME = "Keycache CA of"
"""How the subject of every authority of ours begins."""
NODE_HOST = "keycache-node.invalid"
"""A host name in every node's certificate and in no client's, which never resolves (RFC 6761 section 6.4). etcd knows no roles, but
takes only certificates of one host name (`--client-cert-allowed-hostname`, `--peer-cert-allowed-hostname`): of this one. Without it
every mail processor could speak to etcd."""
NODE_NAMES_MAX = 64
"""Names in one certificate: addresses and host names of one machine. More is a mistake, and makes every handshake larger."""

_BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._@-]{0,62}[A-Za-z0-9])?")
"""At most 64 characters (RFC 5280 ub-common-name), and nothing that a log line or a table could stumble over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate for somebody else's key. PEM."""

    certificate: bytes
    ca: bytes
    not_after: datetime


class Authority:
    """A CA's certificate and private key."""

    def __init__(self, certificate: bytes, key: PrivateKey) -> None:
        """From PEM. Raises ConfigError when the two do not belong together or are no CA."""
        try:
            self._certificate = x509.load_pem_x509_certificate(certificate)
            constraints = self._certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except (ValueError, x509.ExtensionNotFound) as error:
            raise ConfigError("The authority's file is not a CA certificate in PEM.") from error
        if not constraints.ca or not key.fits(self._certificate):
            raise ConfigError("The authority's certificate and private key do not belong together.")
        self.pem = certificate
        self._key = key

    @classmethod
    def create(cls, key: PrivateKey, *, name: str, now: datetime) -> Authority:
        """A new self-signed authority for ten years."""
        signer = key.load()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{CA_NAME} {name}"[:64])])
        builder = (
            _builder(subject, subject, signer.public_key(), since=now - BACKDATE, until=now + CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(sign_certificates=True), critical=True)
        )
        return cls(builder.sign(signer, SHA256()).public_bytes(Encoding.PEM), key)

    @property
    def id(self) -> str:
        """SHA-256 of its public key (SubjectPublicKeyInfo), hex: what join tokens pin, and what tells authorities apart."""
        return key_hash(self._certificate.public_key()).hex()

    @property
    def key(self) -> PrivateKey:
        """For other nodes of the cluster, and nobody else."""
        return self._key

    @property
    def not_before(self) -> datetime:
        return self._certificate.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        return self._certificate.not_valid_after_utc

    def issue_server(self, names: Sequence[str], *, now: datetime) -> Identity:
        """A certificate for a node that is reached under `names` (host names and IP addresses). Raises ConfigError."""
        alternatives: list[x509.GeneralName] = [server_name(name) for name in names]
        return self._issue_own("keycache node", alternatives, (ExtendedKeyUsageOID.SERVER_AUTH,), now=now)

    def issue_node(self, node: NodeId, names: Sequence[str], *, now: datetime) -> Identity:
        """As `sign_node`, with a key of its own: for the node that holds this authority. Raises ConfigError, InvalidInput."""
        return self._issue_own(NodeId.parse(node.text).text, node_names(node, names), _BOTH, now=now)

    def sign_node(self, csr: bytes, *, node: NodeId, names: Sequence[str], now: datetime) -> Issued:
        """The one certificate of a node of a cluster, for the key of a PKCS#10 request that proves possession of it.

        It serves as gRPC server under `names` (host names and IP addresses), as client of the role `node`, and as etcd's server,
        peer and client. Subject and alternative names are ours, whatever the request asks for. Raises InvalidInput.
        """
        public_key = _requested_key(csr)
        if len(names) > NODE_NAMES_MAX:
            raise InvalidInput(f"A node has at most {NODE_NAMES_MAX} names, not {len(names)}.", hint="Shorten listen.names.")
        try:
            alternatives = node_names(node, names)
        except ConfigError as error:
            raise InvalidInput(error.text, hint=error.hint) from error
        until = min(now + LEAF_LIFE, self.not_after)
        certificate = self._sign(NodeId.parse(node.text).text, public_key, alternatives, _BOTH, until)
        return Issued(certificate=certificate, ca=self.pem, not_after=_not_after(certificate))

    def issue_client(self, role: Role, name: str, *, now: datetime) -> Identity:
        """A certificate and its key for a client of our own, such as the administrator's command. Raises InvalidInput."""
        return self._issue_own(_checked(name), [_client_uri(role)], (ExtendedKeyUsageOID.CLIENT_AUTH,), now=now)

    def sign_client(self, csr: bytes, *, role: Role, name: str, now: datetime) -> Issued:
        """A client certificate for the key of a PKCS#10 request (PEM or DER) that proves possession of it.

        Whatever else the request asks for is left aside. Raises InvalidInput.
        """
        public_key = _requested_key(csr)
        until = min(now + CLIENT_LIFE, self.not_after)
        certificate = self._sign(_checked(name), public_key, [_client_uri(role)], (ExtendedKeyUsageOID.CLIENT_AUTH,), until)
        return Issued(certificate=certificate, ca=self.pem, not_after=_not_after(certificate))

    def vouches_for(self, certificate: x509.Certificate) -> bool:
        """Whether this authority signed the certificate."""
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
            return False
        return True

    def _issue_own(
        self, name: str, alternatives: list[x509.GeneralName], purposes: Sequence[x509.ObjectIdentifier], *, now: datetime
    ) -> Identity:
        key = PrivateKey.generate()
        until = min(now + LEAF_LIFE, self.not_after)
        certificate = self._sign(name, key.load().public_key(), alternatives, purposes, until)
        return Identity(certificate=certificate, key=key, ca=self.pem, not_after=_not_after(certificate))

    def _sign(
        self,
        name: str,
        public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        alternatives: list[x509.GeneralName],
        purposes: Sequence[x509.ObjectIdentifier],
        until: datetime,
    ) -> bytes:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            _builder(subject, self._certificate.subject, public_key, since=self.not_before, until=until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
        )
        return builder.sign(self._key.load(), SHA256()).public_bytes(Encoding.PEM)


def new_request(name: str) -> tuple[PrivateKey, bytes]:
    """A new private key, which stays with the caller, and a request in PEM to have it certified. Raises InvalidInput."""
    key = PrivateKey.generate()
    return key, request_for(key, name)


def request_for(key: PrivateKey, name: str) -> bytes:
    """A request in PEM to have this key certified. Raises InvalidInput."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _checked(name))])
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key.load(), SHA256()).public_bytes(Encoding.PEM)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    *,
    since: datetime,
    until: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _role_uri(role: Role) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(f"{ROLE_URI}{role.value}")


def _client_uri(role: Role) -> x509.GeneralName:
    if role is Role.NODE:
        raise InvalidInput("A certificate of the role node must say which node.", hint="Nodes get theirs by joining a cluster.")
    return _role_uri(role)


def node_names(node: NodeId, names: Sequence[str]) -> list[x509.GeneralName]:
    """What a node's certificate is to say beside its subject. Raises ConfigError for what is no host name, InvalidInput for the id."""
    hosts = [str(server_name(name).value) for name in (*names, NODE_HOST)]
    return [
        *(server_name(host) for host in dict.fromkeys(hosts)),
        _role_uri(Role.NODE),
        x509.UniformResourceIdentifier(f"{NODE_URI}{NodeId.parse(node.text)}"),
    ]


def requested_key_hash(csr: bytes) -> bytes:
    """SHA-256 of the public key (SubjectPublicKeyInfo) that a PKCS#10 request is for and proves to hold. Raises InvalidInput."""
    return key_hash(_requested_key(csr))


def server_name(text: str) -> x509.DNSName | x509.IPAddress:
    """A host name or IP address as it stands in a certificate: lower case, A-labels. Raises ConfigError."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(Domain.parse(text).text)
    except InvalidInput as error:
        raise ConfigError(
            f"{text[:80]!r} is neither a host name nor an IP address.", hint="Write it without port, such as cache.example.org."
        ) from error


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:80]!r} cannot be the name of a client.",
            hint="Use 1 to 64 letters, digits, blanks, dots, dashes, underscores or @, with a letter or digit at both ends.",
        )
    return name


def _requested_key(csr: bytes) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    try:
        request = x509.load_pem_x509_csr(csr) if b"-----BEGIN" in csr else x509.load_der_x509_csr(csr)
        key = request.public_key()
        proven = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput("This is not a certificate signing request that can be read (PKCS#10).") from error
    if not proven:
        raise InvalidInput(
            "The signing request is not signed with its own key, so nothing proves that you hold it.",
            hint="Make the request anew with the private key.",
        )
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    if isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 8192:
        return key
    raise InvalidInput(
        "Keys of this kind or size cannot be certified here.", hint="Use EC P-256, EC P-384 or RSA of 2048 to 8192 bits."
    )


def _not_after(certificate: bytes) -> datetime:
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc
