"""Parser workers that are killed or stopped, and a node that is stopped for a while: every call is answered, the node goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

from support.scenario import Running, children, eventually, running
from support.scenario_people import Person, people

MIB = 1024 * 1024


async def some_worker(node: Running) -> set[int]:
    async def look() -> set[int] | None:
        return children(node.pid) or None

    return await eventually(look)


def send(number: int, pids: set[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue  # ended meanwhile


async def look_up_until(node: Running, address: str, ended: asyncio.Event) -> int:
    """Ask again and again; how often it was answered. Raises if it is not, even once."""
    count = 0
    while not ended.is_set():
        assert await node.outcome(address) == "served"
        count += 1
    return count


async def test_all_workers_killed_twice_under_load_cost_some_verdicts_and_no_answer(tmp_path: Path) -> None:
    known, who, ended = Person("known"), people("worker", 40), asyncio.Event()
    async with running(tmp_path, WORKERS__COUNT="2") as node:
        await node.harvest(known.mail())
        async with asyncio.TaskGroup() as group:
            lookups = group.create_task(look_up_until(node, known.address, ended))
            calls = [group.create_task(node.harvest(person.mail(padding=MIB))) for person in who]
            waiting = {*calls}
            # Twice: a worker that dies three times before it is ready is a worker that cannot be had, which callers are told.
            for _ in range(2):
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                send(signal.SIGKILL, await some_worker(node))
            await asyncio.wait(calls)
            ended.set()
        verdicts = [call.result().verdict for call in calls]
        assert set(verdicts) <= {"CACHED", "PARSER_LIMIT"}, Counter(verdicts)
        assert verdicts.count("PARSER_LIMIT") <= 4, "one for each worker that was killed at most"
        assert lookups.result() > 0
        kept = {person.address for person, verdict in zip(who, verdicts, strict=True) if verdict == "CACHED"}
        assert await node.served(person.address for person in who) == kept
        again = next((person for person in who if person.address not in kept), Person("after"))
        assert (await node.harvest(again.mail())).verdict == "CACHED"


async def test_a_worker_that_is_stopped_is_replaced_once_its_time_is_over(tmp_path: Path) -> None:
    known, stuck, after = Person("known"), Person("stuck"), Person("after")
    async with running(tmp_path, WORKERS__COUNT="1", WORKERS__SECONDS="1") as node:
        await node.harvest(known.mail())
        stopped = await some_worker(node)
        send(signal.SIGSTOP, stopped)
        first = asyncio.create_task(node.harvest(stuck.mail()))
        second = asyncio.create_task(node.harvest(after.mail()))
        assert await node.outcome(known.address) == "served"
        answer = await first
        assert (answer.verdict, answer.detail) == ("PARSER_LIMIT", "It took longer than 3 seconds.")
        assert (await second).verdict == "CACHED"
        assert not stopped & children(node.pid)


async def test_a_node_that_is_stopped_for_a_while_answers_afterwards_and_trusts_its_clock(tmp_path: Path) -> None:
    known, who = Person("known"), people("paused", 10)
    async with running(tmp_path, WORKERS__COUNT="2", PURGE__INTERVAL="1s") as node:
        await node.harvest(known.mail())
        calls = [asyncio.create_task(node.harvest(person.mail())) for person in who]
        node.node.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(2.0)
        node.node.process.send_signal(signal.SIGCONT)
        assert {(await call).verdict for call in calls} == {"CACHED"}
        assert await node.outcome(known.address) == "served"
        assert (await node.status()).purge.state == "IDLE"
