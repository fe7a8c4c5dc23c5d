"""What the log will not take is kept and served here, told of, and holds nobody up."""

from __future__ import annotations

from datetime import timedelta

from keycache.domain.entry import Protocol
from keycache.domain.log import ENTRIES, Transaction, entry_key
from keycache.domain.verdict import Verdict
from support.entries import fingerprint_of, make_key
from support.lines import cluster
from support.node import ENVELOPE, Node

DAY = timedelta(days=1)


async def harvest(node: Node, *shown) -> Verdict:
    return (await node.cache.harvesting.harvest(node.script.mail(*shown), ENVELOPE)).verdict


def texts(*numbers: int) -> list[str]:
    return [fingerprint_of(number).text for number in numbers]


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


async def test_one_that_expired_while_it_was_set_aside_does_not_hide_what_others_refreshed() -> None:
    async with cluster() as (a, b):
        a.line.cut()
        await harvest(a, make_key(1, material_size=5000))
        await a.mended()
        a.line.largest = 1000
        await a.deliver()
        for node in (a, b):
            node.clock.advance(600 * DAY)
        await harvest(b, make_key(1, material_size=64))
        await b.deliver()
        await a.cache.replicator.reach(await b.log.head())
        assert a.outbox.count == 1
        assert b.answered("user1@example.org") == texts(1)
        assert a.answered("user1@example.org") == texts(1)
        assert [found.row.fingerprint for found in a.cache.lookups.by_fingerprint(texts(1)[0]).keys] == texts(1)
