"""Room for bytes: callers wait in order, and nothing is lost when one of them gives up."""

from __future__ import annotations

import asyncio

import pytest

from keycache.sandbox.room import Room


async def enter(room: Room, *sizes: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(room.enter(size)) for size in sizes]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


def inside(tasks: list[asyncio.Task[None]]) -> list[bool]:
    return [task.done() and not task.cancelled() for task in tasks]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_callers_enter_in_order_even_when_a_later_one_would_fit() -> None:
    room = Room(10)
    tasks = await enter(room, 6, 6, 1)
    assert inside(tasks) == [True, False, False]
    room.leave(6)
    await settle()
    assert (inside(tasks), room.held_bytes) == ([True, True, True], 7)


async def test_one_alone_has_room_however_much_it_brings() -> None:
    room = Room(10)
    tasks = await enter(room, 100, 1)
    assert inside(tasks) == [True, False]
    room.leave(100)
    await settle()
    assert (inside(tasks), room.held_bytes) == ([True, True], 1)


async def test_one_that_gives_up_waiting_lets_those_behind_it_in() -> None:
    room = Room(10)
    tasks = await enter(room, 6, 6, 1)
    tasks[1].cancel()
    await settle()
    assert (inside(tasks), room.held_bytes) == ([True, False, True], 7)


async def test_one_that_gives_up_in_the_moment_it_is_let_in_leaves_nothing_behind() -> None:
    """1. A leaves and B's bytes are counted. 2. B is cancelled before it wakes. 3. B's bytes are given back, and C enters."""
    room = Room(10)
    tasks = await enter(room, 6, 6, 6)
    room.leave(6)
    tasks[1].cancel()
    await settle()
    assert (inside(tasks), room.held_bytes) == ([True, False, True], 6)


async def test_after_closing_nobody_waits_and_nobody_enters() -> None:
    room = Room(10)
    tasks = await enter(room, 10, 5)
    room.close(ValueError("closed"))
    await settle()
    assert isinstance(tasks[1].exception(), ValueError)
    with pytest.raises(ValueError, match="closed"):
        await room.enter(1)
