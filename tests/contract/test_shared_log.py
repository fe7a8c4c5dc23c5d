"""What every entry log keeps that nodes share: nothing is believed before it was looked at, and nothing after it became another one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from contract.harness import SharedUnderTest
from contract.log_words import committed, delete, heard, listed, put
from keycache.domain.errors import ForeignLog, LogUnavailable
from keycache.domain.log import IDENTITY, Committed, Event, Record, Refuted
from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.ports import EntryLog, Presence

OURS = ClusterIdentity("ours" * 8)
THEIRS = ClusterIdentity("theirs" * 5)


async def all_refuse(log: EntryLog, presence: Presence, error: type[Exception]) -> None:
    head = (await log.survey()).head
    attempts: list[Callable[[], Awaitable[object]]] = [
        log.head,
        lambda: listed(log),
        lambda: heard(log.watch(after=Revision(1))),
        lambda: heard(log.watch(after=head)),
        lambda: log.commit(put(a=b"1")),
        lambda: log.commit(delete("a")),
        lambda: presence.announce("members/1", b"1"),
    ]
    for attempt in attempts:
        with pytest.raises(error):
            await attempt()


async def test_a_log_that_nobody_founded_has_no_identity_and_no_records(shared: SharedUnderTest) -> None:
    assert shared.log.is_shared
    found = await shared.log.survey(["settings"])
    assert (found.identity, found.compacted, found.records) == (None, False, {"settings": None})


async def test_before_it_is_bound_it_tells_nothing_but_its_survey(shared: SharedUnderTest) -> None:
    await shared.log.found(OURS, {"a": b"1"})
    with pytest.raises(LogUnavailable):
        _ = shared.log.identity
    await all_refuse(shared.log, shared.presence, LogUnavailable)
    found = await shared.log.survey(["a"])
    assert (found.identity, None if found.records["a"] is None else found.records["a"].value) == (OURS, b"1")


async def test_founding_writes_the_identity_and_the_first_records_at_once(shared: SharedUnderTest) -> None:
    log = shared.log
    result = await log.found(OURS, {"a": b"1", "b": b"2"})
    assert isinstance(result, Committed)
    log.bind(OURS)
    assert log.identity == OURS
    (page,) = await listed(log)
    assert page.records == tuple(
        Record(key=key, value=value, mod_revision=result.revision) for key, value in (("a", b"1"), ("b", b"2"))
    )


async def test_of_two_who_found_a_log_one_is_first_and_the_other_learns_it(shared: SharedUnderTest) -> None:
    results = await asyncio.gather(shared.log.found(OURS, {"a": b"1"}), shared.log.found(THEIRS, {"a": b"2"}))
    (first,) = (result for result in results if isinstance(result, Committed))
    (other,) = (result for result in results if isinstance(result, Refuted))
    winner = OURS if first is results[0] else THEIRS
    known = other.current[IDENTITY]
    assert known is not None
    assert known.value == winner.text.encode()
    assert (await shared.log.survey()).identity == winner


async def test_bound_to_another_one_than_it_is_it_takes_and_tells_nothing(shared: SharedUnderTest) -> None:
    await shared.log.found(THEIRS, {"a": b"1"})
    shared.log.bind(OURS)
    await all_refuse(shared.log, shared.presence, ForeignLog)
    found = await shared.log.survey(["a", "members/1"])
    assert found.identity == THEIRS
    assert found.records["a"] is not None
    assert found.records["members/1"] is None


@pytest.mark.parametrize("identity", ["", THEIRS.text])
async def test_emptied_or_founded_anew_by_somebody_it_takes_and_tells_nothing(shared: SharedUnderTest, identity: str) -> None:
    await shared.log.found(OURS, {"a": b"1"})
    shared.log.bind(OURS)
    await shared.wipe(identity)
    await all_refuse(shared.log, shared.presence, ForeignLog)
    found = await shared.log.survey(["a"])
    assert (found.identity, found.records) == (ClusterIdentity(identity) if identity else None, {"a": None})


async def test_that_it_became_another_one_is_told_before_that_its_history_is_gone(shared: SharedUnderTest) -> None:
    await shared.log.found(OURS, {"a": b"1"})
    shared.log.bind(OURS)
    start = await shared.log.head()
    await shared.wipe(THEIRS.text)
    await shared.compact()
    with pytest.raises(ForeignLog):
        await heard(shared.log.watch(after=start))


@pytest.mark.parametrize("identity", ["", THEIRS.text])
async def test_emptied_while_it_is_watched_it_tells_no_deletion(shared: SharedUnderTest, identity: str) -> None:
    await shared.log.found(OURS, {"a": b"1", "z": b"1"})
    shared.log.bind(OURS)
    watch = shared.log.watch(after=await shared.log.head())
    revision = await committed(shared.log, put(b=b"2"))
    assert (await heard(watch)).events == ((revision, Event(key="b", value=b"2")),)
    await shared.wipe(identity)
    with pytest.raises(ForeignLog):
        await heard(watch)


async def test_a_log_founded_anew_is_taken_for_the_new_one_only_when_bound_to_it(shared: SharedUnderTest) -> None:
    await shared.log.found(OURS, {"a": b"1"})
    shared.log.bind(OURS)
    await shared.wipe("")
    assert isinstance(await shared.log.found(THEIRS, {"b": b"2"}), Committed)
    with pytest.raises(ForeignLog):
        await shared.log.head()
    shared.log.bind(THEIRS)
    assert [record.key for page in await listed(shared.log) for record in page.records] == ["b"]
