"""Nodes that share a log: what each says of itself, whose turn it is to purge, and what their clocks make of ours. Values in, a value
out.

How a clock is compared: a member writes its reading into its record, we note our monotonic clock as the record arrives. From then on
its clock is known without ours: its reading, going on with our monotonic clock. What arrives late makes a clock look BEHIND, by as
much as it was late, and never ahead; so of the last few readings the one that puts the clock furthest ahead came the quickest, and
counts (as in NTP's clock filter, RFC 5905 section 10). One reading alone proves nothing: it may be what was waiting while we stood
still.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from keycache.domain.names import NodeId, Revision
from keycache.domain.purge import PurgeState
from keycache.domain.skew import ClockSample

READINGS = 3
"""Readings of a member's clock that are kept: a quarter of a minute of its words, so that a clock that is corrected counts as right
soon, and a stall of two words does not show."""

READINGS_APART = 1.0
"""Seconds. Words come every 5; two that arrive together were waiting somewhere, and only the newer tells of now."""

_SHORT = 8
"""Digits of a node's id that are shown beside its address: ids are random, and nobody runs a million nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A running node's word about itself. `clock`: its wall clock as it wrote this; `applied`: what its replica held then.
    `purge_state`: the value of a `PurgeState`, or one of a later version. `outbox`: entries in it."""

    node_id: NodeId
    address: str
    version: str
    started_at: datetime
    clock: datetime
    applied: Revision
    purge_state: str
    purge_reason: str
    purge_waiting: int
    clock_trusted: bool
    outbox: int

    @property
    def label(self) -> str:
        """For people: several nodes may believe that they are at the same address."""
        return f"{self.address} ({self.node_id.text[:_SHORT]})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What a node last wrote while it was well; stays when the node is gone."""

    node_id: NodeId
    address: str
    version: str
    at: datetime


def choose_purger(others: Iterable[Member], own: Member) -> Member | None:
    """Who purges now: of all that live and trust their clocks, and whose purging does not wait for a clock, the one with the least id.

    One at a time is thrift and no more: two that take themselves for it remove the same entries, in transactions that compare.
    None: nobody may, and what has expired waits, unserved.
    """
    able = [one for one in (own, *others) if one.clock_trusted and one.purge_state != PurgeState.HELD_CLOCK.value]
    return min(able, key=lambda one: one.node_id.text, default=None)


def with_reading(readings: Sequence[ClockSample], new: ClockSample) -> tuple[ClockSample, ...]:
    """The last few of a member's clock, oldest first. `wall` is its, `monotonic` ours."""
    kept = readings
    if readings and new.monotonic - readings[-1].monotonic < READINGS_APART:
        kept = readings[:-1]
    return (*kept, new)[-READINGS:]


def offset(readings: Sequence[ClockSample], now: ClockSample) -> timedelta | None:
    """A member's clock minus ours. None: not measured yet."""
    if len(readings) < 2:
        return None
    return max(one.wall + timedelta(seconds=now.monotonic - one.monotonic) for one in readings) - now.wall


def cluster_time(now: datetime, offsets: Iterable[timedelta]) -> datetime:
    """The upper median of all clocks, our own included: as long as most are right it is a right one's. Of two it is the later, since a
    sighting that counts for too long is harmless beside one that is taken for expired."""
    clocks = sorted((timedelta(), *offsets))
    return now + clocks[len(clocks) // 2]


def lag(written: Revision, applied: Revision) -> int:
    """Revisions that a member had not applied when it wrote its word, as revision `written`."""
    return max(0, written - 1 - applied)
