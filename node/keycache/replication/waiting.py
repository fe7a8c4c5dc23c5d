"""Waiting for one thing, unless another comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def unless(event: asyncio.Event, wanted: Awaitable[T]) -> T | None:
    """The outcome of `wanted`; None, and `wanted` is cancelled, when the event is set before it is done."""
    told = asyncio.ensure_future(wanted)
    asked = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((told, asked), return_when=asyncio.FIRST_COMPLETED)
        return told.result() if told.done() else None
    finally:
        told.cancel()
        asked.cancel()
        await asyncio.gather(told, asked, return_exceptions=True)
