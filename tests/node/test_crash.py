"""Kill -9 at any moment, while many write: what was acknowledged is kept, as it was; what was deleted stays away (DESIGN 2.6, 2.7)."""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from keycache.client import Unreachable
from keycache.domain.entry import Origin
from keycache.domain.errors import KeycacheError, Unavailable
from keycache.v1 import cache_pb2
from support.command import EXECUTABLE, OWN_ENVIRONMENT
from support.scenario import Running, all_gone, children, digest_of, eventually, present, running
from support.scenario_people import Person

ROUNDS = 5
WARM_UP = 4
"""Acknowledgements of a round before it may be killed, so that no round passes in which nothing was under way."""

Times = tuple[int, int, int]


@dataclass
class Ledger:
    """What the clients were told, and so what must be true of the node. By fingerprint."""

    kept: dict[str, Person] = field(default_factory=dict)
    gone: dict[str, Person] = field(default_factory=dict)
    unknown: dict[str, Person] = field(default_factory=dict)
    times: dict[str, Times] = field(default_factory=dict)
    acknowledged: int = 0

    def keep(self, person: Person) -> None:
        self.acknowledged += 1
        self.unknown.pop(person.fingerprint, None)
        self.kept[person.fingerprint] = person

    def remove(self, person: Person) -> None:
        self.acknowledged += 1
        self.unknown.pop(person.fingerprint, None)
        self.gone[person.fingerprint] = person

    def doubt(self, person: Person) -> None:
        """An act on it is under way: it may or may not be there from now on."""
        self.kept.pop(person.fingerprint, None)
        self.gone.pop(person.fingerprint, None)
        self.unknown[person.fingerprint] = person


def times_of(key: cache_pb2.FoundKey) -> Times:
    """Cached and refreshed in microseconds, and the origin."""
    return key.cached_at.ToMicroseconds(), key.refreshed_at.ToMicroseconds(), key.origin


class Client:
    """Writes as fast as it is answered, until the node is gone."""

    def __init__(self, name: str, node: Running, ledger: Ledger, seed: int) -> None:
        self._name = name
        self._node = node
        self._ledger = ledger
        self._random = random.Random(f"{name} {seed}")
        self._mine: list[Person] = []

    async def run(self) -> None:
        acts: list[Callable[[], Awaitable[None]]] = [
            self._harvest,
            self._harvest,
            self._put,
            self._import,
            self._delete,
            self._again,
        ]
        try:
            while True:
                await self._random.choice(acts)()
        except Unavailable:
            return

    async def _obtain(self, act: Callable[[Person], Awaitable[list[str]]]) -> None:
        person = Person(f"{self._name}-{self._random.getrandbits(40):x}")
        self._ledger.doubt(person)
        assert await act(person) == ["CACHED"]
        self._ledger.keep(person)
        self._mine.append(person)
        (key,) = (await self._node.find(person.fingerprint)).keys
        self._ledger.times[person.fingerprint] = times_of(key)

    async def _harvest(self) -> None:
        async def act(person: Person) -> list[str]:
            return [(await self._node.harvest(person.mail())).verdict]

        await self._obtain(act)

    async def _put(self) -> None:
        async def act(person: Person) -> list[str]:
            return [key.verdict for key in (await self._node.put(person.material, person.address)).keys]

        await self._obtain(act)

    async def _import(self) -> None:
        age = timedelta(days=self._random.randrange(998))

        async def act(person: Person) -> list[str]:
            return await self._node.import_lines([person.line({Origin.IMPORTED: age}, present())])

        await self._obtain(act)

    async def _delete(self) -> None:
        if self._mine:
            person = self._mine.pop(self._random.randrange(len(self._mine)))
            self._ledger.doubt(person)
            assert (await self._node.delete(person.fingerprint)).deleted == 1
            self._ledger.remove(person)

    async def _again(self) -> None:
        """A mail from somebody who is known: it may write nothing that moves a time back."""
        if self._mine:
            person = self._random.choice(self._mine)
            self._ledger.times.pop(person.fingerprint, None)
            assert (await self._node.harvest(person.mail())).verdict in {"ALREADY_FRESH", "REFRESHED"}
            (key,) = (await self._node.find(person.fingerprint)).keys
            self._ledger.times[person.fingerprint] = times_of(key)


async def check(node: Running, ledger: Ledger) -> None:
    """The node against the ledger; then the ledger knows what became of the acts that were cut off."""
    lines = await node.export()
    status = await node.status()
    assert status.digest == digest_of(lines.values())
    assert (status.entries.live, status.entries.expired, status.entries.held) == (len(lines), 0, 0)
    assert set(ledger.kept) <= set(lines)
    assert not set(ledger.gone) & set(lines)
    assert set(lines) <= set(ledger.kept) | set(ledger.unknown)
    everybody = {**ledger.kept, **ledger.gone, **ledger.unknown}
    assert await node.served(person.address for person in everybody.values()) == {everybody[one].address for one in lines}
    for fingerprint, times in ledger.times.items():
        if fingerprint in lines:
            assert [times_of(key) for key in (await node.find(fingerprint)).keys] == [times]
    for fingerprint, person in list(ledger.unknown.items()):
        (ledger.keep if fingerprint in lines else ledger.remove)(person)


def killed_while_it_starts(data_dir: Path, seconds: float) -> None:
    process = subprocess.Popen(
        [EXECUTABLE, "serve", "--data-dir", data_dir],
        env={**OWN_ENVIRONMENT, "KEYCACHE_LISTEN__GRPC": "127.0.0.1:0", "KEYCACHE_LISTEN__METRICS": "off"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(seconds)
    process.kill()
    process.wait()


async def test_a_node_killed_again_and_again_under_load_keeps_every_acknowledged_key_and_no_deleted_one(tmp_path: Path) -> None:
    ledger, chance = Ledger(), random.Random(2)
    for number in range(ROUNDS):
        async with running(tmp_path, WORKERS__COUNT="2") as node:
            await check(node, ledger)
            begun = ledger.acknowledged
            clients = [Client(f"client{one}", node, ledger, number) for one in range(4)]
            async with asyncio.TaskGroup() as group:
                for client in clients:
                    group.create_task(client.run())
                await _until_acknowledged(ledger, begun + WARM_UP)
                await asyncio.sleep(chance.uniform(0.0, 0.6))
                workers = children(node.pid)
                node.kill()
            assert await all_gone(workers), "workers end with their node"
        if number % 2:
            await asyncio.to_thread(killed_while_it_starts, tmp_path, chance.uniform(0.1, 1.2))
    async with running(tmp_path) as node:
        await check(node, ledger)
        assert len(ledger.kept) > ROUNDS
        assert ledger.gone


async def _until_acknowledged(ledger: Ledger, count: int) -> None:
    async def look() -> bool | None:
        return True if ledger.acknowledged >= count else None

    await eventually(look)


async def test_who_asks_a_killed_node_is_told_that_it_is_not_reached(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.kill()
        with pytest.raises(Unreachable) as caught:
            await node.lookup("a@people.example")
        assert isinstance(caught.value, KeycacheError)
        assert "keycache serve" in caught.value.hint
