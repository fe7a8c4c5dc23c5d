"""The cluster-wide settings: stored explicitly from the first start, so that a changed default changes nobody's cache."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from keycache.domain.entry import Origin
from keycache.domain.errors import OutOfRange
from keycache.domain.spans import format_span

TIMEOUT_MIN = timedelta(hours=1)
TIMEOUT_MAX = timedelta(days=999)
"""The range of the product this follows (FACTS 1, seed question 2)."""

DEFAULT_TIMEOUTS = {
    Origin.HARVESTED: timedelta(days=500),
    Origin.LOOKED_UP: timedelta(hours=24),
    Origin.IMPORTED: timedelta(days=999),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a sighting of each origin counts after its `refreshed_at`. Raises OutOfRange outside 1 h to 999 d."""

    harvested: timedelta = DEFAULT_TIMEOUTS[Origin.HARVESTED]
    looked_up: timedelta = DEFAULT_TIMEOUTS[Origin.LOOKED_UP]
    imported: timedelta = DEFAULT_TIMEOUTS[Origin.IMPORTED]

    def __post_init__(self) -> None:
        for origin in Origin:
            if not TIMEOUT_MIN <= self.of(origin) <= TIMEOUT_MAX:
                raise OutOfRange(
                    f"A timeout of {format_span(self.of(origin))} for {origin.value.lower()} keys is out of range.",
                    hint="Choose between 1h (1 hour) and 999d (999 days).",
                )

    def of(self, origin: Origin) -> timedelta:
        if origin is Origin.HARVESTED:
            return self.harvested
        return self.looked_up if origin is Origin.LOOKED_UP else self.imported

    def with_timeout(self, origin: Origin, timeout: timedelta) -> Timeouts:
        return replace(self, **{origin.value.lower(): timeout})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every node obeys alike.

    `purge_hold_share` (0..1) and `purge_hold_floor` (entries): a sweep above both waits for an administrator (DESIGN 2.4).
    `clock_skew_bound`: how far clocks may disagree before purging is held.
    """

    timeouts: Timeouts = field(default_factory=Timeouts)
    purge_hold_share: float = 0.2
    purge_hold_floor: int = 100
    clock_skew_bound: timedelta = timedelta(minutes=2)
    extra: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.purge_hold_share <= 1.0:
            raise OutOfRange(f"A purge hold share of {self.purge_hold_share} is out of range.", hint="Choose 0 to 1.")
        if self.purge_hold_floor < 0:
            raise OutOfRange("The purge hold floor cannot be negative.", hint="Choose 0 or more entries.")
        if not timedelta(seconds=1) <= self.clock_skew_bound <= timedelta(days=1):
            raise OutOfRange("The clock skew bound is out of range.", hint="Choose between 1 second and 1 day.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingChange:
    """One line of the settings' history: who changed which setting, when, from what to what."""

    at: datetime
    actor: str
    name: str
    old: str
    new: str
