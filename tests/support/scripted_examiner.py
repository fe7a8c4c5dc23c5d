"""An `Examiner` that answers as it is told: for tests of the flows, which have no business with parsers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from keycache.domain.entry import Defect, Key, Trust
from keycache.domain.examination import Direction, DirectionPolicy, Envelope, Examination, Finding, TrustBase
from keycache.domain.merge import join_addresses
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict


class ScriptedExaminer:
    """`mail` makes a message that shows given keys; every key so shown is known as a file of its material, too.

    Trust is judged as a path would be: a key of a rejected issuer is refused, a HELD key is ANCHORED once its issuer's certificate
    (or its own) is approved.
    """

    def __init__(self) -> None:
        self.base = TrustBase()
        self.envelopes: list[Envelope] = []
        self.examined = 0
        self._mails: dict[bytes, Examination] = {}
        self._files: dict[bytes, tuple[Finding, ...]] = {}
        self._numbers = itertools.count(1)

    def mail(
        self,
        *shown: Key | Finding,
        sender: str = "user1@example.org",
        verdict: Verdict | None = None,
        detail: str = "",
        chain: tuple[bytes, ...] = (),
        direction: Direction = Direction.INBOUND,
    ) -> bytes:
        """The bytes of a new message. `shown`: keys that may enter the cache, or whole findings."""
        number = next(self._numbers)
        findings = tuple(one if isinstance(one, Finding) else self.know(one) for one in shown)
        message = f"mail {number}".encode()
        self._mails[message] = Examination(
            direction=direction,
            sender=EmailAddress.parse(sender),
            message_id=f"<{number}@example.org>",
            verdict=verdict,
            detail=detail,
            findings=findings,
            chain=chain,
        )
        return message

    def know(self, key: Key) -> Finding:
        """From now on the key's material is a file that holds it."""
        finding = Finding(protocol=key.protocol, key=key, verdict=None)
        self._files[key.material] = (finding,)
        return finding

    def file(self, blob: bytes, *shown: Key | Finding) -> bytes:
        """From now on `blob` is a file that holds these."""
        self._files[blob] = tuple(one if isinstance(one, Finding) else self.know(one) for one in shown)
        return blob

    # the port
    def trust(self, base: TrustBase) -> None:
        self.base = base

    async def examine(self, message: bytes, envelope: Envelope, policy: DirectionPolicy, now: datetime) -> Examination:
        self.examined += 1
        self.envelopes.append(envelope)
        examination = self._mails[message]
        return replace(examination, findings=tuple(self._judged(finding) for finding in examination.findings))

    async def read_material(self, blob: bytes, addresses: Sequence[EmailAddress], now: datetime) -> tuple[Finding, ...]:
        findings = self._files.get(blob)
        if findings is None:
            kind = next(iter(self._files.values()))[0].protocol if self._files else None
            assert kind is not None, "the script knows no file at all"
            return (Finding(protocol=kind, key=None, verdict=Verdict.MALFORMED_KEY, label="file"),)
        return tuple(_bound(self._judged(finding), addresses) for finding in findings)

    async def certificates(self, blob: bytes) -> tuple[bytes, ...]:
        return tuple(blob.split(b"|")) if blob else ()

    async def merge(self, known: Key, seen: Key, now: datetime) -> Key:
        """Addresses and parts of the material join; a revocation stays."""
        parts = sorted({*known.material.split(b"+"), *seen.material.split(b"+")})
        revoked = Defect.REVOKED in (known.defect, seen.defect)
        return replace(
            seen,
            material=b"+".join(parts),
            addresses=join_addresses(known.addresses, seen.addresses),
            defect=Defect.REVOKED if revoked else seen.defect,
        )

    def _judged(self, finding: Finding) -> Finding:
        key = finding.key
        if key is None or key.issuer is None or finding.verdict is not None:
            return finding
        if key.issuer.id in self.base.rejected:
            return replace(finding, verdict=Verdict.ISSUER_REJECTED)
        approved = {*self.base.approved, *self.base.anchors}
        if key.trust is Trust.HELD and (key.issuer.certificate in approved or key.material in approved):
            return replace(finding, key=replace(key, trust=Trust.ANCHORED, held=None))
        return finding


def _bound(finding: Finding, addresses: Sequence[EmailAddress]) -> Finding:
    """As the port says: with `addresses`, only keys bound to one of them pass."""
    if not addresses or finding.key is None or finding.verdict is not None:
        return finding
    wanted = {address.index for address in addresses}
    if any(address.index in wanted for address in finding.key.addresses):
        return finding
    return replace(finding, verdict=Verdict.ADDRESS_MISMATCH)
