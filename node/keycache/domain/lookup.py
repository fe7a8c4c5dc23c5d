"""Which keys answer a lookup, in which order, and why none does (DESIGN 2.5).

Expiry, validity, revocation and blocks are judged anew at every read, whatever the purger has done, and a bad key never hides
a good one of the same address: bad ones are dropped first, what remains is ranked, only an empty rest yields a reason.

This is the hot path: rows are tuples of integers (microseconds since the epoch) as the replica keeps them. `choose` is the judge of
all cases; `serve_ready` is a short way to the same answer in the commonest one, and leaves every other to `choose`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import NamedTuple

from keycache.domain.entry import Origin, Protocol, Trust
from keycache.domain.settings import Timeouts


class MissCode(Enum):
    """Why a lookup found nothing, from the least to the most telling."""

    NOT_FOUND = "NOT_FOUND"
    EXPIRED = "EXPIRED"
    UNUSABLE = "UNUSABLE"
    HELD = "HELD"
    FILTERED = "FILTERED"
    BLOCKED = "BLOCKED"


MISS_ADVICE = {
    MissCode.NOT_FOUND: "No key of this address was ever cached, or it was purged or deleted.",
    MissCode.EXPIRED: "A key was cached, but its time is over; the next signed mail from there brings it back.",
    MissCode.UNUSABLE: "A key is cached but revoked or outside its own validity; ask its owner for a new one.",
    MissCode.HELD: "A key is cached but its issuer is not trusted; see 'keycache issuers list', or accept HELD in the lookup.",
    MissCode.FILTERED: "A key is cached, but not of the protocol, origin or trust that the lookup accepts.",
    MissCode.BLOCKED: "An administrator blocked the key or the address; see 'keycache block list'.",
}

PROTOCOLS: tuple[Protocol, ...] = tuple(Protocol)
TRUSTS: tuple[Trust, ...] = tuple(Trust)
ORIGINS: tuple[Origin, ...] = tuple(Origin)
"""Rows hold the position in these tuples. Never reorder: they are on disk."""

_HELD = TRUSTS.index(Trust.HELD)
_TRUST_RANK = {Trust.ANCHORED: 0, Trust.BOUND: 1, Trust.HELD: 2}


Times = tuple[int | None, int | None, int | None, int | None, int | None, int | None]
"""Of the sighting of each of ORIGINS: `cached_at`, `refreshed_at`."""


class EntryFacts(NamedTuple):
    """What a replica keeps of an entry, as its record says it: what a Row tells from `protocol` to `evidence`, what it is sorted and
    found by, and the two halves of the record. `cached`: the first, `refreshed`: the last time of any sighting. `addresses` as
    EmailAddress.text, in the key's order. `issuer`: id, empty without one."""

    protocol: int
    fingerprint: str
    trust: int
    times: Times
    not_before: int | None
    not_after: int | None
    defect: int
    evidence: int
    cached: int
    refreshed: int
    addresses: tuple[str, ...]
    names: tuple[str, ...]
    issuer: str
    key: bytes
    rest: bytes


class Row(NamedTuple):
    """One entry as the replica answers it for one address. Instants in microseconds since the epoch; None: no such sighting
    or no such bound. `key` and `rest` are the two halves of the encoded record."""

    address: str
    protocol: int
    fingerprint: str
    trust: int
    harvested_cached: int | None
    harvested_refreshed: int | None
    looked_up_cached: int | None
    looked_up_refreshed: int | None
    imported_cached: int | None
    imported_refreshed: int | None
    not_before: int | None
    not_after: int | None
    defect: int
    evidence: int
    mod_revision: int
    key: bytes
    rest: bytes


class Found(NamedTuple):
    """One served key with the sighting that lasts longest. Instants in microseconds since the epoch."""

    row: Row
    origin: Origin
    cached_at: int
    refreshed_at: int
    expires_at: int


ReadyRow = tuple[int, int | None, int | None, int | None, int | None, bytes | None, bytes]
"""One entry as the replica answers it for the short way: the place of the address in the question; number of the origin,
`refreshed_at` of the only sighting (None unless the entry is ready, see `ready_origin`); `not_before`, `not_after`; `sighted`:
that sighting as fields 2 to 4 of an encoded FoundKey (None unless ready); `key`: as in Row. A plain tuple: building a named one would
cost as much as judging it."""

Served = tuple[bytes, bytes, int]
"""A key that was served the short way: `key`, `sighted`, and `expires_at` in microseconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupFilter:
    """What the caller accepts. An origin counts by its own sighting: a key both harvested and looked up passes for either."""

    protocols: frozenset[Protocol] = frozenset(Protocol)
    origins: frozenset[Origin] = frozenset(Origin)
    trusts: frozenset[Trust] = frozenset({Trust.ANCHORED, Trust.BOUND})


DEFAULT_FILTER = LookupFilter()


@dataclass(frozen=True, slots=True)
class Answer:
    """`keys` best first. `miss` is None exactly when there are keys."""

    keys: tuple[Found, ...]
    miss: MissCode | None


NOT_FOUND = Answer((), MissCode.NOT_FOUND)


def timeouts_us(timeouts: Timeouts) -> tuple[int, int, int]:
    """Timeouts in microseconds in the order of ORIGINS, computed once per settings."""
    return tuple(timeouts.of(origin) // timedelta(microseconds=1) for origin in ORIGINS)  # type: ignore[return-value]


def ready_origin(facts: EntryFacts) -> int | None:
    """The origin, as a number, of the only sighting of an entry that nothing but time, a filter or a block can keep from being
    served; None for all other entries.

    Depends on the entry alone, so a replica may write it down with the entry.
    """
    if facts.defect or facts.trust == _HELD:
        return None
    refreshed = facts.times[1::2]
    if refreshed.count(None) != len(refreshed) - 1:
        return None
    return next(number for number, instant in enumerate(refreshed) if instant is not None)


def serve_ready(
    rows: Iterable[ReadyRow],
    asked: int,
    *,
    timeouts: tuple[int, int, int],
    now: int,
    blocked: Callable[[bytes], bool] | None,
) -> list[Served | Answer | None]:
    """The answers to `asked` addresses under DEFAULT_FILTER, by place, as far as they need no weighing; None: ask `choose`.

    1. No row names the address: NOT_FOUND.
    2. Exactly ONE row names it, so that there is nothing to rank and nothing to hide, and it is ready (one sighting, no defect, not
       HELD), unexpired under the timeouts in force, within its own validity, and not blocked: the key.
    3. All else, and with it every reason for a miss, is for `choose` to judge.

    `rows` in any order. `blocked(key)` tells of an encoded key whether it is blocked now; None when there are no blocks at all, so
    that its fingerprint need not be read then. That the address itself is blocked the caller checks, too.
    """
    answers: list[Served | Answer | None] = [NOT_FOUND] * asked
    for place, origin, refreshed, not_before, not_after, sighted, key in rows:
        only = answers[place] is NOT_FOUND
        answers[place] = None
        if (
            only
            and origin is not None
            and refreshed is not None
            and sighted is not None
            and (expires := refreshed + timeouts[origin]) > now
            and (not_after is None or now <= not_after)
            and (not_before is None or now >= not_before)
            and (blocked is None or not blocked(key))
        ):
            answers[place] = (key, sighted, expires)
    return answers


def choose(
    rows: Iterable[Row],
    *,
    address: str,
    accept: LookupFilter,
    timeouts: tuple[int, int, int],
    now: int,
    blocked: Callable[[str], bool] | None,
) -> Answer:
    """The answer for one address (or, with `address` empty, one fingerprint) from all rows that name it.

    `blocked(fingerprint)` tells whether a key is blocked now; None when there are no blocks at all. That the address itself is
    blocked the caller has checked before.
    """
    found: list[tuple[tuple[int, bool, int, int, str], Found]] = []
    miss = 0
    for row in rows:
        trust = TRUSTS[row.trust]
        best = _lasting(row, accept, timeouts)
        if best is None or PROTOCOLS[row.protocol] not in accept.protocols:
            miss = max(miss, _REASONS[MissCode.FILTERED if _lasts(row, timeouts) > now else MissCode.EXPIRED])
        elif best[3] <= now:
            miss = max(miss, _REASONS[MissCode.EXPIRED])
        elif blocked is not None and blocked(row.fingerprint):
            miss = max(miss, _REASONS[MissCode.BLOCKED])
        elif row.defect or _outside(row, now):
            miss = max(miss, _REASONS[MissCode.UNUSABLE])
        elif trust not in accept.trusts:
            miss = max(miss, _REASONS[MissCode.HELD if trust is Trust.HELD else MissCode.FILTERED])
        else:
            # Trust before spelling: a self-made key for `anna@` must not outrank a certificate for `Anna@`.
            rank = (_TRUST_RANK[trust], row.address != address, -row.evidence, -best[2], row.fingerprint)
            found.append((rank, Found(row, *best)))
    if not found:
        return Answer((), _BY_REASON[miss])
    found.sort()
    # A key that spells one address in two ways has a row for each; the better one stands for it.
    once: dict[tuple[int, str], Found] = {}
    for _, one in found:
        once.setdefault((one.row.protocol, one.row.fingerprint), one)
    return Answer(tuple(once.values()), None)


_REASONS = {code: number for number, code in enumerate(MissCode)}
_BY_REASON = tuple(MissCode)


def _lasting(row: Row, accept: LookupFilter, timeouts: tuple[int, int, int]) -> tuple[Origin, int, int, int] | None:
    """Of the accepted origins, the sighting that lasts longest: origin, cached, refreshed, expires."""
    best: tuple[Origin, int, int, int] | None = None
    for number, origin in enumerate(ORIGINS):
        refreshed: int | None = row[5 + 2 * number]  # type: ignore[assignment]
        if refreshed is None or origin not in accept.origins:
            continue
        expires = refreshed + timeouts[number]
        if best is None or expires > best[3]:
            best = (origin, row[4 + 2 * number], refreshed, expires)  # type: ignore[assignment]
    return best


def _lasts(row: Row, timeouts: tuple[int, int, int]) -> int:
    """When the row's last sighting stops counting, whatever the caller accepts."""
    best = _lasting(row, DEFAULT_FILTER, timeouts)
    return 0 if best is None else best[3]


def _outside(row: Row, now: int) -> bool:
    """Whether `now` lies outside the key's own validity; both ends belong to it (RFC 5280 section 4.1.2.5)."""
    return (row.not_after is not None and now > row.not_after) or (row.not_before is not None and now < row.not_before)
