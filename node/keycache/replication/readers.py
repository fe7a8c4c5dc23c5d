"""Those who are told every change of an entry as this node applies it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Literal

from keycache.domain.entry import Protocol

WATCHER_BACKLOG = 10_000
"""Changes a slow reader of `changes` may be behind before it is told that it lost some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One change as this node applied it. LOST: the reader was too slow or the replica was listed anew; read anew what you need."""

    kind: Literal["STARTED", "UPDATED", "REMOVED", "LOST"]
    revision: int
    protocol: Protocol | None = None
    fingerprint: str = ""
    addresses: tuple[str, ...] = ()


class Reader:
    """A bounded queue for one reader: full, it is emptied and LOST takes its place."""

    def __init__(self) -> None:
        self._queue: deque[Watched] = deque()
        self._filled = asyncio.Event()

    def put(self, watched: Watched) -> None:
        if len(self._queue) >= WATCHER_BACKLOG:
            self.lose(watched.revision)
        else:
            self._queue.append(watched)
            self._filled.set()

    def lose(self, revision: int) -> None:
        self._queue.clear()
        self._queue.append(Watched(kind="LOST", revision=revision))
        self._filled.set()

    async def next(self) -> Watched:
        while not self._queue:
            self._filled.clear()
            await self._filled.wait()
        return self._queue.popleft()
