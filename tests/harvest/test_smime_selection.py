"""Which certificate of the sender's is for encryption, and that all others of the message are left alone."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from keycache.domain.entry import Trust
from keycache.domain.examination import TrustBase
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.paths import PathJudge
from keycache.harvest.smime import SmimeResult, examine_signature
from support import smime as make
from support.smime import BODY, NOW, Identity

ALICE = EmailAddress.parse("alice@example.org")
ROOT = make.authority()
JUDGE = PathJudge(TrustBase(anchors=(ROOT.der,)))
SIGNS = make.usage("digital_signature", "content_commitment")
ENCRYPTS = make.usage("key_agreement")


def person(number: int, issuer: Identity | None = ROOT, **changes: Any) -> Identity:
    """Several certificates of one person, each with its own key."""
    return make.person(issuer=issuer, **{"key": make.private_key("p256", number), **changes})


def examine(signature: bytes, judge: PathJudge = JUDGE) -> SmimeResult:
    return examine_signature(signature, BODY, ALICE, judge, NOW)


def findings(result: SmimeResult) -> list[tuple[str, Verdict | None]]:
    return [(finding.label, finding.verdict) for finding in result.findings]


@pytest.mark.parametrize("form", ["issuer", "recipient", "subject"])
def test_the_preferred_certificate_is_chosen_whatever_form_names_it(form: str) -> None:
    signer, wanted, other = person(1), person(2), person(3)
    attributes = (make.preference(wanted.certificate, form), make.signing_time(NOW), make.capabilities("1.2.3"))
    result = examine(make.sign(BODY, signer, other, wanted, attributes=attributes))
    assert findings(result) == [(wanted.fingerprint, None), (signer.fingerprint, Verdict.NOT_PREFERRED)]
    key = result.findings[0].key
    assert key is not None
    assert (key.evidence_at, key.capabilities) == (NOW, ("1.2.3",))
    assert result.findings[0].gates[5].detail == "preferred by the sender"


def test_a_preference_given_twice_or_unsigned_does_not_count() -> None:
    signer, wanted = person(1), person(2)
    twice = (make.preference(wanted.certificate), make.preference(wanted.certificate, "subject"))
    result = examine(make.sign(BODY, signer, wanted, attributes=twice))
    assert findings(result) == [(signer.fingerprint, None)]
    assert result.findings[0].gates[2].detail == "ignored: encryption key preference (given 2 times)"
    info = make.signer_info(BODY, signer, make.Signature())
    unsigned = make.tlv(0x30, info[info.index(0x02) :], make.tlv(0xA1, make.preference(wanted.certificate)))
    assert findings(examine(make.signed_data([unsigned], [signer.der, wanted.der]))) == [(signer.fingerprint, None)]


def test_a_preference_in_an_invalid_signature_changes_nothing() -> None:
    signer, wanted = person(1), person(2)
    signature = make.sign(b"other", signer, wanted, attributes=(make.preference(wanted.certificate),))
    assert findings(examine(signature)) == [(signer.fingerprint, Verdict.SIGNATURE_INVALID)]


def test_split_certificates_work_without_a_preference_by_their_common_subject() -> None:
    signer, wanted = person(1, usage=SIGNS), person(2, usage=ENCRYPTS)
    result = examine(make.sign(BODY, signer, wanted))
    assert findings(result) == [(wanted.fingerprint, None), (signer.fingerprint, Verdict.SIGNING_ONLY)]


def test_a_certificate_for_encryption_only_is_chosen_before_the_signers_own() -> None:
    signer, wanted = person(1), person(2, usage=ENCRYPTS)
    assert findings(examine(make.sign(BODY, signer, wanted))) == [
        (wanted.fingerprint, None),
        (signer.fingerprint, Verdict.NOT_PREFERRED),
    ]


def test_of_certificates_that_can_do_everything_the_one_that_signed_is_chosen() -> None:
    signer, older = person(1), person(2, not_before=NOW - 700 * make.DAY)
    assert findings(examine(make.sign(BODY, signer, older))) == [(signer.fingerprint, None)]


def test_a_signing_only_certificate_without_companion_is_never_offered() -> None:
    signer = person(1, usage=SIGNS)
    assert findings(examine(make.sign(BODY, signer))) == [(signer.fingerprint, Verdict.SIGNING_ONLY)]


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"not_after": NOW - make.DAY}, Verdict.CERTIFICATE_EXPIRED),
        ({"alternatives": (x509.RFC822Name("bob@example.org"),)}, Verdict.ADDRESS_MISMATCH),
        ({"usage": SIGNS}, Verdict.SIGNING_ONLY),
        ({"purposes": (ExtendedKeyUsageOID.CLIENT_AUTH,)}, Verdict.CHAIN_INVALID),
    ],
)
def test_a_preferred_certificate_passes_the_gates_itself_or_is_passed_over(changes: dict[str, Any], verdict: Verdict) -> None:
    signer, wanted = person(1), person(2, **changes)
    result = examine(make.sign(BODY, signer, wanted, attributes=(make.preference(wanted.certificate),)))
    assert findings(result) == [(signer.fingerprint, None), (wanted.fingerprint, verdict)]


def test_an_expired_companion_is_reported_beside_the_signing_only_signer() -> None:
    signer, old = person(1, usage=SIGNS), person(2, usage=ENCRYPTS, not_after=NOW - make.DAY)
    assert findings(examine(make.sign(BODY, signer, old))) == [
        (old.fingerprint, Verdict.CERTIFICATE_EXPIRED),
        (signer.fingerprint, Verdict.SIGNING_ONLY),
    ]


def test_a_preferred_certificate_that_did_not_come_along_leaves_the_signers_own() -> None:
    signer, absent = person(1), person(2)
    result = examine(make.sign(BODY, signer, attributes=(make.preference(absent.certificate),)))
    assert findings(result) == [(signer.fingerprint, None)]
    assert result.findings[0].gates[5].detail == "the signer's own (the preferred one did not come along)"


def test_unrelated_certificates_of_the_message_are_left_alone() -> None:
    signer = person(1)
    others = [make.person(f"other{number}@example.org", ROOT) for number in range(3)]
    namesake = make.person("bob@example.org", ROOT, subject=make.name("Alice"), usage=ENCRYPTS)
    result = examine(make.sign(BODY, signer, *others, namesake, ROOT))
    assert findings(result) == [(signer.fingerprint, None)]
    assert result.chain == ()


def test_a_self_signed_signer_cannot_recommend_somebodys_proven_certificate() -> None:
    forger, genuine = person(1, issuer=None), person(2, usage=ENCRYPTS)
    result = examine(make.sign(BODY, forger, genuine, attributes=(make.preference(genuine.certificate),)))
    assert findings(result) == [(forger.fingerprint, None), (genuine.fingerprint, Verdict.CHAIN_INVALID)]
    key = result.findings[0].key
    assert key is not None
    assert key.trust is Trust.HELD


def test_split_certificates_of_an_unknown_authority_are_held_together() -> None:
    private = make.authority("Private Root")
    signer, wanted = person(1, private, usage=SIGNS), person(2, private, usage=ENCRYPTS)
    result = examine(make.sign(BODY, signer, wanted))
    assert findings(result) == [(wanted.fingerprint, None), (signer.fingerprint, Verdict.SIGNING_ONLY)]
    key = result.findings[0].key
    assert key is not None
    assert key.trust is Trust.HELD


@pytest.mark.parametrize("kind", ["x25519", "x448"])
def test_keys_that_can_only_agree_are_chosen_for_encryption(kind: str) -> None:
    signer = person(1, usage=SIGNS)
    wanted = make.person(issuer=ROOT, kind=kind, usage=ENCRYPTS)
    result = examine(make.sign(BODY, signer, wanted))
    assert findings(result) == [(wanted.fingerprint, None), (signer.fingerprint, Verdict.SIGNING_ONLY)]
    key = result.findings[0].key
    assert key is not None
    assert key.algorithm == kind.upper()
