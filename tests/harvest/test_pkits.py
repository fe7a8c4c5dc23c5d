"""NIST's PKI test suite (PKITS 1.0.1): 224 signed mails with chains, names, policies and revocation lists of every kind.

Run with PKITS' default settings: any policy will do and none is demanded. The expected outcome stands in the name of the mail,
but for those tests whose outcome hangs on their settings; these are listed here with what PKITS says for the default settings.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import cryptography_vectors
import pytest

from keycache.domain.entry import Trust
from keycache.domain.examination import TrustBase
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.cms import Cms, SignerInfo, SmimeLimits, read_cms
from keycache.harvest.paths import PathJudge, PathOutcome
from keycache.harvest.smime import examine_signature
from keycache.harvest.smime_asn1 import Unacceptable
from keycache.harvest.smime_signature import check_digest, check_signature
from keycache.harvest.x509 import Certificate, read_certificate
from keycache.harvest.x509_validation import Revocation

DATA = Path(cryptography_vectors.__file__).parent / "x509" / "PKITS_data"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
MAILS = {path.stem.removeprefix("Signed"): path for path in sorted((DATA / "smime").glob("*.eml"))}

# Tests of section 4.8 and 4.12 that are run several times with different settings are named neutrally. With the default
# settings all of these are valid but for 4.8.4, 5, 7, 8, 9 and 12, whose certificates demand a policy that their chain lacks.
INVALID_BY_POLICY = {f"DifferentPoliciesTest{number}" for number in (4, 5, 7, 8, 9, 12)}
INVALID_WITHOUT_LIST = "MissingCRLTest1"

# We are stricter than RFC 5280 in two points, both by RFC 8550.
DSA = {"ValidDSASignaturesTest4", "ValidDSAParameterInheritanceTest5"}
UNVERIFIABLE = DSA | {"InvalidDSASignatureTest6"}
AUTHORITY_AS_PERSON = {
    "OverlappingPoliciesTest6",
    "ValidonlyContainsCACertsCRLTest13",
    "ValidpathLenConstraintTest8",
    "ValidpathLenConstraintTest14",
}

# Invalid for want of a list that may be believed: an obstacle under REQUIRED only.
ONLY_WITHOUT_LIST = {
    "InvalidBadCRLIssuerNameTest5",
    "InvalidBadCRLSignatureTest4",
    "InvalidIDPwithindirectCRLTest26",
    "InvalidOldCRLnextUpdateTest11",
    "InvalidSeparateCertificateandCRLKeysTest21",
    "InvalidUnknownCRLEntryExtensionTest8",
    "InvalidUnknownCRLExtensionTest10",
    "InvalidUnknownCRLExtensionTest9",
    "InvalidWrongCRLTest6",
    "InvalidcRLIssuerTest27",
    "InvalidcRLIssuerTest35",
    "InvaliddeltaCRLIndicatorNoBaseTest1",
    "InvaliddeltaCRLTest10",
    "InvaliddistributionPointTest3",
    "InvaliddistributionPointTest8",
    "InvaliddistributionPointTest9",
    "InvalidkeyUsageCriticalcRLSignFalseTest4",
    "InvalidkeyUsageNotCriticalcRLSignFalseTest5",
    "InvalidonlyContainsAttributeCertsTest14",
    "InvalidonlyContainsCACertsCRLTest12",
    "InvalidonlySomeReasonsTest17",
    "Invalidpre2000CRLnextUpdateTest12",
    INVALID_WITHOUT_LIST,
}


def is_valid(test: str) -> bool:
    """By PKITS, with its default settings."""
    return not test.startswith("Invalid") and test not in INVALID_BY_POLICY | {INVALID_WITHOUT_LIST}


def split(mail: bytes) -> tuple[bytes, bytes]:
    """The signed part, with CRLF, and the signature."""
    text = mail.replace(b"\r\n", b"\n")
    boundary = re.search(rb'boundary="([^"]+)"', text)
    assert boundary is not None
    _, signed, signature, _ = text.split(b"\n--" + boundary[1])
    return signed.removeprefix(b"\n").replace(b"\n", b"\r\n"), base64.b64decode(signature.partition(b"\n\n")[2])


@cache
def judge(revocation: Revocation) -> PathJudge:
    """One anchor, all authorities' certificates (lists are signed by some that no chain names), all lists."""
    authorities = [path for path in sorted((DATA / "certs").glob("*.crt")) if not path.stem.endswith("EE")]
    base = TrustBase(
        anchors=((DATA / "certs" / "TrustAnchorRootCertificate.crt").read_bytes(),),
        intermediates=tuple(path.read_bytes() for path in authorities),
        crls=tuple(path.read_bytes() for path in sorted((DATA / "crls").glob("*.crl"))),
    )
    return PathJudge(base, revocation=revocation)


def is_accepted(test: str, revocation: Revocation) -> bool:
    """Whether the signature holds and the signer's path ends in the anchor. Only the DSA mails have no signature that counts."""
    content, signature = split(MAILS[test].read_bytes())
    cms = read_cms(signature, SmimeLimits())
    (signer,) = cms.signers
    if test in UNVERIFIABLE:
        with pytest.raises(Unacceptable):
            _verify(cms, signer, content)
        return False
    certificate = _verify(cms, signer, content)
    return judge(revocation).judge(certificate.der, cms.certificates, NOW).outcome is PathOutcome.ANCHORED


def _verify(cms: Cms, signer: SignerInfo, content: bytes) -> Certificate:
    certificates = [read_certificate(der) for der in cms.certificates]
    (certificate,) = [one for one in certificates if one.named_by(signer.signer)]
    check_digest(cms, signer, content)
    check_signature(signer, content, certificate)
    return certificate


def test_all_224_mails_are_here() -> None:
    assert len(MAILS) == 224
    assert MAILS.keys() >= INVALID_BY_POLICY | DSA | AUTHORITY_AS_PERSON | ONLY_WITHOUT_LIST


@pytest.mark.parametrize("test", MAILS)
def test_where_lists_are_required_each_mail_ends_as_pkits_says(test: str) -> None:
    assert is_accepted(test, Revocation.REQUIRED) == (is_valid(test) and test not in DSA | AUTHORITY_AS_PERSON)


@pytest.mark.parametrize("test", MAILS)
def test_where_lists_are_used_if_known_only_missing_ones_are_forgiven(test: str) -> None:
    valid = is_valid(test) or test in ONLY_WITHOUT_LIST
    assert is_accepted(test, Revocation.WHERE_KNOWN) == (valid and test not in DSA | AUTHORITY_AS_PERSON)


CONSTRAINED = {
    f"{'Valid' if number % 2 else 'Invalid'}RFC822nameConstraintsTest{number}": number % 2 for number in range(21, 27)
} | {
    "ValidDNandRFC822nameConstraintsTest27": 1,
    "InvalidDNandRFC822nameConstraintsTest28": 0,
    "InvalidDNandRFC822nameConstraintsTest29": 0,
}


@pytest.mark.parametrize(("test", "valid"), CONSTRAINED.items())
def test_mails_under_rfc822_name_constraints_are_harvested_only_within_them(test: str, valid: int) -> None:
    content, signature = split(MAILS[test].read_bytes())
    cms = read_cms(signature, SmimeLimits())
    (certificate,) = [one for one in map(read_certificate, cms.certificates) if one.named_by(cms.signers[0].signer)]
    (address,) = certificate.addresses
    result = examine_signature(signature, content, address, judge(Revocation.WHERE_KNOWN), NOW)
    (finding,) = result.findings
    assert finding.key is not None
    assert finding.key.fingerprint == certificate.fingerprint
    if valid:
        assert (finding.verdict, finding.key.trust, finding.key.addresses) == (None, Trust.ANCHORED, (address,))
    else:
        assert finding.verdict is Verdict.CHAIN_INVALID
    stranger = EmailAddress.parse("stranger@elsewhere.example")
    (refused,) = examine_signature(signature, content, stranger, judge(Revocation.WHERE_KNOWN), NOW).findings
    assert refused.verdict is Verdict.ADDRESS_MISMATCH
    assert address.text in refused.detail
    assert stranger.text in refused.detail
