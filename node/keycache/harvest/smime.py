"""What an S/MIME signature proves of its sender, and which certificate mail to that sender should be encrypted with.

The rules: a signature by a certificate that names the sender (RFC 8550 section 3), a path that is valid now, and then the
selection of RFC 8551 section 2.5.3.1. Never "all that came along": unrelated certificates in the message are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from keycache.domain.entry import Protocol
from keycache.domain.examination import Finding, Gate
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.cms import CertificateName, Cms, CmsKind, SignerInfo, SmimeLimits, read_cms
from keycache.harvest.paths import PathJudge, PathVerdict
from keycache.harvest.smime_asn1 import Unacceptable
from keycache.harvest.smime_gates import (
    CHOICE,
    SIGNATURE,
    SIGNATURE_GATES,
    SIGNER,
    SIGNER_ADDRESS,
    SIGNER_PATH,
    STRUCTURE,
    GateLog,
    address_refusal,
    key_of,
    named,
    nameless,
    path_verdict,
)
from keycache.harvest.smime_material import read_certificates
from keycache.harvest.smime_selection import Selected, select
from keycache.harvest.smime_signature import check_digest, check_signature, refuse_algorithms
from keycache.harvest.x509 import Certificate, purpose_refusal, read_certificate, signing_refusal, weakness

__all__ = ["CmsKind", "SmimeLimits", "SmimeResult", "examine_signature", "read_certificates"]

_LABEL = "S/MIME signature"
_DEFAULT = SmimeLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class SmimeResult:
    """`findings`: of SIGNED at least one, of other kinds none. `content`: what an opaque signature encloses, verified or not.

    `chain`: DER of the authorities that served in the path of an accepted finding. `gates`: of the signature as a whole.
    """

    kind: CmsKind
    findings: tuple[Finding, ...] = ()
    chain: tuple[bytes, ...] = ()
    content: bytes | None = None
    gates: tuple[Gate, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signed:
    """One signer, as far as it got. `verdict` None: the sender signed; then `certificate` and `path` are there."""

    verdict: Verdict | None
    detail: str
    log: GateLog
    signer: SignerInfo
    certificate: Certificate | None = None
    path: PathVerdict | None = None


def examine_signature(
    signature: bytes,
    content: bytes | None,
    sender: EmailAddress,
    judge: PathJudge,
    now: datetime,
    limits: SmimeLimits = _DEFAULT,
) -> SmimeResult:
    """The verdicts on one CMS message. Never raises for what the message holds; time and memory are bounded by its length.

    `signature`: DER or BER ContentInfo. `content`: the exact signed bytes of multipart/signed with CRLF line ends; None for an
    opaque signature, whose enclosed content then comes back in the result.
    """
    log = GateLog(SIGNATURE_GATES)
    try:
        cms = read_cms(signature, limits)
    except Unacceptable as error:
        log.failed(STRUCTURE, error.text)
        return SmimeResult(
            kind=CmsKind.SIGNED, findings=(nameless(error.verdict, error.text, _LABEL, log.all()),), gates=log.all()
        )
    log.passed(STRUCTURE, cms.kind.value)
    enclosed = cms.content if content is None else None
    if cms.kind is not CmsKind.SIGNED:
        return SmimeResult(kind=cms.kind, gates=log.all())
    signed_bytes = content if content is not None else cms.content
    if signed_bytes is None:
        text = "The signature encloses no content, and none was given beside it."
        log.failed(SIGNATURE, text)
        finding = nameless(Verdict.SIGNATURE_INVALID, text, _LABEL, log.all())
        return SmimeResult(kind=cms.kind, findings=(finding,), gates=log.all())
    certificates = _readable(cms.certificates)
    authorities = tuple(one.der for one in certificates if one.is_ca or one.is_v1)
    tried: list[_Signed] = []
    for info in cms.signers:
        outcome = _check_signer(cms, info, signed_bytes, certificates, authorities, sender, judge, now)
        tried.append(outcome)
        if outcome.verdict is None:
            break
    best = max(tried, key=lambda one: (one.verdict is None, one.log.count()))
    if best.verdict is not None or best.certificate is None or best.path is None:
        return SmimeResult(kind=cms.kind, findings=(_refused(best),), content=enclosed, gates=best.log.all())
    chosen = select(best.signer, best.certificate, best.path, certificates, authorities, sender, judge, now)
    best.log.passed(CHOICE, chosen.how)
    return _result(best, chosen, enclosed, now)


def _readable(ders: Sequence[bytes]) -> tuple[Certificate, ...]:
    """The certificates of a message that can be read; a broken bystander spoils nothing."""
    certificates: list[Certificate] = []
    for der in ders:
        try:
            certificates.append(read_certificate(der))
        except Unacceptable:
            continue
    return tuple(certificates)


def _check_signer(
    cms: Cms,
    info: SignerInfo,
    content: bytes,
    certificates: Sequence[Certificate],
    authorities: Sequence[bytes],
    sender: EmailAddress,
    judge: PathJudge,
    now: datetime,
) -> _Signed:
    """Signature first, then whose it is, then whether that can be believed: a broken signature says nothing of anybody."""
    log = GateLog(SIGNATURE_GATES)
    log.passed(STRUCTURE, cms.kind.value)
    candidates = [one for one in certificates if one.named_by(info.signer)]
    if not candidates:
        unreadable = len(cms.certificates) - len(certificates)
        broken = f" ({unreadable} of them cannot be read)" if unreadable else ""
        text = f"The signer's ({_described(info.signer)}) is not among the {len(cms.certificates)} certificates that came along{broken}."
        log.failed(SIGNER, text)
        return _Signed(verdict=Verdict.SIGNER_NOT_FOUND, detail=text, log=log, signer=info)
    certificate = max(candidates, key=lambda one: (one.names_address(sender), one.not_after))
    log.passed(SIGNER, certificate.subject)

    def refused(gate: str, verdict: Verdict, text: str, path: PathVerdict | None = None) -> _Signed:
        log.failed(gate, text)
        return _Signed(verdict=verdict, detail=text, log=log, signer=info, certificate=certificate, path=path)

    try:
        refuse_algorithms(info)
        check_digest(cms, info, content)
        check_signature(info, content, certificate)
    except Unacceptable as error:
        return refused(SIGNATURE, error.verdict, error.text)
    for verdict, refusal in (
        (Verdict.WEAK_KEY, weakness(certificate)),
        (Verdict.SIGNATURE_INVALID, signing_refusal(certificate)),
        (Verdict.CHAIN_INVALID, purpose_refusal(certificate)),
    ):
        if refusal:
            return refused(SIGNATURE, verdict, refusal)
    ignored = info.attributes.ignored if info.attributes is not None else ()
    log.passed(SIGNATURE, f"ignored: {', '.join(ignored)}" if ignored else certificate.algorithm)
    mismatch = address_refusal(certificate, (sender,))
    if mismatch:
        return refused(SIGNER_ADDRESS, Verdict.ADDRESS_MISMATCH, mismatch)
    log.passed(SIGNER_ADDRESS, named(certificate))
    path = judge.judge(certificate.der, authorities, now)
    verdict_of_path = path_verdict(path)
    if verdict_of_path is not None:
        return refused(SIGNER_PATH, verdict_of_path, path.reason, path)
    log.passed(SIGNER_PATH, path.reason)
    return _Signed(verdict=None, detail=path.reason, log=log, signer=info, certificate=certificate, path=path)


def _described(name: CertificateName) -> str:
    return f"key identifier {name.key_id[:32].hex()}" if name.key_id is not None else f"serial number {name.serial:x}"


def _refused(signed: _Signed) -> Finding:
    """The finding of a signature that proves nothing; the signer's certificate, if known, is in it for people to see."""
    certificate = signed.certificate
    return Finding(
        protocol=Protocol.SMIME,
        key=None if certificate is None else key_of(certificate, signed.path),
        verdict=signed.verdict or Verdict.SIGNATURE_INVALID,
        detail=signed.detail,
        label=_described(signed.signer.signer) if certificate is None else certificate.fingerprint.text,
        gates=signed.log.all(),
    )


def _result(signed: _Signed, chosen: Selected, enclosed: bytes | None, now: datetime) -> SmimeResult:
    attributes = signed.signer.attributes
    time = attributes.signing_time if attributes is not None else None
    before = signed.log.all()
    findings = tuple(
        one.finding(
            before,
            evidence_at=None if time is None else min(time, now),
            capabilities=attributes.capabilities if attributes is not None else (),
        )
        for one in chosen.assessments
    )
    used = [der for one in chosen.assessments if one.verdict is None and one.path is not None for der in one.path.intermediates]
    return SmimeResult(kind=CmsKind.SIGNED, findings=findings, chain=tuple(dict.fromkeys(used)), content=enclosed, gates=before)
