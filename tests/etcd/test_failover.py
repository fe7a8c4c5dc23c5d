"""Three members, of which some die, stop or come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from contract.log_words import committed, heard, put, state_of
from keycache.domain.errors import LogUnavailable
from keycache.domain.log import ABSENT, Batch, Transaction
from keycache.domain.names import Revision
from keycache.etcd.client import ATTEMPT_SECONDS, TOTAL_SECONDS
from keycache.etcd.connection import CONNECT_SECONDS
from keycache.etcd.log import EtcdLog
from keycache.etcd.watch import SILENCE_SECONDS
from support.etcd import EtcdCluster, EtcdMember
from support.etcd_log import founded

SLACK = 3.0
"""What two busy cores may add to a bound."""


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster.run(tmp_path_factory.mktemp("etcd"), size=3) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def healed(etcd: EtcdCluster) -> Iterator[None]:
    yield
    for member in etcd.members:
        if member.is_running:
            member.resume()
    etcd.start()


@pytest_asyncio.fixture
async def log(etcd: EtcdCluster) -> AsyncIterator[EtcdLog]:
    async with founded(etcd.endpoints) as one:
        yield one


def first(etcd: EtcdCluster) -> EtcdMember:
    """The one that a client asks first."""
    return etcd.members[0]


async def timed_commit(log: EtcdLog, key: str) -> float:
    begin = time.monotonic()
    await committed(log, Transaction(compare={key: ABSENT}, puts={key: b"1"}))
    return time.monotonic() - begin


async def unavailable_after(log: EtcdLog) -> float:
    begin = time.monotonic()
    with pytest.raises(LogUnavailable):
        await log.head()
    return time.monotonic() - begin


async def test_a_member_that_died_costs_one_election_at_most_and_the_next_one_nothing(etcd: EtcdCluster, log: EtcdLog) -> None:
    await committed(log, put(a=b"1"))
    first(etcd).kill()
    assert await timed_commit(log, "b") < TOTAL_SECONDS
    assert await timed_commit(log, "c") < ATTEMPT_SECONDS
    assert set(await state_of(log)) == {"a", "b", "c"}


async def test_a_member_that_was_stopped_costs_no_more_than_a_try_and_is_not_asked_first_again(
    etcd: EtcdCluster, log: EtcdLog
) -> None:
    await committed(log, put(a=b"1"))
    if etcd.leader() is first(etcd):
        for member in etcd.members[1:]:
            member_id = etcd.etcdctl("endpoint", "status", "-w", "fields", endpoints=(member.endpoint,))
            identifier = next(line.split(":")[1].strip() for line in member_id.splitlines() if '"MemberID"' in line)
            etcd.etcdctl("move-leader", f"{int(identifier):x}", endpoints=(first(etcd).endpoint,))
            break
    first(etcd).pause()
    assert await timed_commit(log, "b") < ATTEMPT_SECONDS + SLACK
    assert await timed_commit(log, "c") < ATTEMPT_SECONDS


async def test_a_leader_that_was_stopped_costs_an_election(etcd: EtcdCluster, log: EtcdLog) -> None:
    await committed(log, put(a=b"1"))
    etcd.leader().pause()
    deadline = time.monotonic() + 15
    while True:  # the first call may end before the election does
        try:
            assert await timed_commit(log, "b") < TOTAL_SECONDS + SLACK
            break
        except LogUnavailable:
            assert time.monotonic() < deadline


async def test_a_stopped_member_that_nobody_was_connected_to_costs_no_more(etcd: EtcdCluster, log: EtcdLog) -> None:
    if etcd.leader() is first(etcd):
        first(etcd).restart()
    first(etcd).pause()
    async with founded(etcd.endpoints) as fresh:
        begin = time.monotonic()
        await fresh.head()
        assert time.monotonic() - begin < CONNECT_SECONDS + ATTEMPT_SECONDS + SLACK


async def test_without_a_quorum_it_is_unavailable_in_bounded_time_and_soon_after_the_first_time(
    etcd: EtcdCluster, log: EtcdLog
) -> None:
    await committed(log, put(a=b"1"))
    for member in etcd.members[:2]:
        member.kill()
    assert await unavailable_after(log) < TOTAL_SECONDS + SLACK
    begin = time.monotonic()
    with pytest.raises(LogUnavailable, match="refuses connections"):
        await log.commit(put({"a": ABSENT}, a=b"2"))
    assert time.monotonic() - begin < TOTAL_SECONDS + SLACK
    for member in etcd.members[:2]:
        member.start()
    for member in etcd.members[:2]:
        await asyncio.to_thread(member.wait_until_healthy)
    assert await timed_commit(log, "b") < TOTAL_SECONDS
    assert set(await state_of(log)) == {"a", "b"}


async def test_a_watch_on_a_member_that_died_ends_and_another_one_goes_on(etcd: EtcdCluster, log: EtcdLog) -> None:
    start = await committed(log, put(a=b"1"))
    watch = log.watch(after=start)
    second = await committed(log, put(a=b"2"))
    assert (await heard(watch)).revision == second
    first(etcd).kill()
    with pytest.raises(LogUnavailable):
        await heard(watch)
    watch = log.watch(after=second)
    waiting = asyncio.ensure_future(heard(watch))
    await timed_commit(log, "b")
    assert [event.key for _, event in (await waiting).events] == ["b"]


async def test_a_watch_on_a_member_that_was_stopped_ends_when_it_has_been_silent_too_long(
    etcd: EtcdCluster, log: EtcdLog
) -> None:
    start = await committed(log, put(a=b"1"))
    watch = log.watch(after=start)
    assert await anext(watch) == Batch(revision=start, events=())
    first(etcd).pause()
    begin = time.monotonic()
    with pytest.raises(LogUnavailable, match=f"{first(etcd).endpoint} has been silent"):
        await anext(watch)
    assert time.monotonic() - begin < SILENCE_SECONDS + CONNECT_SECONDS + SLACK


async def test_a_watch_on_a_member_that_lost_the_others_ends(etcd: EtcdCluster, log: EtcdLog) -> None:
    start = await committed(log, put(a=b"1"))
    watch = log.watch(after=start)
    await committed(log, put(a=b"2"))
    await heard(watch)
    for member in etcd.members[1:]:
        member.kill()

    async def to_its_end() -> None:
        async for _ in watch:
            pass

    async with asyncio.timeout(15):
        with pytest.raises(LogUnavailable):
            await to_its_end()


async def test_what_was_written_through_one_member_is_read_through_any(etcd: EtcdCluster, log: EtcdLog) -> None:
    name = log._keys.first.decode().split("/")[2]
    for member in etcd.members:
        async with founded([member.endpoint], name=name) as other:
            revision = await committed(log, put(a=member.name.encode()))
            assert await other.head() == revision
            assert (await state_of(other))["a"] == (member.name.encode(), revision)
            assert Revision(revision) == (await other.survey()).head
