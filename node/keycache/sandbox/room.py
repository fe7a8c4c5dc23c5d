"""How many bytes may be held at once: callers beyond wait, in the order of their arrival. Nothing is refused."""

from __future__ import annotations

import asyncio
from collections import deque


class Room:
    """Of `limit` bytes. One caller alone always has room, however much it brings."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._closed: Exception | None = None
        self.held_bytes = 0

    async def enter(self, size: int) -> None:
        """Returns once the bytes are counted; `leave` them afterwards. Raises what `close` was given."""
        if self._closed is not None:
            raise self._closed
        if not self._waiting and self._has(size):
            self.held_bytes += size
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, waiter))
        try:
            await waiter
        except asyncio.CancelledError:
            # `leave` counted the bytes before it woke us; the cancellation came in between.
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.leave(size)
            else:
                self._admit()
            raise

    def leave(self, size: int) -> None:
        self.held_bytes -= size
        self._admit()

    def close(self, error: Exception) -> None:
        """Whoever waits, or comes later, gets `error`."""
        self._closed = error
        while self._waiting:
            waiter = self._waiting.popleft()[1]
            if not waiter.done():
                waiter.set_exception(error)

    def _admit(self) -> None:
        while self._waiting:
            size, waiter = self._waiting[0]
            if not waiter.done() and not self._has(size):
                return
            self._waiting.popleft()
            if not waiter.done():
                self.held_bytes += size
                waiter.set_result(None)

    def _has(self, size: int) -> bool:
        return not self.held_bytes or self.held_bytes + size <= self._limit
