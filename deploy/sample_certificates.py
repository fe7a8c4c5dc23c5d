"""Throwaway certificates for the sample mails: a CA that certifies mail addresses, and those that it certified."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

DAY = timedelta(days=1)


def elliptic() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True, slots=True)
class Holder:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()


class Authority:
    """A CA that certifies mail addresses."""

    def __init__(self, name: str, now: datetime) -> None:
        self._now = now
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = _key_usage(sign=False, encrypt=None, certify=True)
        builder = _certificate(subject, subject, self._key, now - 900 * DAY, now + 900 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.certificate = builder.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def certify(
        self, address: str, key: PrivateKey, *, sign: bool = True, encrypt: bool = True, ends: timedelta = 365 * DAY
    ) -> Holder:
        """A certificate for the mailbox that began 800 days ago, or a day ago when it has not ended yet, and ends in `ends`."""
        begins = self._now - (800 * DAY if ends < timedelta() else DAY)
        builder = mail_certificate(address, self.certificate.subject, key, begins, self._now + ends, sign=sign, encrypt=encrypt)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return Holder(builder.add_extension(issuer, critical=False).sign(self._key, hashes.SHA256()), key)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def mail_certificate(
    address: str, issuer: x509.Name | None, key: PrivateKey, begins: datetime, ends: datetime, *, sign: bool, encrypt: bool
) -> x509.CertificateBuilder:
    """As RFC 8550 section 4.4 wants it: address in the subjectAltName, key usage by purpose, emailProtection. No issuer: itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address.partition("@")[0].replace(".", " ").title())])
    builder = _certificate(subject, issuer or subject, key, begins, ends)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(address)]), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.add_extension(_key_usage(sign=sign, encrypt=key if encrypt else None), critical=True)


def _key_usage(*, sign: bool, encrypt: PrivateKey | None, certify: bool = False) -> x509.KeyUsage:
    """RSA encrypts by keyEncipherment, elliptic curves by keyAgreement (RFC 8550 section 4.4.2)."""
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=isinstance(encrypt, rsa.RSAPrivateKey),
        data_encipherment=False,
        key_agreement=isinstance(encrypt, ec.EllipticCurvePrivateKey),
        key_cert_sign=certify,
        crl_sign=certify,
        encipher_only=False,
        decipher_only=False,
    )
