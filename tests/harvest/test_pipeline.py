"""From a message's bytes to findings: what counts as the sender's, what is looked into, and what ends the matter."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keycache.domain.entry import Defect, Protocol, Trust
from keycache.domain.examination import Direction, DirectionPolicy, Envelope, Examination, TrustBase
from keycache.domain.names import Domain, EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.budget import DEFAULT, Budget
from keycache.harvest.paths import PathJudge
from keycache.harvest.pipeline import GATES, examine
from support.odd_mails import HEAD, many_key_parts, part_of
from support.openpgp import DAY, Maker, armour, packet
from support.smime import (
    BODY,
    NOW,
    authority,
    certs_only,
    headers,
    multipart_signed,
    opaque_signed,
    person,
    sign,
    tlv,
)

ROOT = authority("Pipeline Root")
ALICE = person("alice@example.org", ROOT)
MALLORY = person("mallory@evil.example", ROOT)
JUDGE = PathJudge(TrustBase(anchors=(ROOT.der,)))
PGP = Maker("pipeline")
USER_ID = "Alice <alice@example.org>"
KEY = PGP.certificate(USER_ID)
INBOUND = Envelope(stated=Direction.INBOUND)
ENVELOPED = tlv(0x30, bytes.fromhex("06092a864886f70d010703"), tlv(0xA0, tlv(0x30, b"\x02\x01\x00")))


def run(
    message: bytes, envelope: Envelope = INBOUND, policy: DirectionPolicy | None = None, budget: Budget = DEFAULT
) -> Examination:
    return examine(message, envelope, policy or DirectionPolicy(), JUDGE, NOW, budget)


def told(examination: Examination) -> list[tuple[str, str | None]]:
    """(fingerprint or label, verdict) of every finding; None: may enter."""
    return [
        (finding.label if finding.key is None else finding.key.fingerprint.text, finding.verdict and finding.verdict.value)
        for finding in examination.findings
    ]


def mail(*parts: bytes, kind: str = "mixed", sender: str = "alice@example.org", extra: str = "") -> bytes:
    """A multipart of parts that bring their own headers."""
    lines = b"".join(b"--=outer\r\n" + part + b"\r\n" for part in parts)
    return (
        headers(sender) + f"{extra}Content-Type: multipart/{kind}; boundary==outer\r\n\r\n".encode() + lines + b"--=outer--\r\n"
    )


def entity(message: bytes) -> bytes:
    """The message as a part of another: from its Content-Type on."""
    return message[message.index(b"Content-Type:") :]


def attachment(kind: str, data: bytes, name: str = "") -> bytes:
    disposition = f'Content-Disposition: attachment; filename="{name}"\r\n' if name else ""
    return f"Content-Type: {kind}\r\n{disposition}Content-Transfer-Encoding: base64\r\n\r\n".encode() + base64.encodebytes(data)


def autocrypt(data: bytes = KEY, address: str = "alice@example.org") -> str:
    return f"Autocrypt: addr={address}; prefer-encrypt=mutual; keydata={base64.b64encode(data).decode()}\r\n"


SIGNED = multipart_signed(sign(BODY, ALICE, ROOT))
ACCEPTED = [(ALICE.fingerprint, None)]
PGP_ACCEPTED = [(PGP.fingerprint, None)]
TEXT = b"Content-Type: text/plain\r\n\r\nhello\r\n"


# Gates ----------------------------------------------------------------------------------------------------------------------------


def test_a_signed_mail_passes_every_gate_and_gives_the_key_and_its_chain() -> None:
    middle = authority("Pipeline Issuer", ROOT)
    alice = person("alice@example.org", middle, kind="rsa")
    examination = run(multipart_signed(sign(BODY, alice, middle)))
    (finding,) = examination.findings
    assert finding.key is not None
    assert (finding.key.fingerprint.text, finding.key.trust, finding.verdict) == (alice.fingerprint, Trust.ANCHORED, None)
    assert replace(examination, findings=(), gates=()) == Examination(
        direction=Direction.INBOUND,
        sender=EmailAddress("alice@example.org"),
        message_id=examination.message_id,
        verdict=None,
        chain=(middle.der,),
    )
    assert examination.message_id.endswith("@example.org>")
    assert [(gate.name, gate.passed) for gate in examination.gates] == [(name, True) for name in GATES]


@pytest.mark.parametrize(
    ("message", "envelope", "policy", "verdict", "reached"),
    [
        (SIGNED, INBOUND, None, Verdict.MESSAGE_TOO_LARGE, "size"),
        (b"", INBOUND, None, Verdict.UNREADABLE_MESSAGE, "readable"),
        (b"\r\n\r\nno header\r\n", INBOUND, None, Verdict.UNREADABLE_MESSAGE, "readable"),
        (b"\x89PNG\r\n\x1a\n", INBOUND, None, Verdict.UNREADABLE_MESSAGE, "readable"),
        (b"a: b\n" * 1_001, INBOUND, None, Verdict.TOO_COMPLEX, "readable"),
        (SIGNED, Envelope(), None, Verdict.DIRECTION_UNKNOWN, "direction"),
        (SIGNED, Envelope(stated=Direction.OUTBOUND), None, Verdict.OUTBOUND_MESSAGE, "direction"),
        (b"Subject: x\r\n\r\n", INBOUND, None, Verdict.NO_SENDER, "sender"),
        (b"From: a@b.example\r\n" + SIGNED, INBOUND, None, Verdict.SEVERAL_SENDERS, "sender"),
        (SIGNED, INBOUND, DirectionPolicy(managed_domains=(Domain("example.org"),)), Verdict.OWN_DOMAIN, "managed domain"),
        (mail(*[TEXT] * 10_000), INBOUND, None, Verdict.TOO_COMPLEX, "structure"),
        (headers() + b"\r\nhello\r\n", INBOUND, None, Verdict.NO_KEY_MATERIAL, "key material"),
    ],
)  # fmt: skip
def test_the_first_gate_that_is_not_passed_ends_the_matter(
    message: bytes, envelope: Envelope, policy: DirectionPolicy | None, verdict: Verdict, reached: str
) -> None:
    budget = Budget(message_bytes=1_000) if verdict is Verdict.MESSAGE_TOO_LARGE else DEFAULT
    examination = run(message, envelope, policy, budget)
    assert (examination.verdict, examination.findings) == (verdict, ())
    assert examination.detail
    failed = [gate for gate in examination.gates if gate.passed is False]
    assert [(gate.name, gate.detail) for gate in failed] == [(reached, examination.detail)]
    place = [gate.name for gate in examination.gates].index(reached)
    assert all(gate.passed for gate in examination.gates[:place])
    assert all(gate.passed is None for gate in examination.gates[place + 1 :])


def test_a_message_of_exactly_the_limit_passes() -> None:
    assert run(SIGNED, budget=Budget(message_bytes=len(SIGNED))).verdict is None
    assert run(SIGNED, budget=Budget(message_bytes=len(SIGNED) - 1)).verdict is Verdict.MESSAGE_TOO_LARGE


def test_outbound_mail_is_not_looked_into() -> None:
    """Its structure is beyond every limit, and nobody asks."""
    examination = run(mail(*[TEXT] * 10_000), Envelope(stated=Direction.OUTBOUND))
    assert examination.verdict is Verdict.OUTBOUND_MESSAGE
    assert examination.sender == EmailAddress("alice@example.org")


# S/MIME ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        SIGNED,
        SIGNED.replace(b"\r\n", b"\n"),
        SIGNED.replace(b"application/pkcs7-signature", b"application/x-pkcs7-signature"),
        SIGNED.replace(b' protocol="application/pkcs7-signature";', b""),
        SIGNED.replace(b"application/pkcs7-signature; name", b"application/octet-stream; name"),
        SIGNED.replace(b"multipart/signed; protocol", b"Multipart/Signed ; (comment) PROTOCOL"),
        SIGNED.replace(b'boundary="=-keycache-="', b"boundary*0=\"=-key\"; boundary*1=\"cache-=\""),
        SIGNED.replace(b"--=-keycache-=--\r\n", b""),
        b"From alice Mon Jun  1 10:00:00 2026\r\n" + SIGNED,
        opaque_signed(sign(BODY, ALICE, opaque=True)),
        opaque_signed(sign(BODY, ALICE, opaque=True)).replace(b" smime-type=signed-data;", b""),
        opaque_signed(sign(BODY, ALICE, opaque=True)).replace(b"pkcs7-mime", b"x-pkcs7-mime"),
        opaque_signed(sign(BODY, ALICE, opaque=True)).replace(b"application/pkcs7-mime", b"application/octet-stream"),
        headers() + attachment("application/octet-stream", sign(BODY, ALICE, opaque=True), "SMIME.P7M"),
    ],
    ids=[
        "as sent", "stored with LF", "x- type", "no protocol", "octet-stream .p7s", "spelling", "boundary in pieces", "cut off at the end",
        "mbox line", "opaque", "opaque without smime-type", "opaque x-", "octet-stream .p7m by type name", "octet-stream .p7m",
    ],
)  # fmt: skip
def test_the_signers_certificate_is_found_however_the_signature_is_wrapped(message: bytes) -> None:
    assert told(run(message)) == ACCEPTED


def test_binary_content_that_was_signed_as_it_stands_is_verified_as_it_stands() -> None:
    body = b"Content-Type: application/octet-stream\r\n\r\nbare\nlines\n"
    assert told(run(multipart_signed(sign(body, ALICE), body))) == ACCEPTED


@pytest.mark.parametrize(
    "broken", [SIGNED.replace(b"Dear Bob", b"Dear Eve"), SIGNED.replace(b"\r\n--=-keycache-=\r\nContent", b"--\r\nContent")]
)
def test_what_was_altered_is_no_proof(broken: bytes) -> None:
    (finding,) = run(broken).findings
    assert finding.verdict is Verdict.SIGNATURE_INVALID


def test_a_mail_cut_off_before_its_signature_says_so() -> None:
    examination = run(SIGNED[: SIGNED.index(b"--=-keycache-=\r\nContent-Type: application/pkcs7")])
    assert [(one.verdict, one.detail) for one in examination.findings] == [
        (Verdict.SIGNATURE_INVALID, "The signature is missing; the mail was cut off or taken to pieces.")
    ]


def test_a_signature_apart_from_its_content_proves_nothing() -> None:
    examination = run(mail(TEXT, attachment("application/pkcs7-signature", sign(BODY, ALICE), "smime.p7s")))
    assert [one.verdict for one in examination.findings] == [Verdict.SIGNATURE_INVALID]


def test_a_signed_part_below_a_list_footer_still_counts() -> None:
    assert told(run(mail(entity(SIGNED), TEXT))) == ACCEPTED


def test_a_signature_of_somebody_else_is_no_key_of_the_sender() -> None:
    assert told(run(multipart_signed(sign(BODY, MALLORY)))) == [(MALLORY.fingerprint, "ADDRESS_MISMATCH")]


def test_the_display_name_does_not_make_the_sender() -> None:
    forged = SIGNED.replace(b"From: alice@example.org", b'From: "alice@example.org" <mallory@evil.example>')
    assert told(run(forged)) == [(ALICE.fingerprint, "ADDRESS_MISMATCH")]


def test_the_sender_field_is_not_read() -> None:
    forged = SIGNED.replace(b"From: alice@example.org", b"From: boss@example.org\r\nSender: alice@example.org")
    assert told(run(forged)) == [(ALICE.fingerprint, "ADDRESS_MISMATCH")]


def test_opaque_layers_are_opened_one_after_another() -> None:
    """Triple wrapping (RFC 2634 section 1.1) without the middle: a list signs what Alice signed."""
    inner = entity(opaque_signed(sign(BODY, ALICE, opaque=True)))
    outer = opaque_signed(sign(inner, person("list@lists.example", ROOT), opaque=True))
    assert ACCEPTED[0] in told(run(outer))


def test_layers_have_a_budget() -> None:
    content = BODY
    for _ in range(9):
        content = entity(opaque_signed(sign(content, ALICE, opaque=True)))
    examination = run(headers() + content)
    assert (examination.verdict, examination.detail) == (
        Verdict.TOO_COMPLEX,
        "The mail has more than 8 signed layers within each other.",
    )


def test_the_key_of_an_opaque_layer_and_of_its_content_is_told_once() -> None:
    inner = entity(SIGNED)
    assert told(run(opaque_signed(sign(inner, ALICE, opaque=True)))) == ACCEPTED


@pytest.mark.parametrize(
    "message",
    [
        headers() + attachment("application/pkcs7-mime; smime-type=enveloped-data", ENVELOPED, "smime.p7m"),
        mail(TEXT, attachment("application/octet-stream", ENVELOPED, "smime.p7m")),
        mail(
            b"Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n",
            b"Content-Type: application/octet-stream; name=encrypted.asc\r\n\r\n" + armour(KEY),
            kind="encrypted; protocol=application/pgp-encrypted",
        ),
        mail(entity(mail(TEXT, attachment("application/pgp-keys", KEY))).replace(b"=outer", b"=inner"), kind="encrypted"),
        headers() + b"\r\n-----BEGIN PGP MESSAGE-----\r\n\r\nwV4D\r\n-----END PGP MESSAGE-----\r\n",
    ],
    ids=["S/MIME", "S/MIME attached", "PGP/MIME", "with parts inside parts", "inline"],
)
def test_an_encrypted_mail_without_a_key_outside_is_told_as_such(message: bytes) -> None:
    examination = run(message)
    assert (examination.verdict, examination.findings) == (Verdict.ENCRYPTED_MESSAGE, ())


def test_an_encrypted_mail_with_an_autocrypt_header_gives_the_key() -> None:
    message = headers() + autocrypt().encode() + attachment("application/pkcs7-mime", ENVELOPED, "smime.p7m")
    assert told(run(message)) == PGP_ACCEPTED


@pytest.mark.parametrize(
    "part",
    [
        attachment("application/pkcs7-mime; smime-type=certs-only", certs_only(ALICE, ROOT), "smime.p7c"),
        attachment("application/octet-stream", certs_only(ALICE, ROOT), "certs.p7b"),
        attachment("application/x-x509-user-cert", ALICE.der + ROOT.der, "alice.cer"),
        attachment("application/octet-stream", ALICE.pem + ROOT.pem, "alice.pem"),
    ],
)
def test_certificates_without_a_signature_prove_nothing(part: bytes) -> None:
    (finding,) = run(mail(TEXT, part)).findings
    assert (finding.verdict, finding.key) == (Verdict.UNSIGNED_CERTIFICATES, None)
    assert finding.detail.startswith("2 certificates in ")


def test_a_private_key_in_a_mail_is_told_loudly() -> None:
    examination = run(mail(TEXT, attachment("application/octet-stream", ALICE.key_pem, "alice.pem")))
    assert told(examination) == [("alice.pem", "SECRET_KEY")]


# OpenPGP --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        headers() + autocrypt().encode() + b"\r\nhello\r\n",
        mail(TEXT, attachment("application/pgp-keys", armour(KEY), "0x1.asc")),
        mail(TEXT, attachment("application/pgp-keys", KEY)),
        mail(TEXT, attachment("application/octet-stream", armour(KEY), "key.asc")),
        mail(TEXT, attachment("application/octet-stream", KEY, "key.gpg")),
        headers() + b"\r\nMy key:\r\n" + armour(KEY).replace(b"\n", b"\r\n") + b"Bye\r\n",
        headers() + attachment("text/plain", b"My key:\n" + armour(KEY)),
        mail(TEXT, b"Content-Type: application/pgp-signature\r\n\r\n"
             + armour(PGP.signature(0, unhashed=b"\xff" + (len(KEY) + 2).to_bytes(4, "big") + b"\x26\x00" + KEY), "SIGNATURE"),
             kind="signed; protocol=application/pgp-signature"),
    ],
    ids=["Autocrypt", "pgp-keys armoured", "pgp-keys binary", ".asc", ".gpg", "inline", "inline in base64", "in a PGP/MIME signature"],
)  # fmt: skip
def test_the_senders_openpgp_key_is_found_wherever_it_stands(message: bytes) -> None:
    examination = run(message)
    if not examination.findings:  # the signature case needs what Sequoia takes for a key block
        pytest.fail(f"{examination.verdict}: {examination.detail}")
    assert told(examination) == PGP_ACCEPTED
    assert examination.findings[0].key is not None
    assert examination.findings[0].key.addresses == (EmailAddress("alice@example.org"),)


def test_a_key_in_several_places_is_told_once_with_what_all_of_them_say() -> None:
    message = mail(
        b"Content-Type: text/plain\r\n\r\n" + armour(KEY),
        attachment("application/pgp-keys", armour(KEY), "key.asc"),
        extra=autocrypt(),
    )
    (finding,) = run(message).findings
    assert finding.key is not None
    assert (finding.key.fingerprint.text, finding.key.prefer_encrypt) == (PGP.fingerprint, True)


def test_a_revocation_outranks_the_same_key_unrevoked_in_whatever_order() -> None:
    revoked = PGP.certificate(USER_ID, before=PGP.revoke(at=NOW - DAY))
    good, bad = attachment("application/pgp-keys", KEY), attachment("application/pgp-keys", revoked)
    for message in (mail(good, bad), mail(bad, good)):
        (finding,) = run(message).findings
        assert finding.key is not None
        assert (finding.verdict, finding.key.defect) == (Verdict.KEY_REVOKED, Defect.REVOKED)


def test_secret_keys_are_told_and_not_kept() -> None:
    secret = armour(PGP.secret_certificate(USER_ID), "PRIVATE KEY BLOCK")
    for message in (headers() + b"\r\n" + secret, mail(attachment("application/pgp-keys", secret, "mine.asc"))):
        (finding,) = run(message).findings
        assert (finding.verdict, finding.key) == (Verdict.SECRET_KEY, None)


def test_evidence_is_dated_by_the_mail_but_never_in_the_future() -> None:
    def evidence(date: bytes, received_at: object = None) -> object:
        message = mail(attachment("application/pgp-keys", KEY)).replace(b"Mon, 01 Jun 2026 10:00:00 +0000", date)
        (finding,) = run(message, replace(INBOUND, received_at=received_at)).findings  # type: ignore[arg-type]
        assert finding.key is not None
        return finding.key.evidence_at

    hour = timedelta(hours=1)
    assert evidence(b"Mon, 01 Jun 2026 10:00:00 +0000") == NOW - 2 * hour
    assert evidence(b"Mon, 01 Jun 2026 10:00:00 +0000", NOW - 3 * hour) == NOW - 3 * hour
    assert evidence(b"Mon, 01 Jun 2099 10:00:00 +0000") == NOW
    assert evidence(b"nonsense") == NOW
    assert evidence(b"nonsense", NOW + hour) == NOW


# Forwarded ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inner", "protocol", "label"),
    [
        (SIGNED, Protocol.SMIME, "smime.p7s"),
        (opaque_signed(sign(BODY, ALICE, opaque=True)), Protocol.SMIME, "smime.p7m"),
        (mail(TEXT, attachment("application/pgp-keys", KEY, "key.asc")), Protocol.OPENPGP, "key.asc"),
        (headers() + b"\r\n" + armour(KEY), Protocol.OPENPGP, "text/plain"),
    ],
)
def test_keys_in_a_forwarded_message_are_not_the_senders(inner: bytes, protocol: Protocol, label: str) -> None:
    """Even when the forwarded mail is the sender's own: that one was to be harvested when it came in."""
    (finding,) = run(mail(TEXT, b"Content-Type: message/rfc822\r\n\r\n" + inner)).findings
    assert (finding.verdict, finding.key, finding.protocol, finding.label) == (Verdict.NOT_FROM_SENDER, None, protocol, label)


def test_a_forwarded_message_in_a_signed_mail_leaves_the_signature_of_the_forwarder() -> None:
    body = b"Content-Type: message/rfc822\r\n\r\n" + multipart_signed(sign(BODY, MALLORY))
    assert told(run(multipart_signed(sign(body, ALICE), body))) == [*ACCEPTED, ("smime.p7s", "NOT_FROM_SENDER")]


def test_an_autocrypt_header_of_a_forwarded_message_does_not_count() -> None:
    inner = headers() + autocrypt().encode() + b"\r\nhello\r\n"
    examination = run(mail(TEXT, b"Content-Type: message/rfc822\r\n\r\n" + inner))
    assert examination.verdict is Verdict.NO_KEY_MATERIAL


# Hostile --------------------------------------------------------------------------------------------------------------------------


def test_key_blocks_and_signatures_have_a_budget() -> None:
    assert run(many_key_parts(65)).verdict is Verdict.TOO_COMPLEX
    assert run(many_key_parts(64)).verdict is None
    assert run(mail(*[attachment("application/pkcs7-mime", b"\x30\x00")] * 17)).verdict is Verdict.TOO_COMPLEX


def test_findings_are_bounded_and_the_best_are_kept() -> None:
    keys = b"".join(Maker(f"many {n}").certificate(f"<x{n}@example.org>") for n in range(12))
    message = mail(
        *[attachment("application/x-x509-user-cert", ALICE.der, f"{n}.cer") for n in range(200)],
        attachment("application/pgp-keys", keys + KEY),
    )
    examination = run(message)
    assert len(examination.findings) == 100
    assert told(examination)[0] == PGP_ACCEPTED[0]


def test_one_bad_part_does_not_hide_a_good_key() -> None:
    message = mail(
        attachment("application/pgp-keys", b"\xff\xff\xff"),
        attachment("application/pkcs7-mime", b"\x30\x84\xff\xff\xff\xff"),
        b"Content-Type: multipart/signed; boundary=none\r\n\r\n",
        entity(SIGNED),
    )
    assert ACCEPTED[0] in told(run(message))


SEEDS = [
    SIGNED,
    opaque_signed(sign(BODY, ALICE, opaque=True)),
    mail(TEXT, attachment("application/pgp-keys", armour(KEY), "k.asc"), extra=autocrypt()),
    mail(TEXT, b"Content-Type: message/rfc822\r\n\r\n" + SIGNED),
    part_of(b"application/pkcs7-mime", certs_only(ALICE)),
    HEAD + b"\r\n" + armour(packet(6, b"\x04") * 3),
]


@st.composite
def mutilated(draw: st.DrawFn) -> bytes:
    """A real mail with bytes replaced, removed, repeated or exchanged with another's."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 200)))
        other = draw(st.sampled_from(SEEDS))
        piece = draw(st.binary(max_size=20) | st.just(data[start:end] * 3) | st.just(other[start:end]) | st.just(b"\x00"))
        data = data[:start] + piece + data[end:]
    return data


@settings(max_examples=150, deadline=None)
@given(mutilated() | st.binary(max_size=400).map(lambda data: HEAD + data))
def test_whatever_the_bytes_there_is_a_verdict_or_a_finding(message: bytes) -> None:
    examination = run(message)
    assert (examination.verdict is None) == bool(examination.findings)
    for finding in examination.findings:
        assert finding.verdict is not None or finding.key is not None
        if finding.verdict is None:
            assert finding.key is not None
            assert finding.key.addresses == (examination.sender,)
