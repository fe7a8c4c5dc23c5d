"""A signature proves something only if everything fits: digest, attributes, algorithms, the signer's certificate, the sender."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from keycache.domain.entry import HeldReason, Issuer, Key, Protocol, Trust
from keycache.domain.examination import Finding, Gate, TrustBase
from keycache.domain.names import EmailAddress, Fingerprint
from keycache.domain.verdict import Verdict
from keycache.harvest.paths import PathJudge
from keycache.harvest.smime import CmsKind, SmimeResult, examine_signature
from keycache.harvest.x509 import read_certificate
from keycache.harvest.x509_chains import id_of_authority
from support import smime as make
from support.smime import BODY, NOW, SHA1, SHA256, SHA384, SHA512, Identity

ALICE = EmailAddress.parse("alice@example.org")
ROOT = make.authority()
BETWEEN = make.authority("Test Intermediate", ROOT)
JUDGE = PathJudge(TrustBase(anchors=(ROOT.der,)))


def examine(
    signature: bytes, content: bytes | None = BODY, sender: EmailAddress = ALICE, judge: PathJudge = JUDGE
) -> SmimeResult:
    return examine_signature(signature, content, sender, judge, NOW)


def only(result: SmimeResult) -> Finding:
    (finding,) = result.findings
    return finding


def verdict_of(signature: bytes, content: bytes | None = BODY, sender: EmailAddress = ALICE) -> Verdict | None:
    return only(examine(signature, content, sender)).verdict


def test_a_good_signature_yields_the_whole_key_its_chain_and_every_gate_passed() -> None:
    alice = make.person(issuer=BETWEEN, kind="rsa3072")
    earlier = NOW - timedelta(hours=3)
    attributes = (make.signing_time(earlier), make.capabilities("2.16.840.1.101.3.4.1.42", "1.2.840.113549.3.7"))
    result = examine(make.sign(BODY, alice, BETWEEN, ROOT, attributes=attributes))
    assert only(result).key == Key(
        protocol=Protocol.SMIME,
        fingerprint=Fingerprint(alice.fingerprint),
        material=alice.der,
        addresses=(ALICE,),
        names=("Alice", "CN=Alice,O=Keycache Tests"),
        trust=Trust.ANCHORED,
        issuer=Issuer(id=id_of_authority(read_certificate(ROOT.der)), name="CN=Test Root,O=Keycache Tests"),
        not_before=alice.certificate.not_valid_before_utc,
        not_after=alice.certificate.not_valid_after_utc,
        evidence_at=earlier,
        capabilities=("2.16.840.1.101.3.4.1.42", "1.2.840.113549.3.7"),
        algorithm="RSA 3072",
    )
    assert result.kind is CmsKind.SIGNED
    assert result.chain == (BETWEEN.der,)
    assert result.content is None
    assert [(gate.name, gate.passed) for gate in only(result).gates] == [
        ("S/MIME structure", True),
        ("signer certificate", True),
        ("signature", True),
        ("signer address", True),
        ("signer path", True),
        ("encryption certificate", True),
        ("key strength", True),
        ("key usage", True),
        ("address", True),
        ("certificate path", True),
    ]


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("rsa", {}),
        ("rsa", {"digest": SHA384}),
        ("rsa", {"digest": SHA512}),
        ("rsa", {"pss": True}),
        ("rsa", {"pss": True, "digest": SHA512}),
        ("rsa", {"attributes": None}),
        ("p256", {}),
        ("p384", {"digest": SHA384}),
        ("p521", {"digest": SHA512}),
        ("p256", {"by_key_id": True}),
    ],
)
def test_every_usual_algorithm_and_form_is_verified(kind: str, how: dict[str, Any]) -> None:
    alice = make.person(issuer=ROOT, kind=kind)
    signature = make.sign(BODY, alice, **how)
    assert verdict_of(signature) is None
    assert verdict_of(signature, BODY + b"altered") is Verdict.SIGNATURE_INVALID


@pytest.mark.parametrize(("kind", "digest"), [("ed25519", SHA512), ("ed448", make.SHAKE256)])
@pytest.mark.parametrize("attributes", [(), None])
def test_edwards_signatures_are_verified_and_such_a_key_is_never_offered(kind: str, digest: str, attributes: Any) -> None:
    alice = make.person(issuer=ROOT, kind=kind, usage=make.usage("digital_signature"))
    finding = only(examine(make.sign(BODY, alice, digest=digest, attributes=attributes)))
    assert finding.verdict is Verdict.SIGNING_ONLY
    assert finding.gates[2] == Gate(name="signature", passed=True, detail="Ed25519" if kind == "ed25519" else "Ed448")
    assert verdict_of(make.sign(BODY, alice, digest=digest, attributes=attributes), b"other") is Verdict.SIGNATURE_INVALID


def test_an_edwards_signature_with_another_digest_than_its_own_is_refused() -> None:
    alice = make.person(issuer=ROOT, kind="ed25519", usage=make.usage("digital_signature"))
    assert verdict_of(make.sign(BODY, alice, digest=SHA256)) is Verdict.SIGNATURE_INVALID


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("rsa", {"digest": SHA1}),
        ("rsa", {"digest": make.MD5}),
        ("rsa", {"digest": SHA1, "pss": True}),
        ("rsa", {"digest": SHA1, "attributes": None}),
        ("p256", {"digest": SHA1}),
    ],
)
def test_sha1_and_md5_signatures_are_too_weak(kind: str, how: dict[str, Any]) -> None:
    alice = make.person(issuer=ROOT, kind=kind)
    assert verdict_of(make.sign(BODY, alice, **how)) is Verdict.WEAK_KEY


def test_a_dsa_signature_and_short_rsa_keys_are_too_weak() -> None:
    for kind in ("dsa", "rsa1024"):
        alice = make.person(issuer=ROOT, kind=kind, usage=None)
        assert verdict_of(make.sign(BODY, alice)) is Verdict.WEAK_KEY


def test_pss_with_absent_parameters_means_sha1_and_is_too_weak() -> None:
    alice = make.person(issuer=ROOT, kind="rsa")
    given = make.pss_parameters(SHA256, 32)
    absent = make.tlv(0x30, make.tlv(0xA3, make.tlv(0x04, bytes(len(given) - 6))))
    signature = make.sign(BODY, alice, pss=True).replace(given, absent)
    assert absent in signature
    assert verdict_of(signature) is Verdict.WEAK_KEY


def test_an_opaque_signature_gives_its_content_back_verified_or_not() -> None:
    alice = make.person(issuer=ROOT)
    good = examine(make.sign(BODY, alice, opaque=True), None)
    assert (only(good).verdict, good.content) == (None, BODY)
    bad = examine(make.sign(BODY, alice, opaque=True).replace(b"Dear Bob", b"Dear Eve"), None)
    assert (only(bad).verdict, bad.content) == (Verdict.SIGNATURE_INVALID, BODY.replace(b"Dear Bob", b"Dear Eve"))


def test_a_detached_signature_without_content_is_invalid() -> None:
    assert verdict_of(make.sign(BODY, make.person(issuer=ROOT)), None) is Verdict.SIGNATURE_INVALID


@pytest.mark.parametrize(
    "change",
    [
        {"digest_attribute": b""},
        {"type_attribute": b""},
        {"type_attribute": make.content_type(make.SIGNED_DATA)},
        {"digest_attribute": make.message_digest(b"other")},
        {"attributes": (make.message_digest(BODY),)},
        {"digest_attribute": make.attribute("1.2.840.113549.1.9.4", make.tlv(4, b"a"), make.tlv(4, b"b"))},
    ],
)
def test_content_type_and_digest_must_be_signed_once_and_fit(change: dict[str, Any]) -> None:
    assert verdict_of(make.sign(BODY, make.person(issuer=ROOT), **change)) is Verdict.SIGNATURE_INVALID


def test_only_plain_data_may_go_without_signed_attributes() -> None:
    alice = make.person(issuer=ROOT)
    info = make.signer_info(BODY, alice, make.Signature(attributes=None))
    assert verdict_of(make.signed_data([info], [alice.der])) is None
    other_type = make.signed_data([info], [alice.der], inner="1.2.840.113549.1.9.16.1.4")
    assert verdict_of(other_type) is Verdict.SIGNATURE_INVALID


def test_signed_attributes_of_another_mail_do_not_pass_for_content() -> None:
    """The attack: take a genuine signature, drop its attributes, and send their encoding as the content."""
    alice = make.person(issuer=ROOT)
    attributes = make.tlv(0x31, *sorted((make.content_type(), make.message_digest(BODY))))
    info = make.signer_info(attributes, alice, make.Signature(attributes=None))
    assert verdict_of(make.signed_data([info], [alice.der], attributes), None) is Verdict.SIGNATURE_INVALID


def test_attributes_signed_in_the_order_sent_instead_of_der_order_are_understood() -> None:
    alice = make.person(issuer=ROOT)
    parts = sorted((make.content_type(), make.message_digest(BODY)), reverse=True)
    chosen, octets = make.raw_signature(alice.key, make.tlv(0x31, *parts))
    info = make.tlv(
        0x30,
        make.integer(1),
        make.issuer_and_serial(alice.certificate),
        make.algorithm(SHA256),
        make.tlv(0xA0, *parts),
        chosen,
        make.tlv(4, octets),
    )
    assert verdict_of(make.signed_data([info], [alice.der])) is None


def test_a_signer_whose_certificate_did_not_come_along_is_not_found() -> None:
    alice, other = make.person(issuer=ROOT), make.person("other@example.org", ROOT)
    for how in (make.Signature(), make.Signature(by_key_id=True)):
        info = make.signer_info(BODY, alice, how)
        assert verdict_of(make.signed_data([info], [other.der, ROOT.der])) is Verdict.SIGNER_NOT_FOUND
        assert verdict_of(make.signed_data([info])) is Verdict.SIGNER_NOT_FOUND


def test_a_signature_by_another_key_than_the_certificates_is_invalid() -> None:
    alice = make.person(issuer=ROOT)
    forger = Identity(alice.certificate, make.private_key("p256", 999))
    assert verdict_of(make.sign(BODY, forger)) is Verdict.SIGNATURE_INVALID
    other_kind = Identity(alice.certificate, make.private_key("rsa", 999))
    assert verdict_of(make.sign(BODY, other_kind)) is Verdict.SIGNATURE_INVALID


def test_of_several_signers_the_one_who_is_the_sender_counts() -> None:
    alice, gateway = make.person(issuer=ROOT), make.person("gateway@example.org", ROOT)
    infos = [make.signer_info(BODY, one, make.Signature()) for one in (gateway, alice)]
    finding = only(examine(make.signed_data(infos, [gateway.der, alice.der])))
    assert (finding.verdict, finding.label) == (None, alice.fingerprint)
    broken = [make.signer_info(b"other", alice, make.Signature()), infos[0]]
    assert verdict_of(make.signed_data(broken, [gateway.der, alice.der])) is Verdict.ADDRESS_MISMATCH


def test_the_certificate_must_name_the_sender_and_the_detail_has_both_sides() -> None:
    alice = make.person(issuer=ROOT)
    finding = only(examine(make.sign(BODY, alice), sender=EmailAddress.parse("mallory@example.org")))
    assert finding.verdict is Verdict.ADDRESS_MISMATCH
    assert finding.detail == "The certificate names alice@example.org, not mallory@example.org."
    assert [gate.passed for gate in finding.gates] == [True, True, True, False, None, None]


@pytest.mark.parametrize(
    ("changes", "sender"),
    [
        ({"alternatives": (x509.RFC822Name("Alice@EXAMPLE.org"),)}, "aLICE@example.ORG"),
        ({"alternatives": (), "subject": make.name("Alice", "alice@example.org")}, "alice@example.org"),
        ({"alternatives": (x509.DNSName("x.example"),), "subject": make.name("A", "alice@example.org")}, "alice@example.org"),
        (
            {
                "alternatives": (
                    x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9"), make.tlv(0x0C, "älice@example.org".encode())),
                )
            },
            "älice@example.org",
        ),
    ],
)
def test_addresses_are_found_wherever_rfc_8550_and_9598_put_them(changes: dict[str, Any], sender: str) -> None:
    alice = make.person(issuer=ROOT, **changes)
    assert verdict_of(make.sign(BODY, alice), sender=EmailAddress.parse(sender)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"alternatives": (x509.RFC822Name("alice@example.org\0.evil.example"),)},
        {"alternatives": (x509.RFC822Name(" alice@example.org"),)},
        {"alternatives": (x509.DNSName("alice.example.org"),), "subject": make.name("alice@example.org")},
        {"alternatives": (x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9"), make.tlv(0x0C, b"alice@example.org")),)},
    ],
)
def test_what_only_looks_like_the_address_names_nobody(changes: dict[str, Any]) -> None:
    assert verdict_of(make.sign(BODY, make.person(issuer=ROOT, **changes))) is Verdict.ADDRESS_MISMATCH


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"usage": make.usage("key_agreement")}, Verdict.SIGNATURE_INVALID),
        ({"purposes": (ExtendedKeyUsageOID.SERVER_AUTH,)}, Verdict.CHAIN_INVALID),
        ({"not_after": NOW - make.DAY}, Verdict.CERTIFICATE_EXPIRED),
        ({"not_before": NOW + make.DAY}, Verdict.NOT_YET_VALID),
        ({"usage": make.usage("digital_signature")}, Verdict.SIGNING_ONLY),
        ({"usage": make.usage("digital_signature", "key_encipherment")}, Verdict.SIGNING_ONLY),
        ({"usage": None, "purposes": None}, None),
        ({"purposes": (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)}, None),
    ],
)
def test_the_signers_certificate_must_be_for_mail_valid_now_and_able_to_encrypt(
    changes: dict[str, Any], verdict: Verdict | None
) -> None:
    assert verdict_of(make.sign(BODY, make.person(issuer=ROOT, **changes))) is verdict


def test_a_certificate_that_is_signed_with_sha1_is_too_weak() -> None:
    alice = make.person(issuer=make.authority("RSA Root", key=make.private_key("rsa")))
    der = alice.der.replace(make.oid("1.2.840.113549.1.1.11"), make.oid("1.2.840.113549.1.1.5"))
    assert verdict_of(make.sign(BODY, Identity(x509.load_der_x509_certificate(der), alice.key))) is Verdict.WEAK_KEY


def test_signing_time_is_evidence_but_never_later_than_now() -> None:
    alice = make.person(issuer=ROOT)
    for time, expected in (
        (NOW + 9 * make.DAY, NOW),
        (NOW - make.DAY, NOW - make.DAY),
        (NOW.replace(year=1995), NOW.replace(year=1995)),
    ):
        key = only(examine(make.sign(BODY, alice, attributes=(make.signing_time(time),)))).key
        assert key is not None
        assert key.evidence_at == expected
    twice = (make.signing_time(NOW), make.signing_time(NOW - make.DAY))
    finding = only(examine(make.sign(BODY, alice, attributes=twice)))
    assert finding.key is not None
    assert finding.key.evidence_at is None
    assert finding.gates[2].detail == "ignored: signing time (given 2 times)"


def test_a_held_key_says_why_and_who_its_issuer_is() -> None:
    alice = make.person()
    finding = only(examine(make.sign(BODY, alice)))
    assert finding.verdict is None
    assert finding.key is not None
    assert (finding.key.trust, finding.key.held) == (Trust.HELD, HeldReason.SELF_SIGNED)
    assert finding.key.issuer is not None
    assert (finding.key.issuer.name, finding.key.issuer.certificate) == ("CN=Alice,O=Keycache Tests", alice.der)


def test_enveloped_certs_only_and_other_kinds_have_no_findings() -> None:
    kinds = {
        "1.2.840.113549.1.7.3": CmsKind.ENVELOPED,
        "1.2.840.113549.1.9.16.1.23": CmsKind.ENVELOPED,
        "1.2.840.113549.1.9.16.1.9": CmsKind.OTHER,
    }
    for oid, kind in kinds.items():
        result = examine(make.tlv(0x30, make.oid(oid), make.tlv(0xA0, make.tlv(0x30, make.integer(0)))))
        assert (result.kind, result.findings) == (kind, ())
    result = examine(make.certs_only(make.person(issuer=ROOT), ROOT))
    assert (result.kind, result.findings) == (CmsKind.CERTS_ONLY, ())
