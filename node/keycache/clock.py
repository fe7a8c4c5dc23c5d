"""The one place that reads the system's clocks, and a clock that tests turn by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime, timedelta

from keycache.domain.skew import ClockSample


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251 -- this is the place

    def sample(self) -> ClockSample:
        return ClockSample(wall=self.now(), monotonic=time.monotonic())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """Stands still until told. `advance` moves both clocks and wakes sleepers; `step` sets the wall clock alone, as a person would."""

    def __init__(self, start: datetime) -> None:
        self._wall = start
        self._monotonic = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        return self._wall

    def sample(self) -> ClockSample:
        return ClockSample(wall=self._wall, monotonic=self._monotonic)

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), event))
        await event.wait()

    def advance(self, span: timedelta) -> None:
        self._wall += span
        self._monotonic += span.total_seconds()
        while self._sleepers and self._sleepers[0][0] <= self._monotonic:
            heapq.heappop(self._sleepers)[2].set()

    def step(self, span: timedelta) -> None:
        self._wall += span
