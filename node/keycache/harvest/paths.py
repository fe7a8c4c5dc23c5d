"""Whether a certificate can be trusted: paths to an anchor by RFC 5280 section 6, purposes for mail, revocation, issuers.

The whole of RFC 5280 is judged by pyhanko-certvalidator; chains are found here, within bounds (`x509_chains`). No network.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from keycache.domain.entry import Issuer
from keycache.domain.examination import TrustBase
from keycache.harvest.smime_asn1 import Unacceptable
from keycache.harvest.x509 import (
    KEY_CERT_SIGN,
    Certificate,
    permits_mail,
    purpose_refusal,
    read_certificate,
    signed_by,
    weakness,
)
from keycache.harvest.x509_chains import (
    Chain,
    Pool,
    chains,
    id_of_authority,
    id_of_self_signed,
    id_of_unknown,
)
from keycache.harvest.x509_validation import Failure, FailureKind, Revocation, RevocationLists, validate

MEMORY = 2_048
"""Verdicts remembered per judge: some kilobytes each; senders seen lately."""


class PathOutcome(Enum):
    """What a path is worth. ANCHORED is the only good one; UNKNOWN_ISSUER and SELF_SIGNED await an administrator."""

    ANCHORED = "ANCHORED"
    UNKNOWN_ISSUER = "UNKNOWN_ISSUER"
    SELF_SIGNED = "SELF_SIGNED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    NOT_YET_VALID = "NOT_YET_VALID"
    REVOKED = "REVOKED"
    WEAK = "WEAK"
    INVALID = "INVALID"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathVerdict:
    """`reason`: a sentence. `issuer`: the anchor, or the highest issuer that the chain names; None if no chain was found.

    `intermediates`: DER of the authorities between leaf and anchor, nearest first. `suspended`: revoked, but only on hold.
    """

    outcome: PathOutcome
    reason: str
    issuer: Issuer | None = None
    intermediates: tuple[bytes, ...] = ()
    suspended: bool = False

    @property
    def held(self) -> bool:
        return self.outcome in (PathOutcome.UNKNOWN_ISSUER, PathOutcome.SELF_SIGNED)


@dataclass(frozen=True, slots=True)
class _Remembered:
    verdict: PathVerdict
    not_before: datetime
    not_after: datetime


class PathJudge:
    """Judges certificates under one TrustBase. Keep it for as long as the TrustBase stays; it remembers good and held paths.

    `unreadable`: what in the TrustBase could not be used, as SHA-256 of its DER, for the operator's log.
    """

    def __init__(self, base: TrustBase, *, revocation: Revocation = Revocation.WHERE_KNOWN) -> None:
        self._anchors, self._approved, self._intermediates = (
            _pool(base.anchors),
            _pool(base.approved),
            _pool(base.intermediates),
        )
        self._lists = RevocationLists.load(base.crls, revocation)
        self._rejected = base.rejected
        self._memory: OrderedDict[tuple[bytes, bytes], _Remembered] = OrderedDict()
        self.unreadable = (
            *self._anchors.unreadable,
            *self._approved.unreadable,
            *self._intermediates.unreadable,
            *self._lists.unreadable,
        )

    def judge(self, leaf: bytes, others: Sequence[bytes], now: datetime) -> PathVerdict:
        """The verdict on `leaf` (DER) at `now`. `others`: DER of certificates that came along; only authorities among them help.

        Never raises for what the certificates hold.
        """
        known = self._recall(leaf, others, now)
        if known is not None:
            return known
        try:
            certificate = read_certificate(leaf)
        except Unacceptable as error:
            return PathVerdict(outcome=PathOutcome.INVALID, reason=error.text)
        verdict, path = self._judge(certificate, others, now)
        if verdict.issuer is not None and verdict.issuer.id in self._rejected:
            reason = f"The issuer {verdict.issuer.name} ({verdict.issuer.id}) was rejected by an administrator."
            return PathVerdict(outcome=PathOutcome.REJECTED, reason=reason, issuer=verdict.issuer)
        if verdict.outcome is PathOutcome.ANCHORED or verdict.held:
            self._remember(leaf, others, verdict, path)
        return verdict

    def _recall(self, leaf: bytes, others: Sequence[bytes], now: datetime) -> PathVerdict | None:
        for key in (_memory_key(leaf, None), _memory_key(leaf, others)):
            known = self._memory.get(key)
            if known is not None and known.not_before <= now <= known.not_after:
                self._memory.move_to_end(key)
                return known.verdict
        return None

    def _remember(self, leaf: bytes, others: Sequence[bytes], verdict: PathVerdict, path: Sequence[Certificate]) -> None:
        """An anchored path stays good whatever comes along; a held one may turn out better with other certificates."""
        key = _memory_key(leaf, None if verdict.outcome is PathOutcome.ANCHORED else others)
        self._memory[key] = _Remembered(verdict, max(one.not_before for one in path), min(one.not_after for one in path))
        if len(self._memory) > MEMORY:
            self._memory.popitem(last=False)

    def _judge(self, leaf: Certificate, others: Sequence[bytes], now: datetime) -> tuple[PathVerdict, tuple[Certificate, ...]]:
        alone = (leaf,)
        refusal = _refuse_leaf(leaf, now)
        if refusal is not None:
            return refusal, alone
        if self._anchors.holds(leaf) or self._approved.holds(leaf):
            issuer = Issuer(id=id_of_self_signed(leaf), name=leaf.subject)
            reason = "This very certificate was made a trust anchor by the configuration or an administrator."
            return PathVerdict(outcome=PathOutcome.ANCHORED, reason=reason, issuer=issuer), alone
        if leaf.signs_certificates:
            return _invalid("It is the certificate of a certification authority, not of a mail user."), alone
        if leaf.unknown_critical:
            return _invalid(f"It has critical extensions that are unknown here: {', '.join(leaf.unknown_critical)}."), alone
        if leaf.self_issued and signed_by(leaf, leaf):
            issuer = Issuer(id=id_of_self_signed(leaf), name=leaf.subject, certificate=leaf.der)
            reason = "The certificate is self-signed: nobody else vouches for it."
            return PathVerdict(outcome=PathOutcome.SELF_SIGNED, reason=reason, issuer=issuer), alone
        found = chains(
            leaf,
            ((self._anchors, _is_authority), (self._approved, _is_approved_authority)),
            (self._intermediates, _authorities(others)),
        )
        if found[0].anchored:
            return self._judge_anchored(found, now)
        return self._judge_unanchored(found[0], now)

    def _judge_anchored(self, found: Sequence[Chain], now: datetime) -> tuple[PathVerdict, tuple[Certificate, ...]]:
        """The first chain that passes wins; if none does, a revocation tells most, else the first one's failure."""
        failures: list[tuple[Failure, Chain]] = []
        for chain in found:
            failure = self._failure(chain.certificates, now)
            if failure is None:
                anchor = chain.certificates[-1]
                verdict = PathVerdict(
                    outcome=PathOutcome.ANCHORED,
                    reason=f"The chain ends in the trusted {anchor.subject}.",
                    issuer=Issuer(id=id_of_authority(anchor), name=anchor.subject),
                    intermediates=tuple(one.der for one in chain.certificates[1:-1]),
                )
                return verdict, chain.certificates
            failures.append((failure, chain))
        failure, chain = min(failures, key=lambda item: item[0].kind is not FailureKind.REVOKED)
        return _failed(failure, chain), chain.certificates

    def _judge_unanchored(self, chain: Chain, now: datetime) -> tuple[PathVerdict, tuple[Certificate, ...]]:
        """Held, if only the trust is missing: what is there of the chain must be as sound as an anchored one."""
        path = chain.certificates
        top = path[-1]
        if chain.broken:
            return _invalid(f"The signature on the certificate of {top.subject} was not made by its issuer {top.issuer}."), path
        if chain.cut:
            return _invalid("The chain is too long or too entangled."), path
        if len(path) > 1:
            if not _is_authority(top):
                return _invalid(f"{_called(top)} is not a certification authority's."), path
            failure = self._failure(path, now)
            if failure is not None:
                return _failed(failure, chain), path
        if len(path) > 1 and top.self_issued and signed_by(top, top):
            issuer = Issuer(id=id_of_authority(top), name=top.subject, certificate=top.der)
            used = path[1:-1]
        else:
            issuer = Issuer(id=id_of_unknown(top), name=top.issuer)
            used = path[1:]
        verdict = PathVerdict(
            outcome=PathOutcome.UNKNOWN_ISSUER,
            reason=f"No trusted root vouches for {issuer.name}.",
            issuer=issuer,
            intermediates=tuple(one.der for one in used),
        )
        return verdict, path

    def _failure(self, path: Sequence[Certificate], now: datetime) -> Failure | None:
        """What is wrong with a path, leaf first, whose last certificate is taken for its anchor; None: nothing."""
        leaf = path[0]
        for authority in path[1:]:
            if purpose_refusal(authority):
                return Failure(
                    FailureKind.INVALID, f"{_called(authority)} may not issue certificates for mail (extended key usage)."
                )
            outside = next((address for address in leaf.addresses if not permits_mail(authority, address)), None)
            if outside is not None:
                return Failure(FailureKind.INVALID, f"{outside} lies outside the name constraints of {authority.subject}.")
        return validate(path, self._lists, (self._anchors, self._approved, self._intermediates), now)


def _refuse_leaf(leaf: Certificate, now: datetime) -> PathVerdict | None:
    if now > leaf.not_after:
        return PathVerdict(outcome=PathOutcome.EXPIRED, reason=f"The certificate expired on {leaf.not_after:%Y-%m-%d}.")
    if now < leaf.not_before:
        return PathVerdict(
            outcome=PathOutcome.NOT_YET_VALID, reason=f"The certificate is valid from {leaf.not_before:%Y-%m-%d} on."
        )
    weak = weakness(leaf)
    return PathVerdict(outcome=PathOutcome.WEAK, reason=weak) if weak else None


def _is_authority(certificate: Certificate) -> bool:
    """Whether a configured anchor vouches for others: an authority, or a root from before basic constraints (version 1)."""
    return certificate.is_ca or (certificate.is_v1 and certificate.self_issued)


def _is_approved_authority(certificate: Certificate) -> bool:
    """As `_is_authority`, but approving the self-signed certificate of one person must not make that person an authority.

    Common tools mark every self-signed certificate as an authority's. So one that names a mail address vouches for others only
    if its key usage says so; such a one is never taken for a person's (`signs_certificates`).
    """
    if not certificate.addresses:
        return _is_authority(certificate)
    return certificate.is_ca and certificate.key_usage is not None and KEY_CERT_SIGN in certificate.key_usage


def _authorities(others: Sequence[bytes]) -> Pool:
    pool = Pool()
    for der in others:
        try:
            certificate = read_certificate(der)
        except Unacceptable:
            continue
        if certificate.is_ca or certificate.is_v1:
            pool.add(der)
    return pool


def _pool(ders: Sequence[bytes]) -> Pool:
    pool = Pool()
    for der in ders:
        pool.add(der)
    return pool


def _memory_key(leaf: bytes, others: Sequence[bytes] | None) -> tuple[bytes, bytes]:
    """`others` None: whatever else came along."""
    digest = hashlib.sha256(leaf).digest()
    if others is None:
        return digest, b""
    return digest, hashlib.sha256(b"".join(sorted(hashlib.sha256(der).digest() for der in others))).digest()


def _called(certificate: Certificate) -> str:
    return f"The certificate of {certificate.subject}"


def _invalid(reason: str) -> PathVerdict:
    return PathVerdict(outcome=PathOutcome.INVALID, reason=reason)


_OUTCOMES = {
    FailureKind.INVALID: PathOutcome.INVALID,
    FailureKind.WEAK: PathOutcome.WEAK,
    FailureKind.REVOKED: PathOutcome.REVOKED,
}


def _failed(failure: Failure, chain: Chain) -> PathVerdict:
    anchor = chain.certificates[-1]
    issuer = Issuer(id=id_of_authority(anchor), name=anchor.subject) if chain.anchored else None
    return PathVerdict(outcome=_OUTCOMES[failure.kind], reason=failure.reason, issuer=issuer, suspended=failure.suspended)
