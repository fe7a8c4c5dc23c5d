"""Which expired entries may be removed now. Decided here, carried out in transactions that compare (DESIGN 2.1 to 2.4).

Order of the questions, each of which can only keep entries, never remove more:
1. No settings read: nothing (2.3).  2. Clock suspect: nothing (2.4).  3. Too many at once: hold for a person (2.4).
4. Expired only by time that this node did not see pass: wait as long again, or for a person (2.1, 2.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from keycache.domain.entry import Protocol, Sighting
from keycache.domain.log import ABSENT
from keycache.domain.names import Fingerprint, Revision
from keycache.domain.retention import expires_at, lasting
from keycache.domain.settings import Settings
from keycache.domain.skew import ClockVerdict, unwitnessed

LONG_STOP = timedelta(days=1)
"""Time that a node did not see pass, from which on an administrator is told that removals wait for it. An upgrade or a repair is
shorter, and delays a removal by less than the least anybody would notice of the longest timeouts."""


class PurgeState(Enum):
    """IDLE: nothing to remove now. SWEEPING: removing. HELD_*: expired entries wait, unserved; the reason says for what."""

    IDLE = "IDLE"
    SWEEPING = "SWEEPING"
    HELD_MASS_EXPIRY = "HELD_MASS_EXPIRY"
    HELD_CLOCK = "HELD_CLOCK"
    HELD_NO_SETTINGS = "HELD_NO_SETTINGS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One entry as the replica has it; `mod_revision` is compared when it is removed."""

    protocol: Protocol
    fingerprint: Fingerprint
    mod_revision: Revision
    sightings: tuple[Sighting, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgePlan:
    """`remove` is empty unless `state` is SWEEPING. `settings_revision` is compared with every removal."""

    state: PurgeState
    reason: str
    remove: tuple[Candidate, ...] = ()
    expired: int = 0
    settings_revision: Revision = ABSENT


def is_mass_expiry(expired: int, total: int, settings: Settings) -> bool:
    """Whether so many of `total` entries at once wait for a person (DESIGN 2.4)."""
    return expired > settings.purge_hold_floor and expired > settings.purge_hold_share * total


def plan(
    *,
    candidates: Sequence[Candidate],
    total: int,
    settings: Settings | None,
    settings_revision: Revision,
    clock: ClockVerdict,
    now: datetime,
    witnessed: datetime,
    confirmed: bool = False,
) -> PurgePlan:
    """What to remove of `candidates`, out of `total` entries. `confirmed`: an administrator released a mass expiry.

    `witnessed`: a time that has come for certain (`skew.witnessed`), whatever the wall clock says.
    """
    if settings is None:
        return PurgePlan(
            state=PurgeState.HELD_NO_SETTINGS, reason="The settings cannot be read; nothing is removed without them."
        )
    expired = tuple(
        candidate
        for candidate in candidates
        if expires_at(lasting(candidate.sightings, settings.timeouts), settings.timeouts) <= now
    )
    count = len(expired)
    if not clock.trusted:
        return PurgePlan(state=PurgeState.HELD_CLOCK, reason=clock.reason, expired=count)
    if not expired:
        return PurgePlan(state=PurgeState.IDLE, reason="")
    if not confirmed and is_mass_expiry(count, total, settings):
        reason = (
            f"{count} of {total} entries expired at once, more than {settings.purge_hold_share:.0%}. "
            "Check clock and timeouts; if it is right, run 'keycache purge --confirm-held'."
        )
        return PurgePlan(state=PurgeState.HELD_MASS_EXPIRY, reason=reason, expired=count)
    certain = expired
    if not confirmed and now - witnessed > settings.clock_skew_bound:
        certain = tuple(
            one for one in expired if expires_at(lasting(one.sightings, settings.timeouts), settings.timeouts) <= witnessed
        )
    if not certain:
        noted = now - witnessed > LONG_STOP
        state = PurgeState.HELD_CLOCK if noted else PurgeState.IDLE
        return PurgePlan(state=state, reason=unwitnessed(now, witnessed), expired=count)
    return PurgePlan(state=PurgeState.SWEEPING, reason="", remove=certain, expired=count, settings_revision=settings_revision)
