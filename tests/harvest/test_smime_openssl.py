"""OpenSSL as foreign maker and foreign judge of CMS, and mails of the IETF's protected-headers draft."""

from __future__ import annotations

import base64
import email
import email.policy
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from keycache.domain.entry import Trust
from keycache.domain.examination import TrustBase
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.paths import PathJudge
from keycache.harvest.smime import CmsKind, SmimeResult, examine_signature
from support import smime as make
from support.smime import BODY, NOW, Identity

ALICE = EmailAddress.parse("alice@example.org")
ROOT = make.authority()
BETWEEN = make.authority("Test Intermediate", ROOT)
JUDGE = PathJudge(TrustBase(anchors=(ROOT.der,)))
OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
CORPUS = Path(__file__).parent.parent / "corpus" / "protected-headers"


def openssl(*arguments: str, stdin: bytes = b"") -> bytes:
    assert OPENSSL is not None
    done = subprocess.run([OPENSSL, *arguments], input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def cms_sign(folder: Path, signer: Identity, *options: str, also: tuple[Identity, ...] = (BETWEEN,)) -> bytes:
    (folder / "signer.pem").write_bytes(signer.pem)
    (folder / "key.pem").write_bytes(signer.key_pem)
    (folder / "also.pem").write_bytes(b"".join(identity.pem for identity in also))
    fixed = ("-signer", str(folder / "signer.pem"), "-inkey", str(folder / "key.pem"), "-binary", "-outform", "DER")
    more = ("-certfile", str(folder / "also.pem")) if also else ()
    return openssl("cms", "-sign", *fixed, *more, *options, stdin=BODY)


def examine(signature: bytes, content: bytes | None) -> SmimeResult:
    return examine_signature(signature, content, ALICE, JUDGE, NOW)


PSS = ("-keyopt", "rsa_padding_mode:pss")


@needs_openssl
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("rsa", ()),
        ("rsa", ("-md", "sha512", "-keyid")),
        ("rsa", ("-stream", "-md", "sha384")),
        ("rsa", ("-noattr",)),
        ("rsa", ("-cades",)),
        ("rsa", PSS),
        ("rsa", (*PSS, "-keyopt", "rsa_pss_saltlen:20", "-md", "sha384", "-keyid")),
        ("p256", ()),
        ("p256", ("-stream",)),
        ("p256", ("-noattr", "-stream")),
        ("p384", ("-md", "sha384", "-nosmimecap")),
        ("p521", ("-md", "sha512", "-keyid")),
    ],
    ids=str,
)
@pytest.mark.parametrize("opaque", [True, False], ids=["opaque", "detached"])
def test_what_openssl_signs_is_harvested_and_what_was_altered_is_not(
    tmp_path: Path, kind: str, options: tuple[str, ...], *, opaque: bool
) -> None:
    alice = make.person(issuer=BETWEEN, kind=kind)
    signature = cms_sign(tmp_path, alice, *options, *(("-nodetach",) if opaque else ()))
    good = examine(signature, None if opaque else BODY)
    (finding,) = good.findings
    assert (finding.verdict, finding.label, good.chain) == (None, alice.fingerprint, (BETWEEN.der,)), finding.detail
    assert finding.key is not None
    assert bool(finding.key.capabilities) == ("-noattr" not in options and "-nosmimecap" not in options)
    if opaque:
        assert good.content == BODY
        altered = examine(signature.replace(b"Dear Bob", b"Dear Eve"), None)
    else:
        altered = examine(signature, BODY.replace(b"Dear Bob", b"Dear Eve"))
    assert altered.findings[0].verdict is Verdict.SIGNATURE_INVALID


@needs_openssl
@pytest.mark.parametrize(("kind", "digest"), [("ed25519", "sha512"), ("ed448", "shake256")])
def test_what_openssl_signs_with_edwards_keys_is_verified_where_it_can(tmp_path: Path, kind: str, digest: str) -> None:
    alice = make.person(issuer=BETWEEN, kind=kind, usage=make.usage("digital_signature"))
    try:
        signature = cms_sign(tmp_path, alice, "-md", digest)
    except AssertionError as error:
        pytest.skip(f"this openssl cannot: {str(error)[:80]}")
    (finding,) = examine(signature, BODY).findings
    assert finding.verdict is Verdict.SIGNING_ONLY
    assert examine(signature, b"altered").findings[0].verdict is Verdict.SIGNATURE_INVALID


@needs_openssl
def test_a_signature_that_openssl_made_without_certificates_has_no_signer(tmp_path: Path) -> None:
    signature = cms_sign(tmp_path, make.person(issuer=BETWEEN), "-nocerts", also=())
    assert examine(signature, BODY).findings[0].verdict is Verdict.SIGNER_NOT_FOUND


@needs_openssl
def test_a_second_signer_that_openssl_added_changes_nothing_for_the_first(tmp_path: Path) -> None:
    gateway = make.person("gateway@example.org", BETWEEN)
    (tmp_path / "g.pem").write_bytes(gateway.pem + gateway.key_pem)
    (tmp_path / "signed.der").write_bytes(cms_sign(tmp_path, make.person(issuer=BETWEEN), "-nodetach"))
    where = ("-inform", "DER", "-in", str(tmp_path / "signed.der"), "-outform", "DER", "-signer", str(tmp_path / "g.pem"))
    both = openssl("cms", "-resign", *where, "-nodetach")
    (finding,) = examine(both, None).findings
    assert (finding.verdict, finding.key is not None and finding.key.addresses) == (None, (ALICE,))


@needs_openssl
@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("rsa", {}),
        ("rsa", {"pss": True}),
        ("p384", {"digest": make.SHA384}),
        ("p256", {"by_key_id": True}),
        ("p256", {"attributes": None}),
    ],
    ids=str,
)
def test_openssl_verifies_what_these_tests_sign(tmp_path: Path, kind: str, how: dict[str, object]) -> None:
    signature = make.sign(BODY, make.person(issuer=BETWEEN, kind=kind), BETWEEN, opaque=True, **how)
    (tmp_path / "root.pem").write_bytes(ROOT.pem)
    moment = ("-attime", str(int(NOW.timestamp())))
    where = ("-inform", "DER", "-binary", "-CAfile", str(tmp_path / "root.pem"), *moment)
    assert openssl("cms", "-verify", *where, stdin=signature) == BODY


@needs_openssl
def test_what_openssl_encrypts_is_told_from_what_it_signs(tmp_path: Path) -> None:
    (tmp_path / "to.pem").write_bytes(make.person(issuer=BETWEEN, kind="rsa").pem)
    for cipher in ("-aes256", "-aes-256-gcm"):
        sealed = openssl("cms", "-encrypt", cipher, "-outform", "DER", str(tmp_path / "to.pem"), stdin=BODY)
        assert examine(sealed, None).kind is CmsKind.ENVELOPED


LOVELACE = EmailAddress.parse("alice@smime.example")
SAMPLE_ROOT = x509.load_pem_x509_certificate((CORPUS / "sample-ca.pem").read_bytes()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("mail", ["smime-onepart-signed.eml", "smime-multipart-signed.eml"])
def test_mails_of_the_protected_headers_draft_are_harvested(mail: str) -> None:
    raw = (CORPUS / mail).read_bytes()
    message = email.message_from_bytes(raw, policy=email.policy.default)
    content = None
    if message.is_multipart():
        boundary = b"\n--" + str(message.get_boundary()).encode()
        _, signed, last, _ = raw.replace(b"\r\n", b"\n").split(boundary)
        content = signed.removeprefix(b"\n").replace(b"\n", b"\r\n")
        signature = base64.b64decode(re.split(rb"\n\n", last, maxsplit=1)[1])
    else:
        signature = message.get_payload(decode=True)
        assert isinstance(signature, bytes)
    anchored = examine_signature(signature, content, LOVELACE, PathJudge(TrustBase(anchors=(SAMPLE_ROOT,))), NOW)
    (finding,) = anchored.findings
    assert finding.verdict is None, finding.detail
    assert finding.key is not None
    assert (finding.key.trust, finding.key.addresses, finding.key.algorithm) == (Trust.ANCHORED, (LOVELACE,), "RSA 2048")
    assert finding.key.evidence_at is not None
    assert finding.key.evidence_at.date() == datetime(2019, 11, 27, tzinfo=UTC).date()
    (held,) = examine_signature(signature, content, LOVELACE, PathJudge(TrustBase()), NOW).findings
    assert held.key is not None
    assert held.key.trust is Trust.HELD


def test_a_mail_that_is_signed_and_then_encrypted_shows_nothing_but_its_envelope() -> None:
    message = email.message_from_bytes((CORPUS / "smime-sign+enc.eml").read_bytes(), policy=email.policy.default)
    sealed = message.get_payload(decode=True)
    assert isinstance(sealed, bytes)
    assert examine(sealed, None) == SmimeResult(kind=CmsKind.ENVELOPED, gates=examine(sealed, None).gates)
