"""What clients of a cluster were told, and so what must be true of it once all is healed and settled.

A key is KEPT (somebody acknowledged it), GONE (its deletion was acknowledged, and nobody touched it since) or in DOUBT (an act on it
failed, or is under way). A key that is KEPT may be missing only if it was expired, at some time, under timeouts that may have been in
force then; one in DOUBT may be either.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum

from google.protobuf.timestamp_pb2 import Timestamp

from keycache.cli.entry_line import read_line
from keycache.clock import SystemClock
from keycache.domain.entry import Origin
from keycache.v1 import cache_pb2, entry_pb2
from support.scenario_people import Person

CLOCKS_AGREE = timedelta(minutes=2)
"""The default bound: nodes whose clocks differ by less take each other for right, so removals may come that much early."""

Timeouts = Mapping[Origin, timedelta]


def now() -> datetime:
    """True time."""
    return SystemClock().now()


class State(Enum):
    KEPT = "KEPT"
    GONE = "GONE"
    DOUBT = "DOUBT"


@dataclass
class Known:
    """`true`: by origin, when it was really refreshed last, as far as was acknowledged. `cached`, `refreshed`: by origin, the earliest
    first time and the latest last time that any node told."""

    person: Person
    state: State = State.DOUBT
    true: dict[Origin, datetime] = field(default_factory=dict)
    cached: dict[Origin, datetime] = field(default_factory=dict)
    refreshed: dict[Origin, datetime] = field(default_factory=dict)

    def tell(self, origin: Origin, cached: datetime, refreshed: datetime) -> None:
        self.cached[origin] = min(cached, self.cached.get(origin, cached))
        self.refreshed[origin] = max(refreshed, self.refreshed.get(origin, refreshed))


@dataclass
class _Spell:
    """Timeouts that may have been in force from `since` to `until` (None: still)."""

    timeouts: Timeouts
    since: datetime
    until: datetime | None = None


class Ledger:
    def __init__(self, timeouts: Timeouts) -> None:
        self.known: dict[str, Known] = {}
        self.acknowledged = 0
        self._spells = [_Spell(timeouts, now())]

    # keys
    def doubt(self, person: Person) -> Known:
        """An act on it begins that may make it come or go."""
        known = self.known.setdefault(person.fingerprint, Known(person))
        known.state = State.DOUBT
        return known

    def keep(self, person: Person, origin: Origin, refreshed: datetime) -> None:
        """Acknowledged: it is there, obtained so, last refreshed then."""
        self.acknowledged += 1
        known = self.known[person.fingerprint]
        known.state = State.KEPT
        known.true[origin] = max(refreshed, known.true.get(origin, refreshed))

    def still(self, person: Person) -> None:
        """Acknowledged: nothing became of the act that was begun."""
        known = self.known[person.fingerprint]
        known.state = State.KEPT if known.true else State.DOUBT

    def remove(self, person: Person) -> None:
        self.acknowledged += 1
        self.known[person.fingerprint] = Known(person, State.GONE)

    def of(self, state: State) -> dict[str, Known]:
        return {fingerprint: known for fingerprint, known in self.known.items() if known.state is state}

    # settings
    @contextmanager
    def changing(self, timeouts: Timeouts) -> Iterator[None]:
        """An administrator's change. If it fails, both the old and the new may be in force until one succeeds."""
        new = _Spell(timeouts, now())
        self._spells.append(new)
        yield
        self.acknowledged += 1
        for spell in self._spells:
            if spell is not new and spell.until is None:
                spell.until = now()

    def longest(self, origin: Origin) -> timedelta:
        """The longest timeout that any node may ever have known: one that was cut off goes by what it knew last."""
        return max(spell.timeouts[origin] for spell in self._spells)

    def may_be_expired(self, known: Known) -> bool:
        """Whether it was expired at some time up to now, under timeouts that may have been in force then."""
        return any(
            max(refreshed + spell.timeouts[origin] for origin, refreshed in known.true.items()) - CLOCKS_AGREE
            <= (spell.until or now())
            for spell in self._spells
        )

    # against a node
    def hear(self, result: cache_pb2.LookupResult, clock: datetime) -> None:
        """An answer of a node whose clock said at least `clock` when it gave it. Never a key that was expired by then, neither by the
        answer's own word nor by any timeouts there have been."""
        for key in result.keys:
            origin = _origin(key.origin)
            cached, refreshed = _moment(key.cached_at), _moment(key.refreshed_at)
            told = f"{result.address}: {origin.value} {cached} {refreshed}, expires {_moment(key.expires_at)}"
            assert _moment(key.expires_at) > clock, f"an expired key was served at {clock}: {told}"
            assert refreshed + self.longest(origin) > clock, f"a key was served beyond every timeout at {clock}: {told}"
            known = self.known.get(key.key.fingerprint)
            if known is not None and known.state is not State.GONE:
                known.tell(origin, cached, refreshed)

    def check(self, lines: Mapping[str, str]) -> None:
        """Against all that a node has, as an export shows it, after all is settled."""
        missing = [
            known.person.name
            for fingerprint, known in self.of(State.KEPT).items()
            if fingerprint not in lines and not self.may_be_expired(known)
        ]
        assert not missing, f"acknowledged, not expired, and lost: {missing}"
        back = [known.person.name for fingerprint, known in self.of(State.GONE).items() if fingerprint in lines]
        assert not back, f"deleted, and back: {back}"
        assert not set(lines) - set(self.known), "nobody ever wrote this"
        for fingerprint, line in lines.items():
            known = self.known[fingerprint]
            sightings = {one.origin: one for one in read_line(line).entry.sightings}
            told = f"{known}, now {json.loads(line)['sightings']}"
            for origin, cached in known.cached.items():
                assert origin in sightings, f"a sighting is lost: {told}"
                assert sightings[origin].cached_at <= cached, f"cached later than was told: {told}"
                assert sightings[origin].refreshed_at >= known.refreshed[origin], f"refreshed earlier than was told: {told}"


def _moment(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(UTC)


def _origin(number: entry_pb2.Origin) -> Origin:
    return Origin(entry_pb2.Origin.Name(number).removeprefix("ORIGIN_"))
