"""Nobody but a key's owner can bind an address to it, give it a subkey, or revoke it (DESIGN 2.9).

Each test forges what the owner alone may make and is about a guard of its own in the code.
"""

from __future__ import annotations

import pytest

from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.openpgp import examine_keys
from support.openpgp import BIRTH, DAY, T0, Maker, packet, subpacket

ALICE = EmailAddress.parse("alice@example.org")
NAME = "Alice <alice@example.org>"
BOB = "bob@example.org"

versions = pytest.mark.parametrize("version", [4, 6])


def verdict(blob: bytes) -> Verdict | None:
    (finding,) = examine_keys(blob, ALICE, T0)
    return finding.verdict


@versions
@pytest.mark.parametrize("claim", ["owner", "forger", "nobody"])
def test_a_user_id_signed_by_another_key_binds_nothing(version: int, claim: str) -> None:
    """Mallory owns `bob@` and wants Alice's mail: the user ID is added and signed with some other key of Mallory's."""
    owner, forger = Maker("owner", version=version), Maker("forger", version=version)
    issuer = {"owner": owner.fingerprint, "forger": forger.fingerprint, "nobody": ""}[claim]
    forged = forger.certify(NAME, issuer=issuer, on=owner.body)
    assert verdict(owner.certificate(BOB) + owner.user_id(NAME) + forged) is Verdict.ADDRESS_MISMATCH


@versions
def test_a_signature_that_names_both_keys_is_not_taken_for_the_owners(version: int) -> None:
    owner, forger = Maker("owner", version=version), Maker("forger", version=version)
    both = subpacket(33, bytes((version,)) + bytes.fromhex(owner.fingerprint))
    forged = forger.certify(NAME, extra=both, on=owner.body)
    assert verdict(owner.certificate(BOB) + owner.user_id(NAME) + forged) is Verdict.ADDRESS_MISMATCH


@versions
def test_a_self_signature_of_another_user_id_of_the_key_binds_nothing(version: int) -> None:
    owner = Maker("owner", version=version)
    assert verdict(owner.certificate(BOB) + owner.user_id(NAME) + owner.certify(BOB)) is Verdict.ADDRESS_MISMATCH


@versions
def test_a_self_signature_made_for_another_key_binds_nothing(version: int) -> None:
    owner, forger = Maker("owner", version=version), Maker("forger", version=version)
    taken = owner.certify(NAME)
    assert verdict(forger.certificate(BOB) + forger.user_id(NAME) + taken) is Verdict.ADDRESS_MISMATCH


@versions
@pytest.mark.parametrize("place", [-1, -40])
def test_a_changed_signature_binds_nothing(version: int, place: int) -> None:
    owner = Maker("owner", version=version)
    broken = bytearray(owner.certify(NAME))
    broken[place] ^= 1
    assert verdict(owner.certificate(BOB) + owner.user_id(NAME) + bytes(broken)) is Verdict.ADDRESS_MISMATCH


@versions
def test_a_subkey_bound_by_another_key_is_not_encrypted_to(version: int) -> None:
    """Mallory adds a subkey of Mallory's to Alice's key, so that Mallory can read what is sent to Alice."""
    owner, forger = Maker("owner", version=version), Maker("forger", version=version)
    stolen = forger.subkey_body("mallory")
    head = owner.certificate(NAME)
    forged = packet(14, stolen) + forger.bind(stolen, issuer=owner.fingerprint, on=owner.body)
    (finding,) = examine_keys(head + forged, ALICE, T0)
    (honest,) = examine_keys(head, ALICE, T0)
    assert finding.key == honest.key
    bare = owner.primary + owner.user_id(NAME) + owner.certify(NAME)
    assert verdict(bare + forged) is Verdict.NO_ENCRYPTION_KEY


@versions
def test_another_key_cannot_revoke(version: int) -> None:
    owner, forger = Maker("owner", version=version), Maker("forger", version=version)
    body = owner.subkey_body()
    forged = {"issuer": owner.fingerprint, "on": owner.body}
    key = forger.revoke(at=T0 - DAY, **forged)
    user_id = forger.revoke_user_id(NAME, at=T0 - DAY, **forged)
    subkey = forger.revoke_subkey(body, at=T0 - DAY, **forged)
    blob = owner.primary + key + owner.user_id(NAME) + owner.certify(NAME) + user_id
    blob += packet(14, body) + owner.bind(body) + subkey
    assert verdict(blob) is None


@versions
def test_another_key_cannot_extend_the_expiry(version: int) -> None:
    owner, forger = Maker("owner", version=version), Maker("forger", version=version)
    forged = forger.direct(at=BIRTH + DAY, lives=900 * DAY, issuer=owner.fingerprint, on=owner.body)
    assert verdict(owner.certificate(NAME, lives=50 * DAY, before=forged)) is Verdict.KEY_EXPIRED


@versions
def test_a_revocation_of_one_subkey_is_not_one_of_the_key(version: int) -> None:
    owner = Maker("owner", version=version)
    misplaced = owner.revoke_subkey(owner.subkey_body("other"), at=T0 - DAY)
    assert verdict(owner.certificate(NAME, before=misplaced)) is None


def test_the_signatures_of_a_photo_are_not_those_of_the_user_id_before_it() -> None:
    owner = Maker("owner")
    body = owner.subkey_body()
    blob = (
        owner.primary
        + owner.user_id(NAME)
        + packet(17, b"\x05\x01abcd")
        + owner.certify(NAME)
        + packet(14, body)
        + owner.bind(body)
    )
    assert verdict(blob) is Verdict.ADDRESS_MISMATCH


@versions
def test_self_signatures_that_were_swapped_bind_nothing(version: int) -> None:
    """Each is the owner's, each on the wrong user ID: whoever swaps them must not move what one says to the other."""
    owner = Maker("owner", version=version)
    blob = owner.certificate(NAME, BOB)
    first, second = owner.certify(BOB), owner.certify(NAME)
    assert verdict(blob) is None
    swapped = blob.replace(first, b"1" * 8).replace(second, first).replace(b"1" * 8, second)
    assert len(swapped) == len(blob)
    assert verdict(swapped) is Verdict.ADDRESS_MISMATCH
