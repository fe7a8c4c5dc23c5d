"""A node that is told to stop finishes what it has begun, refuses the rest plainly, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections import Counter
from pathlib import Path

import grpc
import pytest

from keycache.domain.errors import Unavailable
from support.command import EXECUTABLE, OWN_ENVIRONMENT
from support.scenario import Running, all_gone, children, eventually, running
from support.scenario_people import Person, people

MIB = 1024 * 1024


async def answer(node: Running, person: Person) -> str:
    """The verdict on a mail of some size, or gRPC's code where there is none."""
    try:
        return (await node.harvest(person.mail(padding=MIB // 2))).verdict
    except Unavailable as error:
        cause = error.__cause__
        return cause.code().name if isinstance(cause, grpc.aio.AioRpcError) else repr(cause)


async def call_until_refused(node: Running) -> str:
    """What somebody is told who only now begins to call, and goes on while he is answered."""
    number = itertools.count()
    while True:
        try:
            assert (await node.harvest(Person(f"late{next(number)}").mail())).verdict == "CACHED"
        except Unavailable as error:
            return error.code


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM, signal.SIGINT)],
    ids=["SIGTERM", "SIGINT", "impatient"],
)
async def test_harvests_in_flight_are_answered_or_refused_and_what_was_answered_is_kept(
    tmp_path: Path, signals: tuple[int, ...]
) -> None:
    who = people("leaving", 50)
    async with running(tmp_path, WORKERS__COUNT="2") as node:
        calls = [asyncio.create_task(answer(node, person)) for person in who]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        workers = children(node.pid)
        assert workers
        for number in signals:
            node.node.process.send_signal(number)
            await asyncio.sleep(0.05)  # else two of one kind are one
        late = asyncio.create_task(call_until_refused(node))
        answers = await asyncio.gather(*calls)
        assert await late in {"UNAVAILABLE", "NODE_UNREACHABLE"}
        assert await asyncio.to_thread(node.node.process.wait, 60) == 0
        assert not (tmp_path / "run.json").exists()
        assert await all_gone(workers)
    assert set(answers) <= {"CACHED", "UNAVAILABLE"}, Counter(answers)
    assert answers.count("CACHED") > 1, "what had reached the node was finished"
    kept = {person.address for person, verdict in zip(who, answers, strict=True) if verdict == "CACHED"}
    async with running(tmp_path) as node:
        assert await node.served(person.address for person in who) >= kept


async def test_a_node_stopped_before_it_is_ready_ends_well(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.put(Person("first").material, Person("first").address)
    process = await asyncio.create_subprocess_exec(
        EXECUTABLE,
        "serve",
        "--data-dir",
        tmp_path,
        stderr=asyncio.subprocess.PIPE,
        env={**OWN_ENVIRONMENT, "KEYCACHE_LISTEN__GRPC": "127.0.0.1:0", "KEYCACHE_LISTEN__METRICS": "off"},
    )

    async def look() -> bool | None:
        return True if (tmp_path / "keycache.db-wal").exists() else None  # the store is open: the signal's handler is there

    await eventually(look)
    process.send_signal(signal.SIGTERM)
    _, told = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, b"Traceback" in told) == (0, False)
    assert not (tmp_path / "run.json").exists()
