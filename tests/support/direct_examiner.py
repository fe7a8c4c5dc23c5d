"""The real parsers in the test's own process: the `Examiner` port without the sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from keycache.domain.entry import Key
from keycache.domain.examination import DirectionPolicy, Envelope, Examination, Finding, TrustBase
from keycache.domain.names import EmailAddress
from keycache.harvest import material, openpgp, pipeline
from keycache.harvest.budget import DEFAULT, Budget
from keycache.harvest.paths import PathJudge


class DirectExaminer:
    """Runs the pure pipeline at once. For mails that the test made itself: hostile ones belong in the sandbox."""

    def __init__(self, *, budget: Budget = DEFAULT) -> None:
        self._budget = budget
        self._judge = PathJudge(TrustBase())
        self.base = TrustBase()

    def trust(self, base: TrustBase) -> None:
        self.base = base
        self._judge = PathJudge(base)

    async def examine(self, message: bytes, envelope: Envelope, policy: DirectionPolicy, now: datetime) -> Examination:
        return pipeline.examine(message, envelope, policy, self._judge, now, self._budget)

    async def read_material(self, blob: bytes, addresses: Sequence[EmailAddress], now: datetime) -> tuple[Finding, ...]:
        return material.read_material(blob, addresses, self._judge, now)

    async def certificates(self, blob: bytes) -> tuple[bytes, ...]:
        return material.certificates(blob)

    async def merge(self, known: Key, seen: Key, now: datetime) -> Key:
        return openpgp.merge(known, seen, now)
