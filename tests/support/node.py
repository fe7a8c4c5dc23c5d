"""A node's flows without its edges: a KeyCache on the shipped fakes and a clock turned by hand, which can be restarted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from keycache.cache import KeyCache, NodeFacts, Ports, build
from keycache.clock import ManualClock
from keycache.codec import decode_entry
from keycache.domain.entry import Entry, Protocol
from keycache.domain.examination import DirectionPolicy, Envelope
from keycache.domain.log import ENTRIES, Transaction
from keycache.domain.names import Domain, Fingerprint, NodeId
from keycache.domain.ports import EntryLog, Examiner, Outbox, Replica
from keycache.replication.replicator import Offload
from keycache.store.memory import MemoryLog, MemoryOutbox, MemoryReplica
from support.entries import T0, record_of
from support.scripted_examiner import ScriptedExaminer

NEVER = timedelta(days=100_000)
"""An interval for the purger that no test reaches: sweeps are asked for by name, so nothing depends on who runs first."""

ENVELOPE = Envelope()


class Node:
    """One node. What outlives its process (log, replica, outbox, wall clock) stays over `restart`; `cache` is of the running process."""

    def __init__(
        self,
        *,
        start: datetime = T0,
        log: EntryLog | None = None,
        replica: Replica | None = None,
        outbox: Outbox | None = None,
        examiner: Examiner | None = None,
        managed: tuple[str, ...] = (),
        offload: Offload = asyncio.to_thread,
        interval: timedelta = NEVER,
        anchors: tuple[bytes, ...] = (),
        adapt: Callable[[KeyCache], None] = lambda _cache: None,
    ) -> None:
        """`adapt` is given each KeyCache after it was built and before it runs."""
        self.log: EntryLog = log or MemoryLog()
        self.replica: Replica = replica or MemoryReplica()
        self.outbox: Outbox = outbox or MemoryOutbox()
        self.script = ScriptedExaminer()
        self.clock = ManualClock(start)
        self.removed: list[int] = []
        self._examiner: Examiner = examiner or self.script
        self._offload = offload
        self._adapt = adapt
        self._facts = NodeFacts(
            node_id=NodeId("node-1"),
            version="0.0",
            policy=DirectionPolicy(managed_domains=tuple(Domain.parse(text) for text in managed)),
            anchors=anchors,
            purge_interval=interval,
        )
        self._running: asyncio.Task[None] | None = None
        self._cache: KeyCache | None = None

    @property
    def cache(self) -> KeyCache:
        assert self._cache is not None, "the node does not run"
        return self._cache

    async def start(self) -> None:
        """Returns when lookups and writes work. Raises what ends the node before that."""
        ports = Ports(
            log=self.log,
            replica=self.replica,
            outbox=self.outbox,
            examiner=self._examiner,
            clock=self.clock,
            offload=self._offload,
        )
        self._cache = build(ports, self._facts, on_removed=self.removed.append)
        self._adapt(self._cache)
        ready = asyncio.Event()
        self._running = asyncio.create_task(self._cache.run(ready))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait((waiting, self._running), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._running.done():
            self._running.result()
        await self._cache.purger.resting.wait()

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        self._running = self._cache = None

    async def restart(self, *, down: timedelta = timedelta(), clock_moves: timedelta | None = None) -> None:
        """Stop, let `down` pass, start. `clock_moves`: what the wall clock made of that time, where it is not the same."""
        await self.stop()
        self.clock = ManualClock(self.clock.now() + (down if clock_moves is None else clock_moves))
        await self.start()

    async def settle(self) -> None:
        """Until this node has applied all that is in the log, and the purger has nothing to do."""
        while True:
            await self.cache.purger.resting.wait()
            head = await self.log.head()
            await self.cache.replicator.reach(head)
            if self.cache.purger.resting.is_set() and await self.log.head() == head:
                return

    async def sweep(self) -> int:
        """One tick of the purger, on an up-to-date replica; the number of entries removed."""
        before = sum(self.removed)
        await self.settle()
        await self.cache.purger.tick()
        await self.settle()
        return sum(self.removed) - before

    async def seed(self, *entries: Entry) -> None:
        """Entries put into the log as they are, as if by another node."""
        for start in range(0, len(entries), 100):
            puts = dict(record_of(entry) for entry in entries[start : start + 100])
            await self.log.commit(Transaction(compare={}, puts=puts))
        await self.settle()

    async def in_log(self) -> dict[str, Entry]:
        """Every entry in the log, by fingerprint."""
        found = {}
        async for page in self.log.list():
            for record in page.records:
                if record.key.startswith(ENTRIES):
                    entry = decode_entry(record.value)
                    found[entry.key.fingerprint.text] = entry
        return found

    def entry(self, fingerprint: Fingerprint, protocol: Protocol = Protocol.SMIME) -> Entry | None:
        stored = self.replica.entry(protocol, fingerprint)
        return None if stored is None else stored.entry

    def served(self, address: str) -> list[str]:
        """Fingerprints that a lookup of the address answers."""
        return [found.row.fingerprint for found in self.cache.lookups.by_address(address).keys]


@asynccontextmanager
async def running_node(*entries: Entry, node: Node | None = None) -> AsyncIterator[Node]:
    """A node that runs, with these entries in it."""
    node = node or Node()
    await node.start()
    try:
        await node.seed(*entries)
        yield node
    finally:
        await node.stop()
