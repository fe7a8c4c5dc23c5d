"""Whether this node's clock may be believed enough to remove anything (DESIGN 2.4). Values in, a value out.

Two witnesses on one machine: the monotonic clock since start (a step shows as a difference of the two), and the newest
wall time this node ever wrote down (a clock set back shows as a reading before it). Other members' readings come as
`offsets`. A step forward while the node was down cannot be told from a long stop: the hold on mass expiry covers that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockSample:
    """Wall and monotonic clock read together. `monotonic` in seconds since an arbitrary start."""

    wall: datetime
    monotonic: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockVerdict:
    trusted: bool
    reason: str = ""


TRUSTED = ClockVerdict(trusted=True)


def judge(
    *,
    now: ClockSample,
    start: ClockSample,
    high_water: datetime | None,
    bound: timedelta,
    offsets: Mapping[str, timedelta] | None = None,
) -> ClockVerdict:
    """Compare `now` with the first sample since start, with the newest time written down, and with other members.

    `offsets`: other members' clocks minus ours, by name. A majority that disagrees with us makes us the suspect, and so does
    a single disagreeing peer when there are only two: nobody can tell which of two is wrong.
    """
    drift = (now.wall - start.wall) - timedelta(seconds=now.monotonic - start.monotonic)
    if abs(drift) > bound:
        return _suspect(f"The clock was set by {_span(drift)} while the node was running.")
    if high_water is not None and high_water - now.wall > bound:
        return _suspect(f"The clock is {_span(high_water - now.wall)} behind the newest time this node wrote down.")
    far = [name for name, offset in (offsets or {}).items() if abs(offset) > bound]
    if far and 2 * len(far) >= len(offsets or {}):
        return _suspect(f"The clock disagrees by more than {_span(bound)} with {', '.join(sorted(far))}.")
    return TRUSTED


def stamp(now: datetime, high_water: datetime | None) -> datetime:
    """The time to write on a new sighting: never before the newest one written down.

    A machine that boots in 1970 and corrects itself a minute later must not leave entries that count as 56 years old.
    """
    return now if high_water is None or now >= high_water else high_water


def _suspect(text: str) -> ClockVerdict:
    return ClockVerdict(
        trusted=False, reason=f"{text} Nothing is removed. Correct the clock, or run 'keycache purge --trust-clock'."
    )


def _span(span: timedelta) -> str:
    seconds = abs(span).total_seconds()
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"
