"""Writes whose answers are lost, and writes etcd does not take."""

from __future__ import annotations

import asyncio

import pytest

from contract.log_words import committed, listed, put, state_of
from keycache.domain.errors import LogUnavailable, RecordTooLarge
from keycache.domain.log import ABSENT, Committed, Record, Refuted, Transaction
from keycache.domain.names import Revision
from support.etcd import fresh_name, shared_etcd
from support.etcd_log import Relay, founded


async def test_a_commit_whose_answer_was_lost_is_known_by_what_it_wrote() -> None:
    """1. The transaction goes to one endpoint and is carried out. 2. Its answer is lost. 3. Sent again to another endpoint it is refuted
    by its own effect. 4. That is told as what it is: carried out, at the revision of the first try."""
    etcd, name = shared_etcd(), fresh_name()
    async with (
        Relay.before(etcd.endpoints[0]) as relay,
        founded(etcd.endpoints, name=name) as other,
        founded([relay.endpoint, *etcd.endpoints], name=name) as log,
    ):
        first = await committed(log, put(a=b"1"))
        watch = other.watch(after=first)
        relay.lose_answers()
        meant = Transaction(compare={"a": first, "b": ABSENT}, puts={"a": b"2", "b": b"2"}, deletes=("c",))
        writing = asyncio.ensure_future(log.commit(meant))
        async with asyncio.timeout(10):
            batch = await anext(batch async for batch in watch if batch.events)
        relay.cut()
        assert await writing == Committed(revision=batch.revision)
        assert await state_of(other) == {"a": (b"2", batch.revision), "b": (b"2", batch.revision)}


async def test_a_commit_whose_answer_was_lost_and_that_somebody_wrote_over_is_refuted() -> None:
    etcd, name = shared_etcd(), fresh_name()
    async with (
        Relay.before(etcd.endpoints[0]) as relay,
        founded(etcd.endpoints, name=name) as other,
        founded([relay.endpoint, *etcd.endpoints], name=name) as log,
    ):
        first = await committed(log, put(a=b"1"))
        watch = other.watch(after=first)
        relay.lose_answers()
        writing = asyncio.ensure_future(log.commit(put({"a": first}, a=b"2")))
        async with asyncio.timeout(10):
            await anext(batch async for batch in watch if batch.events)
        last = await committed(other, put(a=b"3"))
        relay.cut()
        assert await writing == Refuted(revision=last, current={"a": Record(key="a", value=b"3", mod_revision=last)})


@pytest.mark.parametrize("compare", [False, True])
async def test_a_commit_that_could_be_carried_out_twice_is_not_sent_again(compare: bool) -> None:
    """It compares nothing, or only what it does not write."""
    etcd, name = shared_etcd(), fresh_name()
    async with (
        Relay.before(etcd.endpoints[0]) as relay,
        founded(etcd.endpoints, name=name) as other,
        founded([relay.endpoint, *etcd.endpoints], name=name) as log,
    ):
        first = await committed(log, put(settings=b"1"))
        watch = other.watch(after=first)
        relay.lose_answers()
        writing = asyncio.ensure_future(log.commit(put({"settings": first} if compare else {}, a=b"2")))
        async with asyncio.timeout(10):
            batch = await anext(batch async for batch in watch if batch.events)
        relay.cut()
        with pytest.raises(LogUnavailable, match="may or may not have been carried out"):
            await writing
        assert await other.head() == batch.revision, "carried out once"


async def test_a_commit_that_never_left_is_sent_elsewhere_whatever_it_compares() -> None:
    etcd, name = shared_etcd(), fresh_name()
    async with Relay.before(etcd.endpoints[0]) as relay:
        dead = relay.endpoint
    async with founded([dead, *etcd.endpoints], name=name) as log:
        revision = await committed(log, put(a=b"1"))
        assert await state_of(log) == {"a": (b"1", revision)}


async def test_a_founding_whose_answer_was_lost_is_known_by_its_identity() -> None:
    etcd, name = shared_etcd(), fresh_name()
    async with (
        Relay.before(etcd.endpoints[0]) as relay,
        founded(etcd.endpoints, name=fresh_name()) as clock,
        founded([relay.endpoint, *etcd.endpoints], name=name) as log,
    ):
        before = await clock.head()
        relay.lose_answers()
        old = log.identity
        founding = asyncio.ensure_future(log.found(type(old)("new" * 8), {"a": b"1"}, instead_of=old))
        async with asyncio.timeout(10):
            while await clock.head() == before:  # noqa: ASYNC110 -- etcd has no event for us here
                await asyncio.sleep(0.01)
        relay.cut()
        assert await founding == Committed(revision=Revision(before + 1))


async def test_a_record_larger_than_etcd_takes_is_named_so_and_nothing_is_written() -> None:
    async with founded(shared_etcd().endpoints) as log:
        for size in (1_600_000, 5_000_000):
            with pytest.raises(RecordTooLarge):
                await log.commit(put(a=b"x" * size))
        assert await state_of(log) == {}
        await committed(log, put(a=b"x" * 1_500_000))


async def test_pages_too_large_for_one_answer_come_as_smaller_ones() -> None:
    async with founded(shared_etcd().endpoints, receive_bytes=4_000_000) as log:
        value = b"x" * 1_000_000
        for number in range(8):
            await committed(log, put(**{f"k{number}": value}))
        pages = await listed(log)
        assert [record.key for page in pages for record in page.records] == [f"k{number}" for number in range(8)]
        assert len({page.revision for page in pages}) == 1
        assert max(len(page.records) for page in pages) <= 3


async def test_no_more_is_asked_of_etcd_in_one_transaction_than_it_takes() -> None:
    async with founded(shared_etcd().endpoints) as log:
        puts = {f"k{number:03}": b"1" for number in range(128)}
        first = await committed(log, Transaction(compare={}, puts=puts))
        compare = dict.fromkeys(list(puts)[:127], first)
        assert isinstance(await log.commit(Transaction(compare=compare, puts={}, deletes=tuple(puts))), Committed)
        refuted = await log.commit(Transaction(compare=compare, puts=puts))
        assert isinstance(refuted, Refuted)
        assert refuted.current == dict.fromkeys(compare)
        for beyond in (
            Transaction(compare={}, puts={**puts, "z": b"1"}),
            Transaction(compare=dict.fromkeys(puts, first), puts={}),
        ):
            with pytest.raises(ValueError, match="etcd takes 128"):
                await log.commit(beyond)
