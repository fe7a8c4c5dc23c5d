"""Answers from the replica: the hot path. Never leaves the node, never waits but for a revision the caller asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from keycache.codec import entry_of_halves, to_us
from keycache.domain.errors import InvalidInput, OutOfRange
from keycache.domain.lookup import DEFAULT_FILTER, NOT_FOUND, Answer, LookupFilter, MissCode, Row, choose
from keycache.domain.names import EmailAddress, Fingerprint
from keycache.domain.ports import Replica
from keycache.replication.replicator import Replicator
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import View

BATCH_LIMIT = 1000
"""Addresses in one batch: the recipients one SMTP transaction may bring to most servers (RFC 5321 section 4.5.3.1.8 asks for 100)."""

_BLOCKED = Answer((), MissCode.BLOCKED)


@lru_cache(maxsize=65_536)
def _parse(address: str) -> EmailAddress:
    return EmailAddress.parse(address)


class Lookups:
    def __init__(self, *, replica: Replica, view: View, replicator: Replicator, timekeeper: Timekeeper) -> None:
        self._replica = replica
        self._view = view
        self._replicator = replicator
        self._timekeeper = timekeeper

    @property
    def revision(self) -> int:
        return self._replicator.applied

    @property
    def log_age(self) -> timedelta | None:
        """How long ago the log was last heard. None: the log is on this node."""
        return None

    async def reach(self, revision: int) -> None:
        """Wait until this node has applied that revision. Raises Unavailable."""
        await self._replicator.reach(revision)

    def by_address(self, address: str, accept: LookupFilter = DEFAULT_FILTER) -> Answer:
        """Raises InvalidInput for what is no address, Unavailable while the settings are unknown."""
        parsed = _parse(address)
        now = self._timekeeper.now()
        rows = self._replica.lookup((parsed.index,)).get(parsed.index, ())
        return self._answer(parsed, rows, accept, now)

    def by_addresses(self, addresses: Sequence[str], accept: LookupFilter = DEFAULT_FILTER) -> list[Answer | None]:
        """In the order asked; None for what is no address. Raises OutOfRange beyond BATCH_LIMIT."""
        if len(addresses) > BATCH_LIMIT:
            raise OutOfRange(f"{len(addresses)} addresses in one batch.", hint=f"Ask for at most {BATCH_LIMIT} at once.")
        parsed: list[EmailAddress | None] = []
        for address in addresses:
            try:
                parsed.append(_parse(address))
            except InvalidInput:
                parsed.append(None)
        rows = self._replica.lookup([one.index for one in parsed if one is not None])
        now = self._timekeeper.now()
        return [None if one is None else self._answer(one, rows.get(one.index, ()), accept, now) for one in parsed]

    def by_fingerprint(self, fingerprint: str, accept: LookupFilter = DEFAULT_FILTER) -> Answer:
        """Raises InvalidInput for what is no fingerprint."""
        rows = self._replica.lookup_fingerprint(Fingerprint.parse(fingerprint))
        now = self._timekeeper.now()
        answer = self._answer(None, rows, accept, now)
        if answer.keys and all(self._is_cut_off(found.row, now) for found in answer.keys):
            return _BLOCKED
        return answer

    def _is_cut_off(self, row: Row, now: datetime) -> bool:
        """Whether every address of the key is blocked, so that no other lookup would serve it either."""
        blocks = self._view.blocks
        if not blocks.blocks:
            return False
        addresses = entry_of_halves(row.key, row.rest).key.addresses
        return bool(addresses) and all(blocks.of_address(address, now) is not None for address in addresses)

    def _answer(self, address: EmailAddress | None, rows: Sequence[Row], accept: LookupFilter, now: datetime) -> Answer:
        blocks = self._view.blocks
        if blocks.blocks and address is not None and blocks.of_address(address, now) is not None:
            return _BLOCKED
        timeouts = self._view.require_timeouts()
        if not rows:
            return NOT_FOUND
        blocked: Callable[[str], bool] | None = None
        if blocks.blocks:

            def blocked(fingerprint: str) -> bool:
                return blocks.of_fingerprint(Fingerprint(fingerprint), now) is not None

        return choose(
            rows,
            address="" if address is None else address.text,
            accept=accept,
            timeouts=timeouts,
            now=to_us(now),
            blocked=blocked,
        )
