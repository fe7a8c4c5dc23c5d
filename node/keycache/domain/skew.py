"""Whether this node's clock may be believed enough to remove anything (DESIGN 2.4). Values in, a value out.

Two witnesses on one machine: the monotonic clock since start (a step shows as a difference of the two), and the newest
wall time this node ever wrote down (a clock set back shows as a reading before it). Where nodes share a log, the other members'
clocks are witnesses, too (`offsets`, see `membership`). A step forward while the node was down cannot be told from a long stop. So
nothing is removed by time that this node did not see pass: besides the wall clock there is the *witnessed* time, which only ever goes
on with the monotonic clock. After a stop it lags by the length of the stop, and so do removals, until an administrator says that the
clock is right. Why that is safe whatever the wall clock does: a sighting is stamped with at least the witnessed time, removed only
once the witnessed time is a timeout later, and witnessed time is never faster than true time.
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

    `offsets`: other members' clocks minus ours, by name. Where some disagree with us, we are the suspect unless those that agree,
    ourselves included, are a majority of all clocks. So one bad clock of three makes itself the suspect and leaves the two good
    ones alone, and of two clocks that disagree nobody can tell which is wrong: both hold.
    """
    drift = (now.wall - start.wall) - timedelta(seconds=now.monotonic - start.monotonic)
    if abs(drift) > bound:
        return _suspect(f"The clock was set by {_span(drift)} while the node was running.")
    if high_water is not None and high_water - now.wall > bound:
        return _suspect(f"The clock is {_span(high_water - now.wall)} behind the newest time this node wrote down.")
    clocks = 1 + len(offsets or {})
    far = [name for name, offset in (offsets or {}).items() if abs(offset) > bound]
    if far and 2 * (clocks - len(far)) <= clocks:
        return _suspect(f"The clock disagrees by more than {_span(bound)} with {', '.join(sorted(far))}.")
    return TRUSTED


def witnessed(*, now: ClockSample, start: ClockSample, high_water: datetime | None) -> datetime:
    """A time that has come for certain: the newest one written down before this start, and what the monotonic clock saw since.

    Nothing written down: this is the first start, there are no older entries, and the wall clock is all there is.
    """
    return (start.wall if high_water is None else high_water) + timedelta(seconds=now.monotonic - start.monotonic)


def unwitnessed(now: datetime, witnessed: datetime) -> str:
    """Why entries wait that are expired by the wall clock alone."""
    return (
        f"The clock went on by {_span(now - witnessed)} that this node did not see pass: it was stopped, or the clock was set. What "
        "expired in that time is kept, unserved, as long again. If the clock is right, run 'keycache purge --trust-clock'."
    )


def stamp(now: datetime, witnessed: datetime, cluster: datetime) -> datetime:
    """The time to write on a new sighting: never before a time that has come for certain, nor before the cluster's.

    A machine that boots in 1970 and corrects itself a minute later must not leave entries that count as 56 years old, and one whose
    clock is a day behind must not leave some that the others find expired. `cluster`: see `membership.cluster_time`.
    """
    return max(now, witnessed, cluster)


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
