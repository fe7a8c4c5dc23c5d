"""Hostile sizes: each is refused by a count, before anything expensive, and never costs more than a moment."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.openpgp import HARVEST_LIMITS, OpenPgpLimits, examine_keys, find_armoured_blocks, keys_in_signature
from support.openpgp import BIRTH, DAY, T0, Maker, armour, packet

ALICE = EmailAddress.parse("alice@example.org")
NAME = "Alice <alice@example.org>"
MIB = 1024 * 1024

MOMENT = 3.0
"""Seconds of processor time. Aimed at is well under one; the rest is for a busy machine. Without the limits it takes minutes."""


def timed(call: Callable[[], object]) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


def flood(count: int, size: int = 340) -> bytes:
    """Alice's key under `count` signatures that others are said to have made (CVE-2019-13050)."""
    alice, bob = Maker("alice"), Maker("bob")
    genuine = bob.certify_other(alice, NAME)
    filler = packet(2, genuine[6:-4].ljust(size - 4, b"x") + bytes(4))
    key = alice.certificate(NAME)
    head = len(alice.primary + alice.user_id(NAME) + alice.certify(NAME))
    return key[:head] + filler * count + key[head:]


@pytest.mark.parametrize("wrap", [bytes, armour], ids=["binary", "armoured"])
def test_a_key_flooded_with_50_000_signatures_is_refused_at_once(wrap: Callable[[bytes], bytes]) -> None:
    blob = wrap(flood(50_000))
    assert len(blob) > 16 * MIB
    (finding,) = examine_keys(blob, ALICE, T0)
    assert (finding.verdict, finding.key) == (Verdict.KEY_TOO_LARGE, None)
    assert finding.label == Maker("alice").fingerprint
    assert timed(lambda: examine_keys(blob, ALICE, T0)) < MOMENT


def test_a_key_that_many_have_signed_within_the_limits_is_taken_without_their_signatures() -> None:
    (finding,) = examine_keys(flood(2_500), ALICE, T0)
    (plain,) = examine_keys(flood(0), ALICE, T0)
    assert (finding.verdict, finding.key) == (None, plain.key)


def test_a_flood_of_tiny_packets_is_refused_by_their_number() -> None:
    blob = Maker().certificate(NAME) + b"\xca\x01x" * (HARVEST_LIMITS.packets + 1)
    (finding,) = examine_keys(blob, ALICE, T0)
    assert (finding.verdict, "packets" in finding.detail) == (Verdict.KEY_TOO_LARGE, True)
    million = Maker().certificate(NAME) + b"\xca\x00" * 5_000_000
    assert timed(lambda: examine_keys(million, ALICE, T0)) < MOMENT


def test_a_flood_in_the_keys_own_name_is_refused_by_its_number() -> None:
    maker = Maker()
    broken = maker.certify(NAME)[:-4] + b"\x00\x00\x00\x00"
    head = maker.primary + maker.user_id(NAME)
    few, many = head + broken * 200, head + broken * 3_000
    assert [examine_keys(blob, ALICE, T0)[0].verdict for blob in (few, many)] == [
        Verdict.ADDRESS_MISMATCH,
        Verdict.KEY_TOO_LARGE,
    ]
    assert timed(lambda: examine_keys(few, ALICE, T0)) < MOMENT


def test_a_flood_of_user_ids_is_refused_by_their_number() -> None:
    maker = Maker()
    (finding,) = examine_keys(maker.certificate(NAME) + maker.user_id("x") * 300, ALICE, T0)
    assert (finding.verdict, "302" in finding.detail) == (Verdict.KEY_TOO_LARGE, True)


@pytest.mark.parametrize("tag", [13, 2])
def test_a_packet_beyond_8_kib_is_refused(tag: int) -> None:
    body = b"\x04" + b"x" * (8 * 1024)
    (finding,) = examine_keys(Maker().certificate(NAME) + packet(tag, body), ALICE, T0)
    assert (finding.verdict, "8,193 bytes" in finding.detail) == (Verdict.KEY_TOO_LARGE, True)


def test_a_photo_may_be_large_since_it_is_dropped() -> None:
    (finding,) = examine_keys(Maker().certificate(NAME) + packet(17, b"x" * 100_000), ALICE, T0)
    assert finding.verdict is None


def test_a_ring_of_more_keys_than_the_limit_is_read_up_to_it() -> None:
    blob = b"".join(Maker(f"{number}").certificate(NAME) for number in range(4))
    verdicts = [finding.verdict for finding in examine_keys(blob, ALICE, T0, limits=OpenPgpLimits(keys=3))]
    assert verdicts == [None, None, None, Verdict.KEY_TOO_LARGE]
    blocks = b"".join(armour(Maker(f"{number}").certificate(NAME)) for number in range(4))
    verdicts = [finding.verdict for finding in examine_keys(blocks, ALICE, T0, limits=OpenPgpLimits(keys=3))]
    assert verdicts == [None, None, None, Verdict.KEY_TOO_LARGE]


def test_packets_without_a_key_are_refused_by_their_number() -> None:
    (finding,) = examine_keys(b"\xca\x00" * 5_000_000, ALICE, T0)
    assert (finding.verdict, "more than 120,000 packets" in finding.detail) == (Verdict.KEY_TOO_LARGE, True)


def test_an_import_takes_a_ring_of_many_keys() -> None:
    blob = Maker().certificate(NAME) * 100
    assert len(examine_keys(blob, None, T0)) == 100
    assert len(examine_keys(blob, ALICE, T0)) == HARVEST_LIMITS.keys + 1


def test_a_blob_beyond_the_limit_is_not_looked_into() -> None:
    small = OpenPgpLimits(blob_bytes=100)
    for blob in (Maker().certificate(NAME), armour(Maker().certificate(NAME))):
        assert [finding.verdict for finding in examine_keys(blob, ALICE, T0, limits=small)] == [Verdict.KEY_TOO_LARGE]


def test_a_secret_subkey_is_not_overlooked_behind_the_limit() -> None:
    blob = Maker().certificate(NAME) + b"\xca\x01x" * (HARVEST_LIMITS.packets + 5) + packet(7, b"secret") + b"\xca\x01x"
    assert examine_keys(blob, ALICE, T0)[0].verdict is Verdict.SECRET_KEY


@pytest.mark.parametrize(
    "text",
    [
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n" * 200_000,
        b"-----BEGIN PGP " * 500_000,
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----" + b" " * 8_000_000,
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n" + b"\n" * 8_000_000 + b"-----END PGP PUBLIC KEY BLOCK-----\n",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n" + b"a:b\n" * 2_000_000 + b"-----END PGP PUBLIC KEY BLOCK-----\n",
        b"-----BEGIN PGP SIGNATURE-----\n-----END PGP SIGNATURE-----\n" * 100_000,
        b"".join(b"-----BEGIN PGP K%d-----\n" % number for number in range(200_000)),
    ],
    ids=["begins", "one line", "blanks", "empty lines", "headers", "others", "many kinds"],
)
def test_hostile_armour_costs_no_more_than_its_length(text: bytes) -> None:
    assert timed(lambda: examine_keys(text, ALICE, T0)) < MOMENT
    assert timed(lambda: find_armoured_blocks(text)) < MOMENT
    assert timed(lambda: keys_in_signature(text, ALICE, T0)) < MOMENT


def test_many_broken_revocations_cost_no_more_than_a_moment() -> None:
    maker = Maker()
    forged = b"".join(maker.revoke(at=BIRTH + number * DAY / 24)[:-4] + b"\0\0\0\0" for number in range(250))
    blob = maker.certificate(NAME, before=forged)
    assert examine_keys(blob, ALICE, T0)[0].verdict is None
    assert timed(lambda: examine_keys(blob, ALICE, T0)) < MOMENT
