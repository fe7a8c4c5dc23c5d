"""Sample mail for trying Keycache out: `python deploy/sample_mails.py OUTDIR` writes NAME.eml files and ca.pem, the CA to trust.

Keys, certificates and the CA are made fresh at every call and are worth nothing. Each mail shows one case: five bring a key that
is cached, two one that is kept but held, the others none that may be kept. `SampleMail` says what Keycache ought to make of it.

Our own domain in these mails is example.org; the people who write are at example.com and example.net (RFC 2606 section 3).
"""

from __future__ import annotations

import sys
from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from pathlib import Path
from textwrap import wrap
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from pysequoia import Tsk
from sample_certificates import DAY, Authority, Holder, elliptic, mail_certificate, rsa_key

from keycache.clock import SystemClock
from keycache.domain.lookup import MissCode
from keycache.domain.verdict import Verdict

MANAGED_DOMAIN = "example.org"
"""The domain that the receiving organisation manages."""

_RECIPIENT = f"post@{MANAGED_DOMAIN}"
_TEXT = "Content-Type: text/plain; charset=utf-8\r\n\r\nHello, the papers you asked for will follow on Monday.\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleMail:
    """One mail and what becomes of it.

    `sender`: whose key it brings, or seems to. `verdict`: of the message. `miss`: what a lookup of `sender` answers afterwards;
    None: the key of `fingerprint`, which is empty where none is served.
    """

    name: str
    about: str
    sender: str
    message: bytes
    verdict: Verdict
    miss: MissCode | None = MissCode.NOT_FOUND
    fingerprint: str = ""
    direction: Literal["inbound", "outbound"] = "inbound"


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """`ca`: the one certificate (PEM) that a node must trust for the verdicts to come out as told."""

    ca: bytes
    mails: tuple[SampleMail, ...]


class _Post:
    """Writes mails, all of one day."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def mail(self, name: str, sender: str, subject: str, body: str, *, headers: str = "", recipient: str = _RECIPIENT) -> bytes:
        """The message; `body` begins with its own Content- fields. CRLF, as on the wire (RFC 5322 section 2.1)."""
        head = (
            f"From: {sender}\r\nTo: {recipient}\r\nSubject: {subject}\r\nDate: {format_datetime(self._now)}\r\n"
            f"Message-ID: <{name}.{int(self._now.timestamp())}@sample.invalid>\r\nMIME-Version: 1.0\r\n"
        )
        return f"{head}{headers}{body}".encode()


def _signature(content: str, signer: Holder, *, detached: bool, companions: tuple[x509.Certificate, ...] = ()) -> str:
    """CMS signed-data over the exact bytes of `content`, in base64 lines. `companions`: certificates that come along."""
    builder = pkcs7.PKCS7SignatureBuilder().set_data(content.encode())
    builder = builder.add_signer(signer.certificate, signer.key, hashes.SHA256())
    for certificate in companions:
        builder = builder.add_certificate(certificate)
    options = [pkcs7.PKCS7Options.Binary] + ([pkcs7.PKCS7Options.DetachedSignature] if detached else [])
    return _base64_lines(builder.sign(Encoding.DER, options))


def _base64_lines(data: bytes, separator: str = "\r\n") -> str:
    return separator.join(wrap(b64encode(data).decode(), 76)) + "\r\n"


def _clear_signed(text: str, signature: str) -> str:
    """multipart/signed (RFC 8551 section 3.5.3). The line break before a boundary belongs to the boundary (RFC 2046 section 5.1.1)."""
    return (
        'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary="signed"\r\n\r\n'
        f"--signed\r\n{text}\r\n--signed\r\n"
        'Content-Type: application/pkcs7-signature; name="smime.p7s"\r\nContent-Transfer-Encoding: base64\r\n'
        f'Content-Disposition: attachment; filename="smime.p7s"\r\n\r\n{signature}\r\n--signed--\r\n'
    )


def _opaque_signed(signature: str) -> str:
    """application/pkcs7-mime, signed-data (RFC 8551 section 3.5.2)."""
    return (
        'Content-Type: application/pkcs7-mime; smime-type=signed-data; name="smime.p7m"\r\n'
        f'Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename="smime.p7m"\r\n\r\n{signature}'
    )


def _with_key_attached(armoured: str, file_name: str) -> str:
    """application/pgp-keys (RFC 3156 section 7)."""
    block = "\r\n".join(armoured.splitlines())
    return (
        'Content-Type: multipart/mixed; boundary="mixed"\r\n\r\n'
        f"--mixed\r\n{_TEXT}\r\n--mixed\r\n"
        f'Content-Type: application/pgp-keys; name="{file_name}"\r\nContent-Disposition: attachment; filename="{file_name}"\r\n\r\n'
        f"{block}\r\n--mixed--\r\n"
    )


def _cached_by_smime(post: _Post, authority: Authority) -> list[SampleMail]:
    anna = authority.certify("anna@example.com", rsa_key())
    ben = authority.certify("ben@example.com", elliptic())
    # Two certificates of one subject, one to sign with and one to encrypt to (RFC 8551 section 2.5.3.1).
    signing = authority.certify("carla@example.net", elliptic(), encrypt=False)
    encrypting = authority.certify("carla@example.net", rsa_key(), sign=False)
    split = _signature(_TEXT, signing, detached=True, companions=(encrypting.certificate,))
    return [
        SampleMail(
            name="smime-clear-signed",
            about="S/MIME, multipart/signed",
            sender="anna@example.com",
            message=post.mail(
                "smime-clear-signed",
                "Anna Arnold <anna@example.com>",
                "Clear-signed",
                _clear_signed(_TEXT, _signature(_TEXT, anna, detached=True)),
            ),
            verdict=Verdict.CACHED,
            miss=None,
            fingerprint=anna.fingerprint,
        ),
        SampleMail(
            name="smime-opaque-signed",
            about="S/MIME, opaque signed-data",
            sender="ben@example.com",
            message=post.mail(
                "smime-opaque-signed",
                "ben@example.com",
                "Opaque-signed",
                _opaque_signed(_signature(_TEXT, ben, detached=False)),
            ),
            verdict=Verdict.CACHED,
            miss=None,
            fingerprint=ben.fingerprint,
        ),
        SampleMail(
            name="smime-two-certificates",
            about="S/MIME, signs with one, encrypts with another",
            sender="carla@example.net",
            message=post.mail(
                "smime-two-certificates", "Carla Conti <carla@example.net>", "Two certificates", _clear_signed(_TEXT, split)
            ),
            verdict=Verdict.CACHED,
            miss=None,
            fingerprint=encrypting.fingerprint,
        ),
    ]


def _cached_by_openpgp(post: _Post) -> list[SampleMail]:
    dora = Tsk.generate(user_id="Dora Dietz <dora@example.net>").extract_certificate()
    emil = Tsk.generate(user_id="<emil@example.com>").extract_certificate()
    # Long header values are folded; blanks inside the base64 are allowed (Autocrypt Level 1, section 2.1).
    keydata = _base64_lines(bytes(emil), separator="\r\n ")
    return [
        SampleMail(
            name="openpgp-attached-key",
            about="OpenPGP, application/pgp-keys",
            sender="dora@example.net",
            message=post.mail(
                "openpgp-attached-key",
                "Dora Dietz <dora@example.net>",
                "My key",
                _with_key_attached(str(dora), "dora.asc"),
            ),
            verdict=Verdict.CACHED,
            miss=None,
            fingerprint=dora.fingerprint,
        ),
        SampleMail(
            name="openpgp-autocrypt",
            about="OpenPGP, Autocrypt header",
            sender="emil@example.com",
            message=post.mail(
                "openpgp-autocrypt",
                "Emil <emil@example.com>",
                "Autocrypt",
                _TEXT,
                headers=f"Autocrypt: addr=emil@example.com; prefer-encrypt=mutual; keydata=\r\n {keydata}",
            ),
            verdict=Verdict.CACHED,
            miss=None,
            fingerprint=emil.fingerprint,
        ),
    ]


def _held(post: _Post, now: datetime) -> list[SampleMail]:
    frida = Authority("An Authority That Nobody Here Knows", now).certify("frida@example.com", elliptic())
    key = elliptic()
    own = mail_certificate("gregor@example.net", None, key, now - DAY, now + 365 * DAY, sign=True, encrypt=True)
    gregor = Holder(own.sign(key, hashes.SHA256()), key)
    cases = (
        ("smime-unknown-issuer", "S/MIME, issuer nobody knows", "frida@example.com", frida, Verdict.UNTRUSTED_ISSUER),
        ("smime-self-signed", "S/MIME, vouches only for itself", "gregor@example.net", gregor, Verdict.SELF_SIGNED),
    )
    return [
        SampleMail(
            name=name,
            about=about,
            sender=sender,
            message=post.mail(name, sender, "Who am I", _clear_signed(_TEXT, _signature(_TEXT, signer, detached=True))),
            verdict=verdict,
            miss=MissCode.HELD,
        )
        for name, about, sender, signer, verdict in cases
    ]


def _refused_smime(post: _Post, authority: Authority) -> list[SampleMail]:
    hanna = authority.certify("hanna@example.com", elliptic())
    altered = _TEXT.replace("Monday", "Friday")
    igor = authority.certify("igor@example.com", elliptic())
    jana = authority.certify("jana@example.net", elliptic(), ends=-DAY)
    ours = authority.certify(_RECIPIENT, elliptic())
    cases = (
        ("smime-forged", "S/MIME, text altered after signing", "hanna@example.com", altered, hanna, Verdict.SIGNATURE_INVALID),
        (
            "smime-wrong-address",
            "S/MIME, certificate of another person",
            "boss@example.com",
            _TEXT,
            igor,
            Verdict.ADDRESS_MISMATCH,
        ),
        ("smime-expired", "S/MIME, certificate has expired", "jana@example.net", _TEXT, jana, Verdict.CERTIFICATE_EXPIRED),
    )
    refused = [
        SampleMail(
            name=name,
            about=about,
            sender=sender,
            message=post.mail(name, sender, "Please look", _clear_signed(text, _signature(_TEXT, signer, detached=True))),
            verdict=verdict,
        )
        for name, about, sender, text, signer, verdict in cases
    ]
    outbound = SampleMail(
        name="smime-outbound",
        about="S/MIME, our own mail going out",
        sender=_RECIPIENT,
        message=post.mail(
            "smime-outbound",
            _RECIPIENT,
            "Our answer",
            _clear_signed(_TEXT, _signature(_TEXT, ours, detached=True)),
            recipient="anna@example.com",
        ),
        verdict=Verdict.OUTBOUND_MESSAGE,
        direction="outbound",
    )
    return [*refused, outbound]


def _refused_others(post: _Post) -> list[SampleMail]:
    karl = Tsk.generate(user_id="Karl Kunz <karl@example.com>")
    return [
        SampleMail(
            name="openpgp-secret-key",
            about="OpenPGP, a SECRET key mailed by mistake",
            sender="karl@example.com",
            message=post.mail(
                "openpgp-secret-key",
                "Karl Kunz <karl@example.com>",
                "My key",
                _with_key_attached(str(karl), "karl-secret.asc"),
            ),
            verdict=Verdict.SECRET_KEY,
        ),
        SampleMail(
            name="plain",
            about="No signature, no key",
            sender="lena@example.net",
            message=post.mail("plain", "lena@example.net", "Just a mail", _TEXT),
            verdict=Verdict.NO_KEY_MATERIAL,
        ),
    ]


def sample_mails(now: datetime) -> Samples:
    """All the samples, valid at `now` (aware). Different keys at every call."""
    authority = Authority("Sample Mail Authority", now)
    post = _Post(now)
    return Samples(
        ca=authority.pem,
        mails=(
            *_cached_by_smime(post, authority),
            *_cached_by_openpgp(post),
            *_held(post, now),
            *_refused_smime(post, authority),
            *_refused_others(post),
        ),
    )


def write(samples: Samples, directory: Path) -> None:
    """NAME.eml for every mail, and ca.pem; `directory` is made if need be."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ca.pem").write_bytes(samples.ca)
    for mail in samples.mails:
        (directory / f"{mail.name}.eml").write_bytes(mail.message)


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python deploy/sample_mails.py OUTDIR")
    write(sample_mails(SystemClock().now()), Path(sys.argv[1]))


if __name__ == "__main__":
    main()
