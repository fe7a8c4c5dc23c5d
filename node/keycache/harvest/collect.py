"""What was found in one message, put together: each key once, whatever the number of places it stood in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from keycache.domain.entry import Defect, Key, Protocol
from keycache.domain.examination import Finding
from keycache.domain.merge import join_keys
from keycache.domain.names import Fingerprint
from keycache.domain.verdict import Verdict
from keycache.harvest import openpgp

FINDINGS_LIMIT = 100
"""Told of one message. An honest mail has a handful; hostile ones are not to fill logs and answers. The best are kept."""


@dataclass(slots=True)
class Collection:
    """Findings in the order of their discovery. A finding without a key is kept once a verdict and label."""

    now: datetime
    _keys: dict[tuple[Protocol, Fingerprint], Finding] = field(default_factory=dict)
    _others: dict[tuple[Protocol, Verdict | None, str], Finding] = field(default_factory=dict)

    def add(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            if finding.key is None:
                self._others.setdefault((finding.protocol, finding.verdict, finding.label or finding.detail), finding)
                continue
            name = (finding.key.protocol, finding.key.fingerprint)
            known = self._keys.get(name)
            self._keys[name] = finding if known is None else _joined(known, finding, self.now)

    def findings(self) -> tuple[Finding, ...]:
        """Keys first, then what had none; the worst-ranked are left out beyond the limit."""
        found = [*self._keys.values(), *self._others.values()]
        if len(found) <= FINDINGS_LIMIT:
            return tuple(found)
        return tuple(sorted(found, key=_rank)[:FINDINGS_LIMIT])


def _rank(finding: Finding) -> int:
    return -1 if finding.verdict is None else finding.verdict.rank


def _joined(first: Finding, second: Finding, now: datetime) -> Finding:
    """The better finding, with what both know of the key.

    But a revocation outranks all: a mail that carries a key and, elsewhere, the same key revoked, revokes it (DESIGN 2.5).
    """
    assert first.key is not None
    assert second.key is not None
    better, worse = sorted((first, second), key=lambda one: (not _is_revoked(one), _rank(one)))
    assert better.key is not None
    if better.verdict is not None and worse.verdict != better.verdict:
        return better
    if first.key.protocol is Protocol.SMIME and worse.verdict != better.verdict:
        return better  # the same certificate: what was refused elsewhere in the mail adds nothing, least of all its trust
    return replace(better, key=_joined_key(first.key, second.key, now))


def _is_revoked(finding: Finding) -> bool:
    return finding.key is not None and finding.key.defect is Defect.REVOKED


def _joined_key(first: Key, second: Key, now: datetime) -> Key:
    if first.protocol is Protocol.OPENPGP and first.material != second.material:
        joined = openpgp.merge(first, second, now)
    else:
        joined = join_keys(first, second)
    # Both are of one mail, so neither is newer: what its Autocrypt header says holds for the key wherever else it stands.
    return replace(joined, prefer_encrypt=first.prefer_encrypt or second.prefer_encrypt)
