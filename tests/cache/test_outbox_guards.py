"""For each guard around the outbox (DESIGN 2.6): taken out, something acknowledged is lost, or something deleted comes back; in place,
it is not.

Each scenario runs twice, on the real thing and on a mutant that lacks just this guard.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keycache.cache.delivery import Delivery, _Item
from keycache.cache.holdings import Holdings
from keycache.cache.writer import Decide, Writer, Written
from keycache.codec import encode_entry
from keycache.domain.entry import Defect, Entry, Protocol
from keycache.domain.log import DELETIONS, CommitResult, Record, Transaction, entry_key
from keycache.domain.lookup import Row
from keycache.domain.names import Fingerprint, Revision
from keycache.domain.outbox import Fate, Pending
from keycache.domain.ports import Outbox, StoredEntry
from keycache.store import open_store
from keycache.store.memory import MemoryOutbox
from support.entries import T0, fingerprint_of, make_entry, make_key, make_sighting, put, record_of
from support.lines import Line, Member, Once, cluster
from support.node import ENVELOPE, Node

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
PGP: dict[str, Any] = {"protocol": Protocol.OPENPGP}

Scenario = Callable[..., Awaitable[bool]]
"""Whether something went wrong. Its argument: the real class, or a mutant."""


async def harvest(node: Node, *shown) -> None:
    await node.cache.harvesting.harvest(node.script.mail(*shown), ENVELOPE)


class Killed(BaseException):
    pass


async def die(_transaction: Transaction) -> None:
    raise Killed


def give(node: Member, part: str, mutant: type) -> None:
    """That class in the place of the part's own, on the same state."""
    owner: Any = node.cache
    *path, last = part.split(".")
    for name in path:
        owner = getattr(owner, name)
    getattr(owner, last).__class__ = mutant


# the order of the delivery's steps
class RemovingFirst(Delivery):
    async def _send(self, items: Sequence[_Item]) -> int:
        await self._offload(self._outbox.remove, [item.pending for item in items])
        return await super()._send(items)


class NotWaitingForTheReplica(Delivery):
    async def deliver(self) -> int:
        real, self._replicator = self._replicator, Hasty(self._replicator)  # type: ignore[assignment]
        try:
            return await super().deliver()
        finally:
            self._replicator = real


class Hasty:
    def __init__(self, replicator: Any) -> None:
        self.applied = replicator.applied

    async def reach(self, revision: int, *, timeout_seconds: float = 5.0) -> None:
        return None


async def killed_at_the_commit(delivery: type[Delivery]) -> bool:
    """Whether the key is lost."""
    async with cluster() as (a, _):
        a.line.cut()
        await harvest(a, make_key(1))
        await a.mended()
        give(a, "delivery", delivery)
        a.line.before = die
        with contextlib.suppress(Killed):
            await a.cache.delivery.deliver()
        return a.answered("user1@example.org") == []


async def looked_up_just_after_it_left_the_outbox(delivery: type[Delivery]) -> bool:
    """Whether a lookup misses the key."""

    class Looking(MemoryOutbox):
        def remove(self, delivered: Iterable[Pending]) -> None:
            super().remove(delivered)
            missed.append(a.answered("user1@example.org") == [])

    missed: list[bool] = []
    async with cluster(outbox=Looking()) as (a, _):
        a.line.cut()
        await harvest(a, make_key(1))
        await a.mended()
        give(a, "delivery", delivery)
        await a.cache.delivery.deliver()
        return any(missed)


# administrators' removals
class IgnoringDeletions(Delivery):
    async def _decided(
        self, pending: Pending, known: StoredEntry | None, deletion: Record | None, seen: Revision, attempt: int
    ) -> _Item:
        item = await super()._decided(pending, known, None, seen, attempt)
        return replace(item, compare={key: at for key, at in item.compare.items() if not key.startswith(DELETIONS)})


class NotComparingDeletions(Delivery):
    async def _decided(
        self, pending: Pending, known: StoredEntry | None, deletion: Record | None, seen: Revision, attempt: int
    ) -> _Item:
        item = await super()._decided(pending, known, deletion, seen, attempt)
        return replace(item, compare={key: at for key, at in item.compare.items() if not key.startswith(DELETIONS)})


async def deleted_while_the_node_was_cut_off(delivery: type[Delivery]) -> bool:
    """Whether the key comes back."""
    async with cluster(make_entry(1, make_sighting(cached_at=T0 - 2 * DAY))) as (a, b):
        a.line.cut()
        await harvest(a, make_key(1))
        b.clock.advance(MINUTE)
        await b.cache.entries.delete(fingerprint_of(1).text, "anna")
        await a.mended()
        give(a, "delivery", delivery)
        await a.deliver()
        return await b.in_log() != {}


async def deleted_between_decision_and_delivery(delivery: type[Delivery]) -> bool:
    """Whether the key comes back."""
    async with cluster() as (a, b):
        a.line.cut()
        await harvest(a, make_key(1))
        await a.mended()

        async def put_and_delete() -> None:
            await harvest(b, make_key(1))
            await b.cache.entries.delete(fingerprint_of(1).text, "anna")

        give(a, "delivery", delivery)
        a.line.before = Once(put_and_delete)
        await a.deliver()
        return await b.in_log() != {}


# what others wrote
class Overwriting(Delivery):
    async def _decided(
        self, pending: Pending, known: StoredEntry | None, deletion: Record | None, seen: Revision, attempt: int
    ) -> _Item:
        item = await super()._decided(pending, known, deletion, seen, attempt)
        name = entry_key(pending.entry.key.protocol, pending.entry.key.fingerprint)
        return replace(item, fate=Fate.WRITE, puts={name: encode_entry(pending.entry)})


class NotComparingEntries(Line):
    async def commit(self, transaction: Transaction) -> CommitResult:
        return await super().commit(replace(transaction, compare={}))


async def revoked_elsewhere_meanwhile(delivery: type[Delivery]) -> bool:
    """Whether the revocation is lost."""
    async with cluster(make_entry(1, make_sighting(cached_at=T0 - 2 * DAY))) as (a, b):
        a.line.cut()
        await harvest(a, make_key(1))
        await harvest(b, make_key(1, defect=Defect.REVOKED))
        await a.mended()
        give(a, "delivery", delivery)
        await a.deliver()
        (entry,) = (await b.in_log()).values()
        return entry.key.defect is None


async def refreshed_in_the_moment_of_delivery(line: type[Line]) -> bool:
    """Whether the other node's address is lost."""
    async with cluster() as (a, b):
        a.line.cut()
        await harvest(a, make_key(1))
        await a.mended()
        a.line.__class__ = line
        theirs = make_entry(1, addresses=["theirs@example.org"])
        a.line.before = Once(lambda: b.log.commit(Transaction(compare={}, puts=dict([record_of(theirs)]))))
        await a.deliver()
        (entry,) = (await b.in_log()).values()
        return len(entry.key.addresses) == 1


# the outbox
@contextmanager
def durable(folder: Path) -> Iterator[Outbox]:
    store = open_store(folder)
    try:
        yield store.outbox
    finally:
        store.close()


@contextmanager
def volatile(folder: Path) -> Iterator[Outbox]:
    yield MemoryOutbox()


async def the_process_ends_while_a_key_waits(outbox: Callable) -> bool:
    """Whether the key is lost."""
    with tempfile.TemporaryDirectory() as folder:
        with outbox(Path(folder)) as first:
            async with cluster(outbox=first) as (a, _):
                a.line.cut()
                await harvest(a, make_key(1))
        with outbox(Path(folder)) as second:
            return second.count == 0


class RemovingAnyVersion(MemoryOutbox):
    def remove(self, delivered: Iterable[Pending]) -> None:
        names = {(one.entry.key.protocol, one.entry.key.fingerprint) for one in delivered}
        self._waiting = {name: one for name, one in self._waiting.items() if name not in names}


class DroppingFurtherRecords(MemoryOutbox):
    def put(self, entry: Entry, puts: Mapping[str, bytes], at: datetime) -> None:
        self._waiting.pop((entry.key.protocol, entry.key.fingerprint), None)
        super().put(entry, puts, at)


async def seen_again_while_it_is_delivered(outbox: type[MemoryOutbox]) -> bool:
    """Whether the second mail's address is lost."""
    async with cluster(outbox=outbox()) as (a, b):
        a.line.cut()
        await harvest(a, make_key(1))
        await a.mended()
        a.line.before = Once(lambda: harvest(a, make_key(1, addresses=["new@example.org"])))
        await a.deliver()
        await b.settle()
        return b.answered("new@example.org") == []


async def seen_twice_first_with_its_intermediate(outbox: type[MemoryOutbox]) -> bool:
    """Whether the intermediate is lost."""
    async with cluster(outbox=outbox()) as (a, b):
        a.line.cut()
        await a.cache.harvesting.harvest(a.script.mail(make_key(1), chain=(b"ca",)), ENVELOPE)
        await harvest(a, make_key(1, addresses=["new@example.org"]))
        await a.mended()
        await a.deliver()
        await b.settle()
        return not b.cache._view.chain


# the lookups and the writer
class ReplicaFirst(Holdings):
    def lookup(self, addresses: Sequence[str]) -> Mapping[str, Sequence[Row]]:
        known = self._replica.lookup(addresses)
        waiting = self.waiting(addresses)
        return {index: self._overlaid(known.get(index, ()), waiting.get(index, ())) for index in {*known, *waiting}}


async def delivered_between_the_two_reads_of_a_lookup(holdings: type[Holdings]) -> bool:
    """Whether the lookup misses the key."""

    def leave() -> None:
        a.replica.apply([put(make_entry(1), 50)], replace(a.replica.cursor(), revision=Revision(50)))
        a.outbox.clear()

    def then_leave(read: Callable) -> Callable:
        def reading(addresses: Sequence[str]) -> dict[str, list[Row]]:
            found = read(addresses)
            leave()
            return found

        return reading

    async with cluster() as (a, _):
        a.outbox.put(make_entry(1), {}, T0)
        give(a, "lookups._holdings", holdings)
        for part, name in ((a.outbox, "rows"), (a.replica, "lookup")):
            setattr(part, name, then_leave(getattr(part, name)))
        return not a.cache.lookups.by_address("user1@example.org").keys


class WithoutTurns(Writer):
    async def _enqueue(self, protocol: Protocol, fingerprint: Fingerprint, decide: Decide) -> Written:
        self._turns.clear()
        return await super()._enqueue(protocol, fingerprint, decide)


async def two_mails_with_one_key_at_once(writer: type[Writer]) -> bool:
    """Whether an address is lost."""
    async with cluster() as (a, _):
        a.line.cut()
        await harvest(a, replace(make_key(1, **PGP, addresses=["a@x.example"]), material=b"1"))
        give(a, "_writer", writer)
        merge = a.script.merge

        async def slowly(*keys: Any) -> Any:
            await asyncio.sleep(0)
            return await merge(*keys)

        a.script.merge = slowly  # type: ignore[method-assign]
        mails = [replace(make_key(1, **PGP, addresses=[f"{one}@x.example"]), material=one.encode()) for one in ("2", "3")]
        await asyncio.gather(*(harvest(a, mail) for mail in mails))
        (entry,) = a.waiting()
        return len(entry.key.addresses) < 3


GUARDS: list[tuple[Scenario, Any, Any]] = [
    (killed_at_the_commit, Delivery, RemovingFirst),
    (looked_up_just_after_it_left_the_outbox, Delivery, NotWaitingForTheReplica),
    (deleted_while_the_node_was_cut_off, Delivery, IgnoringDeletions),
    (deleted_between_decision_and_delivery, Delivery, NotComparingDeletions),
    (revoked_elsewhere_meanwhile, Delivery, Overwriting),
    (refreshed_in_the_moment_of_delivery, Line, NotComparingEntries),
    (the_process_ends_while_a_key_waits, durable, volatile),
    (seen_again_while_it_is_delivered, MemoryOutbox, RemovingAnyVersion),
    (seen_twice_first_with_its_intermediate, MemoryOutbox, DroppingFurtherRecords),
    (delivered_between_the_two_reads_of_a_lookup, Holdings, ReplicaFirst),
    (two_mails_with_one_key_at_once, Writer, WithoutTurns),
]


@pytest.mark.parametrize(("scenario", "real", "mutant"), GUARDS, ids=[scenario.__name__ for scenario, _, _ in GUARDS])
async def test_with_the_guard_nothing_is_lost_and_without_it_something_is(scenario: Scenario, real: Any, mutant: Any) -> None:
    assert not await scenario(real)
    assert await scenario(mutant)
