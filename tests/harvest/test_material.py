"""Files of keys: what each kind of file gives."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat, pkcs12
from hypothesis import given, settings
from hypothesis import strategies as st

from keycache.domain.entry import Trust
from keycache.domain.examination import TrustBase
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.material import certificates, holds_secret, read_material
from keycache.harvest.paths import PathJudge
from support.openpgp import Maker, armour
from support.smime import NOW, authority, certs_only, person

ROOT = authority("Material Root")
ALICE = person("alice@example.org", ROOT)
BOB = person("bob@example.org", ROOT)
JUDGE = PathJudge(TrustBase(anchors=(ROOT.der,)))
CAROL, DAVE = Maker("carol"), Maker("dave")
CAROL_KEY = CAROL.certificate("Carol <carol@example.org>", "Carol <carol@work.example>")
DAVE_KEY = DAVE.certificate("dave@example.org")


def told(blob: bytes, *addresses: str) -> list[tuple[str, str | None]]:
    """(fingerprint or empty, verdict) of every finding."""
    findings = read_material(blob, tuple(EmailAddress.parse(address) for address in addresses), JUDGE, NOW)
    return sorted(
        ((finding.key.fingerprint.text if finding.key else ""), finding.verdict and finding.verdict.value)
        for finding in findings
    )


@pytest.mark.parametrize(
    ("blob", "expected"),
    [
        (ALICE.pem, [ALICE]),
        (ALICE.der, [ALICE]),
        (ALICE.pem + BOB.pem, [ALICE, BOB]),
        (
            b"Bag Attributes\n    friendlyName: x\n" + ALICE.pem.replace(b"\n", b"\r\n") + b"\n# comment\n" + BOB.pem,
            [ALICE, BOB],
        ),
        (certs_only(ALICE, BOB, ROOT), [ALICE, BOB]),
        (b"-----BEGIN PKCS7-----\n" + base64.encodebytes(certs_only(ALICE)) + b"-----END PKCS7-----\n", [ALICE]),
        (base64.encodebytes(ALICE.der), [ALICE]),
    ],
)
def test_certificates_are_read_from_every_usual_form(blob: bytes, expected: list[object]) -> None:
    assert told(blob) == sorted((identity.fingerprint, None) for identity in expected)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("blob", "expected"),
    [
        (armour(CAROL_KEY), [CAROL]),
        (CAROL_KEY, [CAROL]),
        (CAROL_KEY + DAVE_KEY, [CAROL, DAVE]),
        (b"pub carol\n" + armour(CAROL_KEY) + b"\npub dave\n" + armour(DAVE_KEY), [CAROL, DAVE]),
        (armour(CAROL_KEY + DAVE_KEY), [CAROL, DAVE]),
    ],
)
def test_openpgp_keys_and_keyrings_are_read_from_every_usual_form(blob: bytes, expected: list[Maker]) -> None:
    assert told(blob) == sorted((maker.fingerprint, None) for maker in expected)


def test_a_file_may_hold_both_kinds() -> None:
    assert told(armour(CAROL_KEY) + ALICE.pem) == sorted([(CAROL.fingerprint, None), (ALICE.fingerprint, None)])


def test_without_addresses_a_key_is_bound_to_all_it_names_and_with_addresses_to_those_alone() -> None:
    (every,) = read_material(CAROL_KEY, (), JUDGE, NOW)
    assert every.key is not None
    assert [address.text for address in every.key.addresses] == ["carol@example.org", "carol@work.example"]
    (one,) = read_material(CAROL_KEY, (EmailAddress.parse("Carol@Example.org"),), JUDGE, NOW)
    assert one.key is not None
    assert [address.text for address in one.key.addresses] == ["carol@example.org"]


def test_keys_of_others_than_those_asked_for_do_not_pass() -> None:
    assert dict(told(ALICE.pem + BOB.pem, "alice@example.org")) == {
        ALICE.fingerprint: None,
        BOB.fingerprint: "ADDRESS_MISMATCH",
    }
    assert [verdict for _, verdict in told(CAROL_KEY, "eve@example.org")] == ["ADDRESS_MISMATCH"]


def test_an_unknown_issuer_is_held() -> None:
    (finding,) = read_material(person("x@example.org", authority("Nobody")).pem, (), JUDGE, NOW)
    assert finding.key is not None
    assert (finding.verdict, finding.key.trust) == (None, Trust.HELD)


PFX = pkcs12.serialize_key_and_certificates(b"a", ALICE.key, ALICE.certificate, None, NoEncryption())


@pytest.mark.parametrize(
    "blob",
    [
        PFX,
        ALICE.key_pem,
        ALICE.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        ALICE.key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
        ALICE.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a")),
        ALICE.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"a")),
    ],
    ids=["PKCS#12", "PEM", "PKCS#8", "SEC 1", "encrypted PEM", "encrypted PKCS#8"],
)
def test_secret_keys_are_refused_and_not_kept(blob: bytes) -> None:
    findings = read_material(blob, (), JUDGE, NOW)
    assert [(one.verdict, one.key) for one in findings] == [(Verdict.SECRET_KEY, None)]
    assert holds_secret(blob)
    assert certificates(blob) == ()


@pytest.mark.parametrize("armoured", [True, False])
def test_secret_openpgp_keys_are_refused_and_not_kept(armoured: bool) -> None:
    secret = CAROL.secret_certificate("Carol <carol@example.org>")
    findings = read_material(armour(secret, "PRIVATE KEY BLOCK") if armoured else secret, (), JUDGE, NOW)
    assert [(one.verdict, one.key) for one in findings] == [(Verdict.SECRET_KEY, None)]


def test_a_certificate_beside_a_private_key_is_still_read() -> None:
    assert told(ALICE.key_pem + ALICE.pem) == [("", "SECRET_KEY"), (ALICE.fingerprint, None)]


@pytest.mark.parametrize(
    "blob", [b"", b"\n", b"hello", b"\x00\x01", b"\x30", b"\x30\x80", b"\x99", b"\xff" * 100, ALICE.der[:-1], b"MI"]
)
def test_what_is_no_key_is_malformed(blob: bytes) -> None:
    findings = read_material(blob, (), JUDGE, NOW)
    assert [(one.verdict, one.key) for one in findings] == [(Verdict.MALFORMED_KEY, None)]
    assert certificates(blob) == ()


@pytest.mark.parametrize(
    "blob",
    [
        ALICE.pem + ROOT.pem + ALICE.pem,
        ALICE.der + ROOT.der,
        certs_only(ALICE, ROOT),
        ALICE.pem + b"-----BEGIN PKCS7-----\n" + base64.encodebytes(certs_only(ROOT)) + b"-----END PKCS7-----\n",
        ALICE.pem.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE") + ROOT.pem + b"-----BEGIN CERTIFICATE-----\nnonsense",
    ],
)
def test_all_certificates_are_told_once_and_unjudged(blob: bytes) -> None:
    assert sorted(certificates(blob)) == sorted([ALICE.der, ROOT.der])


def test_a_trusted_certificate_of_openssl_is_cut_to_the_certificate() -> None:
    blob = (
        b"-----BEGIN TRUSTED CERTIFICATE-----\n"
        + base64.encodebytes(ALICE.der + b"\x30\x03\x02\x01\x01")
        + b"-----END TRUSTED CERTIFICATE-----\n"
    )
    assert certificates(blob) == (ALICE.der,)


@settings(deadline=None)
@given(st.binary(max_size=200) | st.builds(lambda a, b: ALICE.der[:a] + b, st.integers(0, 700), st.binary(max_size=30)))
def test_any_file_gives_a_finding(blob: bytes) -> None:
    assert read_material(blob, (), JUDGE, NOW)
    certificates(blob)
    holds_secret(blob)
