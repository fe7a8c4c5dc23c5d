"""This node's clock with what is known against it: the verdict for the purger, and the time to write on sightings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from keycache.domain.membership import cluster_time
from keycache.domain.ports import Clock, Offload, Replica
from keycache.domain.skew import ClockVerdict, judge, stamp, witnessed

HEARTBEAT = timedelta(seconds=60)
"""How far the written-down time may lag: one small write a minute."""

Offsets = Callable[[], Mapping[str, timedelta]]
"""Other members' clocks minus this node's, now, by the member's name for people."""


class Timekeeper:
    """Remembers in the replica the newest time that could be trusted, so that a clock set back over a restart is noticed, and one
    set forward removes nothing. `offsets`: nothing, while the log is this node's own."""

    def __init__(self, *, clock: Clock, replica: Replica, offload: Offload, offsets: Offsets = dict) -> None:
        self._clock = clock
        self._replica = replica
        self._offload = offload
        self._offsets = offsets
        self._excused: Mapping[str, timedelta] = {}
        self._start = clock.sample()
        self._high_water = replica.high_water()
        self._base = self._high_water

    def now(self) -> datetime:
        """What the clock says: lookups and expiry go by it."""
        return self._clock.now()

    def stamp(self) -> datetime:
        """What to write on a sighting."""
        now = self._clock.now()
        return stamp(now, self.witnessed(), cluster_time(now, self._offsets().values()))

    def witnessed(self) -> datetime:
        """A time that has come for certain, whatever the wall clock says."""
        return witnessed(now=self._clock.sample(), start=self._start, high_water=self._base)

    def verdict(self, bound: timedelta) -> ClockVerdict:
        return judge(
            now=self._clock.sample(), start=self._start, high_water=self._high_water, bound=bound, offsets=self._disagreement()
        )

    async def heartbeat(self, bound: timedelta) -> None:
        """Write the time down, if it can be trusted and moved enough: no more of it than this node saw pass."""
        now = min(self._clock.now(), self.witnessed())
        moved = self._high_water is None or now - self._high_water >= HEARTBEAT
        if moved and self.verdict(bound).trusted:
            await self._offload(self._replica.raise_high_water, now)
            self._high_water = now

    async def trust_clock(self) -> None:
        """An administrator's word that the clock is right now: both witnesses start anew, and members that are as far off as they
        are at this moment count as wrong, not as witnesses, until this node stops."""
        self._excused = self._offsets()
        self._start = self._clock.sample()
        self._base = self._high_water = self._start.wall
        await self._offload(lambda: self._replica.raise_high_water(self._start.wall, force=True))

    def _disagreement(self) -> Mapping[str, timedelta]:
        """Of each member the least: from our clock, or from what an administrator excused."""
        nothing = timedelta()
        return {
            name: min(offset, offset - self._excused.get(name, nothing), key=abs) for name, offset in self._offsets().items()
        }
