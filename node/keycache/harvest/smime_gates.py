"""The gates of S/MIME, for `explain`: each passed, failed with a reason, or not reached; and the gates of one certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from keycache.domain.entry import Defect, HeldReason, Key, Protocol, Trust
from keycache.domain.examination import Finding, Gate
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.paths import PathJudge, PathOutcome, PathVerdict
from keycache.harvest.x509 import Certificate, encryption_refusal, purpose_refusal, weakness

STRUCTURE, SIGNER, SIGNATURE = "S/MIME structure", "signer certificate", "signature"
SIGNER_ADDRESS, SIGNER_PATH = "signer address", "signer path"
CHOICE = "encryption certificate"
STRENGTH, PURPOSE, ADDRESS, PATH = "key strength", "key usage", "address", "certificate path"
SIGNATURE_GATES = (STRUCTURE, SIGNER, SIGNATURE, SIGNER_ADDRESS, SIGNER_PATH, CHOICE)
CERTIFICATE_GATES = (STRENGTH, PURPOSE, ADDRESS, PATH)

_VERDICTS = {
    PathOutcome.EXPIRED: Verdict.CERTIFICATE_EXPIRED,
    PathOutcome.NOT_YET_VALID: Verdict.NOT_YET_VALID,
    PathOutcome.REVOKED: Verdict.CERTIFICATE_REVOKED,
    PathOutcome.WEAK: Verdict.WEAK_KEY,
    PathOutcome.INVALID: Verdict.CHAIN_INVALID,
    PathOutcome.REJECTED: Verdict.ISSUER_REJECTED,
}
_HELD = {PathOutcome.UNKNOWN_ISSUER: HeldReason.UNKNOWN_ISSUER, PathOutcome.SELF_SIGNED: HeldReason.SELF_SIGNED}


@dataclass(slots=True)
class GateLog:
    """Gates in their order. What is not recorded was not reached."""

    names: tuple[str, ...]
    _gates: dict[str, Gate] = field(default_factory=dict)

    def passed(self, name: str, detail: str = "") -> None:
        self._gates[name] = Gate(name=name, passed=True, detail=detail)

    def failed(self, name: str, detail: str) -> None:
        self._gates[name] = Gate(name=name, passed=False, detail=detail)

    def count(self) -> int:
        """How many were passed."""
        return sum(1 for gate in self._gates.values() if gate.passed)

    def all(self) -> tuple[Gate, ...]:
        return tuple(self._gates.get(name, Gate(name=name, passed=None)) for name in self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What the gates say of one certificate. `verdict` None: it may be kept, as `path` says. `path` None: not reached."""

    certificate: Certificate
    verdict: Verdict | None
    detail: str
    path: PathVerdict | None
    gates: tuple[Gate, ...]

    def finding(
        self, before: Sequence[Gate], *, evidence_at: datetime | None = None, capabilities: tuple[str, ...] = ()
    ) -> Finding:
        """Of an accepted certificate the key carries what the message said of it."""
        key = key_of(self.certificate, self.path)
        if self.verdict is None:
            key = replace(key, evidence_at=evidence_at, capabilities=capabilities)
        return Finding(
            protocol=Protocol.SMIME,
            key=key,
            verdict=self.verdict,
            detail=self.detail,
            label=self.certificate.fingerprint.text,
            gates=(*before, *self.gates),
        )


def assess(
    certificate: Certificate, others: Sequence[bytes], addresses: Sequence[EmailAddress], judge: PathJudge, now: datetime
) -> Assessment:
    """May mail be encrypted with this certificate to one of `addresses` (none given: to whomever it names)?

    `others`: authorities that came along. The gates are independent of whatever signature brought the certificate.
    """
    log = GateLog(CERTIFICATE_GATES)
    path = None
    verdict, detail = _own_refusal(certificate, addresses, log)
    if verdict is None:
        path = judge.judge(certificate.der, others, now)
        verdict, detail = path_verdict(path), path.reason
        if verdict is None:
            log.passed(PATH, detail)
        else:
            log.failed(PATH, detail)
    return Assessment(certificate=certificate, verdict=verdict, detail=detail, path=path, gates=log.all())


def _own_refusal(certificate: Certificate, addresses: Sequence[EmailAddress], log: GateLog) -> tuple[Verdict | None, str]:
    """The gates that need nothing but the certificate itself."""
    weak = weakness(certificate)
    if weak:
        log.failed(STRENGTH, weak)
        return Verdict.WEAK_KEY, weak
    log.passed(STRENGTH, certificate.algorithm)
    for verdict, refusal in (
        (Verdict.CHAIN_INVALID, purpose_refusal(certificate)),
        (Verdict.SIGNING_ONLY, encryption_refusal(certificate)),
    ):
        if refusal:
            log.failed(PURPOSE, refusal)
            return verdict, refusal
    log.passed(PURPOSE)
    mismatch = address_refusal(certificate, addresses)
    if mismatch:
        log.failed(ADDRESS, mismatch)
        return Verdict.ADDRESS_MISMATCH, mismatch
    log.passed(ADDRESS, named(certificate))
    return None, ""


def address_refusal(certificate: Certificate, addresses: Sequence[EmailAddress]) -> str:
    """Both sides, when the certificate names none of the addresses; or that it names none at all."""
    if not certificate.addresses:
        return f"The certificate of {certificate.subject} names no mail address."
    if not addresses or any(certificate.names_address(address) for address in addresses):
        return ""
    wanted = ", ".join(address.text for address in addresses)
    return f"The certificate names {named(certificate)}, not {wanted}."


def named(certificate: Certificate) -> str:
    """The addresses of a certificate for a person; the first ten."""
    texts = [address.text for address in certificate.addresses]
    more = f" and {len(texts) - 10} more" if len(texts) > 10 else ""
    return ", ".join(texts[:10]) + more


def path_verdict(path: PathVerdict) -> Verdict | None:
    """None: the path is good, or good enough to be held."""
    return None if path.outcome is PathOutcome.ANCHORED or path.held else _VERDICTS[path.outcome]


def key_of(certificate: Certificate, path: PathVerdict | None) -> Key:
    """The certificate as a Key. Without a good path it is HELD without a reason: such a key accompanies a verdict, for people.

    A suspension (certificateHold) may end, so it is no defect that would be remembered for ever.
    """
    outcome = None if path is None else path.outcome
    revoked = path is not None and outcome is PathOutcome.REVOKED
    return Key(
        protocol=Protocol.SMIME,
        fingerprint=certificate.fingerprint,
        material=certificate.der,
        addresses=certificate.addresses,
        names=certificate.names,
        trust=Trust.ANCHORED if revoked or outcome is PathOutcome.ANCHORED else Trust.HELD,
        held=None if outcome is None else _HELD.get(outcome),
        issuer=None if path is None else path.issuer,
        not_before=certificate.not_before,
        not_after=certificate.not_after,
        defect=Defect.REVOKED if revoked and path is not None and not path.suspended else None,
        algorithm=certificate.algorithm,
    )


def nameless(verdict: Verdict, detail: str, label: str, gates: tuple[Gate, ...]) -> Finding:
    """A finding without a key that could be read."""
    return Finding(protocol=Protocol.SMIME, key=None, verdict=verdict, detail=detail, label=label, gates=gates)
