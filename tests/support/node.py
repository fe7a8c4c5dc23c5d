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
from keycache.domain.ports import Clock, EntryLog, Examiner, Outbox, Presence, Replica
from keycache.replication.checking import RestartCheck
from keycache.replication.replicator import LOOK_AGAIN_SECONDS, RETRY_SECONDS, LinkState, Offload, Replicator
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import View
from keycache.store.memory import MemoryLog, MemoryOutbox, MemoryReplica
from support.entries import T0, record_of
from support.scripted_examiner import ScriptedExaminer


async def eventually(condition: Callable[[], bool]) -> None:
    """Until it holds, which must not take ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 -- what is waited for tells nobody
            await asyncio.sleep(0.001)


class ImpatientClock(ManualClock):
    """Waits of seconds, between two looks at a log, take a moment; longer ones take until the clock is turned."""

    async def sleep(self, seconds: float) -> None:
        if seconds <= max(*RETRY_SECONDS, LOOK_AGAIN_SECONDS):
            await asyncio.sleep(0.002)
        else:
            await super().sleep(seconds)


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
        name: str = "node-1",
        anchors: tuple[bytes, ...] = (),
        adapt: Callable[[KeyCache], None] = lambda _cache: None,
    ) -> None:
        """`adapt` is given each KeyCache after it was built and before it runs."""
        self.log: EntryLog = log or MemoryLog()
        self.replica: Replica = replica or MemoryReplica()
        self.outbox: Outbox = outbox or MemoryOutbox()
        self.presence: Presence | None = None
        self.script = ScriptedExaminer()
        self.clock = ImpatientClock(start)
        self.removed: list[int] = []
        self.name = name
        self._examiner: Examiner = examiner or self.script
        self._offload = offload
        self._adapt = adapt
        self._facts = NodeFacts(
            node_id=NodeId(name),
            version="0.0",
            policy=DirectionPolicy(managed_domains=tuple(Domain.parse(text) for text in managed)),
            anchors=anchors,
            purge_interval=interval,
            address=f"{name}.example.org:7640",
        )
        self._running: asyncio.Task[None] | None = None
        self._cache: KeyCache | None = None

    @property
    def cache(self) -> KeyCache:
        assert self._cache is not None, "the node does not run"
        return self._cache

    async def start(self) -> None:
        """Returns when lookups work, and writes as far as the log takes them. Raises what ends the node before that."""
        ports = Ports(
            log=self.log,
            replica=self.replica,
            outbox=self.outbox,
            examiner=self._examiner,
            clock=self.clock,
            offload=self._offload,
            presence=self.presence,
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
        await self._stood()

    async def _stood(self) -> None:
        """Until this node knows how it stands to the log, and the purger has nothing to do if it runs at all."""
        await self.until(LinkState.FOLLOWING, LinkState.SERVE_ONLY, LinkState.REFUSED)
        if self.cache.replicator.state is LinkState.FOLLOWING:
            await self.cache.purger.resting.wait()

    async def until(self, *states: LinkState) -> None:
        """Until this node stands so to its log."""
        await eventually(lambda: self.cache.replicator.state in states)

    async def looked_again(self) -> None:
        """Until the log was looked at once more, and this node knows how it stands to it."""
        before = self.cache.replicator.report
        await eventually(lambda: self.cache.replicator.report is not before)
        await self._stood()

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        self._running = self._cache = None

    async def restart(self, *, down: timedelta = timedelta(), clock_moves: timedelta | None = None) -> None:
        """Stop, let `down` pass, start. `clock_moves`: what the wall clock made of that time, where it is not the same."""
        await self.stop()
        self.clock = ImpatientClock(self.clock.now() + (down if clock_moves is None else clock_moves))
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


def make_replicator(
    *,
    log: EntryLog,
    replica: Replica,
    view: View,
    clock: Clock,
    timekeeper: Timekeeper | None = None,
    offload: Offload = asyncio.to_thread,
    name: str = "node-1",
) -> Replicator:
    """The replicator of a node without its flows."""
    keeper = timekeeper or Timekeeper(clock=clock, replica=replica, offload=offload)
    check = RestartCheck(log=log, replica=replica, view=view, timekeeper=keeper, node_id=NodeId(name))
    return Replicator(log=log, replica=replica, view=view, clock=clock, offload=offload, check=check)


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
