"""Every verdict an OpenPGP key can get, and what is kept of it."""

from __future__ import annotations

import base64
from datetime import datetime

import pytest

from keycache.domain.entry import Defect, Key, Protocol, Trust
from keycache.domain.examination import Finding, Gate
from keycache.domain.names import EmailAddress, Fingerprint
from keycache.domain.verdict import Verdict
from keycache.harvest.openpgp import GATES, examine_keys, find_armoured_blocks
from support.openpgp import BIRTH, DAY, T0, Maker, armour, old_packet, packet, subpacket

ALICE = EmailAddress.parse("alice@example.org")
NAME = "Alice <alice@example.org>"
OTHER = "Alice at work <alice@work.example>"


def one(blob: bytes, sender: EmailAddress | None = ALICE, now: datetime = T0, **options: object) -> Finding:
    (finding,) = examine_keys(blob, sender, now, **options)  # type: ignore[arg-type]
    return finding


def key_of(finding: Finding) -> Key:
    assert finding.key is not None
    return finding.key


@pytest.mark.parametrize("version", [4, 6])
def test_a_good_key_passes_every_gate_and_is_kept_minimal(version: int) -> None:
    maker = Maker(version=version)
    evidence = T0 - DAY
    finding = one(maker.certificate(NAME, lives=200 * DAY), evidence_at=evidence, prefer_encrypt=True, label="key.asc")
    assert finding == Finding(
        protocol=Protocol.OPENPGP,
        key=Key(
            protocol=Protocol.OPENPGP,
            fingerprint=Fingerprint(maker.fingerprint),
            material=key_of(finding).material,
            addresses=(ALICE,),
            names=(NAME,),
            trust=Trust.BOUND,
            not_before=BIRTH,
            not_after=datetime.fromisoformat("2026-06-09T11:59:59+00:00"),
            evidence_at=evidence,
            prefer_encrypt=True,
            algorithm="Ed25519/X25519",
        ),
        verdict=None,
        detail=f"Key {maker.fingerprint}, Ed25519/X25519",
        label="key.asc",
        gates=finding.gates,
    )
    assert [(gate.name, gate.passed) for gate in finding.gates] == [(name, True) for name in GATES]


def test_what_is_kept_is_examined_to_the_same_key_again() -> None:
    first = key_of(one(Maker().certificate(OTHER, NAME, lives=200 * DAY)))
    assert key_of(one(first.material)) == first


@pytest.mark.parametrize(
    "blob",
    [
        armour(Maker().certificate(NAME)),
        armour(Maker().certificate(NAME), headers="Version: GnuPG v2\nComment: ä\n"),
        armour(Maker().certificate(NAME), crc="=AAAA\n"),
        armour(Maker().certificate(NAME)).replace(b"\n", b"\r\n"),
        armour(Maker().certificate(NAME)).replace(b"\n", b"  \n"),
        armour(Maker().certificate(NAME)).replace(b"-----\n\n", b"-----\n"),
        b"Here it is:\n" + armour(Maker().certificate(NAME)) + b"\nBye\n",
        armour(b"nothing", "MESSAGE") + armour(Maker().certificate(NAME)),
        Maker().certificate(NAME) + b"\r\n\x00",
    ],
    ids=[
        "plain",
        "headers",
        "wrong checksum",
        "CRLF",
        "trailing blanks",
        "no blank line",
        "in a text",
        "after a message",
        "tail",
    ],
)
def test_a_key_is_read_in_every_harmless_wrapping(blob: bytes) -> None:
    assert (one(blob).verdict, key_of(one(blob)).material) == (None, key_of(one(Maker().certificate(NAME))).material)


def test_old_packet_headers_are_read() -> None:
    maker = Maker()
    body = maker.subkey_body()
    blob = (
        old_packet(6, maker.body)
        + old_packet(13, NAME.encode())
        + maker.certify(NAME)
        + old_packet(14, body)
        + maker.bind(body)
    )
    assert one(blob).verdict is None


def test_each_armoured_block_and_each_key_of_a_ring_has_its_finding() -> None:
    alice, bob, carol = Maker("alice"), Maker("bob"), Maker("carol", version=6)
    blob = armour(alice.certificate(NAME) + bob.certificate("bob@example.org")) + armour(carol.certificate(NAME))
    findings = examine_keys(blob, ALICE, T0)
    assert [(finding.label, finding.verdict) for finding in findings] == [
        (alice.fingerprint, None),
        (bob.fingerprint, Verdict.ADDRESS_MISMATCH),
        (carol.fingerprint, None),
    ]


def test_with_a_sender_the_key_is_bound_to_that_address_alone() -> None:
    assert key_of(one(Maker().certificate(NAME, OTHER))).addresses == (ALICE,)


def test_with_addresses_the_key_is_bound_to_those_it_names() -> None:
    work = EmailAddress.parse("alice@work.example")
    blob = Maker().certificate(NAME, OTHER, "alice@home.example")
    finding = one(blob, None, addresses=(work, EmailAddress.parse("bob@example.org")))
    assert (finding.verdict, key_of(finding).addresses) == (None, (work,))


def test_an_import_binds_every_address_the_key_names() -> None:
    finding = one(Maker().certificate(NAME, OTHER, "no address"), None)
    assert key_of(finding).addresses == (ALICE, EmailAddress.parse("alice@work.example"))
    assert key_of(finding).names == (NAME, OTHER)


def test_addresses_compare_without_case() -> None:
    assert key_of(one(Maker().certificate("Alice@Example.ORG"))).addresses == (EmailAddress("Alice@example.org"),)


def test_a_key_of_somebody_else_is_not_the_senders() -> None:
    finding = one(Maker().certificate("bob@example.org"))
    detail = f"Key {Maker().fingerprint} names other addresses only."
    assert (finding.verdict, finding.key, finding.detail) == (Verdict.ADDRESS_MISMATCH, None, detail)
    assert finding.gates[4:] == (
        Gate(name="user ID", passed=False, detail=detail),
        Gate(name="strength", passed=None),
        Gate(name="encryption", passed=None),
        Gate(name="validity", passed=None),
    )


def test_a_key_without_any_address_names_nobody() -> None:
    assert one(Maker().certificate("Alice"), None).detail == f"Key {Maker().fingerprint} names no mail address."


def test_a_user_id_without_signature_binds_nothing() -> None:
    maker = Maker()
    body = maker.subkey_body()
    blob = maker.primary + maker.user_id(NAME) + packet(14, body) + maker.bind(body)
    assert one(blob).verdict is Verdict.ADDRESS_MISMATCH


def test_a_revoked_user_id_binds_nothing_and_a_newer_self_signature_brings_it_back() -> None:
    maker = Maker()
    body = maker.subkey_body()
    tail = packet(14, body) + maker.bind(body)
    revoked = maker.primary + maker.user_id(NAME) + maker.certify(NAME) + maker.revoke_user_id(NAME, at=BIRTH + DAY)
    assert one(revoked + tail).verdict is Verdict.ADDRESS_MISMATCH
    assert "revoked the user ID" in one(revoked + tail).detail
    assert one(revoked + maker.certify(NAME, at=BIRTH + 2 * DAY) + tail).verdict is None


@pytest.mark.parametrize(("reason", "soft"), [(0, False), (None, False), (2, False), (1, True), (3, True)])
def test_a_revoked_key_is_refused_but_comes_along_so_that_its_revocation_is_learnt(reason: int | None, soft: bool) -> None:
    maker = Maker()
    finding = one(maker.certificate(NAME, before=maker.revoke(at=T0 - DAY, reason=reason)))
    assert finding.verdict is Verdict.KEY_REVOKED
    assert ("superseded or retired" in finding.detail) is soft
    assert (key_of(finding).defect, key_of(finding).addresses) == (Defect.REVOKED, (ALICE,))
    assert key_of(one(key_of(finding).material)).defect is Defect.REVOKED


def test_a_bare_revocation_without_user_ids_is_learnt_too() -> None:
    maker = Maker()
    finding = one(maker.primary + maker.revoke(at=T0 - DAY))
    assert (finding.verdict, key_of(finding).addresses, key_of(finding).defect) == (Verdict.KEY_REVOKED, (), Defect.REVOKED)


def test_a_soft_revocation_dated_in_the_future_ends_the_key_then() -> None:
    maker = Maker()
    finding = one(maker.certificate(NAME, before=maker.revoke(at=T0 + DAY, reason=1)))
    assert (finding.verdict, key_of(finding).not_after) == (None, datetime.fromisoformat("2026-03-02T11:59:59+00:00"))


def test_a_hard_revocation_counts_whatever_its_date() -> None:
    maker = Maker()
    assert one(maker.certificate(NAME, before=maker.revoke(at=T0 + DAY))).verdict is Verdict.KEY_REVOKED


@pytest.mark.parametrize(
    "blob",
    [
        Maker().certificate(NAME, lives=100 * DAY),
        Maker().certificate(NAME, subkey_lives=100 * DAY),
        Maker(version=6).certificate(NAME, lives=100 * DAY),
        Maker().certificate(NAME, before=Maker().direct(lives=100 * DAY)),
    ],
    ids=["user ID", "subkey", "version 6", "direct key"],
)
def test_a_key_serves_until_the_second_before_its_expiry(blob: bytes) -> None:
    last = one(blob, now=T0 - DAY / 86400)
    first = one(blob, now=T0)
    assert (last.verdict, key_of(last).not_after) == (None, T0 - DAY / 86400)
    assert (first.verdict, key_of(first).not_after) == (Verdict.KEY_EXPIRED, T0 - DAY / 86400)


def test_the_newest_self_signature_counts_for_the_expiry() -> None:
    maker = Maker()
    body = maker.subkey_body()
    tail = packet(14, body) + maker.bind(body)
    longer = maker.certify(NAME, at=BIRTH + DAY, lives=300 * DAY)
    shorter = maker.certify(NAME, lives=50 * DAY)
    for both in (longer + shorter, shorter + longer):
        assert key_of(one(maker.primary + maker.user_id(NAME) + both + tail)).not_after == BIRTH + 300 * DAY - DAY / 86400


def test_the_expiry_of_the_primary_user_id_counts_even_where_another_one_is_bound() -> None:
    maker = Maker()
    body = maker.subkey_body()
    blob = maker.primary + maker.user_id(NAME) + maker.certify(NAME)
    blob += maker.user_id(OTHER) + maker.certify(OTHER, primary=True, lives=120 * DAY) + packet(14, body) + maker.bind(body)
    key = key_of(one(blob))
    assert (key.addresses, key.not_after) == ((ALICE,), BIRTH + 120 * DAY - DAY / 86400)
    assert key_of(one(key.material)) == key


def test_a_self_signature_that_ends_ends_the_binding() -> None:
    maker = Maker()
    body = maker.subkey_body()
    blob = (
        maker.primary
        + maker.user_id(NAME)
        + maker.certify(NAME, signature_lives=110 * DAY)
        + packet(14, body)
        + maker.bind(body)
    )
    assert key_of(one(blob)).not_after == BIRTH + 110 * DAY - DAY / 86400
    assert one(blob, now=BIRTH + 110 * DAY).verdict is Verdict.KEY_EXPIRED


def test_a_key_made_later_than_now_is_not_yet_valid() -> None:
    finding = one(Maker(created=T0 + DAY).certificate(NAME))
    assert (finding.verdict, key_of(finding).not_before) == (Verdict.NOT_YET_VALID, T0 + DAY)
    assert one(Maker(created=T0 + DAY).certificate(NAME), now=T0 + DAY).verdict is None


def test_a_subkey_still_to_come_makes_the_key_not_yet_valid() -> None:
    maker = Maker()
    body = maker.subkey_body(created=T0 + DAY)
    blob = maker.primary + maker.user_id(NAME) + maker.certify(NAME) + packet(14, body) + maker.bind(body, at=T0 + DAY)
    finding = one(blob)
    assert (finding.verdict, key_of(finding).not_before) == (Verdict.NOT_YET_VALID, T0 + DAY)


def test_the_window_spans_subkeys_that_follow_each_other_without_a_gap() -> None:
    maker = Maker()
    first, second, third = (
        maker.subkey_body("1"),
        maker.subkey_body("2", created=T0 - DAY),
        maker.subkey_body("3", created=T0 - 50 * DAY),
    )
    blob = maker.primary + maker.user_id(NAME) + maker.certify(NAME)
    blob += packet(14, first) + maker.bind(first, lives=101 * DAY)
    blob += packet(14, second) + maker.bind(second, at=T0 - DAY, lives=10 * DAY)
    blob += packet(14, third) + maker.bind(third, at=T0 - 50 * DAY, lives=10 * DAY)
    key = key_of(one(blob))
    assert (key.not_before, key.not_after) == (BIRTH, T0 + 9 * DAY - DAY / 86400)


@pytest.mark.parametrize("flags", [0x02, 0x20, 0x00, None], ids=["sign", "authenticate", "nothing", "not said"])
def test_a_subkey_that_may_not_encrypt_does_not_count(flags: int | None) -> None:
    maker = Maker()
    body = maker.subkey_body()
    blob = maker.primary + maker.user_id(NAME) + maker.certify(NAME) + packet(14, body) + maker.bind(body, flags=flags)
    finding = one(blob)
    assert (finding.verdict, key_of(finding).defect) == (Verdict.NO_ENCRYPTION_KEY, Defect.NO_ENCRYPTION_KEY)


@pytest.mark.parametrize("flags", [0x04, 0x08])
def test_either_encryption_flag_suffices(flags: int) -> None:
    maker = Maker()
    body = maker.subkey_body()
    blob = maker.primary + maker.user_id(NAME) + maker.certify(NAME) + packet(14, body) + maker.bind(body, flags=flags)
    assert one(blob).verdict is None


def test_a_revoked_subkey_does_not_count_and_is_kept_with_its_revocation() -> None:
    maker = Maker()
    body = maker.subkey_body()
    blob = maker.primary + maker.user_id(NAME) + maker.certify(NAME) + packet(14, body)
    blob += maker.bind(body) + maker.revoke_subkey(body, at=T0 - DAY)
    finding = one(blob)
    assert finding.verdict is Verdict.NO_ENCRYPTION_KEY
    assert body in key_of(finding).material
    assert one(key_of(finding).material).verdict is Verdict.NO_ENCRYPTION_KEY


def test_a_soft_revocation_of_a_subkey_dated_in_the_future_ends_the_subkey_then() -> None:
    maker = Maker()
    body = maker.subkey_body()
    blob = maker.certificate(NAME) + maker.revoke_subkey(body, at=T0 + DAY, reason=1)
    assert (one(blob).verdict, key_of(one(blob)).not_after) == (None, T0 + DAY - DAY / 86400)
    assert one(blob, now=T0 + DAY).verdict is Verdict.NO_ENCRYPTION_KEY


def test_a_version_6_key_ends_with_the_earlier_of_two_expiries() -> None:
    maker = Maker(version=6)
    body = maker.subkey_body()
    for direct, user_id in ((150, 200), (200, 150)):
        blob = maker.primary + maker.direct(lives=direct * DAY) + maker.user_id(NAME) + maker.certify(NAME, lives=user_id * DAY)
        key = key_of(one(blob + packet(14, body) + maker.bind(body)))
        assert key.not_after == BIRTH + 150 * DAY - DAY / 86400


def test_a_self_signature_with_sha1_does_not_count() -> None:
    maker = Maker()
    body = maker.subkey_body()
    tail = packet(14, body) + maker.bind(body)
    weak = maker.primary + maker.user_id(NAME) + maker.certify(NAME, at=BIRTH + DAY, hash_id=2)
    assert one(weak + tail).verdict is Verdict.WEAK_KEY
    assert one(weak + maker.certify(NAME) + tail).verdict is None


def test_a_binding_with_sha1_does_not_count() -> None:
    maker = Maker()
    body = maker.subkey_body()
    blob = maker.primary + maker.user_id(NAME) + maker.certify(NAME) + packet(14, body) + maker.bind(body, hash_id=2)
    assert one(blob).verdict is Verdict.NO_ENCRYPTION_KEY


@pytest.mark.parametrize(
    "extra",
    [subpacket(99, b"x", critical=True), subpacket(20, b"\x80\0\0\0\0\x01\0\x01kv", critical=True)],
    ids=["subpacket", "notation"],
)
def test_a_self_signature_with_something_critical_that_nobody_knows_does_not_count(extra: bytes) -> None:
    maker = Maker()
    body = maker.subkey_body()
    tail = packet(14, body) + maker.bind(body)
    assert (
        one(maker.primary + maker.user_id(NAME) + maker.certify(NAME, extra=extra) + tail).verdict is Verdict.ADDRESS_MISMATCH
    )


@pytest.mark.parametrize("version", [4, 6])
def test_a_secret_key_is_refused_loudly_and_nothing_of_it_is_kept(version: int) -> None:
    maker = Maker(version=version)
    secret = maker.secret_certificate(NAME)
    for blob in (
        secret,
        armour(secret, "PRIVATE KEY BLOCK"),
        armour(secret),
        maker.certificate(NAME) + packet(7, maker.subkey_body() + b"\x00" + maker.secret_bytes()),
    ):
        finding = one(blob)
        assert (finding.verdict, finding.key) == (Verdict.SECRET_KEY, None)
        assert finding.label == maker.fingerprint
        assert maker.secret_bytes().hex() not in repr(finding)
        assert base64.b64encode(maker.secret_bytes()).decode()[:20] not in repr(finding)


def test_a_secret_key_hidden_between_public_ones_does_not_take_them_with_it() -> None:
    alice, bob = Maker("alice"), Maker("bob")
    findings = examine_keys(alice.certificate(NAME) + bob.secret_certificate(NAME) + alice.certificate(NAME), ALICE, T0)
    assert [finding.verdict for finding in findings] == [None, Verdict.SECRET_KEY, None]


def test_a_private_block_that_cannot_be_read_is_a_secret_key_all_the_same() -> None:
    torn = armour(Maker().secret_certificate(NAME), "PRIVATE KEY BLOCK")[:200]
    assert [one(blob).verdict for blob in (torn, torn + b"\n!!!\n")] == [Verdict.SECRET_KEY] * 2


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (b"", "there is no OpenPGP key in it"),
        (b"hello", "something that is no OpenPGP packet stands in it"),
        (b"-----BEGIN PGP MESSAGE-----\n\naaaa\n-----END PGP MESSAGE-----\n", "there is no OpenPGP key in it"),
        (armour(Maker().certificate(NAME))[:-10], "the armour has no END line"),
        (armour(Maker().certificate(NAME)).replace(b"M", b"!", 1), "the armour holds characters that are not base64"),
        (armour(b""), "the armour is empty"),
        (Maker().certificate(NAME)[:-1], "the last packet is cut off"),
        (Maker().certificate(NAME) + b"hello", "something that is no OpenPGP packet stands in it"),
        (Maker().certificate(NAME) + b"\xcb\xe1aa", "a packet comes in partial lengths, which keys must not have"),
        (Maker().certificate(NAME) + b"\xa3aaaa", "a packet has no length, which keys must not have"),
        (Maker().certificate(NAME) + packet(8, b"\x00"), "it holds a packet of type 8, which no key has"),
        (packet(13, b"x") + Maker().certificate(NAME), "it does not begin with a key"),
        (packet(6, b"\x03" + b"x" * 20), "it is a key of version 3; versions 4 and 6 can be read"),
        (packet(6, b"\x04"), "a key packet is too short"),
    ],
)
def test_what_cannot_be_read_is_malformed_and_says_why(blob: bytes, reason: str) -> None:
    finding = one(blob)
    assert (finding.verdict, finding.key) == (Verdict.MALFORMED_KEY, None)
    assert reason in finding.detail


def test_keys_before_a_fault_are_good_all_the_same() -> None:
    findings = examine_keys(Maker().certificate(NAME) + Maker("bob").certificate(NAME)[:-1], ALICE, T0)
    assert [finding.verdict for finding in findings] == [None, Verdict.MALFORMED_KEY]


def test_unknown_optional_packets_padding_and_markers_are_passed_over() -> None:
    blob = packet(10, b"PGP") + Maker().certificate(NAME) + packet(21, b"xxxx") + packet(60, b"x") + packet(12, b"\x01\x02")
    assert one(blob).verdict is None


def test_what_others_signed_photos_and_local_signatures_are_stripped() -> None:
    alice, bob = Maker("alice"), Maker("bob")
    body, signing = alice.subkey_body(), alice.signing_subkey_body()
    junk = subpacket(100, b"junk" * 100)
    blob = alice.primary + alice.user_id(NAME) + alice.certify(NAME, unhashed=junk) + bob.certify_other(alice, NAME)
    blob += alice.certify(NAME, at=BIRTH + DAY, extra=subpacket(4, b"\x00"))
    blob += packet(17, b"\x05\x01abcd") + alice.signature(0x13, b"\xd1\0\0\0\x06\x05\x01abcd")
    blob += packet(14, body) + alice.bind(body) + packet(14, signing) + alice.bind(signing, flags=0x02)
    lean = alice.primary + alice.user_id(NAME) + alice.certify(NAME) + packet(14, body) + alice.bind(body)
    assert key_of(one(blob)).material == key_of(one(lean)).material
    assert len(key_of(one(blob)).material) < len(lean) + 1


def test_armoured_keys_are_found_in_a_text_at_the_beginning_of_a_line_only() -> None:
    public, private = armour(Maker().certificate(NAME)), armour(Maker().secret_certificate(NAME), "PRIVATE KEY BLOCK")
    quoted = b"".join(b"> " + line + b"\n" for line in public.splitlines())
    text = b"Hello\r\n" + public + quoted + armour(b"x", "MESSAGE") + private + b"tail " + public
    assert find_armoured_blocks(text) == (public.rstrip(b"\n"), private.rstrip(b"\n"))
    assert [one(block).verdict for block in find_armoured_blocks(text)] == [None, Verdict.SECRET_KEY]


def test_a_block_without_end_is_found_to_the_end_of_the_text() -> None:
    torn = armour(Maker().certificate(NAME))[:-10]
    assert find_armoured_blocks(b"a\n" + torn) == (torn,)
