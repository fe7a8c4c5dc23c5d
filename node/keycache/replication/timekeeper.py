"""This node's clock with what is known against it: the verdict for the purger, and the time to write on sightings."""

from __future__ import annotations

from datetime import datetime, timedelta

from keycache.domain.ports import Clock, Offload, Replica
from keycache.domain.skew import ClockVerdict, judge, stamp, witnessed

HEARTBEAT = timedelta(seconds=60)
"""How far the written-down time may lag: one small write a minute."""


class Timekeeper:
    """Remembers in the replica the newest time that could be trusted, so that a clock set back over a restart is noticed, and one
    set forward removes nothing."""

    def __init__(self, *, clock: Clock, replica: Replica, offload: Offload) -> None:
        self._clock = clock
        self._replica = replica
        self._offload = offload
        self._start = clock.sample()
        self._high_water = replica.high_water()
        self._base = self._high_water

    def now(self) -> datetime:
        """What the clock says: lookups and expiry go by it."""
        return self._clock.now()

    def stamp(self) -> datetime:
        """What to write on a sighting."""
        return stamp(self._clock.now(), self.witnessed())

    def witnessed(self) -> datetime:
        """A time that has come for certain, whatever the wall clock says."""
        return witnessed(now=self._clock.sample(), start=self._start, high_water=self._base)

    def verdict(self, bound: timedelta) -> ClockVerdict:
        return judge(now=self._clock.sample(), start=self._start, high_water=self._high_water, bound=bound)

    async def heartbeat(self, bound: timedelta) -> None:
        """Write the time down, if it can be trusted and moved enough: no more of it than this node saw pass."""
        now = min(self._clock.now(), self.witnessed())
        moved = self._high_water is None or now - self._high_water >= HEARTBEAT
        if moved and self.verdict(bound).trusted:
            await self._offload(self._replica.raise_high_water, now)
            self._high_water = now

    async def trust_clock(self) -> None:
        """An administrator's word that the clock is right now: both witnesses start anew."""
        self._start = self._clock.sample()
        self._base = self._high_water = self._start.wall
        await self._offload(lambda: self._replica.raise_high_water(self._start.wall, force=True))
