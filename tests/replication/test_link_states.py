"""How a node stands to a log that it shares with others: every state, and what leads from one to the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from keycache.codec import encode_settings
from keycache.domain.errors import ForeignLog, LogOverloaded, LogUnavailable
from keycache.domain.log import ABSENT, BLOCKS, SETTINGS, Batch, CommitResult, Refuted, Transaction
from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.ports import Counts, Cursor, Replica, ReplicaChange
from keycache.domain.restart import HINT, Action, RestartReport
from keycache.domain.settings import Settings, Timeouts
from keycache.replication.link import LinkState
from keycache.replication.replicator import HEARD_WITHIN, SERVE_AFTER
from keycache.store.memory import MemoryReplica
from support.entries import T0, fingerprint_of, make_entry, make_key, make_sighting
from support.node import ENVELOPE, Node, eventually, running_node
from support.odd_logs import RestorableLog

DAY = timedelta(days=1)
AGED = make_sighting(cached_at=T0 - 500 * DAY)
LONGER = Settings(timeouts=Timeouts(harvested=999 * DAY))


@dataclass(frozen=True)
class Stand:
    """All that a node tells of its link."""

    state: LinkState
    connected: bool
    ready: bool
    caught_up: bool
    purging: bool
    served: bool
    writes: bool


FOLLOWS = Stand(LinkState.FOLLOWING, connected=True, ready=True, caught_up=True, purging=True, served=True, writes=True)
SERVES = replace(FOLLOWS, state=LinkState.SERVE_ONLY, connected=False, writes=False)
REFUSES = replace(SERVES, state=LinkState.REFUSED)
RESTARTED = {"caught_up": False, "purging": False}
"""Since the start of the process there was no log to catch up with, and so no purger."""


async def stand(node: Node) -> Stand:
    replicator = node.cache.replicator
    try:
        await node.cache.journal.record("admin", "TEST", "x")
        writes = True
    except LogUnavailable:
        writes = False
    return Stand(
        state=replicator.state,
        connected=replicator.connected,
        ready=replicator.ready.is_set(),
        caught_up=replicator.caught_up.is_set(),
        purging=node.cache.purger.resting.is_set(),
        served=node.served("user1@example.org") == [fingerprint_of(1).text],
        writes=writes,
    )


def holding(log: RestorableLog | None = None) -> Node:
    return Node(log=log or RestorableLog())


def log_of(node: Node) -> RestorableLog:
    assert isinstance(node.log, RestorableLog)
    return node.log


# STARTING
async def test_the_first_node_founds_the_log_with_explicit_settings_and_follows_it() -> None:
    async with running_node(node=holding()) as node:
        log = log_of(node)
        survey = await log.survey((SETTINGS,))
        settings = survey.records[SETTINGS]
        assert survey.identity is not None
        assert len(survey.identity.text) == 32
        assert settings is not None
        assert settings.value == encode_settings(Settings())
        assert node.replica.cursor() == Cursor(identity=survey.identity, revision=survey.head)
        await node.seed(make_entry(1))
        assert await stand(node) == FOLLOWS
        assert (node.cache.replicator.reason, node.cache.not_ready()) == ("", "")


async def test_two_nodes_that_start_together_found_one_log() -> None:
    log = RestorableLog()
    nodes = [Node(log=log, name=f"node-{number}") for number in (1, 2)]
    await asyncio.gather(*(node.start() for node in nodes))
    cursors = [node.replica.cursor() for node in nodes]
    assert cursors[0] == cursors[1]
    assert (await log.survey()).head == 1
    for node in nodes:
        await node.stop()


async def test_who_finds_that_somebody_founded_it_first_takes_that_log() -> None:
    class Contended(RestorableLog):
        async def found(self, identity, puts, *, instead_of=None) -> CommitResult:
            await super().found(ClusterIdentity("theirs"), {SETTINGS: encode_settings(LONGER)})
            result = await super().found(identity, puts, instead_of=instead_of)
            assert isinstance(result, Refuted)
            return result

    async with running_node(node=holding(Contended())) as node:
        assert node.cache.settings.current()[0] == LONGER
        assert node.replica.cursor() == Cursor(identity=ClusterIdentity("theirs"), revision=Revision(1))


async def test_a_node_with_nothing_and_a_log_out_of_reach_is_not_ready_and_says_why() -> None:
    node = holding()
    log_of(node).interrupt()
    starting = asyncio.create_task(node.start())
    await eventually(lambda: node._cache is not None and node.cache.replicator.state is LinkState.SERVE_ONLY)
    assert node.cache.not_ready() == "The entry log does not answer. Wait until it is back."
    assert not node.cache.replicator.ready.is_set()
    log_of(node).resume()
    await starting
    assert node.cache.not_ready() == ""
    await node.stop()


async def test_a_node_that_holds_a_replica_serves_it_at_once_while_the_log_is_out_of_reach() -> None:
    async with running_node(make_entry(1), node=holding()) as node:
        log_of(node).interrupt()
        await node.restart()
        assert await stand(node) == replace(SERVES, **RESTARTED)
        assert node.cache.not_ready() == ""
        log_of(node).resume()
        await node.until(LinkState.FOLLOWING)
        await node.settle()
        assert await stand(node) == FOLLOWS


async def test_a_node_whose_log_hangs_serves_its_replica_soon_after_the_start() -> None:
    class Hanging(RestorableLog):
        hangs = False

        async def survey(self, keys=(), *, since=ABSENT):
            if self.hangs:
                await asyncio.Event().wait()
            return await super().survey(keys, since=since)

    log = Hanging()
    async with running_node(make_entry(1), node=holding(log)) as node:
        await node.stop()
        log.hangs = True
        starting = asyncio.create_task(node.start())
        await eventually(lambda: node._cache is not None and node.cache.replicator.ready.is_set())
        assert node.cache.replicator.state is LinkState.STARTING
        assert node.served("user1@example.org") == [fingerprint_of(1).text]
        assert SERVE_AFTER < 1
        starting.cancel()


async def test_a_restart_goes_on_from_the_cursor() -> None:
    async with running_node(make_entry(1), node=holding()) as node:
        lists = log_of(node).lists
        await node.restart()
        assert log_of(node).lists == lists
        assert await stand(node) == FOLLOWS
        assert node.cache.replicator.report == replace(await node.cache.check(), log_revision=2, replica_revision=2)
        assert node.cache.replicator.report.action is Action.RESUME


# FOLLOWING
async def test_a_log_that_is_lost_is_looked_at_before_anything_is_written_again() -> None:
    async with running_node(make_entry(1), node=holding()) as node:
        log_of(node).interrupt()
        await node.until(LinkState.SERVE_ONLY)
        assert await stand(node) == SERVES
        assert "does not answer" in node.cache.replicator.reason
        log_of(node).resume()
        await node.until(LinkState.FOLLOWING)
        assert await stand(node) == FOLLOWS
        assert node.log.lists == 1  # type: ignore[attr-defined]


async def test_a_log_that_has_too_much_to_do_is_left_alone_and_not_listed() -> None:
    class Overloaded(RestorableLog):
        refusals = 0

        async def watch(self, *, after: Revision) -> AsyncGenerator[Batch, None]:
            if self.refusals:
                self.refusals -= 1
                raise LogOverloaded("Too many requests.")
            async for batch in super().watch(after=after):
                yield batch

    log = Overloaded()
    async with running_node(make_entry(1), node=holding(log)) as node:
        log.refusals = 3
        await node.restart()
        await node.until(LinkState.FOLLOWING)
        await eventually(lambda: log.refusals == 0)
        await node.until(LinkState.FOLLOWING)
        assert log.lists == 1


async def test_a_compacted_log_is_listed_after_another_look() -> None:
    async with running_node(make_entry(1), make_entry(2), node=holding()) as node:
        await node.stop()
        await node.log.commit(Transaction(compare={}, puts={}, deletes=()))
        await log_of(node).put("members/other", b"x")
        log_of(node).compact()
        lists = log_of(node).lists
        await node.start()
        assert log_of(node).lists == lists + 1
        report = node.cache.replicator.report
        assert report is not None
        assert (report.action, report.reason) == (
            Action.RELIST,
            "The log no longer holds all changes since this node last heard it.",
        )
        assert await stand(node) == FOLLOWS


async def test_a_log_that_says_nothing_is_not_connected_until_it_is_heard_and_empty_batches_are_heard() -> None:
    class Breathing(RestorableLog):
        """Told to, it says that there is nothing new, as etcd's progress notifications do."""

        def __init__(self) -> None:
            super().__init__()
            self.breath = asyncio.Event()
            self.elsewhere = 0

        async def watch(self, *, after: Revision) -> AsyncGenerator[Batch, None]:
            while True:
                await self.breath.wait()
                self.breath.clear()
                yield Batch(revision=Revision(self._head + self.elsewhere), events=())

    class Counting(MemoryReplica):
        writes = 0

        def apply(self, changes: list[ReplicaChange], cursor: Cursor) -> None:  # type: ignore[override]
            self.writes += 1
            super().apply(changes, cursor)

    log, replica = Breathing(), Counting()
    async with running_node(node=Node(log=log, replica=replica)) as node:
        replicator = node.cache.replicator
        assert replicator.log_age == node.cache.lookups.log_age == timedelta()
        node.clock.advance(HEARD_WITHIN)
        assert (replicator.state, replicator.connected, replicator.log_age) == (LinkState.FOLLOWING, False, HEARD_WITHIN)
        log.breath.set()
        await eventually(lambda: replicator.connected)
        assert (replica.writes, replicator.applied) == (0, 1)
        log.elsewhere = 3  # others use this etcd too
        log.breath.set()
        await eventually(lambda: replicator.applied == 4)
        assert (replica.writes, replica.cursor()) == (1, Cursor(identity=log.identity, revision=Revision(4)))


async def test_a_log_on_the_node_itself_has_no_age() -> None:
    async with running_node() as node:
        node.clock.advance(DAY)
        assert (node.cache.replicator.log_age, node.cache.replicator.connected) == (None, True)


# REFUSED
async def test_a_log_that_is_emptied_under_a_running_node_is_refused_and_goes_on_when_it_is_back() -> None:
    async with running_node(make_entry(1), make_entry(2, AGED), node=holding()) as node:
        log, backup, digest = log_of(node), log_of(node).snapshot(), node.replica.digest()
        cursor = node.replica.cursor()
        assert cursor is not None
        log.wipe()
        await node.until(LinkState.REFUSED)
        assert await stand(node) == REFUSES
        assert node.cache.replicator.report == await node.cache.check()
        assert node.cache.replicator.report == RestartReport(
            action=Action.REFUSE,
            reason=f"This node was filled from log {cursor.identity}, and what it finds is nobody's yet. This node holds 1 keys "
            "that would be lost.",
            hint=HINT,
            kept=1,
            expired=1,
            held_back=0,
            held_reason="",
            settings=Settings(),
            replica_identity=cursor.identity,
            replica_revision=cursor.revision,
            log_identity=None,
            log_revision=ABSENT,
        )
        with pytest.raises(LogUnavailable):
            await node.cache.purger.sweep()
        assert (node.replica.digest(), node.replica.cursor()) == (digest, cursor)
        assert (await log.survey()).head == 0, "nothing was founded"
        await log.restore(backup)
        await node.until(LinkState.FOLLOWING)
        assert await stand(node) == FOLLOWS


async def test_a_refusal_outlasts_a_restart_and_no_purger_runs() -> None:
    async with running_node(make_entry(1), node=holding()) as node:
        log_of(node).wipe("b" * 32)
        await node.restart()
        assert await stand(node) == replace(REFUSES, **RESTARTED)
        await node.restart()
        assert await stand(node) == replace(REFUSES, **RESTARTED)


async def test_administrators_hear_why_nothing_is_written_and_what_mail_brings_waits() -> None:
    async with running_node(make_entry(1), node=holding()) as node:
        log_of(node).wipe("b" * 32)
        await node.until(LinkState.REFUSED)
        result = await node.cache.harvesting.harvest(node.script.mail(make_key(2)), ENVELOPE)
        assert [key.queued for key in result.keys] == [True]
        for act in (
            node.cache.entries.delete(fingerprint_of(1).text, "admin"),
            node.cache.settings.change(harvested=DAY, actor="admin"),
        ):
            with pytest.raises(LogUnavailable, match=r"takes no writes of this node now\..* was filled from log"):
                await act
        assert (await log_of(node).survey()).head == 0


async def test_a_write_that_meets_another_log_makes_the_node_look() -> None:
    """The watch says nothing yet."""

    class Deaf(RestorableLog):
        def _wake(self) -> None:
            if self._identity is None or self._identity.text != "b" * 32:
                super()._wake()

    async with running_node(make_entry(1), node=holding(Deaf())) as node:
        log_of(node).wipe("b" * 32)
        assert node.cache.replicator.state is LinkState.FOLLOWING
        with pytest.raises(ForeignLog):
            await node.cache.journal.record("admin", "TEST", "x")
        await node.until(LinkState.REFUSED)


async def test_leftovers_that_are_surely_expired_hinder_no_new_beginning_and_the_settings_stay() -> None:
    """Settings are an administrator's; a log that begins anew is no reason to go back to the defaults."""
    async with running_node(make_entry(1, AGED), node=holding()) as node:
        await node.cache.settings.change(looked_up=5 * DAY, actor="admin")
        before = node.replica.cursor()
        log_of(node).wipe()
        await eventually(lambda: node.replica.cursor() not in (None, before))
        await node.until(LinkState.FOLLOWING)
        await node.settle()
        assert node.cache.settings.current()[0].timeouts.looked_up == 5 * DAY
        assert (await node.cache.status()).entries == Counts(live=0, expired=0, held=0)


async def test_blocks_are_not_dropped_with_an_empty_cache() -> None:
    async with running_node(node=holding()) as node:
        await node.cache.blocks.block(address="eve@example.org", until=None, reason="", actor="admin")
        log_of(node).wipe()
        await node.until(LinkState.REFUSED)
        assert "0 keys and 1 decisions on issuers and blocks" in node.cache.replicator.reason
        assert len(node.replica.documents(BLOCKS)) == 1


async def test_a_node_whose_settings_are_lost_takes_none_of_its_entries_for_expired() -> None:
    async with running_node(make_entry(1, AGED), node=holding()) as node:
        await node.log.commit(Transaction(compare={}, puts={}, deletes=(SETTINGS,)))
        await node.settle()
        log_of(node).wipe()
        await node.until(LinkState.REFUSED)
        report = node.cache.replicator.report
        assert report is not None
        assert (report.kept, report.expired, report.settings) == (1, 0, None)


async def test_a_log_that_changes_while_it_is_listed_leads_back_to_the_look() -> None:
    class Changing(RestorableLog):
        change = False

        async def list(self, *, page_size: int = 1000, keys_only: bool = False):
            async for page in super().list(page_size=page_size, keys_only=keys_only):
                yield page
                if self.change:
                    self.change = False
                    self.wipe("b" * 32)

    log = Changing()
    replica: Replica = MemoryReplica()
    async with running_node(*(make_entry(number) for number in range(1, 6)), node=Node(log=log, replica=replica)) as node:
        await node.stop()
        await log.put("members/other", b"x")
        log.compact()
        log.change = True
        digest = replica.digest()
        await node.start()
        await node.until(LinkState.REFUSED)
        assert await stand(node) == replace(REFUSES, **RESTARTED)
        assert replica.digest() == digest
