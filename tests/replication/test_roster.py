"""The members of a shared log: what a node says of itself, and what it makes of the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from keycache.clock import ManualClock
from keycache.codec.members import decode_member, decode_witness, encode_member
from keycache.domain.log import ABSENT, Record, Transaction, member_key, witness_key
from keycache.domain.membership import READINGS, Member, Witness
from keycache.domain.names import ClusterIdentity, NodeId, Revision
from keycache.domain.ports import PRESENCE_SECONDS, Cursor, DocumentChange
from keycache.replication.roster import DOUBLE_SECONDS, SAY_SECONDS, WITNESS_SECONDS, Roster
from keycache.replication.view import View
from keycache.store.memory import MemoryLog, MemoryReplica
from support.entries import T0

SAY, WITNESS = timedelta(seconds=SAY_SECONDS), timedelta(seconds=WITNESS_SECONDS)
S, M, H = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
IDENTITY = ClusterIdentity("shared")


class Here:
    """A node's roster on a shared log, a clock turned by hand, and a replica that is filled by hand: `hear` is the replicator."""

    def __init__(self, log: MemoryLog, name: str = "a") -> None:
        self.log = log
        self.name = NodeId(name)
        self.clock = ManualClock(T0)
        self.replica = MemoryReplica()
        self.view = View(self.replica, on_members=self._heard)
        self.following = True
        self.trusted = True
        own = Witness(node_id=self.name, address="", version="", at=T0)
        self.roster = Roster(own=own, view=self.view, clock=self.clock)

    async def speak(self, presence: MemoryLog | None = None) -> None:
        await self.roster.run(
            presence=presence or self.log, log=self.log, describe=self.describe, is_following=lambda: self.following
        )

    def _heard(self, keys: frozenset[str]) -> None:
        self.roster.hear(keys)

    def describe(self) -> Member:
        return word(self.name.text, clock=self.clock.now(), clock_trusted=self.trusted)

    def hear(self, said: Member | str, *, live: bool = True) -> None:
        """A member's word reaches the replica; a name alone: it is gone. Not `live`: as a listing or a start brings it."""
        key = member_key(NodeId(said) if isinstance(said, str) else said.node_id)
        value = None if isinstance(said, str) else encode_member(said)
        cursor = self.replica.cursor()
        revision = Revision((ABSENT if cursor is None else cursor.revision) + 1)
        change = DocumentChange(key=key, revision=revision, value=value)
        self.replica.apply((change,), Cursor(identity=IDENTITY, revision=revision))
        if live:
            self.view.touched((key,))
        else:
            self.view.load()

    def listen(self, name: str, words: int = READINGS, *, off: timedelta = timedelta()) -> None:
        """So many words of a member whose clock is off."""
        for _ in range(words):
            self.hear(word(name, clock=self.clock.now() + off))
            self.clock.advance(SAY)

    def offset_of(self, name: str) -> timedelta | None:
        return self.roster.offsets().get(word(name).label)

    async def in_log(self, key: str) -> Record | None:
        return (await self.log.survey((key,))).records[key]


def word(name: str, **fields) -> Member:
    said = {
        "node_id": NodeId(name),
        "address": f"{name}.example.org:7640",
        "version": "0.0",
        "started_at": T0,
        "clock": T0,
        "applied": Revision(5),
        "purge_state": "IDLE",
        "purge_reason": "",
        "purge_waiting": 0,
        "clock_trusted": True,
        "outbox": 0,
    }
    return Member(**{**said, **fields})


def shared_log() -> MemoryLog:
    log = MemoryLog(IDENTITY.text, shared=True)
    log.bind(IDENTITY)
    return log


@pytest.fixture
def here() -> Here:
    return Here(shared_log())


@asynccontextmanager
async def speaking(here: Here, presence: MemoryLog | None = None) -> AsyncIterator[None]:
    running = asyncio.create_task(here.speak(presence))
    await settled()
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def settled() -> None:
    """Whatever the roster's task has to do now is done: nothing in it waits for anything but the clock."""
    for _ in range(20):
        await asyncio.sleep(0)


async def passing(here: Here, span: timedelta) -> None:
    """That much time, word by word."""
    while span > timedelta():
        here.clock.advance(min(span, SAY))
        span -= SAY
        await settled()


# what it says
async def test_a_node_says_at_once_and_every_few_seconds_what_it_is(here: Here) -> None:
    async with speaking(here):
        first = await here.in_log(member_key(here.name))
        assert first is not None
        assert decode_member(first.value) == here.describe()
        await passing(here, SAY)
        second = await here.in_log(member_key(here.name))
        assert second is not None
        assert decode_member(second.value).clock == T0 + SAY
        assert second.mod_revision > first.mod_revision
    assert SAY_SECONDS * 3 == PRESENCE_SECONDS


async def test_a_node_that_stops_takes_its_leave_and_its_witness_stays(here: Here) -> None:
    async with speaking(here):
        pass
    assert await here.in_log(member_key(here.name)) is None
    assert await here.in_log(witness_key(here.name)) is not None


async def test_a_stop_does_not_wait_for_a_log_that_does_not_answer(here: Here) -> None:
    class Deaf(MemoryLog):
        async def withdraw(self, key: str) -> None:
            await asyncio.Event().wait()

    async with asyncio.timeout(30), speaking(here, Deaf(IDENTITY.text)):
        pass


async def test_a_witness_is_written_at_once_and_then_once_a_minute(here: Here) -> None:
    async with speaking(here):
        first = await here.in_log(witness_key(here.name))
        assert first is not None
        assert decode_witness(first.value).at == T0
        await passing(here, WITNESS - SAY)
        assert await here.in_log(witness_key(here.name)) == first
        await passing(here, SAY)
        second = await here.in_log(witness_key(here.name))
        assert second is not None
        assert decode_witness(second.value).at == T0 + WITNESS


async def test_a_node_that_does_not_follow_the_log_writes_nothing_into_it(here: Here) -> None:
    """It may be a log that went back in time: a new witness would tell the others that all is well."""
    here.following = False
    async with speaking(here):
        await passing(here, 2 * WITNESS)
        assert await here.log.head() == ABSENT
        here.following = True
        await passing(here, SAY)
        assert await here.in_log(member_key(here.name)) is not None


async def test_a_log_that_takes_no_writes_is_survived_and_spoken_to_again(here: Here) -> None:
    here.log.interrupt()
    async with speaking(here):
        await passing(here, WITNESS)
        here.log.resume()
        assert await here.in_log(member_key(here.name)) is None
        await passing(here, SAY)
        assert await here.in_log(member_key(here.name)) is not None
        assert await here.in_log(witness_key(here.name)) is not None


async def test_a_log_that_has_become_another_one_is_survived_and_not_written_into(here: Here) -> None:
    async with speaking(here):
        here.log.wipe("another")
        await passing(here, WITNESS)
        survey = await here.log.survey((member_key(here.name), witness_key(here.name)))
        assert set(survey.records.values()) == {None}


# what it hears: clocks
@pytest.mark.parametrize("off", [timedelta(), 3 * M, -3 * M])
def test_a_member_s_clock_is_measured_from_its_second_word_on(here: Here, off: timedelta) -> None:
    here.listen("b", 1, off=off)
    assert here.offset_of("b") is None
    here.listen("b", 1, off=off)
    assert here.offset_of("b") == off


def test_what_a_listing_or_the_replica_holds_measures_no_clock(here: Here) -> None:
    """It was said at a time that nobody knows."""
    for number in range(READINGS):
        here.hear(word("b", clock=T0 - H + number * SAY), live=False)
        here.clock.advance(SAY)
    assert here.roster.offsets() == {}
    assert [said.member.node_id.text for said in here.roster.others.values()] == ["b"]


def test_a_member_that_is_gone_is_forgotten_and_measured_anew_when_it_is_back(here: Here) -> None:
    here.listen("b", off=H)
    here.hear("b")
    assert here.roster.offsets() == {}
    here.listen("b", 1)
    assert here.offset_of("b") is None


def test_a_member_that_was_started_anew_is_measured_anew(here: Here) -> None:
    here.listen("b", off=H)
    here.hear(word("b", clock=here.clock.now(), started_at=T0 + H))
    assert here.offset_of("b") is None


def test_words_that_come_late_after_a_stall_of_this_node_count_as_no_skew(here: Here) -> None:
    here.listen("b")
    said = [word("b", clock=here.clock.now() + number * SAY) for number in range(60)]
    here.clock.advance(60 * SAY)
    for one in said:
        here.hear(one)
    assert here.offset_of("b") == timedelta()


def test_a_member_that_stalls_counts_as_no_skew(here: Here) -> None:
    """Its word was written down, and a minute later it was said."""
    here.listen("b")
    late = word("b", clock=here.clock.now())
    here.clock.advance(M)
    here.hear(late)
    assert here.offset_of("b") == timedelta()
    here.clock.advance(SAY)
    here.listen("b")
    assert here.offset_of("b") == timedelta()


def test_this_node_s_own_words_measure_nothing(here: Here) -> None:
    here.listen("a", off=H)
    assert here.roster.offsets() == {}


def test_a_word_of_a_later_version_that_cannot_be_read_is_passed_over(here: Here) -> None:
    here.listen("b")
    change = DocumentChange(key=member_key(NodeId("c")), revision=Revision(99), value=b"\xff")
    here.replica.apply((change,), Cursor(identity=IDENTITY, revision=Revision(99)))
    here.view.touched((change.key,))
    assert [*here.roster.offsets()] == [word("b").label]


# what it hears: whose turn it is
def test_the_turn_is_of_the_member_with_the_least_id_that_lives_and_trusts_its_clock(here: Here) -> None:
    def turn() -> str | None:
        purger = here.roster.purger(here.describe())
        return None if purger is None else purger.node_id.text

    assert turn() == "a"
    here.hear(word("b"))
    assert turn() == "a"
    here.hear(word("0"))
    assert turn() == "0"
    here.hear(word("0", clock_trusted=False))
    assert turn() == "a"
    here.trusted = False
    assert turn() == "b"
    here.hear("b")
    assert turn() is None
    here.hear(word("0"), live=False)  # a listing tells it as well
    assert turn() == "0"


# a copied data directory
async def test_another_node_that_calls_itself_by_our_id_is_noticed_and_forgotten_when_it_falls_silent(here: Here) -> None:
    for _ in range(5):  # the log's revisions, by which this node's first word is its sixth
        await here.log.commit(Transaction(compare={}, puts={"x": b""}))
    here.hear(word("a", started_at=T0 - H))
    async with speaking(here):
        here.hear(word("a", started_at=T0 - H))  # revisions of this node's former life
        assert not here.roster.has_double
        for _ in range(4):
            here.hear(word("a"))
        assert not here.roster.has_double
        here.hear(word("a", started_at=T0 + H))
        assert here.roster.has_double
        await passing(here, timedelta(seconds=DOUBLE_SECONDS))
        assert not here.roster.has_double


async def test_two_rosters_on_one_log_do_not_write_over_each_other() -> None:
    log = shared_log()
    first, second = Here(log, "a"), Here(log, "b")
    async with speaking(first), speaking(second):
        for node in (first, second):
            assert await node.in_log(member_key(node.name)) is not None
            assert await node.in_log(witness_key(node.name)) is not None
    await log.commit(Transaction(compare={}, puts={}))
