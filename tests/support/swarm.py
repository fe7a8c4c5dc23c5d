"""Clients of a cluster under faults: they write what a ledger remembers, and look up what it knows, as long as they are let.

Each person belongs to one client, which acts on it through any node, one act at a time. So what the ledger expects of a key depends on
no order between clients. A deleted person is never touched again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from keycache.domain.entry import Origin
from keycache.domain.errors import Conflict, NotFound, Unavailable
from keycache.v1 import cache_pb2
from support.cluster import ClusterNode, NotRunning
from support.ledger import Ledger, State, Timeouts, now
from support.scenario_people import Person

HOUR, DAY, MINUTE, SECOND = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1), timedelta(seconds=1)

PAUSE = (0.0, 0.1)
"""Seconds between two acts of one client: the machine is small, and faults are what is looked for, not load."""

MEANWHILE = (Unavailable, Conflict, NotRunning)
"""What an act may end in while faults are about. Anything else is a defect."""

LONG = {Origin.HARVESTED: 500 * DAY, Origin.LOOKED_UP: DAY, Origin.IMPORTED: 2 * HOUR}
SHORT = {Origin.HARVESTED: 450 * DAY, Origin.LOOKED_UP: 20 * HOUR, Origin.IMPORTED: HOUR}
"""Timeouts between which an administrator goes to and fro. IMPORTED ages below lie before, between and just before both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Age:
    """Of an imported sighting. `touchable`: no timeout comes near, so that it may be seen again without a question what was first."""

    origin: Origin
    span: timedelta
    touchable: bool


def ages(chance: random.Random) -> Age:
    """Harvested long ago, so that a mail refreshes it; imported and young; expired under SHORT alone; expired in a few seconds."""
    return chance.choice(
        [
            Age(origin=Origin.HARVESTED, span=chance.randrange(2, 400) * DAY, touchable=True),
            Age(origin=Origin.HARVESTED, span=chance.randrange(2, 400) * DAY, touchable=True),
            Age(origin=Origin.IMPORTED, span=chance.randrange(30) * MINUTE, touchable=True),
            Age(origin=Origin.IMPORTED, span=chance.randrange(65, 115) * MINUTE, touchable=False),
            Age(origin=Origin.IMPORTED, span=LONG[Origin.IMPORTED] - chance.randrange(2, 15) * SECOND, touchable=False),
        ]
    )


class Client:
    """`home`: the node it asks by default; one act in five goes to another."""

    def __init__(self, name: str, home: ClusterNode, nodes: Sequence[ClusterNode], ledger: Ledger, seed: int) -> None:
        self._name = name
        self._home = home
        self._nodes = nodes
        self._ledger = ledger
        self._chance = random.Random(f"{name} {seed}")
        self._mine: list[Person] = []
        self.acts: dict[str, int] = {}

    async def run(self, until: asyncio.Event) -> None:
        acts: list[Callable[[], Awaitable[None]]] = [
            self.harvest,
            self.put,
            self.bring,
            self.bring,
            self.again,
            self.again,
            self.delete,
        ]
        while not until.is_set():
            act = self._chance.choice(acts)
            try:
                await act()
            except MEANWHILE:
                self._count(f"{act.__name__} failed")
                await asyncio.sleep(0.05)
            else:
                self._count(act.__name__)
            await asyncio.sleep(self._chance.uniform(*PAUSE))

    def _count(self, what: str) -> None:
        self.acts[what] = self.acts.get(what, 0) + 1

    def _node(self) -> ClusterNode:
        return self._chance.choice(self._nodes) if self._chance.random() < 0.2 else self._home

    def _new(self) -> Person:
        return Person(f"{self._name}-{self._chance.getrandbits(40):x}")

    async def harvest(self) -> None:
        """A mail from somebody new."""
        await self._see(self._new())

    async def again(self) -> None:
        """A mail from somebody known."""
        if self._mine:
            await self._see(self._chance.choice(self._mine))

    async def _see(self, person: Person) -> None:
        node, begun = self._node().running, now()
        known = self._ledger.known.get(person.fingerprint)
        if known is None:
            self._ledger.doubt(person)
            self._mine.append(person)
        answer = await node.harvest(person.mail())
        assert answer.verdict in {"CACHED", "REFRESHED", "ALREADY_FRESH"}, answer
        # Fresh: seen within the last day, by the rule that refreshes are thrifty (DESIGN 3).
        self._ledger.keep(person, Origin.HARVESTED, begun - DAY if answer.verdict == "ALREADY_FRESH" else begun)

    async def put(self) -> None:
        person, node, begun = self._new(), self._node().running, now()
        self._ledger.doubt(person)
        answer = await node.put(person.material, person.address)
        assert [key.verdict for key in answer.keys] == ["CACHED"], answer
        self._ledger.keep(person, Origin.LOOKED_UP, begun)
        self._mine.append(person)

    async def bring(self) -> None:
        """An administrator imports somebody with times of the past."""
        person, chosen, age = self._new(), self._node(), ages(self._chance)
        node, node_clock = chosen.running, chosen.clock_at_least(now())
        refreshed = (now() - age.span).replace(microsecond=self._chance.randrange(10**6))
        self._ledger.doubt(person)
        (verdict,) = await node.import_lines([person.line({age.origin: timedelta(0)}, refreshed)])
        if verdict == "MALFORMED_KEY" and node_clock < refreshed:
            return  # what lies far in a node's future is refused
        assert verdict == "CACHED", verdict
        self._ledger.keep(person, age.origin, refreshed)
        if age.touchable:
            self._mine.append(person)

    async def delete(self) -> None:
        """Often just after a mail to another node, which may have to deliver that later: it must not bring the key back."""
        if not self._mine:
            return
        person = self._mine.pop(self._chance.randrange(len(self._mine)))
        if self._chance.random() < 0.5:
            await self._see(person)
        node = self._node().running
        self._ledger.doubt(person)
        try:
            answer = await node.delete(person.fingerprint)
        except NotFound:
            self._ledger.still(person)
            return
        assert answer.deleted == 1
        self._ledger.remove(person)


class Administrator:
    """Changes timeouts to and fro, through any node."""

    def __init__(self, nodes: Sequence[ClusterNode], ledger: Ledger, seed: int) -> None:
        self._nodes = nodes
        self._ledger = ledger
        self._chance = random.Random(f"administrator {seed}")
        self.changed = 0

    async def run(self, until: asyncio.Event) -> None:
        while not until.is_set():
            try:
                await self.change(self._chance.choice((LONG, SHORT)), self._chance.choice(self._nodes))
                self.changed += 1
            except MEANWHILE:
                pass
            await asyncio.sleep(self._chance.uniform(0.2, 1.5))

    async def change(self, timeouts: Timeouts, node: ClusterNode) -> None:
        running = node.running
        with self._ledger.changing(timeouts):
            await running.settle(**{origin.value.lower(): span for origin, span in timeouts.items()})


class Looker:
    """Asks one node for whom the ledger knows, again and again; what is answered must be true by the node's clock."""

    def __init__(self, node: ClusterNode, ledger: Ledger, seed: int) -> None:
        self._node = node
        self._ledger = ledger
        self._chance = random.Random(f"looker {node.name} {seed}")
        self.answers = 0

    async def run(self, until: asyncio.Event) -> None:
        while not until.is_set():
            try:
                await self.look()
            except MEANWHILE:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.03)

    async def look(self) -> None:
        known = list(self._ledger.known.values())
        some = self._chance.sample(known, min(40, len(known)))
        connection, asked = self._node.running.connection, now()
        request = cache_pb2.BatchLookupRequest(addresses=[one.person.address for one in some])
        if not some:
            return
        answer = await connection.call(connection.cache.BatchLookup, request)
        for one, result in zip(some, answer.results, strict=True):
            if self._ledger.known[one.person.fingerprint] is one and one.state is not State.GONE:
                self._ledger.hear(result, self._node.clock_at_least(asked))
                self.answers += bool(result.keys)
