"""What every presence keeps: a record that lives as long as its node keeps saying it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from contract.harness import SharedUnderTest
from contract.log_words import committed, heard, listed, put, state_of
from keycache.domain.log import Batch, Event
from keycache.domain.names import ClusterIdentity

OURS = ClusterIdentity("ours" * 8)
KEY = "members/1"


@pytest_asyncio.fixture
async def ours(shared: SharedUnderTest) -> AsyncIterator[SharedUnderTest]:
    await shared.log.found(OURS, {})
    shared.log.bind(OURS)
    yield shared
    await shared.presence.withdraw(KEY)


async def test_what_is_announced_stands_in_the_log_like_any_record(ours: SharedUnderTest) -> None:
    start = await ours.log.head()
    revision = await ours.presence.announce(KEY, b"1")
    assert revision > start
    assert await state_of(ours.log) == {KEY: (b"1", revision)}
    assert await heard(ours.log.watch(after=start)) == Batch(
        revision=revision, events=((revision, Event(key=KEY, value=b"1")),)
    )


async def test_each_announcement_replaces_the_one_before(ours: SharedUnderTest) -> None:
    first = await ours.presence.announce(KEY, b"1")
    second = await ours.presence.announce(KEY, b"2")
    assert second > first
    assert await state_of(ours.log) == {KEY: (b"2", second)}


async def test_a_node_that_says_nothing_more_is_gone_and_that_is_told(ours: SharedUnderTest) -> None:
    await committed(ours.log, put(stays=b"1"))
    revision = await ours.presence.announce(KEY, b"1")
    watch = ours.log.watch(after=revision)
    waiting = asyncio.ensure_future(heard(watch))
    await ours.expire(KEY)
    assert [event for _, event in (await waiting).events] == [Event(key=KEY, value=None)]
    assert set(await state_of(ours.log)) == {"stays"}


async def test_a_node_that_was_gone_may_come_back(ours: SharedUnderTest) -> None:
    await ours.presence.announce(KEY, b"1")
    await ours.expire(KEY)
    revision = await ours.presence.announce(KEY, b"2")
    assert await state_of(ours.log) == {KEY: (b"2", revision)}


async def test_what_is_withdrawn_is_gone_at_once_and_may_be_announced_again(ours: SharedUnderTest) -> None:
    await ours.presence.announce(KEY, b"1")
    await ours.presence.withdraw(KEY)
    assert await state_of(ours.log) == {}
    await ours.presence.withdraw(KEY)
    revision = await ours.presence.announce(KEY, b"2")
    assert await state_of(ours.log) == {KEY: (b"2", revision)}


async def test_two_announced_records_end_each_by_itself(ours: SharedUnderTest) -> None:
    await ours.presence.announce(KEY, b"1")
    other = await ours.presence.announce("members/2", b"2")
    await ours.expire(KEY)
    assert await state_of(ours.log) == {"members/2": (b"2", other)}
    await ours.presence.withdraw("members/2")


@pytest.mark.parametrize("identity", ["", "theirs" * 5])
async def test_withdrawing_from_a_log_that_became_another_one_does_nothing_and_says_nothing(
    ours: SharedUnderTest, identity: str
) -> None:
    await ours.presence.announce(KEY, b"1")
    await ours.wipe(identity)
    await ours.presence.withdraw(KEY)


async def test_withdrawing_from_a_log_that_is_closed_says_nothing(ours: SharedUnderTest) -> None:
    await ours.presence.announce(KEY, b"1")
    assert len(await listed(ours.log)) == 1
    await ours.log.close()
    await ours.presence.withdraw(KEY)
    await ours.expire(KEY)  # now, and not in the middle of another test
