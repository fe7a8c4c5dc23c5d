"""Which of a sender's certificates to encrypt with (RFC 8551 section 2.5.3.1).

1. The one that a signed SMIMEEncryptionKeyPreference names.
2. One of the signer's subject that is for encryption only: people with two certificates send both.
3. The signer's own.
4. Any other one of the signer's subject that can encrypt.

RFC 8551 leaves the choice between 2, 3 and 4 open; of two that can do everything, the one whose private key just signed is the
one in use. Whatever is chosen passes all gates itself: address, purposes, strength, path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.cms import SignerInfo
from keycache.harvest.paths import PathJudge, PathOutcome, PathVerdict
from keycache.harvest.smime_gates import Assessment, assess
from keycache.harvest.x509 import DIGITAL_SIGNATURE, NON_REPUDIATION, Certificate, encryption_refusal

COMPANIONS = 4
"""Certificates of the signer's subject that are judged, newest first; people have one, and one or two that ran out."""
_BORROWED = "The signature that points to this certificate was made under one that no trusted root vouches for."


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """`assessments`: the accepted certificate first, if there is one; then those passed over, the signer's own always among
    them. `how`: how it was chosen, for a person."""

    assessments: tuple[Assessment, ...]
    how: str


def select(
    info: SignerInfo,
    signer: Certificate,
    signer_path: PathVerdict,
    certificates: Sequence[Certificate],
    authorities: Sequence[bytes],
    sender: EmailAddress,
    judge: PathJudge,
    now: datetime,
) -> Selected:
    """`signer`: whose signature, address and path are proven. `certificates`: all of the message, `authorities` among them."""
    passed_over: list[Assessment] = []
    for certificate, how in _candidates(info, signer, certificates, sender):
        assessment = assess(certificate, authorities, (sender,), judge, now)
        if assessment.verdict is None and _borrows_trust(assessment, signer_path, signer):
            assessment = replace(assessment, verdict=Verdict.CHAIN_INVALID, detail=_BORROWED)
        if assessment.verdict is None:
            if certificate.der == signer.der:
                return Selected(assessments=(assessment, *passed_over), how=how)
            own = _own(passed_over, signer) or _not_chosen(assess(signer, authorities, (sender,), judge, now))
            rest = [one for one in passed_over if one.certificate.der != signer.der]
            return Selected(assessments=(assessment, own, *rest), how=how)
        passed_over.append(assessment)
    return Selected(assessments=tuple(passed_over), how="none can be used")


def _candidates(
    info: SignerInfo, signer: Certificate, certificates: Sequence[Certificate], sender: EmailAddress
) -> list[tuple[Certificate, str]]:
    """In the order of the module's rules, each once, the signer's own always among them."""
    preference = info.attributes.preference if info.attributes is not None else None
    preferred = [one for one in certificates if preference is not None and one.named_by(preference)]
    preferred.sort(key=lambda one: (one.names_address(sender), one.not_after), reverse=True)
    companions = [
        one
        for one in certificates
        if one.der != signer.der
        and one.subject_key == signer.subject_key
        and one.names_address(sender)
        and not encryption_refusal(one)
    ]
    companions.sort(key=lambda one: one.not_before, reverse=True)
    missing = " (the preferred one did not come along)" if preference is not None and not preferred else ""
    ordered = [
        *((one, "preferred by the sender") for one in preferred[:1]),
        *((one, f"same subject, for encryption only{missing}") for one in companions[:COMPANIONS] if _only_encrypts(one)),
        (signer, f"the signer's own{missing}"),
        *((one, f"same subject{missing}") for one in companions[:COMPANIONS] if not _only_encrypts(one)),
    ]
    first: dict[bytes, tuple[Certificate, str]] = {}
    for one, how in ordered:
        first.setdefault(one.der, (one, how))
    return list(first.values())


def _only_encrypts(certificate: Certificate) -> bool:
    return certificate.key_usage is not None and not certificate.key_usage & {DIGITAL_SIGNATURE, NON_REPUDIATION}


def _borrows_trust(assessment: Assessment, signer_path: PathVerdict, signer: Certificate) -> bool:
    """Whether an unproven signer points to somebody's proven certificate.

    Anybody can make a certificate with the sender's name, and send along an old one of the sender's that a real authority
    issued: it would then rank as the newest. So a signer that is merely held recommends only what is held as well.
    """
    path = assessment.path
    if path is None or assessment.certificate.der == signer.der:
        return False
    return signer_path.outcome is not PathOutcome.ANCHORED and path.outcome is PathOutcome.ANCHORED


def _own(passed_over: Sequence[Assessment], signer: Certificate) -> Assessment | None:
    return next((one for one in passed_over if one.certificate.der == signer.der), None)


def _not_chosen(own: Assessment) -> Assessment:
    """The signer's certificate beside the chosen one: what keeps it from being used, or only that another is preferred."""
    if own.verdict is not None:
        return own
    return replace(own, verdict=Verdict.NOT_PREFERRED, detail="Another certificate of the sender is for encryption.")
