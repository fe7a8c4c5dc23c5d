"""Mail goes on while a cluster changes: a client that knows all nodes gets every key that it asks for, at every moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from keycache.client import connect, connect_cluster
from keycache.domain.entry import Origin
from keycache.domain.errors import KeycacheError
from keycache.v1 import cache_pb2
from support.command import spawn
from support.forming import filled, keycache, places, token_of
from support.scenario import eventually, running
from support.scenario_people import Person, people

PACE_SECONDS = 0.02
"""Between two lookups of one caller: some hundred a second in all, which leaves the machine to the nodes."""

AFTERWARDS_SECONDS = 2.0
"""Of load after each change, since trouble may come late."""

ENOUGH = 50
"""Right answers that each client has to get between two changes, so that nobody was just waiting: a twentieth of a quiet machine's."""

DAY = timedelta(days=1)

Lookup = Callable[[cache_pb2.LookupRequest], Awaitable[cache_pb2.LookupResponse]]


@dataclass
class Load:
    """One client's lookups: of keys that are there, so each must find just its own."""

    name: str
    lookup: Lookup
    known: Sequence[Person]
    right: int = 0
    wrong: list[str] = field(default_factory=list)

    async def caller(self, seed: str) -> None:
        chance = random.Random(seed)
        while True:
            person = chance.choice(self.known)
            try:
                result = (await self.lookup(cache_pb2.LookupRequest(address=person.address))).result
            except KeycacheError as error:
                self.wrong.append(f"{self.name}: {error}")
            else:
                if [found.key.fingerprint for found in result.keys] == [person.fingerprint]:
                    self.right += 1
                else:
                    self.wrong.append(f"{self.name}: {person.address}: {result}")
            await asyncio.sleep(PACE_SECONDS)

    @asynccontextmanager
    async def running(self, callers: int = 2) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.caller(f"{self.name} {number}")) for number in range(callers)]
        try:
            yield
        finally:
            ended = [task for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in ended:
                task.result()  # a mistake of this test


async def certified(folder: Path, out: Path) -> dict[str, Path]:
    """A mail processor's files, as arguments of `connect`."""
    words = ("client", "issue", "--role", "mail-processor", "--name", "mta", "--out", out, "--data-dir", folder)
    done = await asyncio.to_thread(spawn, *words)
    assert done.returncode == 0, done.stderr
    return {"ca": out / "ca.pem", "certificate": out / "mta.pem", "key": out / "mta.key"}


async def still_right(loads: Sequence[Load], after: str) -> None:
    """No client had a wrong answer or none, during that change and for a while after it."""
    before = [one.right for one in loads]
    await asyncio.sleep(AFTERWARDS_SECONDS)

    async def enough() -> bool | None:
        return True if all(one.right - so_far > ENOUGH for one, so_far in zip(loads, before, strict=True)) else None

    assert await eventually(enough), after
    assert [wrong for one in loads for wrong in one.wrong] == [], after


async def test_no_lookup_fails_while_one_joins_one_leaves_and_two_are_killed(tmp_path: Path) -> None:
    folders = first, second, third, fourth = [tmp_path / name for name in ("first", "second", "third", "fourth")]
    settings = {folder: places() for folder in folders}
    target = {folder: settings[folder]["LISTEN__GRPC"] for folder in folders}
    known = people("known", 40)
    loads: list[Load] = []
    async with AsyncExitStack() as nodes, AsyncExitStack() as clients:
        host = await nodes.enter_async_context(running(first, **settings[first]))
        await filled(host, known, {Origin.HARVESTED: 200 * DAY})
        files = await certified(first, tmp_path / "mta")

        async def knowing(*order: Path, until: AsyncExitStack = clients) -> None:
            connected = await until.enter_async_context(connect_cluster([target[one] for one in order], **files))
            load = Load("/".join(one.name for one in order), connected.lookup, known)
            await until.enter_async_context(load.running())
            loads.append(load)

        async with AsyncExitStack() as alone:
            await knowing(first, until=alone)
            await keycache(first, "cluster", "create", "--name", "mail")
            await still_right(loads, "it began a cluster")
        victim, _ = [await nodes.enter_async_context(running(folder, **settings[folder])) for folder in (second, third)]
        for folder in (second, third):
            await keycache(folder, "cluster", "join", "--token", await token_of(first))
        loads.clear()
        for order in ((first, second, third), (second, third, first), (third, first, second)):
            await knowing(*order)
        await still_right(loads, "three nodes")

        await nodes.enter_async_context(running(fourth, **settings[fourth]))
        await keycache(fourth, "cluster", "join", "--token", await token_of(second))
        await knowing(fourth, third, second, first)
        await still_right(loads, "the fourth joined")

        await keycache(third, "cluster", "leave", "--yes")
        await still_right(loads, "the third left")

        async with connect(target[second], **files) as plain:
            control = Load("control", lambda request: plain.call(plain.cache.Lookup, request), known)
            async with control.running():
                await asyncio.sleep(0.5)
                victim.kill()
                await still_right(loads, "the second was killed")
        assert control.wrong, "a client that knew the killed node alone noticed nothing: this load would see no failure"

        await nodes.enter_async_context(running(second, **settings[second]))
        await still_right(loads, "the second came back")
        host.kill()
        await still_right(loads, "the first was killed")
