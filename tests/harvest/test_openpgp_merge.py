"""Copies of one key that meet in any order end the same, and what the owner withdrew stays withdrawn (issue part 4)."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keycache.domain.entry import Defect, Key
from keycache.domain.names import EmailAddress
from keycache.harvest.openpgp import examine_keys, merge
from support.openpgp import BIRTH, DAY, T0, Maker, packet

ALICE = EmailAddress.parse("alice@example.org")
WORK = EmailAddress.parse("alice@work.example")
NAME, WORK_NAME = "Alice <alice@example.org>", "Alice <alice@work.example>"
SECOND = DAY / 86400

_ALICE, _BOB = Maker("alice"), Maker("bob")
_BODY, _NEXT = _ALICE.subkey_body(), _ALICE.subkey_body("next", created=T0 - 5 * DAY)
_TAIL = packet(14, _BODY) + _ALICE.bind(_BODY)
_HEAD = _ALICE.primary + _ALICE.user_id(NAME) + _ALICE.certify(NAME)

COPIES = {
    "plain": _HEAD + _TAIL,
    "expiring": _ALICE.certificate(NAME, at=BIRTH + DAY, lives=200 * DAY),
    "extended": _ALICE.certificate(NAME, at=BIRTH + 2 * DAY, lives=400 * DAY),
    "expired": _ALICE.certificate(NAME, lives=20 * DAY),
    "revoked": _ALICE.certificate(NAME, before=_ALICE.revoke(at=T0 - DAY)),
    "to be revoked": _ALICE.certificate(NAME, before=_ALICE.revoke(at=T0 + 9 * DAY, reason=1)),
    "bare revocation": _ALICE.primary + _ALICE.revoke(at=T0 - 2 * DAY, reason=3),
    "more user IDs": _HEAD + _ALICE.user_id(WORK_NAME) + _ALICE.certify(WORK_NAME, primary=True) + _TAIL,
    "user ID revoked": _HEAD
    + _ALICE.revoke_user_id(NAME, at=T0 - DAY)
    + _ALICE.user_id(WORK_NAME)
    + _ALICE.certify(WORK_NAME)
    + _TAIL,
    "signed by others": _HEAD + _BOB.certify_other(_ALICE, NAME) + _TAIL,
    "new subkey": _HEAD + _TAIL + packet(14, _NEXT) + _ALICE.bind(_NEXT, at=T0 - 5 * DAY),
    "subkey revoked": _HEAD + _TAIL + _ALICE.revoke_subkey(_BODY, at=T0 - DAY),
    "subkey withdrawn": _HEAD + packet(14, _BODY) + _ALICE.bind(_BODY, at=T0 - DAY, flags=0x20),
    "junk": _ALICE.primary + _ALICE.user_id(NAME) + _ALICE.certify(NAME, unhashed=b"\x05\x64junk") + _TAIL,
}


def seen(name: str, sender: EmailAddress | None = None, days: int | None = None) -> Key:
    (finding,) = examine_keys(COPIES[name], sender, T0, evidence_at=None if days is None else T0 - days * DAY)
    assert finding.key is not None
    return finding.key


KEYS = {name: seen(name) for name in COPIES}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(sorted(KEYS)), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_copies_in_any_order_end_the_same(names: list[str], random: object) -> None:
    keys = [replace(KEYS[name], evidence_at=T0 - number * DAY) for number, name in enumerate(names)]
    shuffled = list(keys)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    ours = reduce(lambda known, new: merge(known, new, T0), keys)
    theirs = reduce(lambda known, new: merge(known, new, T0), shuffled)
    assert ours == theirs


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(COPIES, 2)))
def test_merging_is_commutative_and_idempotent(one: str, other: str) -> None:
    both = merge(KEYS[one], KEYS[other], T0)
    assert both == merge(KEYS[other], KEYS[one], T0)
    assert merge(both, KEYS[one], T0) == both
    assert merge(both, both, T0) == both


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_merged_with_itself_stays_what_it_is(name: str) -> None:
    assert merge(KEYS[name], KEYS[name], T0) == KEYS[name]


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("revocation", ["revoked", "bare revocation"])
def test_a_revocation_is_never_lost_to_another_copy(name: str, revocation: str) -> None:
    for merged in (merge(KEYS[revocation], KEYS[name], T0), merge(KEYS[name], KEYS[revocation], T0)):
        assert merged.defect is Defect.REVOKED
        (finding,) = examine_keys(merged.material, None, T0)
        assert finding.key is not None
        assert finding.key.defect is Defect.REVOKED


def test_a_revocation_once_known_stays_even_if_its_packet_is_gone() -> None:
    known = replace(KEYS["plain"], defect=Defect.REVOKED)
    assert merge(known, KEYS["plain"], T0).defect is Defect.REVOKED
    assert merge(KEYS["plain"], known, T0).defect is Defect.REVOKED


def test_an_extended_expiry_is_learnt_and_an_older_copy_does_not_take_it_back() -> None:
    for names in (("expiring", "extended"), ("extended", "expiring"), ("expired", "extended"), ("extended", "expired")):
        assert merge(KEYS[names[0]], KEYS[names[1]], T0).not_after == BIRTH + 400 * DAY - SECOND


def test_an_address_joins() -> None:
    first = seen("plain", ALICE)
    second = seen("more user IDs", WORK)
    assert (first.addresses, second.addresses) == ((ALICE,), (WORK,))
    merged = merge(first, second, T0)
    assert (merged.addresses, merged.names) == ((ALICE, WORK), (NAME, WORK_NAME))


def test_an_address_nobody_proved_to_us_does_not_join_although_the_key_names_it() -> None:
    merged = merge(seen("plain", ALICE), seen("more user IDs", ALICE), T0)
    assert merged.addresses == (ALICE,)


def test_an_address_whose_user_id_was_revoked_leaves() -> None:
    merged = merge(seen("plain", ALICE), seen("user ID revoked", WORK), T0)
    assert merged.addresses == (WORK,)


def test_a_revoked_subkey_does_not_come_back_with_an_older_copy() -> None:
    for pair in (
        ("plain", "subkey revoked"),
        ("subkey revoked", "plain"),
        ("subkey withdrawn", "plain"),
        ("plain", "subkey withdrawn"),
    ):
        assert merge(KEYS[pair[0]], KEYS[pair[1]], T0).defect is Defect.NO_ENCRYPTION_KEY
    assert merge(KEYS["subkey revoked"], KEYS["new subkey"], T0).defect is None


def test_signatures_of_others_and_unsigned_junk_change_nothing() -> None:
    assert KEYS["signed by others"] == KEYS["junk"] == KEYS["plain"]


def test_the_newer_evidence_brings_its_preference() -> None:
    older = replace(KEYS["plain"], evidence_at=T0 - 2 * DAY, prefer_encrypt=True)
    newer = replace(KEYS["plain"], evidence_at=T0 - DAY, prefer_encrypt=False)
    for merged in (merge(older, newer, T0), merge(newer, older, T0)):
        assert (merged.evidence_at, merged.prefer_encrypt) == (T0 - DAY, False)


def test_facts_are_judged_anew_at_the_time_of_merging() -> None:
    later = merge(KEYS["to be revoked"], KEYS["plain"], T0 + 10 * DAY)
    assert (KEYS["to be revoked"].defect, later.defect) == (None, Defect.REVOKED)


def test_material_that_cannot_be_read_takes_nothing_away() -> None:
    broken = replace(KEYS["plain"], material=b"broken", addresses=(WORK,), evidence_at=T0)
    assert merge(broken, KEYS["plain"], T0).material == KEYS["plain"].material
    assert merge(broken, replace(broken, addresses=(ALICE,)), T0).addresses == (ALICE, WORK)


def test_two_different_keys_are_not_merged() -> None:
    (other,) = examine_keys(_BOB.certificate(NAME), ALICE, T0)
    assert other.key is not None
    with pytest.raises(ValueError, match="copies of one key"):
        merge(KEYS["plain"], other.key, T0)
