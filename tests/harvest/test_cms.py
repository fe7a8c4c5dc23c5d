"""Hostile and odd CMS: whatever the bytes, there is a verdict, soon, and nothing is raised."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from keycache.domain.entry import Trust
from keycache.domain.examination import Finding, TrustBase
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.paths import PathJudge
from keycache.harvest.smime import CmsKind, SmimeResult, examine_signature, read_certificates
from keycache.harvest.smime_asn1 import Asn1Limits, Element, Unacceptable, dotted, encode, parse, to_der
from support import smime as make
from support.smime import BODY, NOW

ALICE = EmailAddress.parse("alice@example.org")
ROOT = make.authority()
JUDGE = PathJudge(TrustBase(anchors=(ROOT.der,)))
PERSON = make.person(issuer=ROOT)
GOOD = make.sign(BODY, PERSON, ROOT, opaque=True, attributes=(make.signing_time(NOW), make.preference(PERSON.certificate)))


def examine(signature: bytes, content: bytes | None = None) -> SmimeResult:
    return examine_signature(signature, content, ALICE, JUDGE, NOW)


def verdict_of(signature: bytes, content: bytes | None = None) -> Verdict | None:
    (finding,) = examine(signature, content).findings
    return finding.verdict


def indefinite(der: bytes) -> bytes:
    """The same value with indefinite lengths down to the fields of SignedData; certificates and signers stay DER."""

    def walk(one: Element, depth: int, *, enclosing: bool = False) -> bytes:
        enclosing = enclosing or (depth == 3 and one.tag == 0x30)
        if not one.constructed or (depth > 2 and not enclosing):
            return one.raw
        parts = (walk(child, depth + 1, enclosing=enclosing) for child in one.children)
        return bytes((one.tag, 0x80)) + b"".join(parts) + b"\0\0"

    return walk(parse(der, Asn1Limits()), 0)


def test_indefinite_lengths_and_strings_in_chunks_mean_the_same() -> None:
    assert verdict_of(GOOD) is None
    chunks = make.tlv(0x04, BODY[:7]) + b"\x24\x80" + make.tlv(0x04, BODY[7:20]) + make.tlv(0x04, BODY[20:]) + b"\0\0"
    plain = make.tlv(0x04, BODY)
    assert plain in GOOD
    streamed = indefinite(GOOD).replace(plain, b"\x24\x80" + chunks + b"\0\0")
    result = examine(streamed)
    assert (result.findings[0].verdict, result.content) == (None, BODY)


@pytest.mark.parametrize(
    ("signature", "verdict"),
    [
        (b"", Verdict.MALFORMED_KEY),
        (b"\0", Verdict.MALFORMED_KEY),
        (b"not ASN.1 at all", Verdict.MALFORMED_KEY),
        (b"\x30\x80" * 100_000, Verdict.TOO_COMPLEX),
        (b"\x30\x84\xff\xff\xff\xff", Verdict.MALFORMED_KEY),
        (b"\x30\x80" + b"\x05\x00" * 200_000 + b"\0\0", Verdict.TOO_COMPLEX),
        (b"\x30\x80" + b"\x30\x00" * 200_000 + b"\0\0", Verdict.TOO_COMPLEX),
        (b"\x24\x80" * 60, Verdict.MALFORMED_KEY),
        (b"\x1f\x81\x80", Verdict.MALFORMED_KEY),
        (b"\x30\x03\x06\x01\x80", Verdict.MALFORMED_KEY),
        (GOOD[: len(GOOD) // 2], Verdict.MALFORMED_KEY),
    ],
    ids=range(11),
)
def test_what_cannot_be_read_has_a_verdict(signature: bytes, verdict: Verdict) -> None:
    assert verdict_of(signature) is verdict


def test_bombs_inside_the_certificate_set_are_bounded() -> None:
    info = make.signer_info(BODY, PERSON, make.Signature())
    many = make.signed_data([info], [make.person(f"p{number}@example.org", ROOT, kind="p256").der for number in range(3)] * 170)
    assert verdict_of(many, BODY) is Verdict.TOO_COMPLEX
    deep = b""
    for _ in range(50):
        deep = make.tlv(0x30, deep)
    assert verdict_of(make.signed_data([info], [deep, PERSON.der]), BODY) is None


@pytest.mark.parametrize(
    ("infos", "attributes"),
    [(9, 0), (1, 65)],
)
def test_signers_and_attributes_are_bounded(infos: int, attributes: int) -> None:
    extra = tuple(make.attribute(f"1.2.3.{number}", b"\5\0") for number in range(attributes))
    info = make.signer_info(BODY, PERSON, make.Signature(attributes=extra))
    assert verdict_of(make.signed_data([info] * infos, [PERSON.der]), BODY) is Verdict.TOO_COMPLEX


def test_certificates_that_cannot_be_read_spoil_nothing_unless_they_are_the_signers() -> None:
    info = make.signer_info(BODY, PERSON, make.Signature())
    broken = PERSON.der.replace(b"alice@example.org", b"al\xffce@example.org")
    assert verdict_of(make.signed_data([info], [broken, PERSON.der, make.tlv(0x30, b"\5\0")]), BODY) is None
    (finding,) = examine(make.signed_data([info], [broken]), BODY).findings
    assert finding.verdict is Verdict.SIGNER_NOT_FOUND
    assert "1 of them cannot be read" in finding.detail


def test_a_certificate_that_is_larger_than_any_honest_one_is_left_out() -> None:
    bulky = make.person(
        issuer=ROOT, extra=((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), bytes(40_000)), False),)
    )
    assert verdict_of(make.sign(BODY, bulky), BODY) is Verdict.SIGNER_NOT_FOUND
    (finding,) = read_certificates(bulky.der, (), JUDGE, NOW)
    assert finding.verdict is Verdict.KEY_TOO_LARGE


def test_a_deeply_nested_extension_does_not_get_through_to_recursion() -> None:
    nested = b"\5\0"
    for _ in range(3_000):
        nested = make.tlv(0x30, nested)
    for oid in ("2.5.29.33", "2.5.29.30", "2.5.29.32", "2.5.29.31", "2.5.29.46", "1.3.6.1.5.5.7.1.1"):
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), nested)
        issuer = make.authority("Nested", ROOT, extra=((extension, False),))
        result = examine(make.sign(BODY, make.person(issuer=issuer), issuer), BODY)
        assert result.findings[0].key is not None


@settings(max_examples=150, deadline=2_000, derandomize=True)
@given(st.data())
def test_a_mutated_signature_never_raises_and_never_turns_into_another_good_one(data: st.DataObject) -> None:
    mutated = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(mutated) - 1))
        match data.draw(st.sampled_from(("set", "cut", "double"))):
            case "set":
                mutated[position] = data.draw(st.integers(0, 255))
            case "cut":
                del mutated[position : position + data.draw(st.integers(1, 9))]
            case _:
                mutated[position:position] = mutated[position : position + data.draw(st.integers(1, 30))]
    result = examine(bytes(mutated))
    assert (result.kind is CmsKind.SIGNED) == bool(result.findings)
    for finding in result.findings:
        assert_whole(finding)
        if finding.verdict is None:
            assert result.content == BODY
            assert finding.key is not None
            # What the root did not sign may be kept as held, never as anchored.
            assert finding.key.trust is Trust.HELD or finding.key.material == PERSON.der


@settings(max_examples=150, deadline=2_000, derandomize=True)
@given(st.binary(max_size=200))
def test_any_bytes_have_a_verdict(blob: bytes) -> None:
    for finding in (*examine(blob, b"content").findings, *read_certificates(blob, (ALICE,), JUDGE, NOW)):
        assert_whole(finding)
        assert finding.verdict is not None


def assert_whole(finding: Finding) -> None:
    assert (finding.verdict is None) <= (finding.key is not None)
    assert finding.label
    assert finding.gates
    assert finding.verdict is None or finding.detail


@settings(derandomize=True, deadline=2_000)
@given(st.recursive(st.binary(max_size=6), lambda inner: st.lists(inner, max_size=4), max_leaves=20))
def test_der_read_and_written_is_the_same_and_indefinite_forms_come_back_as_der(value: Any) -> None:
    def build(one: Any, *, definite: bool) -> bytes:
        if isinstance(one, bytes):
            return encode(0x04, one)
        inner = b"".join(build(child, definite=definite) for child in one)
        return encode(0x30, inner) if definite else b"\x30\x80" + inner + b"\0\0"

    der = build(value, definite=True)
    assert to_der(parse(der, Asn1Limits())) == der
    assert to_der(parse(build(value, definite=False) + b"trailing", Asn1Limits())) == der


def test_object_identifiers_are_read_and_broken_ones_refused() -> None:
    for text in ("1.2.840.113549.1.7.2", "2.5.29.17", "0.9.2342", "2.999.3"):
        assert dotted(make.oid(text)[2:]) == text
    for broken in (b"", b"\x80", b"\x2a" * 65):
        with pytest.raises(Unacceptable):
            dotted(broken)


def test_a_big_streamed_opaque_signature_is_put_together() -> None:
    content = bytes(8 * 1024 * 1024)
    chunked = b"".join(make.tlv(0x04, content[start : start + 1000]) for start in range(0, len(content), 1000))
    whole = make.signed_data([make.signer_info(content, PERSON, make.Signature())], [PERSON.der], b"here")
    streamed = indefinite(whole).replace(make.tlv(0x04, b"here"), b"\x24\x80" + chunked + b"\0\0")
    result = examine(streamed)
    assert result.findings[0].verdict is None
    assert result.content == content
