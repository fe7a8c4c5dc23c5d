"""Whether a certificate can be trusted: chains, their rules, unknown and approved and rejected issuers, revocation."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from keycache.domain.entry import Issuer
from keycache.domain.examination import TrustBase
from keycache.harvest.paths import PathJudge, PathOutcome, PathVerdict
from keycache.harvest.x509 import read_certificate
from keycache.harvest.x509_chains import id_of_authority, id_of_unknown
from keycache.harvest.x509_validation import Revocation
from support import smime as make
from support.smime import DAY, NOW, Identity

ROOT = make.authority()
BETWEEN = make.authority("Test Intermediate", ROOT)


def base(*anchors: Identity, **more: Any) -> TrustBase:
    return TrustBase(anchors=tuple(identity.der for identity in anchors or (ROOT,)), **more)


def judge(leaf: Identity, *others: Identity, trust: TrustBase | None = None, now: Any = NOW, **how: Any) -> PathVerdict:
    judge_ = PathJudge(base() if trust is None else trust, **how)
    verdict = judge_.judge(leaf.der, [identity.der for identity in others], now)
    assert judge_.judge(leaf.der, [identity.der for identity in others], now) == verdict
    return verdict


def outcome(leaf: Identity, *others: Identity, **how: Any) -> PathOutcome:
    return judge(leaf, *others, **how).outcome


def issuer_of(verdict: PathVerdict) -> Issuer:
    assert verdict.issuer is not None
    return verdict.issuer


def test_a_chain_to_an_anchor_is_good_and_tells_its_intermediates_nearest_first() -> None:
    lower = make.authority("Lower", BETWEEN)
    assert judge(make.person(issuer=lower), ROOT, BETWEEN, lower) == PathVerdict(
        outcome=PathOutcome.ANCHORED,
        reason="The chain ends in the trusted CN=Test Root,O=Keycache Tests.",
        issuer=Issuer(id=id_of_authority(read_certificate(ROOT.der)), name="CN=Test Root,O=Keycache Tests"),
        intermediates=(lower.der, BETWEEN.der),
    )


def test_intermediates_seen_before_complete_a_chain() -> None:
    assert outcome(make.person(issuer=BETWEEN), trust=base(intermediates=(BETWEEN.der,))) is PathOutcome.ANCHORED
    assert outcome(make.person(issuer=BETWEEN)) is PathOutcome.UNKNOWN_ISSUER


@pytest.mark.parametrize("kind", ["rsa", "p384", "ed25519", "ed448"])
def test_authorities_of_every_key_kind_are_verified(kind: str) -> None:
    root = make.authority(f"Root {kind}", key=make.private_key(kind))
    assert outcome(make.person(issuer=root), trust=base(root)) is PathOutcome.ANCHORED


def test_an_authority_that_signs_with_pss_is_verified() -> None:
    root = make.authority("Root PSS", key=make.private_key("rsa"), pss=True)
    assert outcome(make.person(issuer=root, pss=True), trust=base(root)) is PathOutcome.ANCHORED


def test_the_issuer_group_is_the_same_whether_or_not_the_roots_certificate_came_along() -> None:
    private = make.authority("Private Root")
    first, second = judge(make.person(issuer=private)), judge(make.person("b@example.org", private), private)
    assert (first.outcome, second.outcome) == (PathOutcome.UNKNOWN_ISSUER, PathOutcome.UNKNOWN_ISSUER)
    assert issuer_of(first).id == issuer_of(second).id
    assert (issuer_of(first).certificate, issuer_of(second).certificate) == (b"", private.der)
    assert issuer_of(first).name == issuer_of(second).name == "CN=Private Root,O=Keycache Tests"


def test_the_highest_issuer_that_the_chain_names_makes_the_group() -> None:
    private = make.authority("Private Root")
    lower = make.authority("Private Lower", private)
    verdict = judge(make.person(issuer=lower), lower)
    assert issuer_of(verdict) == Issuer(id=id_of_unknown(read_certificate(lower.der)), name="CN=Private Root,O=Keycache Tests")
    assert verdict.intermediates == (lower.der,)
    assert issuer_of(verdict).id == issuer_of(judge(make.person("b@example.org", private), private)).id


def test_a_look_alike_with_anothers_name_and_key_identifier_is_a_group_of_its_own() -> None:
    private = make.authority("Private Root")
    forged = make.authority("Private Root", key=make.private_key("p256", 77), key_id=make.key_id_of(private.certificate))
    genuine, false = judge(make.person(issuer=private), private), judge(make.person(issuer=forged), forged)
    assert (genuine.outcome, false.outcome) == (PathOutcome.UNKNOWN_ISSUER, PathOutcome.UNKNOWN_ISSUER)
    assert issuer_of(genuine).id != issuer_of(false).id


def test_a_certificate_that_claims_an_anchor_which_did_not_sign_it_is_invalid_not_held() -> None:
    forged = make.authority("Test Root", key=make.private_key("p256", 77), key_id=make.key_id_of(ROOT.certificate))
    verdict = judge(make.person(issuer=forged))
    assert (verdict.outcome, verdict.issuer) == (PathOutcome.INVALID, None)
    assert verdict.reason.endswith("was not made by its issuer CN=Test Root,O=Keycache Tests.")


def test_an_approved_authority_is_an_anchor() -> None:
    private = make.authority("Private Root")
    assert outcome(make.person(issuer=private), trust=base(approved=(private.der,))) is PathOutcome.ANCHORED
    lower = make.authority("Private Lower", private)
    assert outcome(make.person(issuer=lower), trust=base(approved=(lower.der,))) is PathOutcome.ANCHORED


def test_a_self_signed_certificate_is_held_alone_and_approving_it_pins_just_that_one() -> None:
    alice = make.person()
    held = judge(alice)
    assert held.outcome is PathOutcome.SELF_SIGNED
    assert issuer_of(held) == Issuer(id=issuer_of(held).id, name="CN=Alice,O=Keycache Tests", certificate=alice.der)
    again = make.person(key=make.private_key("p256", 5))
    assert issuer_of(judge(again)).id != issuer_of(held).id
    approved = base(approved=(alice.der,))
    pinned = judge(alice, trust=approved)
    assert (pinned.outcome, issuer_of(pinned).id) == (PathOutcome.ANCHORED, issuer_of(held).id)
    assert outcome(again, trust=approved) is PathOutcome.SELF_SIGNED


@pytest.mark.parametrize("usage", [None, make.usage("digital_signature", "key_agreement")])
def test_approving_a_self_signed_person_that_is_marked_as_an_authority_makes_no_authority(usage: Any) -> None:
    """What `openssl req -x509` makes by default is marked as an authority's."""
    mallory = make.person("mallory@example.org", constraints=x509.BasicConstraints(ca=True, path_length=None), usage=usage)
    trust = base(approved=(mallory.der,))
    assert outcome(mallory, trust=trust) is PathOutcome.ANCHORED
    assert outcome(make.person(issuer=mallory), trust=trust) is PathOutcome.UNKNOWN_ISSUER


def test_the_certificate_of_an_authority_is_nobodys_mail_certificate() -> None:
    root = make.authority("Mail Root", alternatives=(x509.RFC822Name("root@example.org"),))
    verdict = judge(root)
    assert (verdict.outcome, verdict.reason) == (
        PathOutcome.INVALID,
        "It is the certificate of a certification authority, not of a mail user.",
    )


def test_a_rejected_issuer_is_rejected_with_and_without_its_certificate() -> None:
    private = make.authority("Private Root")
    rejected = frozenset({issuer_of(judge(make.person(issuer=private))).id})
    trust = base(rejected=rejected)
    assert outcome(make.person(issuer=private), trust=trust) is PathOutcome.REJECTED
    assert outcome(make.person(issuer=private), private, trust=trust) is PathOutcome.REJECTED
    assert outcome(make.person(issuer=ROOT), trust=trust) is PathOutcome.ANCHORED
    alice = make.person()
    assert outcome(alice, trust=base(rejected=frozenset({issuer_of(judge(alice)).id}))) is PathOutcome.REJECTED


BROKEN_AUTHORITIES: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"not_after": NOW - DAY}, "expired"),
    "not yet valid": ({"not_before": NOW + DAY}, "not valid until"),
    "not an authority": ({"constraints": x509.BasicConstraints(ca=False, path_length=None)}, "not a CA"),
    "not for certificates": ({"usage": make.usage("digital_signature")}, "not allowed to sign certificates"),
    "not for mail": ({"purposes": (ExtendedKeyUsageOID.SERVER_AUTH,)}, "may not issue certificates for mail"),
    "unknown critical": (
        {"extra": ((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True),)},
        "unsupported critical extension",
    ),
}


@pytest.mark.parametrize(("changes", "words"), BROKEN_AUTHORITIES.values(), ids=BROKEN_AUTHORITIES)
def test_a_broken_intermediate_makes_the_chain_invalid_and_the_reason_says_how(changes: dict[str, Any], words: str) -> None:
    lower = make.authority("Lower", ROOT, **changes)
    verdict = judge(make.person(issuer=lower), trust=base(intermediates=(lower.der,)))
    assert verdict.outcome is PathOutcome.INVALID
    assert words in verdict.reason


@pytest.mark.parametrize(("changes", "words"), BROKEN_AUTHORITIES.values(), ids=BROKEN_AUTHORITIES)
def test_a_chain_to_an_unknown_root_is_held_only_if_it_is_sound_below_that_root(changes: dict[str, Any], words: str) -> None:
    private = make.authority("Private Root")
    lower = make.authority("Lower", private, **changes)
    verdict = judge(make.person(issuer=lower), private, trust=base(intermediates=(lower.der,)))
    assert verdict.outcome is PathOutcome.INVALID
    assert words in verdict.reason


def test_path_length_counts_from_anchors_too() -> None:
    root = make.authority("Short Root", path_length=0)
    lower = make.authority("Lower", root)
    assert outcome(make.person(issuer=root), trust=base(root)) is PathOutcome.ANCHORED
    verdict = judge(make.person(issuer=lower), lower, trust=base(root))
    assert verdict.outcome is PathOutcome.INVALID
    assert "maximum path length" in verdict.reason


def test_an_expired_anchor_anchors_nothing() -> None:
    root = make.authority("Old Root", not_after=NOW - DAY)
    verdict = judge(make.person(issuer=root), trust=base(root))
    assert verdict.outcome is PathOutcome.INVALID
    assert "trust anchor expired" in verdict.reason


def test_weak_authorities_are_refused() -> None:
    root = make.authority("Weak Root", key=make.private_key("rsa1024"))
    assert outcome(make.person(issuer=root), trust=base(root)) is PathOutcome.WEAK


def constrained(*permitted: str, excluded: tuple[str, ...] = ()) -> dict[str, Any]:
    names = x509.NameConstraints(
        [x509.RFC822Name(name) for name in permitted] or None, [x509.RFC822Name(name) for name in excluded] or None
    )
    return {"extra": ((names, True),)}


@pytest.mark.parametrize("position", ["intermediate", "anchor"])
@pytest.mark.parametrize(
    ("constraint", "alternatives", "subject", "good"),
    [
        (constrained("example.org"), ("alice@example.org",), "", True),
        (constrained("example.org"), ("alice@EXAMPLE.org",), "", True),
        (constrained("example.net"), ("alice@example.org",), "", False),
        (constrained("example.net", "example.org"), ("alice@example.org",), "", True),
        (constrained("example.org"), ("alice@sub.example.org",), "", False),
        (constrained(".example.org"), ("alice@sub.example.org",), "", True),
        (constrained("alice@example.org"), ("alice@example.org",), "", True),
        (constrained("bob@example.org"), ("alice@example.org",), "", False),
        (constrained(excluded=("example.org",)), ("alice@example.org",), "", False),
        (constrained(excluded=("example.net",)), ("alice@example.org",), "", True),
        # The subject's address, beside a SAN without addresses or with harmless ones: RFC 5280's algorithm does not look at it.
        (constrained("example.org"), (), "victim@example.com", False),
        (constrained("example.org"), ("alice@example.org",), "victim@example.com", False),
    ],
)
def test_name_constraints_bind_every_address_wherever_it_stands(
    position: str, constraint: dict[str, Any], alternatives: tuple[str, ...], subject: str, *, good: bool
) -> None:
    names = tuple(x509.RFC822Name(text) for text in alternatives) or (x509.DNSName("host.example"),)
    issuer = make.authority("Constrained", ROOT if position == "intermediate" else None, **constraint)
    alice = make.person(issuer=issuer, alternatives=names, subject=make.name("Alice", subject))
    verdict = judge(alice, issuer, trust=base(ROOT if position == "intermediate" else issuer))
    assert verdict.outcome is (PathOutcome.ANCHORED if good else PathOutcome.INVALID), verdict.reason


def test_name_constraints_bind_internationalised_mailboxes_too() -> None:
    issuer = make.authority("Constrained", ROOT, **constrained("example.org"))

    def mailbox(text: str) -> Identity:
        other = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9"), make.tlv(0x0C, text.encode()))
        return make.person(issuer=issuer, alternatives=(other,))

    assert outcome(mailbox("älice@example.org"), issuer) is PathOutcome.ANCHORED
    assert outcome(mailbox("vïctim@example.com"), issuer) is PathOutcome.INVALID


def test_a_revoked_certificate_is_revoked_even_by_an_old_list_and_a_missing_list_is_no_obstacle() -> None:
    alice, other = make.person(issuer=BETWEEN), make.person("other@example.org", BETWEEN)
    for next_update in (NOW + DAY, NOW - DAY):
        lists = (make.revocation_list(BETWEEN, [other], last_update=NOW - 9 * DAY, next_update=next_update),)
        assert outcome(alice, BETWEEN, trust=base(crls=lists)) is PathOutcome.ANCHORED
        revoked = judge(other, BETWEEN, trust=base(crls=lists))
        assert (revoked.outcome, revoked.suspended) == (PathOutcome.REVOKED, False)


def test_a_suspended_certificate_is_told_from_a_revoked_one() -> None:
    alice = make.person(issuer=ROOT)
    lists = (make.revocation_list(ROOT, [alice], reason=x509.ReasonFlags.certificate_hold),)
    verdict = judge(alice, trust=base(crls=lists))
    assert (verdict.outcome, verdict.suspended) == (PathOutcome.REVOKED, True)


def test_a_revoked_authority_invalidates_what_it_issued() -> None:
    alice = make.person(issuer=BETWEEN)
    verdict = judge(alice, BETWEEN, trust=base(crls=(make.revocation_list(ROOT, [BETWEEN]),)))
    assert verdict.outcome is PathOutcome.INVALID
    assert "revoked" in verdict.reason


def test_a_list_that_the_issuer_did_not_sign_says_nothing() -> None:
    alice = make.person(issuer=ROOT)
    forged = Identity(ROOT.certificate, make.private_key("p256", 77))
    assert outcome(alice, trust=base(crls=(make.revocation_list(forged, [alice]),))) is PathOutcome.ANCHORED


def test_where_lists_are_required_a_missing_one_refuses() -> None:
    alice = make.person(issuer=BETWEEN)
    lists = (make.revocation_list(ROOT), make.revocation_list(BETWEEN))
    how = {"revocation": Revocation.REQUIRED}
    assert outcome(alice, BETWEEN, trust=base(crls=lists), **how) is PathOutcome.ANCHORED
    for missing in (lists[:1], lists[1:], ()):
        assert outcome(alice, BETWEEN, trust=base(crls=missing), **how) is PathOutcome.INVALID


def test_what_is_remembered_ends_with_the_first_certificate_of_the_path() -> None:
    lower = make.authority("Brief", ROOT, not_after=NOW + DAY)
    alice = make.person(issuer=lower)
    judge_ = PathJudge(base())
    outcomes = [judge_.judge(alice.der, [lower.der], NOW + days * DAY).outcome for days in (0, 0, 2, 0, 400, -400)]
    assert outcomes == [
        PathOutcome.ANCHORED,
        PathOutcome.ANCHORED,
        PathOutcome.INVALID,
        PathOutcome.ANCHORED,
        PathOutcome.EXPIRED,
        PathOutcome.NOT_YET_VALID,
    ]


def test_a_held_verdict_is_not_remembered_against_a_later_message_that_brings_the_chain() -> None:
    alice = make.person(issuer=BETWEEN)
    judge_ = PathJudge(base())
    assert judge_.judge(alice.der, [], NOW).outcome is PathOutcome.UNKNOWN_ISSUER
    assert judge_.judge(alice.der, [BETWEEN.der], NOW).outcome is PathOutcome.ANCHORED


def test_a_cross_certified_chain_is_found_although_its_first_way_is_broken() -> None:
    expired = make.authority("Cross", make.authority("Old Root"), not_after=NOW - DAY)
    good = make.authority("Cross", ROOT)
    alice = make.person(issuer=good)
    trust = base(ROOT, make.authority("Old Root"))
    assert outcome(alice, expired, good, trust=trust) is PathOutcome.ANCHORED


def test_a_mesh_of_authorities_that_all_vouch_for_each_other_ends_soon() -> None:
    keys = [make.private_key("p256", 300 + number) for number in range(8)]
    nodes = [make.certify(make.Form(subject=make.name("Mesh"), key=key, key_ids=False)) for key in keys]
    mesh = [make.authority("Mesh", issuer, key=key, key_ids=False) for key in keys for issuer in nodes if issuer.key is not key]
    alice = make.person(issuer=nodes[0], key_ids=False)
    assert outcome(alice, *mesh) in (PathOutcome.INVALID, PathOutcome.UNKNOWN_ISSUER)


def test_unusable_parts_of_the_trust_base_are_named_and_do_no_harm() -> None:
    judge_ = PathJudge(base(crls=(b"no list",), intermediates=(b"no certificate", b"")))
    assert len(judge_.unreadable) == 3
    assert judge_.judge(make.person(issuer=ROOT).der, [b"", b"garbage"], NOW).outcome is PathOutcome.ANCHORED
    assert judge_.judge(b"garbage", [], NOW).outcome is PathOutcome.INVALID
