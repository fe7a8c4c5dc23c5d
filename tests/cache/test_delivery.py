"""What waited is brought into the log when it takes writes again: all of it, in order, once, and joined with what others wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keycache.cache import chains
from keycache.cache.delivery import BATCH, BATCH_BYTES
from keycache.codec import encode_entry
from keycache.domain.entry import Defect, Origin, Protocol, Trust
from keycache.domain.errors import ForeignLog, KeycacheError, LogFull, LogUnavailable, StoreError
from keycache.domain.log import CHAIN, ENTRIES, Transaction, entry_key
from keycache.domain.outbox import Pending
from keycache.domain.verdict import Verdict
from keycache.store.memory import MemoryOutbox
from support.entries import T0, fingerprint_of, make_entry, make_key, make_sighting, record_of
from support.lines import LONGEST_WAIT, Member, Once, cluster, idle
from support.node import ENVELOPE, Node, eventually

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


async def harvest(node: Node, *shown, **mail) -> Verdict:
    return (await node.cache.harvesting.harvest(node.script.mail(*shown, **mail), ENVELOPE)).verdict


def written(node: Member) -> list[list[str]]:
    """Fingerprints that each transaction of this node put."""
    return [
        [key.rpartition("/")[2] for key in transaction.puts if key.startswith(ENTRIES)]
        for transaction in node.line.commits
        if any(key.startswith(ENTRIES) for key in transaction.puts)
    ]


def texts(*numbers: int) -> list[str]:
    return [fingerprint_of(number).text for number in numbers]


# in order, once, with all that belongs to it
async def test_everything_is_in_the_log_and_served_everywhere_and_nothing_waits() -> None:
    async with cluster(make_entry(9)) as (a, b):
        a.line.cut()
        await harvest(a, make_key(1), make_key(2), chain=(b"ca",))
        waiting = {entry.key.fingerprint.text: entry for entry in a.waiting()}
        await a.mended()
        await a.deliver()
        assert await b.in_log() == {**waiting, fingerprint_of(9).text: make_entry(9)}
        await b.settle()
        for node in (a, b):
            assert [node.answered(f"user{number}@example.org") for number in (1, 2)] == [texts(1), texts(2)]
            assert [record.value for record in node.replica.documents(CHAIN)] == [b"ca"]
        assert (a.outbox.count, a.outbox.size, a.waiting()) == (0, 0, [])
        assert a.replica.digest() == b.replica.digest()


async def test_the_oldest_goes_first_and_sixty_at_once() -> None:
    async with cluster() as (a, _):
        a.line.cut()
        numbers = [7 * number % 150 for number in range(150)]
        for number in numbers:
            await harvest(a, make_key(number))
        await a.mended()
        await a.deliver()
        assert [key for batch in written(a) for key in batch] == texts(*numbers)
        assert [len(batch) for batch in written(a)] == [BATCH, BATCH, 30]


async def test_large_ones_and_those_with_many_intermediates_go_in_smaller_transactions() -> None:
    """What etcd takes is checked by the line itself."""
    async with cluster() as (a, _):
        a.line.cut()
        for number in range(4):
            await harvest(a, make_key(number, material_size=BATCH_BYTES // 3))
        for number in range(4, 8):
            await harvest(a, make_key(number), chain=tuple(b"%d %d" % (number, other) for other in range(50)))
        await a.mended()
        await a.deliver()
        assert [len(batch) for batch in written(a)] == [2, 4, 2]
        assert len(a.replica.documents(CHAIN)) == 200


async def test_it_goes_by_itself_when_the_log_is_back_and_failures_are_waited_for() -> None:
    async with cluster(delivers=True) as (a, b):
        a.line.cut()
        await harvest(a, make_key(1))
        for error in (LogFull("Full."), ForeignLog("Another one."), None):
            await idle()
            assert a.outbox.count == 1
            a.line.mend()
            a.line.failing = error
            a.clock.advance(LONGEST_WAIT)
            await idle()
        await eventually(lambda: a.outbox.count == 0)
        await b.settle()
        assert b.answered("user1@example.org") == texts(1)
        a.line.cut()
        await harvest(a, make_key(2))
        await a.mended()
        await eventually(lambda: a.outbox.count == 0)


async def test_while_the_link_is_known_to_be_down_nothing_is_tried() -> None:
    async with cluster() as (a, _):
        a.line.cut()
        await harvest(a, make_key(1))
        await idle()
        asked = a.line.asked
        a.clock.advance(timedelta(seconds=0.1))  # the delivery's first wait; the replicator waits longer by now
        await idle()
        assert a.line.asked - asked <= 1


async def test_what_waited_is_delivered_after_a_restart() -> None:
    async with cluster() as (a, b):
        a.line.cut()
        await harvest(a, make_key(1))
        await a.stop()
        a.line.mend()
        await a.start()
        assert a.answered("user1@example.org") == texts(1)
        await a.deliver()
        assert set(await b.in_log()) == {*texts(1)}


async def test_what_expired_meanwhile_is_delivered_and_left_to_the_purger() -> None:
    async with cluster() as (a, b):
        a.line.cut()
        blob = a.script.file(b"file", make_key(1))
        await a.cache.harvesting.put(blob, "user1@example.org", "keys.example.org")
        await a.mended()
        a.clock.advance(DAY)
        await a.deliver()
        assert set(await b.in_log()) == {*texts(1)}
        assert a.answered("user1@example.org") == []
        assert await a.sweep() == 1


async def test_intermediates_that_there_is_no_room_for_any_more_are_left_out() -> None:
    async with cluster() as (a, b):
        a.line.cut()
        await harvest(a, make_key(1, trust=Trust.HELD), chain=(b"ca",))
        for start in range(0, chains.HELD_CHAIN_LIMIT, 100):
            puts = {f"{CHAIN}{number}": b"x" for number in range(start, start + 100)}
            await b.log.commit(Transaction(compare={}, puts=puts))
        await a.mended()
        await a.deliver()
        assert len(a.replica.documents(CHAIN)) == chains.HELD_CHAIN_LIMIT
        assert set(await b.in_log()) == {*texts(1)}


# a crash between any two steps
class Killed(BaseException):
    pass


class DyingOutbox(MemoryOutbox):
    """Dies `before` or after it removed."""

    before = after = False

    def remove(self, delivered: Iterable[Pending]) -> None:
        if self.before:
            raise Killed
        super().remove(delivered)
        if self.after:
            raise Killed


async def die(_transaction: Transaction) -> None:
    raise Killed


DEATHS: dict[str, Callable[[Member], None]] = {
    "before the commit": lambda node: setattr(node.line, "before", die),
    "after the commit": lambda node: setattr(node.line, "after", die),
    "before it is removed": lambda node: setattr(node.outbox, "before", True),
    "after it is removed": lambda node: setattr(node.outbox, "after", True),
}


@pytest.mark.parametrize("death", DEATHS)
async def test_a_node_that_dies_between_two_steps_delivers_again_to_the_same_end(death: str) -> None:
    async with cluster(make_entry(3, make_sighting(cached_at=T0 - 3 * DAY)), outbox=DyingOutbox()) as (a, b):
        a.line.cut()
        await harvest(a, make_key(1), make_key(2, protocol=Protocol.OPENPGP), make_key(3))
        expected = {entry.key.fingerprint.text: entry for entry in a.waiting()}
        await a.mended()
        DEATHS[death](a)
        with pytest.raises(Killed):
            await a.cache.delivery.deliver()
        assert isinstance(a.outbox, DyingOutbox)
        a.outbox.before = a.outbox.after = False
        await a.stop()
        a.line.before = a.line.after = idle_step
        in_log = await b.in_log()
        await a.start()
        assert [a.answered(f"user{number}@example.org") for number in (1, 3)] == [texts(1), texts(3)]
        before = await b.log.head()
        await a.deliver()
        assert await b.in_log() == expected
        assert a.outbox.count == 0
        if in_log == expected:
            assert await b.log.head() == before, "what is there already is not written again"


async def idle_step(_transaction: Transaction) -> None:
    return None


async def test_it_leaves_the_outbox_only_after_the_replica_shows_it() -> None:
    """So that no lookup in between misses it."""
    seen: list[tuple[str, list[str]]] = []

    class Watched(MemoryOutbox):
        def remove(self, delivered: Iterable[Pending]) -> None:
            stored = a.replica.entry(Protocol.SMIME, fingerprint_of(1))
            seen.append(("removed", texts(1) if stored is not None else []))
            super().remove(delivered)

    async def look(_transaction: Transaction) -> None:
        seen.append(("committed", a.answered("user1@example.org")))

    async with cluster(outbox=Watched()) as (a, _):
        a.line.cut()
        await harvest(a, make_key(1))
        await a.mended()
        a.line.after = look
        await a.deliver()
        assert seen == [("committed", texts(1)), ("removed", texts(1))]


async def test_a_write_whose_answer_was_lost_is_not_written_twice() -> None:
    async with cluster() as (a, b):
        a.line.after = Once(cut_of(a))
        await harvest(a, make_key(1))
        assert (a.outbox.count, set(await b.in_log())) == (1, {*texts(1)})
        first = (await b.in_log())[fingerprint_of(1).text]
        before = await b.log.head()
        await a.mended()
        await a.deliver()
        assert (a.outbox.count, await b.log.head()) == (0, before)
        assert (await b.in_log())[fingerprint_of(1).text] == first


def cut_of(node: Member) -> Callable[[], Awaitable[None]]:
    async def cut() -> None:
        node.line.cut()

    return cut


async def test_what_is_put_anew_while_it_is_delivered_is_delivered_as_well() -> None:
    async with cluster() as (a, b):
        a.line.cut()
        await harvest(a, make_key(1))
        await a.mended()
        wider = make_key(1, addresses=["user1@example.org", "new@example.org"])
        a.line.before = Once(lambda: harvest(a, wider))
        assert await a.cache.delivery.deliver() == 1
        assert a.outbox.count == 1
        await a.deliver()
        await b.settle()
        assert (a.outbox.count, b.answered("new@example.org")) == (0, texts(1))


async def test_two_deliveries_at_once_end_as_one() -> None:
    async with cluster() as (a, b):
        a.line.cut()
        for number in range(5):
            await harvest(a, make_key(number))
        expected = a.waiting()
        await a.mended()
        before = await b.log.head()
        await asyncio.gather(a.cache.delivery.deliver(), a.cache.delivery.deliver())
        assert sorted((await b.in_log()).values(), key=encode_entry) == sorted(expected, key=encode_entry)
        assert (a.outbox.count, await b.log.head()) == (0, before + 1)


@pytest.mark.parametrize("error", [LogUnavailable("Away."), ForeignLog("Another one."), StoreError("No room.")])
async def test_what_was_not_acknowledged_waits_on(error: KeycacheError) -> None:
    async with cluster() as (a, _):
        a.line.cut()
        await harvest(a, make_key(1))
        await a.mended()
        a.line.failing = error
        with pytest.raises(type(error)):
            await a.cache.delivery.deliver()
        assert a.outbox.count == 1


# joined with what others wrote
async def test_copies_of_one_key_from_several_nodes_become_one_that_lacks_nothing_of_either() -> None:
    pgp: dict[str, Any] = {"protocol": Protocol.OPENPGP}
    known = make_entry(1, make_sighting(cached_at=T0 - 9 * DAY), **pgp, addresses=["old@x.example"])
    known = replace(known, key=replace(known.key, material=b"1"))
    for first, second in ((0, 1), (1, 0)):
        async with cluster(known) as both:
            for node in both:
                node.line.cut()
            a, b = both
            await harvest(a, replace(make_key(1, **pgp, addresses=["a@x.example"]), material=b"2"))
            b.clock.advance(2 * DAY)
            await harvest(b, replace(make_key(1, **pgp, addresses=["b@x.example"]), material=b"3"))
            blob = b.script.file(b"3+4", replace(make_key(1, **pgp, addresses=["c@x.example"]), material=b"3+4"))
            await b.cache.harvesting.put(blob, "c@x.example", "keys.example.org")
            for node in (both[first], both[second]):
                await node.mended()
                await node.deliver()
            (entry,) = (await b.in_log()).values()
            assert [one.text for one in entry.key.addresses] == ["a@x.example", "b@x.example", "c@x.example", "old@x.example"]
            assert entry.key.material == b"1+2+3+4"
            assert [(one.origin, one.cached_at, one.refreshed_at) for one in entry.sightings] == [
                (Origin.HARVESTED, T0 - 9 * DAY, T0 + 2 * DAY),
                (Origin.LOOKED_UP, T0 + 2 * DAY, T0 + 2 * DAY),
            ]
            await asyncio.gather(a.settle(), b.settle())
            assert a.replica.digest() == b.replica.digest()


async def test_a_revocation_stays_whoever_learned_of_it_and_in_whichever_order() -> None:
    for first, second in ((0, 1), (1, 0)):
        async with cluster(make_entry(1, make_sighting(cached_at=T0 - 9 * DAY))) as both:
            for node in both:
                node.line.cut()
            await harvest(both[0], make_key(1, defect=Defect.REVOKED))
            await harvest(both[1], make_key(1))
            for node in (both[first], both[second]):
                await node.mended()
                await node.deliver()
            (entry,) = (await both[0].in_log()).values()
            assert (entry.key.defect, entry.sightings[0].refreshed_at) == (Defect.REVOKED, T0)
            for node in both:
                await node.settle()
                assert node.answered("user1@example.org") == []


async def test_an_entry_that_changes_while_it_is_delivered_is_joined_and_the_others_are_not_held_up() -> None:
    async with cluster(make_entry(2, make_sighting(cached_at=T0 - 5 * DAY))) as (a, b):
        a.line.cut()
        for number in (1, 2, 3):
            await harvest(a, make_key(number))
        await a.mended()
        theirs = make_entry(2, make_sighting(cached_at=T0 - 5 * DAY, refreshed_at=T0 + HOUR), addresses=["theirs@example.org"])
        a.line.before = Once(lambda: b.log.commit(Transaction(compare={}, puts=dict([record_of(theirs)]))))
        assert await a.cache.delivery.deliver() == 3
        assert written(a)[1:] == [texts(1, 3), texts(2)]
        entry = (await b.in_log())[fingerprint_of(2).text]
        assert [address.text for address in entry.key.addresses] == ["theirs@example.org", "user2@example.org"]
        assert entry.sightings[0].refreshed_at == T0 + HOUR


async def test_an_entry_that_others_write_over_and_over_has_its_turn_later() -> None:
    async with cluster() as (a, b):
        a.line.cut()
        for number in (1, 2):
            await harvest(a, make_key(number))
        await a.mended()
        moments = iter(range(1, 1000))

        async def storm(transaction: Transaction) -> None:
            if entry_key(Protocol.SMIME, fingerprint_of(1)) in transaction.puts:
                seen = make_sighting(refreshed_at=T0 + next(moments) * MINUTE)
                await b.log.commit(Transaction(compare={}, puts=dict([record_of(make_entry(1, seen))])))

        a.line.before = storm
        assert await a.cache.delivery.deliver() == 1
        assert a.waiting()[0].key.fingerprint == fingerprint_of(1)
        a.line.before = idle_step
        await a.deliver()
        assert a.outbox.count == 0


# what the log will not take
async def test_one_that_the_log_will_not_take_is_kept_and_served_here_told_of_and_holds_nobody_up() -> None:
    async with cluster() as (a, b):
        a.line.cut()
        for number in range(4):
            await harvest(a, make_key(number, material_size=5000 if number == 1 else 64))
        await a.mended()
        a.line.largest = 1000
        await a.deliver()
        assert set(await b.in_log()) == {*texts(0, 2, 3)}
        assert [entry.key.fingerprint for entry in a.waiting()] == [fingerprint_of(1)]
        assert a.answered("user1@example.org") == texts(1)
        (problem,) = a.cache.delivery.problems()
        assert fingerprint_of(1).text in problem
        assert "the log takes 1,000" in problem
        assert problem in (await a.cache.status()).warnings
        commits = len(a.line.commits)
        await a.deliver()
        assert len(a.line.commits) == commits

        await harvest(a, make_key(5))
        a.line.cut()
        await harvest(a, make_key(6))
        await a.mended()
        await a.deliver()
        assert [entry.key.fingerprint for entry in a.waiting()] == [fingerprint_of(1)]

        await a.restart()
        assert a.cache.delivery.problems() == ()
        a.line.largest = 10_000
        await a.deliver()
        assert (a.outbox.count, set(await b.in_log())) == (0, {*texts(0, 1, 2, 3, 5, 6)})


async def test_one_that_was_set_aside_is_tried_again_when_it_is_put_anew_and_forgotten_when_it_is_deleted() -> None:
    async with cluster() as (a, b):
        a.line.cut()
        await harvest(a, make_key(1, material_size=5000), make_key(2, material_size=5000))
        await a.mended()
        a.line.largest = 1000
        await a.deliver()
        assert len(a.cache.delivery.problems()) == 2
        await a.cache.entries.delete(fingerprint_of(1).text, "anna")
        assert len(a.cache.delivery.problems()) == 1
        a.clock.advance(2 * DAY)
        assert await harvest(a, make_key(2, material_size=64)) is Verdict.REFRESHED
        assert a.cache.delivery.problems() == ()
        await a.deliver()
        assert (a.outbox.count, set(await b.in_log())) == (0, {*texts(2)})


async def test_an_entry_of_a_later_version_is_not_overwritten() -> None:
    async with cluster() as (a, b):
        a.line.cut()
        await harvest(a, make_key(1), make_key(2))
        name = entry_key(Protocol.SMIME, fingerprint_of(1))
        await b.log.commit(Transaction(compare={}, puts={name: b"of a later version"}))
        await a.mended()
        await a.deliver()
        assert [record.value for record in b.replica.documents(ENTRIES)] == [b"of a later version"]
        assert b.entry(fingerprint_of(2)) is not None
        assert len(a.cache.delivery.problems()) == 1
        assert a.answered("user1@example.org") == texts(1)
