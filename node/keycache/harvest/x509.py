"""One X.509 certificate as facts: whom it names, what its key may do, how strong it is. Trust is judged in `paths`."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa, x448, x25519
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.utils import CryptographyDeprecationWarning

from keycache.domain.names import EmailAddress, Fingerprint
from keycache.domain.verdict import Verdict
from keycache.harvest.cms import CertificateName
from keycache.harvest.smime_asn1 import BIT_STRING, SEQUENCE, Asn1Limits, Element, Unacceptable, parse
from keycache.harvest.x509_names import addresses_of, name_key, printable

CERTIFICATE_OCTETS = 32 * 1024
"""An S/MIME certificate has 1 to 3 KiB, one with a post-quantum key (ML-DSA-87) and signature 8; fourfold."""
RSA_BITS = 2048
"""RFC 8550 section 4.3 wants at least 2048."""
EC_BITS = 224
"""NIST SP 800-57 part 1, table 2: 112 bits of strength, as RSA 2048."""
_WEAK_HASHES = frozenset({"md5", "sha1"})  # RFC 8550 section 6 and appendix B
_MAIL_PURPOSES = frozenset({"1.3.6.1.5.5.7.3.4", "2.5.29.37.0"})  # emailProtection, anyExtendedKeyUsage
_RSASSA_PSS = "1.2.840.113549.1.1.10"  # RFC 4055: a key that only signs
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "secp224r1": "P-224"}
_LIMITS = Asn1Limits(elements=4_000, depth=32)
_Kind = TypeVar("_Kind", bound=x509.ExtensionType)

KEY_CERT_SIGN, DIGITAL_SIGNATURE, NON_REPUDIATION = "keyCertSign", "digitalSignature", "nonRepudiation"
KEY_ENCIPHERMENT, KEY_AGREEMENT = "keyEncipherment", "keyAgreement"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """`subject`, `issuer`: RFC 4514 text; `subject_key`, `issuer_key`: comparable (`name_key`). `key_bits`: of the public key."""

    der: bytes = field(repr=False)
    fingerprint: Fingerprint
    subject: str
    issuer: str
    subject_key: bytes = field(repr=False)
    issuer_key: bytes = field(repr=False)
    serial: int
    not_before: datetime
    not_after: datetime
    addresses: tuple[EmailAddress, ...]
    names: tuple[str, ...]
    is_ca: bool
    is_v1: bool
    key_usage: frozenset[str] | None
    purposes: frozenset[str] | None
    key_id: bytes | None
    authority_key_id: bytes | None
    unknown_critical: tuple[str, ...]
    public_key: CertificatePublicKeyTypes | None = field(repr=False)
    key_oid: str
    spki: bytes = field(repr=False)
    algorithm: str
    mail_permitted: tuple[str, ...] | None
    mail_excluded: tuple[str, ...]
    parsed: x509.Certificate = field(repr=False)

    @property
    def self_issued(self) -> bool:
        return self.subject_key == self.issuer_key

    @property
    def signs_certificates(self) -> bool:
        """Whether it says of itself that it is a certification authority's, by both extensions."""
        return self.is_ca and self.key_usage is not None and KEY_CERT_SIGN in self.key_usage

    def named_by(self, name: CertificateName) -> bool:
        """Whether CMS means this one. Without a key identifier of its own, SHA-1 of the key stands in (RFC 5280 4.2.1.2)."""
        if name.key_id is not None:
            return name.key_id == (self.key_id if self.key_id is not None else key_identifiers(self)[0])
        try:
            return self.serial == name.serial and self.issuer_key == name_key(name.issuer)
        except Unacceptable:
            return False

    def names_address(self, address: EmailAddress) -> bool:
        return any(own.index == address.index for own in self.addresses)


def read_certificate(der: bytes) -> Certificate:
    """The facts of one DER certificate. Raises Unacceptable: MALFORMED_KEY, KEY_TOO_LARGE, TOO_COMPLEX."""
    if len(der) > CERTIFICATE_OCTETS:
        text = f"The certificate has {len(der):,} bytes; the limit is {CERTIFICATE_OCTETS:,}."
        raise Unacceptable(Verdict.KEY_TOO_LARGE, text)
    return _read(der)


@lru_cache(maxsize=512)
def _read(der: bytes) -> Certificate:
    tree = parse(der, _LIMITS)
    try:
        return _facts(load_quietly(der), der, _spki(tree))
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        reason = printable(str(error))[:200]
        raise Unacceptable(Verdict.MALFORMED_KEY, f"The certificate cannot be read: {reason}.") from error


def load_quietly(der: bytes) -> x509.Certificate:
    """Without a warning about serial numbers below one, which old roots have and PKITS 4.1.14 wants read. Raises ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return x509.load_der_x509_certificate(der)


def _facts(parsed: x509.Certificate, der: bytes, spki: bytes) -> Certificate:
    extensions = parsed.extensions
    key = _public_key(parsed)
    subject = printable(parsed.subject.rfc4514_string())
    common = [printable(str(name.value)) for name in parsed.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    constraints = _extension(extensions, x509.BasicConstraints)
    usage = _extension(extensions, x509.KeyUsage)
    purposes = _extension(extensions, x509.ExtendedKeyUsage)
    own_id = _extension(extensions, x509.SubjectKeyIdentifier)
    issuer_id = _extension(extensions, x509.AuthorityKeyIdentifier)
    subtrees = _extension(extensions, x509.NameConstraints)
    return Certificate(
        der=der,
        fingerprint=Fingerprint(hashlib.sha256(der).hexdigest()),
        subject=subject,
        issuer=printable(parsed.issuer.rfc4514_string()),
        subject_key=name_key(parsed.subject.public_bytes()),
        issuer_key=name_key(parsed.issuer.public_bytes()),
        serial=parsed.serial_number,
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        addresses=addresses_of(parsed.subject, _extension(extensions, x509.SubjectAlternativeName)),
        names=tuple(dict.fromkeys(name for name in (*common, subject) if name)),
        is_ca=constraints is not None and constraints.ca,
        is_v1=parsed.version is x509.Version.v1,
        key_usage=None if usage is None else _usages(usage),
        purposes=None if purposes is None else frozenset(purpose.dotted_string for purpose in purposes),
        key_id=None if own_id is None else own_id.digest,
        authority_key_id=None if issuer_id is None else issuer_id.key_identifier,
        unknown_critical=tuple(
            extension.oid.dotted_string
            for extension in extensions
            if extension.critical and isinstance(extension.value, x509.UnrecognizedExtension)
        ),
        public_key=key,
        key_oid=parsed.public_key_algorithm_oid.dotted_string,
        spki=spki,
        algorithm=_algorithm(key, parsed.public_key_algorithm_oid.dotted_string),
        mail_permitted=(_mail_subtrees(subtrees.permitted_subtrees) or None) if subtrees else None,
        mail_excluded=_mail_subtrees(subtrees.excluded_subtrees) if subtrees else (),
        parsed=parsed,
    )


def _extension(extensions: x509.Extensions, kind: type[_Kind]) -> _Kind | None:
    return next((extension.value for extension in extensions if isinstance(extension.value, kind)), None)


def _usages(usage: x509.KeyUsage) -> frozenset[str]:
    flags = {
        DIGITAL_SIGNATURE: usage.digital_signature,
        NON_REPUDIATION: usage.content_commitment,
        KEY_ENCIPHERMENT: usage.key_encipherment,
        KEY_AGREEMENT: usage.key_agreement,
        KEY_CERT_SIGN: usage.key_cert_sign,
        "cRLSign": usage.crl_sign,
    }
    return frozenset(name for name, given in flags.items() if given)


def _mail_subtrees(subtrees: Iterable[x509.GeneralName] | None) -> tuple[str, ...]:
    return tuple(name.value for name in subtrees or () if isinstance(name, x509.RFC822Name))


def _public_key(parsed: x509.Certificate) -> CertificatePublicKeyTypes | None:
    """None when the algorithm is unknown here or its parameters are broken: the certificate can be named, not used."""
    try:
        return parsed.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _algorithm(key: CertificatePublicKeyTypes | None, oid: str) -> str:
    match key:
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"EC {_CURVES.get(key.curve.name, key.curve.name)}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case ed448.Ed448PublicKey():
            return "Ed448"
        case x25519.X25519PublicKey():
            return "X25519"
        case x448.X448PublicKey():
            return "X448"
        case dsa.DSAPublicKey():
            return f"DSA {key.key_size}"
        case _:
            return oid


def weakness(certificate: Certificate) -> str:
    """Why the key, or the signature on the certificate, is too weak to rely on; empty if it is strong enough."""
    key = certificate.public_key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS:
        return f"The key is {certificate.algorithm}; {RSA_BITS} bits are the least."
    if isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < EC_BITS:
        return f"The key is {certificate.algorithm}; {EC_BITS} bits are the least."
    if isinstance(key, dsa.DSAPublicKey):
        return f"The key is {certificate.algorithm}, and DSA is no longer used for mail."
    try:
        algorithm = certificate.parsed.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return ""
    if algorithm is not None and algorithm.name in _WEAK_HASHES:
        return f"The certificate is signed with {algorithm.name.upper()}."
    return ""


def purpose_refusal(certificate: Certificate) -> str:
    """Why it is not for mail at all: an extended key usage that lacks emailProtection and any (RFC 8550 4.4.4)."""
    if certificate.purposes is None or certificate.purposes & _MAIL_PURPOSES:
        return ""
    return "The certificate's extended key usage does not include mail (emailProtection)."


def signing_refusal(certificate: Certificate) -> str:
    """Why it must not sign mail: RFC 8550 4.4.2 wants digitalSignature or nonRepudiation, if a key usage is given."""
    if certificate.key_usage is None or certificate.key_usage & {DIGITAL_SIGNATURE, NON_REPUDIATION}:
        return ""
    return "The signer's certificate is not for signing (key usage)."


def encryption_refusal(certificate: Certificate) -> str:
    """Why nobody may encrypt to it (RFC 8550 4.4.2): RSA wants keyEncipherment, EC, X25519 and X448 keyAgreement; absent: any."""
    match certificate.public_key:
        case rsa.RSAPublicKey() if certificate.key_oid != _RSASSA_PSS:
            needed = KEY_ENCIPHERMENT
        case ec.EllipticCurvePublicKey() | x25519.X25519PublicKey() | x448.X448PublicKey():
            needed = KEY_AGREEMENT
        case _:
            return f"A key of the kind {certificate.algorithm} cannot encrypt."
    if certificate.key_usage is None or needed in certificate.key_usage:
        return ""
    return f"The certificate's key usage does not include encryption ({needed})."


def signed_by(child: Certificate, issuer: Certificate) -> bool | None:
    """Whether the issuer's key made the child's signature; None if that cannot be told here (left to the whole path check)."""
    key, parsed = issuer.public_key, child.parsed
    try:
        parameters, digest = parsed.signature_algorithm_parameters, parsed.signature_hash_algorithm
        signature, signed = parsed.signature, parsed.tbs_certificate_bytes
        match key:
            case rsa.RSAPublicKey() if digest and isinstance(parameters, padding.PKCS1v15 | padding.PSS):
                key.verify(signature, signed, parameters, digest)
            case ec.EllipticCurvePublicKey() if isinstance(parameters, ec.ECDSA):
                key.verify(signature, signed, parameters)
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                key.verify(signature, signed)
            case rsa.RSAPublicKey() | ec.EllipticCurvePublicKey():
                return False
            case _:
                return None
    except InvalidSignature:
        return False
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return True


def key_identifiers(certificate: Certificate) -> tuple[bytes, ...]:
    """The key identifiers that are derived from the key itself: RFC 5280 4.2.1.2 (first), and RFC 7093 section 2."""
    spki = certificate.spki
    bits = parse(spki, _LIMITS).child(1, BIT_STRING, "the public key").contents[1:]
    sha1 = [hashlib.sha1(part, usedforsecurity=False).digest() for part in (bits, spki)]
    longer = [hashlib.new(name, part).digest() for name in ("sha256", "sha384", "sha512") for part in (bits, spki)]
    return (*sha1, *longer, *(digest[:20] for digest in longer))


def _spki(tree: Element) -> bytes:
    """SubjectPublicKeyInfo as it stands in the certificate: after an optional version, the sixth field (RFC 5280 4.1)."""
    fields = tree.child(0, SEQUENCE, "the certificate's content").children
    index = 6 if fields and fields[0].tag == 0xA0 else 5
    return tree.children[0].child(index, SEQUENCE, "the public key").raw


def permits_mail(authority: Certificate, address: EmailAddress) -> bool:
    """Whether the authority's name constraints leave room for the address (RFC 5280 4.2.1.10).

    They bind every address we may use a certificate for: those in SmtpUTF8Mailbox too (RFC 9598 section 6), and those in the
    subject even beside a SAN, which the path algorithm itself looks at only without one.
    """
    if any(_in_subtree(subtree.lower(), address.index) for subtree in authority.mail_excluded):
        return False
    permitted = authority.mail_permitted
    return permitted is None or any(_in_subtree(subtree, address.text) for subtree in permitted)


def _in_subtree(subtree: str, address: str) -> bool:
    local, _, host = subtree.rpartition("@")
    own_local, _, own_host = address.rpartition("@")
    host, own_host = host.lower().rstrip("."), own_host.lower()
    if local:
        return local == own_local and host == own_host
    return own_host.endswith(host) if host.startswith(".") else own_host == host
