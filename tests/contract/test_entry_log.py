"""What every entry log keeps. Revisions are only compared, never counted: other writers may use some in between."""

from __future__ import annotations

import asyncio
import random

import pytest

from contract.harness import LogUnderTest
from contract.log_words import committed, delete, heard, heard_until, listed, put, state_of
from keycache.domain.errors import LogCompacted, LogUnavailable
from keycache.domain.log import ABSENT, IDENTITY, Batch, Committed, Event, Page, Record, Refuted, Survey, Transaction
from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.ports import EntryLog


async def test_an_empty_log_lists_one_empty_page(log: EntryLog) -> None:
    assert await listed(log) == [Page(revision=await log.head(), records=())]


async def test_a_commit_raises_the_head_and_its_record_bears_its_revision(log: EntryLog) -> None:
    before = await log.head()
    revision = await committed(log, put(a=b"1"))
    assert revision > before
    assert await log.head() == revision
    assert await listed(log) == [Page(revision=revision, records=(Record(key="a", value=b"1", mod_revision=revision),))]


async def test_all_writes_of_a_transaction_bear_one_revision(log: EntryLog) -> None:
    await committed(log, put(a=b"1"))
    revision = await committed(log, Transaction(compare={}, puts={"b": b"2", "c": b"3"}, deletes=("a",)))
    assert await state_of(log) == {"b": (b"2", revision), "c": (b"3", revision)}


async def test_a_true_comparison_lets_the_transaction_pass(log: EntryLog) -> None:
    first = await committed(log, put({"a": ABSENT}, a=b"1"))
    second = await committed(log, put({"a": first, "nothing": ABSENT}, a=b"2"))
    assert await state_of(log) == {"a": (b"2", second)}


async def test_a_false_comparison_writes_nothing_and_tells_what_is_there(log: EntryLog) -> None:
    revision = await committed(log, put(a=b"1"))
    result = await log.commit(Transaction(compare={"a": ABSENT, "gone": ABSENT}, puts={"a": b"2", "b": b"2"}, deletes=("a2",)))
    assert result == Refuted(revision=revision, current={"a": Record(key="a", value=b"1", mod_revision=revision), "gone": None})
    assert await state_of(log) == {"a": (b"1", revision)}
    assert await log.head() == revision


async def test_a_delete_of_what_was_refreshed_in_between_is_refuted(log: EntryLog) -> None:
    old = await committed(log, put(a=b"old"))
    new = await committed(log, put(a=b"refreshed"))
    result = await log.commit(delete("a", compare={"a": old}))
    assert result == Refuted(revision=new, current={"a": Record(key="a", value=b"refreshed", mod_revision=new)})


async def test_a_deleted_key_compares_as_absent_and_may_come_back(log: EntryLog) -> None:
    await committed(log, put(a=b"1"))
    await committed(log, delete("a"))
    revision = await committed(log, put({"a": ABSENT}, a=b"2"))
    assert await state_of(log) == {"a": (b"2", revision)}


async def test_deleting_what_is_not_there_makes_no_revision(log: EntryLog) -> None:
    revision = await committed(log, put(a=b"1"))
    assert await log.commit(delete("b")) == Committed(revision=revision)
    assert await log.commit(Transaction(compare={"a": revision}, puts={})) == Committed(revision=revision)
    assert await log.head() == revision


async def test_writing_the_same_value_again_is_a_new_revision(log: EntryLog) -> None:
    first = await committed(log, put(a=b"1"))
    second = await committed(log, put(a=b"1"))
    assert first < second
    assert await state_of(log) == {"a": (b"1", second)}


async def test_a_transaction_cannot_put_and_delete_one_key(log: EntryLog) -> None:
    with pytest.raises(ValueError, match="same key"):
        await log.commit(Transaction(compare={}, puts={"a": b"1"}, deletes=("a",)))


async def test_a_value_may_be_empty_and_is_not_a_deletion(log: EntryLog) -> None:
    revision = await committed(log, put(a=b""))
    assert await state_of(log) == {"a": (b"", revision)}
    assert (await heard(log.watch(after=Revision(revision - 1)))).events == ((revision, Event(key="a", value=b"")),)


async def test_pages_come_in_the_order_of_keys_and_hold_what_was_asked(log: EntryLog) -> None:
    keys = ["a", "b/1", "b/10", "b/2", "c", "ä"]
    for key in reversed(keys):
        await committed(log, Transaction(compare={}, puts={key: key.encode()}))
    pages = await listed(log, page_size=4)
    assert [[record.key for record in page.records] for page in pages] == [keys[:4], keys[4:]]


async def test_all_pages_of_a_listing_are_of_one_revision_whatever_is_written_meanwhile(log: EntryLog) -> None:
    revision = await committed(log, put(a=b"1", b=b"1", c=b"1", d=b"1"))
    pages: list[Page] = []
    async for page in log.list(page_size=2):
        pages.append(page)
        await committed(log, Transaction(compare={}, puts={"b": b"2", "bb": b"2"}, deletes=("c",)))
        await committed(log, put(c=b"3"))
    assert [page.revision for page in pages] == [revision, revision]
    assert [(record.key, record.value) for page in pages for record in page.records] == [(key, b"1") for key in "abcd"]


async def test_a_listing_may_be_left_early_and_the_log_goes_on(log: EntryLog) -> None:
    await committed(log, put(a=b"1", b=b"1", c=b"1"))
    listing = log.list(page_size=1)
    assert len((await anext(listing)).records) == 1
    await listing.aclose()  # type: ignore[attr-defined] # every implementation is an async generator
    revision = await committed(log, delete("a"))
    assert await log.head() == revision


async def test_a_watch_tells_everything_after_its_revision_in_order(log: EntryLog) -> None:
    start = await committed(log, put(a=b"1"))
    second = await committed(log, put(b=b"2"))
    third = await committed(log, delete("a"))
    assert await heard_until(log.watch(after=start), third) == [
        (second, Event(key="b", value=b"2")),
        (third, Event(key="a", value=None)),
    ]


async def test_a_watch_from_the_head_waits_for_the_next_commit(log: EntryLog) -> None:
    start = await committed(log, put(a=b"1"))
    watch = log.watch(after=start)
    waiting = asyncio.ensure_future(heard(watch))
    await asyncio.sleep(0)
    assert not waiting.done()
    revision = await committed(log, put(b=b"2"))
    assert await waiting == Batch(revision=revision, events=((revision, Event(key="b", value=b"2")),))


async def test_every_watch_hears_every_commit(log: EntryLog) -> None:
    start = await log.head()
    watches = [log.watch(after=start) for _ in range(3)]
    waiting = [asyncio.ensure_future(heard(watch)) for watch in watches]
    revision = await committed(log, put(a=b"1"))
    assert {batch.revision for batch in await asyncio.gather(*waiting)} == {revision}


async def test_a_revision_is_never_split_over_two_batches(under_test: LogUnderTest) -> None:
    log, size = under_test.log, under_test.most_operations
    start = await log.head()
    big = {f"k{number:05}": b"x" for number in range(size)}
    first = await committed(log, Transaction(compare={}, puts=big))
    second = await committed(log, put(last=b"y"))
    seen: list[Revision] = []
    watch = log.watch(after=start)
    while not seen or seen[-1] < second:
        batch = await heard(watch)
        revisions = [revision for revision, _ in batch.events]
        assert revisions == sorted(revisions)
        assert not set(revisions) & set(seen)
        assert revisions.count(first) in (0, size)
        assert batch.revision >= revisions[-1]
        seen.extend(revisions)
    assert seen == [first] * size + [second]


async def test_a_watch_below_what_was_compacted_says_so_and_one_from_the_new_head_goes_on(under_test: LogUnderTest) -> None:
    log = under_test.log
    start = await log.head()
    await committed(log, put(a=b"1"))
    await committed(log, delete("a"))
    await under_test.compact()
    with pytest.raises(LogCompacted) as caught:
        await heard(log.watch(after=start))
    assert start < caught.value.compacted <= await log.head()
    head = await log.head()
    watch = log.watch(after=head)
    revision = await committed(log, put(b=b"2"))
    assert await heard(watch) == Batch(revision=revision, events=((revision, Event(key="b", value=b"2")),))


async def test_a_sleeping_watch_that_compaction_overtakes_lists_again_or_misses_nothing(under_test: LogUnderTest) -> None:
    log = under_test.log
    await committed(log, put(a=b"1", b=b"1"))
    state = await state_of(log)
    watch = log.watch(after=await log.head())
    await committed(log, delete("a"))
    await under_test.compact()
    await committed(log, put(c=b"3"))
    try:
        for revision, event in await heard_until(watch, await log.head()):
            state.pop(event.key, None)
            if event.value is not None:
                state[event.key] = (event.value, revision)
    except LogCompacted:
        state = await state_of(log)
    assert state == await state_of(log)
    assert "a" not in state


async def test_listing_then_watching_from_there_reconstructs_the_log(log: EntryLog) -> None:
    rng = random.Random(7)
    keys = [f"k{number}" for number in range(8)]

    async def write(times: int) -> None:
        for _ in range(times):
            chosen = rng.sample(keys, 3)
            await log.commit(Transaction(compare={}, puts={chosen[0]: rng.randbytes(4), chosen[1]: b""}, deletes=(chosen[2],)))

    await write(30)
    pages = await listed(log, page_size=2)
    state = {record.key: (record.value, record.mod_revision) for page in pages for record in page.records}
    watch = log.watch(after=pages[0].revision)
    await write(30)
    for revision, event in await heard_until(watch, await log.head()):
        state.pop(event.key, None)
        if event.value is not None:
            state[event.key] = (event.value, revision)
    assert state == await state_of(log)


async def test_commits_at_the_same_time_have_each_their_own_revision_and_one_winner_per_comparison(log: EntryLog) -> None:
    results = await asyncio.gather(
        *(log.commit(Transaction(compare={"counter": ABSENT}, puts={"counter": b"%d" % number})) for number in range(20)),
        *(log.commit(Transaction(compare={}, puts={f"own/{number}": b"x"})) for number in range(20)),
    )
    winners = [result for result in results[:20] if isinstance(result, Committed)]
    assert len(winners) == 1
    revisions = [result.revision for result in (*winners, *results[20:])]
    assert len(set(revisions)) == 21
    assert await log.head() == max(revisions)
    assert len(await state_of(log)) == 21


async def test_a_commit_whose_caller_gave_up_is_all_there_or_not_at_all_and_wakes_the_watches(log: EntryLog) -> None:
    start = await log.head()
    watch = log.watch(after=start)
    waiting = asyncio.ensure_future(heard(watch))
    commit = asyncio.ensure_future(log.commit(put(a=b"1", b=b"1")))
    await asyncio.sleep(0)
    commit.cancel()
    await asyncio.gather(commit, return_exceptions=True)
    if await log.head() == start and not await state_of(log):
        await committed(log, put(a=b"1", b=b"1"))
    assert {event.key for _, event in (await waiting).events} == {"a", "b"}
    assert set(await state_of(log)) == {"a", "b"}


async def test_a_listing_of_keys_leaves_the_values_out_and_tells_the_revisions(log: EntryLog) -> None:
    first = await committed(log, put(a=b"1"))
    second = await committed(log, put(b=b"2"))
    pages = [page async for page in log.list(page_size=1, keys_only=True)]
    assert [record for page in pages for record in page.records] == [
        Record(key="a", value=b"", mod_revision=first),
        Record(key="b", value=b"", mod_revision=second),
    ]
    assert {page.revision for page in pages} == {second}


async def test_a_survey_tells_whose_log_it_is_how_far_it_is_and_what_stands_in_it(log: EntryLog) -> None:
    first = await committed(log, put(a=b"1"))
    second = await committed(log, Transaction(compare={}, puts={"b": b"2", "c": b"3"}))
    assert await log.survey(["c", "nothing", "a"], since=first) == Survey(
        identity=log.identity,
        head=second,
        compacted=False,
        records={
            "c": Record(key="c", value=b"3", mod_revision=second),
            "nothing": None,
            "a": Record(key="a", value=b"1", mod_revision=first),
        },
    )
    assert await log.survey() == Survey(identity=log.identity, head=second, compacted=False, records={})


async def test_a_survey_of_many_keys_is_of_one_revision(log: EntryLog) -> None:
    puts = {f"k{number:03}": b"%d" % number for number in range(100)}
    revision = await committed(log, Transaction(compare={}, puts=puts))
    found = await log.survey([*puts, "last"])
    assert found.head == revision
    assert found.records == {
        **{key: Record(key=key, value=value, mod_revision=revision) for key, value in puts.items()},
        "last": None,
    }


async def test_a_survey_tells_whether_a_watch_could_go_on(under_test: LogUnderTest) -> None:
    log = under_test.log
    start = await committed(log, put(a=b"1"))
    await committed(log, put(a=b"2"))
    await committed(log, delete("a"))
    await under_test.compact()
    assert (await log.survey(since=start)).compacted
    head = await log.head()
    assert not (await log.survey(since=head)).compacted
    watch = log.watch(after=head)
    revision = await committed(log, put(b=b"2"))
    assert (await heard(watch)).revision == revision


async def test_a_new_lifetime_begins_in_place_of_the_one_that_was_meant(log: EntryLog) -> None:
    new = ClusterIdentity("new" * 8)
    await committed(log, put(a=b"1"))
    result = await log.found(new, {"b": b"2"}, instead_of=log.identity)
    assert isinstance(result, Committed)
    log.bind(new)
    assert log.identity == new
    found = await log.survey(["b"])
    assert (found.identity, found.records) == (new, {"b": Record(key="b", value=b"2", mod_revision=result.revision)})
    assert {event.key for _, event in (await heard(log.watch(after=Revision(result.revision - 1)))).events} == {"b"}


async def test_a_lifetime_is_not_begun_in_place_of_another_one(log: EntryLog) -> None:
    old = log.identity
    for meant in (None, ClusterIdentity("another" * 4)):
        result = await log.found(ClusterIdentity("new" * 8), {"b": b"2"}, instead_of=meant)
        assert isinstance(result, Refuted)
        known = result.current[IDENTITY]
        assert known is not None
        assert known.value == old.text.encode()
    found = await log.survey(["b"])
    assert (found.identity, found.records) == (old, {"b": None})


async def test_it_may_be_bound_to_what_it_is(log: EntryLog) -> None:
    log.bind(log.identity)
    assert await log.head() == (await log.survey()).head


async def test_the_identity_is_no_record_and_no_event(log: EntryLog) -> None:
    head = await log.head()
    revision = await committed(log, put(a=b"1", z=b"2"))
    assert [record.key for page in await listed(log) for record in page.records] == ["a", "z"]
    assert await heard_until(log.watch(after=head), revision) == [
        (revision, Event(key="a", value=b"1")),
        (revision, Event(key="z", value=b"2")),
    ]


async def test_the_identity_does_not_change(log: EntryLog) -> None:
    identity = log.identity
    await committed(log, put(a=b"1"))
    assert identity.text
    assert log.identity == identity


async def test_closing_ends_watches_and_refuses_what_comes_after(log: EntryLog) -> None:
    watch = log.watch(after=await log.head())

    async def all_of_it() -> list[Batch]:
        return [batch async for batch in watch]

    waiting = asyncio.ensure_future(all_of_it())
    await asyncio.sleep(0)
    await log.close()
    async with asyncio.timeout(10):
        assert await waiting == []
    with pytest.raises(LogUnavailable):
        await log.commit(put(a=b"1"))
    with pytest.raises(LogUnavailable):
        await log.head()
    with pytest.raises(LogUnavailable):
        await listed(log)
