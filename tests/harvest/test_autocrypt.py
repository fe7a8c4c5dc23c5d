"""Autocrypt Level 1.1, rule by rule, and the mails others wrote to test it."""

from __future__ import annotations

import base64
import email
import email.policy
import email.utils
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keycache.domain.examination import Finding, Gate
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.autocrypt import LABEL, effective_date, examine_headers
from support.openpgp import DAY, T0, Maker

ALICE = EmailAddress.parse("alice@example.org")
NAME = "Alice <alice@example.org>"
CORPUS = Path(__file__).parents[1] / "corpus" / "autocrypt"


def key_data(blob: bytes | None = None) -> str:
    return base64.b64encode(Maker().certificate(NAME) if blob is None else blob).decode()


def header(*attributes: str, addr: str = "alice@example.org", data: str | None = None) -> str:
    return "; ".join([f"addr={addr}", *attributes, f"keydata={key_data() if data is None else data}"])


def examine(
    *values: str,
    sender_count: int = 1,
    is_report: bool = False,
    date: datetime | None = T0 - DAY,
    received_at: datetime = T0,
) -> tuple[Finding, ...]:
    return examine_headers(values, ALICE, sender_count, is_report, date, received_at, T0)


def reason(value: str) -> str:
    (finding,) = examine(value)
    assert (finding.verdict, finding.key, finding.label) == (Verdict.AUTOCRYPT_INVALID, None, LABEL)
    return finding.detail.removeprefix("The Autocrypt header was ignored: ")


def test_a_good_header_brings_the_key_with_its_date_and_preference() -> None:
    (finding,) = examine(header("prefer-encrypt=mutual"))
    assert finding.key is not None
    assert (finding.verdict, finding.label) == (None, LABEL)
    assert (finding.key.fingerprint.text, finding.key.addresses) == (Maker().fingerprint, (ALICE,))
    assert (finding.key.evidence_at, finding.key.prefer_encrypt) == (T0 - DAY, True)
    assert all(gate.passed for gate in finding.gates)
    assert finding.gates[0] == Gate(name="Autocrypt: message", passed=True)


def test_no_header_brings_nothing() -> None:
    assert examine() == ()


@pytest.mark.parametrize("attributes", [(), ("prefer-encrypt=nopreference",), ("prefer-encrypt=MUTUAL",), ("prefer-encrypt=",)])
def test_without_mutual_there_is_no_preference(attributes: tuple[str, ...]) -> None:
    (finding,) = examine(header(*attributes))
    assert finding.key is not None
    assert finding.key.prefer_encrypt is False


@pytest.mark.parametrize(
    "value",
    [
        header("_unknown=ignored"),
        header(addr="ALICE@Example.org"),
        header(data="\r\n " + "\r\n ".join(key_data()[at : at + 70] for at in range(0, len(key_data()), 70))),
        header().replace("; ", ";"),
        header() + ";",
        " " + header() + " ",
    ],
    ids=["non-critical attribute", "case", "folded", "no blanks", "last semicolon", "blanks around"],
)
def test_harmless_variants_are_valid(value: str) -> None:
    assert [finding.verdict for finding in examine(value)] == [None]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (header("danger=1"), "it has the attribute 'danger', which is critical and unknown to Level 1."),
        (header("type=1"), "it has the attribute 'type', which is critical and unknown to Level 1."),
        (header("Addr=alice@example.org"), "it has the attribute 'Addr', which is critical and unknown to Level 1."),
        (header("addr=alice@example.org"), "it has the attribute 'addr' twice."),
        (f"keydata={key_data()}", "it lacks the attribute 'addr'."),
        ("addr=alice@example.org", "it lacks the attribute 'keydata'."),
        ("addr=alice@example.org; keydata=", "it lacks the attribute 'keydata'."),
        (f"keydata={key_data()}; addr=alice@example.org", "'keydata' is not its last attribute."),
        (header(addr="alice"), "its 'addr' is not a mail address."),
        (header(addr="alice@example.org, bob@example.org"), "its 'addr' is not a mail address."),
        ("nonsense", "it is not a list of attributes."),
        ("", "it is not a list of attributes."),
        (header(data="!!!"), "its key data is not base64."),
        (header(data="äöü"), "its key data is not base64."),
        (header(data=key_data()[:-1]), "its key data is not base64."),
        (header(data=key_data(Maker().certificate(NAME) * 2)), "its key data holds 2 keys instead of one."),
    ],
)
def test_a_broken_header_is_ignored_with_the_reason_in_words(value: str, why: str) -> None:
    assert reason(value) == why


def test_key_data_that_is_no_key_makes_the_header_invalid() -> None:
    assert reason(header(data=key_data(b"hello"))).startswith("its key data is no key. ")
    torn = Maker().certificate(NAME)[:-3]
    assert reason(header(data=key_data(torn))).endswith("the last packet is cut off.")


def test_a_header_for_another_address_is_a_mismatch() -> None:
    (finding,) = examine(header(addr="bob@example.org"))
    assert (finding.verdict, finding.key) == (Verdict.ADDRESS_MISMATCH, None)
    assert (
        finding.detail == "The Autocrypt header was ignored: it is for bob@example.org, but the mail is from alice@example.org."
    )


def test_a_key_without_a_self_signed_user_id_of_the_sender_is_a_mismatch() -> None:
    (finding,) = examine(header(data=key_data(Maker().certificate("bob@example.org"))))
    assert finding.verdict is Verdict.ADDRESS_MISMATCH


def test_a_header_of_10_kib_is_valid_and_one_byte_more_is_not() -> None:
    room = 10 * 1024 - len("Autocrypt: ") - len(header("_pad="))
    assert [finding.verdict for finding in examine(header("_pad=" + "x" * room))] == [None]
    assert reason(header("_pad=" + "x" * (room + 1))) == "it has 10,241 bytes; the limit is 10,240."


def test_several_valid_headers_cancel_each_other() -> None:
    (finding,) = examine(header(), header(data=key_data(Maker("second").certificate(NAME))))
    assert (finding.verdict, finding.key) == (Verdict.AUTOCRYPT_SEVERAL, None)
    assert finding.detail == "The message has 2 valid Autocrypt headers."


def test_invalid_headers_do_not_count_beside_a_valid_one() -> None:
    verdicts = [finding.verdict for finding in examine(header("future=2"), header(), header(addr="bob@example.org"))]
    assert verdicts == [None, Verdict.AUTOCRYPT_INVALID, Verdict.ADDRESS_MISMATCH]


def test_automatic_answers_and_several_senders_do_not_count() -> None:
    for findings in (examine(header(), is_report=True), examine(header(), sender_count=2), examine(header(), sender_count=0)):
        assert [(finding.verdict, finding.key) for finding in findings] == [(Verdict.AUTOCRYPT_INVALID, None)]


def test_a_secret_key_in_a_header_is_refused_loudly() -> None:
    (finding,) = examine(header(data=key_data(Maker().secret_certificate(NAME))))
    assert (finding.verdict, finding.key) == (Verdict.SECRET_KEY, None)


def test_a_revoked_key_in_a_header_is_learnt() -> None:
    (finding,) = examine(header(data=key_data(Maker().certificate(NAME, before=Maker().revoke(at=T0 - DAY)))))
    assert (finding.verdict, finding.key is None) == (Verdict.KEY_REVOKED, False)


@pytest.mark.parametrize(
    ("date", "received_at", "expected"),
    [
        (T0 - 2 * DAY, T0 - DAY, T0 - 2 * DAY),
        (None, T0 - DAY, T0 - DAY),
        (T0, T0 - DAY, T0 - DAY),
        (T0 + 900 * DAY, T0 + 900 * DAY, T0),
    ],
    ids=["sent", "no date", "in the future", "received in the future"],
)
def test_the_effective_date_is_never_in_the_future(date: datetime | None, received_at: datetime, expected: datetime) -> None:
    assert effective_date(date, received_at, T0) == expected
    (finding,) = examine(header(), date=date, received_at=received_at)
    assert finding.key is not None
    assert finding.key.evidence_at == expected


def test_a_flood_of_headers_is_read_up_to_a_limit() -> None:
    findings = examine(*["x"] * 10_000)
    assert len(findings) == 17
    assert "10,000 such headers" in findings[-1].detail


@settings(max_examples=150, deadline=10_000, derandomize=True)
@given(st.lists(st.text(max_size=60) | st.text(alphabet="adrkeyt=; _@", max_size=40), max_size=3), st.booleans())
def test_any_header_gets_a_verdict(values: list[str], with_good: bool) -> None:
    values = [*values, header()] if with_good else values
    findings = examine(*values)
    assert len(findings) >= bool(values)
    assert [finding.key is not None for finding in findings].count(True) == with_good


ALICE_SUITE = EmailAddress.parse("alice@testsuite.autocrypt.org")
EXPECTED: dict[str, list[Verdict | None]] = {
    "25519-simple.eml": [None],
    "msg_8bit.eml": [],
    "no-autocrypt.eml": [],
    "multipart_report.eml": [Verdict.AUTOCRYPT_INVALID],
    "rsa2048-broken-base64.eml": [Verdict.AUTOCRYPT_INVALID],
    "rsa2048-explicit-type.eml": [Verdict.AUTOCRYPT_INVALID],
    "rsa2048-from-not-match.eml": [Verdict.ADDRESS_MISMATCH],
    "rsa2048-simple-casing.eml": [None],
    "rsa2048-simple-to-bot.eml": [None],
    "rsa2048-simple.eml": [None],
    "rsa2048-unknown-critical.eml": [Verdict.AUTOCRYPT_INVALID],
    "rsa2048-unknown-non-critical.eml": [None],
    "rsa4096-simple.eml": [None],
    "unknown-type.eml": [Verdict.AUTOCRYPT_INVALID],
}
"""`type` is a critical attribute that Level 1 does not define, whatever drafts before it did. Two more files have no From."""


@pytest.mark.parametrize("name", EXPECTED)
def test_mails_of_the_muacrypt_project_get_the_verdicts_they_were_made_for(name: str) -> None:
    message = email.message_from_bytes((CORPUS / name).read_bytes(), policy=email.policy.compat32)
    senders = email.utils.getaddresses(message.get_all("From", []))
    date = email.utils.parsedate_to_datetime(message["Date"])
    findings = examine_headers(
        message.get_all("Autocrypt", []),
        EmailAddress.parse(senders[0][1]),
        len(senders),
        message.get_content_type() == "multipart/report",
        date if date.tzinfo else None,
        T0,
        T0,
    )
    assert [finding.verdict for finding in findings] == EXPECTED[name]
    for finding in findings:
        if finding.verdict is None:
            assert finding.key is not None
            assert finding.key.addresses == (ALICE_SUITE,)
            assert finding.key.evidence_at is not None
            assert finding.key.evidence_at < datetime.fromisoformat("2017-01-01T00:00:00+00:00")
            assert finding.key.evidence_at.utcoffset() is not None
            assert finding.key.evidence_at + timedelta(days=1) < T0


def test_every_mail_of_the_corpus_has_an_expected_outcome() -> None:
    files = {path.name for path in CORPUS.glob("*.eml")}
    assert files == set(EXPECTED) | {"msg_iso8859_quopri.eml", "multipart_fn_unicode.eml"}
