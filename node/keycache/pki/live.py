"""A running node's certificates as they are now, and those who must hear when they change. Nobody keeps a `NodePki` for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from keycache.pki.authority import Issued
from keycache.pki.identity import Role
from keycache.pki.node import NodePki


class LivePki:
    """`now`: what the node shows and trusts. `alone`: held by whoever changes the files, so that one change at a time is made."""

    def __init__(self, pki: NodePki) -> None:
        self.now = pki
        self.alone = asyncio.Lock()
        self._takers: list[Callable[[NodePki], None]] = []

    def tell(self, taker: Callable[[NodePki], None]) -> None:
        """Call it with every later state, in the order in which they were named."""
        self._takers.append(taker)

    async def renew(self, moment: datetime) -> bool:
        """Renew what has less than a third of its life left; whether there was anything. Raises ConfigError; then all is as it was."""
        if not self.now.is_due(moment):
            return False
        async with self.alone:
            await self.read(moment)
        return True

    async def read(self, moment: datetime) -> None:
        """Take what stands on disk. For who holds `alone`. Raises ConfigError."""
        self.now = await asyncio.to_thread(self.now.renewed, moment)
        for taker in self._takers:
            taker(self.now)

    def sign_client(self, csr: bytes, *, role: Role, name: str, now: datetime) -> Issued:
        """As `NodePki.sign_client`."""
        return self.now.sign_client(csr, role=role, name=name, now=now)
