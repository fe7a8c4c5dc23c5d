"""When an entry expires, which sighting counts, and when a refresh is worth a write. Values in, a value out.

An entry is expired when no sighting counts any more: `now - refreshed_at >= timeout(origin)` for each (DESIGN 1). The bug
this project exists to avoid compared the wrong date (the key's) with the wrong timeout (the default) (FACTS 1).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from keycache.domain.entry import Entry, Sighting
from keycache.domain.settings import Timeouts

REFRESH_AT_MOST = timedelta(days=1)
REFRESH_SHARE = 20
"""A refresh is written once the stored one is older than min(1 day, timeout / 20): one write a day and sender (DESIGN 3)."""

FAR_FUTURE = datetime.max.replace(tzinfo=UTC)


def expires_at(sighting: Sighting, timeouts: Timeouts) -> datetime:
    """The first instant at which this sighting no longer counts; a sum past the calendar's end is the calendar's end."""
    try:
        return sighting.refreshed_at + timeouts.of(sighting.origin)
    except OverflowError:
        return FAR_FUTURE


def lasting(sightings: Iterable[Sighting], timeouts: Timeouts) -> Sighting:
    """The sighting that lasts longest: its times are the ones shown for the entry."""
    return max(sightings, key=lambda sighting: expires_at(sighting, timeouts))


def entry_expires_at(entry: Entry, timeouts: Timeouts) -> datetime:
    return expires_at(lasting(entry.sightings, timeouts), timeouts)


def is_expired(entry: Entry, timeouts: Timeouts, now: datetime) -> bool:
    return entry_expires_at(entry, timeouts) <= now


def needs_refresh(sighting: Sighting, timeouts: Timeouts, now: datetime) -> bool:
    """Whether seeing the key again now is worth a write."""
    return now - sighting.refreshed_at >= min(REFRESH_AT_MOST, timeouts.of(sighting.origin) / REFRESH_SHARE)
