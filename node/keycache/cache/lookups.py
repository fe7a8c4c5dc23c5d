"""Answers from replica and outbox: the hot path. Never leaves the node, never waits but for a revision the caller asked for.

`serve` and `serve_all` are what the wire is answered with: addresses are first tried the short way (`domain.lookup.serve_ready`), and
what it leaves open is asked again, and judged, as `by_address` and `by_addresses` do it for all. Addresses of which something waits in
the outbox are always judged; while nothing waits at all, that costs one look at a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from keycache.cache.holdings import NOTHING, Holdings
from keycache.codec import decode, entry_of_halves, to_us
from keycache.domain.errors import InvalidInput, OutOfRange
from keycache.domain.lookup import (
    DEFAULT_FILTER,
    NOT_FOUND,
    Answer,
    LookupFilter,
    MissCode,
    Row,
    Served,
    choose,
    serve_ready,
)
from keycache.domain.names import ADDRESS_LIMIT, EmailAddress, Fingerprint
from keycache.domain.ports import Outbox, Replica
from keycache.replication.replicator import Replicator
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import View
from keycache.v1 import entry_pb2

BATCH_LIMIT = 1000
"""Addresses in one batch: the recipients one SMTP transaction may bring to most servers (RFC 5321 section 4.5.3.1.8 asks for 100)."""

_BLOCKED = Answer((), MissCode.BLOCKED)


class _Asked(NamedTuple):
    """What somebody asked for. `indexed`: its `index`, computed once; empty, which no address has, for what is no address."""

    indexed: str
    address: EmailAddress | None


def _read(address: str) -> _Asked:
    """What is too long for an address is none, and is not remembered: a request may bring a thousand texts of many megabytes."""
    return _remembered(address) if len(address) <= 2 * ADDRESS_LIMIT else _parsed(address)


@lru_cache(maxsize=65_536)
def _remembered(address: str) -> _Asked:
    """Parsing costs as much as a lookup, and the same correspondents are asked for again and again: 20 MB, as a rule."""
    return _parsed(address)


def _parsed(address: str) -> _Asked:
    try:
        parsed = EmailAddress.parse(address)
    except InvalidInput:
        return _Asked("", None)
    index = parsed.index
    return _Asked(parsed.text if index == parsed.text else index, parsed)


class Lookups:
    def __init__(
        self,
        *,
        replica: Replica,
        outbox: Outbox,
        holdings: Holdings,
        view: View,
        replicator: Replicator,
        timekeeper: Timekeeper,
    ) -> None:
        self._replica = replica
        self._outbox = outbox
        self._holdings = holdings
        self._view = view
        self._replicator = replicator
        self._timekeeper = timekeeper

    @property
    def revision(self) -> int:
        return self._replicator.applied

    @property
    def log_age(self) -> timedelta | None:
        """How long ago the log was last heard. None: the log is on this node."""
        return self._replicator.log_age

    async def reach(self, revision: int) -> None:
        """Wait until this node has applied that revision. Raises Unavailable."""
        await self._replicator.reach(revision)

    def serve(self, address: str, accept: LookupFilter = DEFAULT_FILTER) -> Served | Answer:
        """As `by_address`, as fast as can be."""
        (answer,) = self._serve((_read(address),), accept)
        return self.by_address(address, accept) if answer is None else answer  # what is no address it will say

    def serve_all(self, addresses: Sequence[str], accept: LookupFilter = DEFAULT_FILTER) -> list[Served | Answer | None]:
        """As `by_addresses`, as fast as can be."""
        _check_number(addresses)
        return self._serve([_read(address) for address in addresses], accept)

    def by_address(self, address: str, accept: LookupFilter = DEFAULT_FILTER) -> Answer:
        """Raises InvalidInput for what is no address, Unavailable while the settings are unknown."""
        (answer,) = self._judge([EmailAddress.parse(address)], accept)
        return answer

    def by_addresses(self, addresses: Sequence[str], accept: LookupFilter = DEFAULT_FILTER) -> list[Answer | None]:
        """In the order asked; None for what is no address. Raises OutOfRange beyond BATCH_LIMIT, Unavailable as above."""
        _check_number(addresses)
        parsed = [_read(address).address for address in addresses]
        answers = iter(self._judge([one for one in parsed if one is not None], accept))
        return [None if one is None else next(answers) for one in parsed]

    def by_fingerprint(self, fingerprint: str, accept: LookupFilter = DEFAULT_FILTER) -> Answer:
        """Raises InvalidInput for what is no fingerprint."""
        rows = self._holdings.lookup_fingerprint(Fingerprint.parse(fingerprint))
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

    def _serve(self, asked: Sequence[_Asked], accept: LookupFilter) -> list[Served | Answer | None]:
        """None for what is no address."""
        answers = self._ready(asked, accept)
        undecided = [
            (place, one.address) for place, one in enumerate(asked) if answers[place] is None and one.address is not None
        ]
        if undecided:
            judged = self._judge([address for _, address in undecided], accept)
            for (place, _), answer in zip(undecided, judged, strict=True):
                answers[place] = answer
        return answers

    def _ready(self, asked: Sequence[_Asked], accept: LookupFilter) -> list[Served | Answer | None]:
        """What the short way answers; None for all else."""
        view = self._view
        if view.timeouts is None or not (accept is DEFAULT_FILTER or accept == DEFAULT_FILTER):
            return [None] * len(asked)
        indexes = [indexed for indexed, _ in asked]
        waiting = self._holdings.waiting(indexes) if self._outbox.count else NOTHING  # BEFORE the replica, see `Holdings`
        rows = self._replica.lookup_ready(indexes)
        now = self._timekeeper.now()
        blocks, blocked = view.blocks, self._blocked(now)
        answers = serve_ready(
            rows,
            len(asked),
            timeouts=view.timeouts,
            now=to_us(now),
            blocked=None if blocked is None else lambda key: blocked(decode(entry_pb2.Key, key).fingerprint),
        )
        for place, (_, address) in enumerate(asked):
            if address is None or (blocks.blocks and blocks.of_address(address, now) is not None):
                answers[place] = None
        if waiting:
            answers = [None if indexed in waiting else answer for indexed, answer in zip(indexes, answers, strict=True)]
        return answers

    def _judge(self, addresses: Sequence[EmailAddress], accept: LookupFilter) -> list[Answer]:
        rows = self._holdings.lookup([address.index for address in addresses])
        now = self._timekeeper.now()
        return [self._answer(address, rows.get(address.index, ()), accept, now) for address in addresses]

    def _blocked(self, now: datetime) -> Callable[[str], bool] | None:
        """Whether a fingerprint is blocked now; None when nothing is."""
        blocks = self._view.blocks
        if not blocks.blocks:
            return None
        return lambda fingerprint: blocks.of_fingerprint(Fingerprint(fingerprint), now) is not None

    def _answer(self, address: EmailAddress | None, rows: Sequence[Row], accept: LookupFilter, now: datetime) -> Answer:
        blocks = self._view.blocks
        if blocks.blocks and address is not None and blocks.of_address(address, now) is not None:
            return _BLOCKED
        timeouts = self._view.require_timeouts()
        if not rows:
            return NOT_FOUND
        return choose(
            rows,
            address="" if address is None else address.text,
            accept=accept,
            timeouts=timeouts,
            now=to_us(now),
            blocked=self._blocked(now),
        )


def _check_number(addresses: Sequence[str]) -> None:
    if len(addresses) > BATCH_LIMIT:
        raise OutOfRange(f"{len(addresses)} addresses in one batch.", hint=f"Ask for at most {BATCH_LIMIT} at once.")
