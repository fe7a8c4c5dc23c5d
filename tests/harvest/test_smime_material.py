"""Certificates without a signature: imports, and what mail processors found."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID

from keycache.domain.entry import Defect, Trust
from keycache.domain.examination import TrustBase
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.paths import PathJudge
from keycache.harvest.smime import read_certificates
from support import smime as make
from support.smime import NOW, Identity

ALICE = EmailAddress.parse("alice@example.org")
ROOT = make.authority()
BETWEEN = make.authority("Test Intermediate", ROOT)
JUDGE = PathJudge(TrustBase(anchors=(ROOT.der,)))
PERSON, OTHER = make.person(issuer=BETWEEN), make.person("bob@example.org", BETWEEN)


def read(blob: bytes, *addresses: EmailAddress, judge: PathJudge = JUDGE) -> list[tuple[str, Verdict | None]]:
    return [(finding.label, finding.verdict) for finding in read_certificates(blob, addresses, judge, NOW)]


BAG = make.certs_only(OTHER, BETWEEN, PERSON)


@pytest.mark.parametrize(
    "blob",
    [
        OTHER.pem + BETWEEN.pem + PERSON.pem,
        b"Bag Attributes\r\n  friendlyName: x\r\n"
        + (OTHER.pem + b"subject=CN\n" + BETWEEN.pem + PERSON.pem).replace(b"\n", b"\r\n"),
        BAG,
        base64.b64encode(BAG),
        b"-----BEGIN PKCS7-----\n" + base64.encodebytes(BAG) + b"-----END PKCS7-----\n",
        OTHER.pem.replace(b" CERTIFICATE", b" X509 CERTIFICATE") + PERSON.pem + BETWEEN.pem,
    ],
    ids=["pem", "chatty pem", "bag", "bag in base64", "bag in pem", "old label"],
)
def test_every_form_yields_each_person_and_uses_the_authorities(blob: bytes) -> None:
    assert read(blob) == [(OTHER.fingerprint, None), (PERSON.fingerprint, None)]


def test_one_der_certificate_is_read() -> None:
    alice = make.person(issuer=ROOT)
    (finding,) = read_certificates(alice.der, (), JUDGE, NOW)
    assert finding.verdict is None
    assert finding.key is not None
    assert (finding.key.trust, finding.key.addresses, finding.key.evidence_at) == (Trust.ANCHORED, (ALICE,), None)
    assert [(gate.name, gate.passed) for gate in finding.gates] == [
        ("key strength", True),
        ("key usage", True),
        ("address", True),
        ("certificate path", True),
    ]


def test_only_certificates_that_name_the_asked_address_are_accepted() -> None:
    assert read(BAG, EmailAddress.parse("ALICE@Example.ORG")) == [
        (OTHER.fingerprint, Verdict.ADDRESS_MISMATCH),
        (PERSON.fingerprint, None),
    ]


def test_each_certificate_passes_the_same_gates_as_one_from_a_mail() -> None:
    def verdict(identity: Identity) -> Verdict | None:
        (finding,) = read_certificates(identity.der, (), JUDGE, NOW)
        return finding.verdict

    assert verdict(make.person(issuer=ROOT, not_after=NOW - make.DAY)) is Verdict.CERTIFICATE_EXPIRED
    assert verdict(make.person(issuer=ROOT, usage=make.usage("digital_signature"))) is Verdict.SIGNING_ONLY
    assert verdict(make.person(issuer=ROOT, kind="rsa1024")) is Verdict.WEAK_KEY
    assert verdict(make.person(issuer=ROOT, purposes=(ExtendedKeyUsageOID.SERVER_AUTH,))) is Verdict.CHAIN_INVALID
    assert verdict(make.person(issuer=ROOT, alternatives=())) is Verdict.ADDRESS_MISMATCH
    assert verdict(make.person()) is None


def test_a_revoked_certificate_comes_with_its_key_so_that_the_revocation_is_learnt() -> None:
    alice = make.person(issuer=ROOT)
    judge = PathJudge(TrustBase(anchors=(ROOT.der,), crls=(make.revocation_list(ROOT, [alice]),)))
    (finding,) = read_certificates(alice.der, (), judge, NOW)
    assert finding.verdict is Verdict.CERTIFICATE_REVOKED
    assert finding.key is not None
    assert (finding.key.defect, finding.key.trust) == (Defect.REVOKED, Trust.ANCHORED)
    hold = make.revocation_list(ROOT, [alice], reason=x509.ReasonFlags.certificate_hold)
    (held,) = read_certificates(alice.der, (), PathJudge(TrustBase(anchors=(ROOT.der,), crls=(hold,))), NOW)
    assert held.verdict is Verdict.CERTIFICATE_REVOKED
    assert held.key is not None
    assert held.key.defect is None


def test_authorities_are_reported_only_where_nothing_else_is_there() -> None:
    assert read(ROOT.pem + BETWEEN.pem) == [
        (ROOT.fingerprint, Verdict.SIGNING_ONLY),
        (BETWEEN.fingerprint, Verdict.SIGNING_ONLY),
    ]


@pytest.mark.parametrize(
    "blob",
    [
        PERSON.key_pem,
        b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
        pkcs12.serialize_key_and_certificates(b"x", PERSON.key, PERSON.certificate, None, BestAvailableEncryption(b"secret")),
        PERSON.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    ],
    ids=["pkcs8", "encrypted pem", "pkcs12", "der"],
)
def test_private_keys_are_refused_loudly(blob: bytes) -> None:
    assert read(blob) == [("certificate file", Verdict.SECRET_KEY)]


def test_a_private_key_beside_a_certificate_is_reported_and_the_certificate_read() -> None:
    alice = make.person(issuer=ROOT)
    assert read(alice.key_pem + alice.pem) == [(alice.fingerprint, None), ("certificate file", Verdict.SECRET_KEY)]


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"no certificate",
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        make.certs_only(),
        PERSON.der[:-1],
    ],
)
def test_what_holds_no_certificate_says_so(blob: bytes) -> None:
    assert [verdict for _, verdict in read(blob)] == [Verdict.MALFORMED_KEY]


def test_a_broken_certificate_among_good_ones_is_reported_by_its_digest() -> None:
    alice = make.person(issuer=ROOT)
    broken = Identity(alice.certificate, None).der.replace(b"alice@example.org", b"al\xffce@example.org")
    blob = make.signed_data([], [alice.der, broken])
    digest = hashlib.sha256(broken).hexdigest()
    assert read(blob) == [(digest, Verdict.MALFORMED_KEY), (alice.fingerprint, None)]


def test_a_bag_of_many_people_is_read_and_one_of_more_than_1000_refused() -> None:
    people = [make.person(f"p{number}@example.org", ROOT, key=make.private_key("p256", 1)) for number in range(100)]
    assert read(make.certs_only(*people)) == [(identity.fingerprint, None) for identity in people]
    assert read(make.certs_only(*people * 10, people[0])) == [("certificate file", Verdict.TOO_COMPLEX)]
    assert read(b"".join(identity.pem for identity in people * 11)) == [(identity.fingerprint, None) for identity in people]
