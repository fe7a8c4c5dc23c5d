"""Items worked on at once, answered in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from keycache.services.calls import in_order


class Bench:
    """Work that waits until told, and a list of what was written."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.cancelled: list[bytes] = []
        self.gates: dict[bytes, asyncio.Event] = {}
        self.written: list[bytes] = []
        self.moved = asyncio.Event()

    async def work(self, item: bytes) -> bytes:
        self.begun.append(item)
        gate = self.gates.setdefault(item, asyncio.Event())
        self.moved.set()
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(item)
            raise
        if item == b"bad":
            raise ValueError("bad")
        return item.upper()

    async def write(self, answer: bytes) -> None:
        self.written.append(answer)
        self.moved.set()

    async def until(self, begun: int) -> None:
        while len(self.begun) < begun:
            self.moved.clear()
            await self.moved.wait()


async def each(*items: bytes) -> AsyncIterator[bytes]:
    for item in items:
        yield item


async def test_answers_keep_the_order_whoever_is_done_first() -> None:
    bench = Bench()
    running = asyncio.create_task(in_order(each(b"a", b"b", b"c"), bench.work, bench.write, ahead=4))
    await bench.until(3)
    for item in (b"c", b"b"):
        bench.gates[item].set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert bench.written == []
    bench.gates[b"a"].set()
    await running
    assert bench.written == [b"A", b"B", b"C"]


async def test_no_more_than_the_limit_and_two_are_in_hand() -> None:
    bench = Bench()
    items = [bytes([number]) for number in range(65, 85)]
    running = asyncio.create_task(in_order(each(*items), bench.work, bench.write, ahead=4))
    await bench.until(6)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(bench.begun) == 6
    for item in items:
        bench.gates.setdefault(item, asyncio.Event()).set()
    await running
    assert bench.written == [item.upper() for item in items]


async def test_an_error_ends_the_work_on_the_others() -> None:
    bench = Bench()
    running = asyncio.create_task(in_order(each(b"bad", b"b", b"c"), bench.work, bench.write, ahead=4))
    await bench.until(3)
    bench.gates[b"bad"].set()
    with pytest.raises(ValueError, match="bad"):
        await running
    assert (bench.written, sorted(bench.cancelled)) == ([], [b"b", b"c"])
