"""What is remembered of acts and verdicts."""

from __future__ import annotations

from datetime import timedelta

from keycache.cache import journal as journal_module
from keycache.cache.journal import AUDIT_LIMIT, AUDIT_SLACK
from keycache.cache.results import VerdictLine
from keycache.cache.writer import audit_put
from keycache.domain.administration import AuditRecord
from keycache.domain.examination import Direction
from keycache.domain.log import AUDIT, Transaction
from keycache.domain.verdict import Verdict
from support.entries import T0, make_key
from support.node import ENVELOPE, Node, running_node

SECOND = timedelta(seconds=1)


def record(number: int) -> AuditRecord:
    return AuditRecord(at=T0 + number * SECOND, actor="anna", action="DELETE", subject=f"key {number % 3}", detail=str(number))


async def fill(node: Node, count: int) -> None:
    for start in range(0, count, 1000):
        puts: dict[str, bytes] = {}
        for number in range(start, min(start + 1000, count)):
            puts |= audit_put(record(number))
        await node.log.commit(Transaction(compare={}, puts=puts))
    await node.settle()


async def test_acts_are_told_newest_first_all_or_of_one_subject() -> None:
    async with running_node() as node:
        await fill(node, 9)
        assert await node.cache.journal.audit(limit=4) == tuple(record(number) for number in (8, 7, 6, 5))
        assert await node.cache.journal.audit(limit=9, subject="key 1") == tuple(record(number) for number in (7, 4, 1))


async def test_an_act_that_writes_nothing_else_is_recorded_too_and_survives_a_restart() -> None:
    async with running_node() as node:
        await node.cache.journal.record("anna", "ISSUE_CLIENT", "mta1", "mail-processor")
        await node.restart()
        assert await node.cache.journal.audit(limit=9) == (
            AuditRecord(at=T0, actor="anna", action="ISSUE_CLIENT", subject="mta1", detail="mail-processor"),
        )


async def test_nothing_is_trimmed_below_the_limit() -> None:
    for count in (10, AUDIT_LIMIT // 2 + AUDIT_SLACK, AUDIT_LIMIT, AUDIT_LIMIT + AUDIT_SLACK - 1):
        async with running_node() as node:
            await fill(node, count)
            await node.cache.journal.trim()
            assert len(node.replica.documents(AUDIT)) == count


async def test_above_the_limit_the_oldest_acts_go_however_many_they_are_in_small_transactions() -> None:
    async with running_node() as node:
        await fill(node, AUDIT_LIMIT + 350)
        before = await node.log.head()
        await node.cache.journal.trim()
        assert await node.log.head() == before + 4
        records = await node.cache.journal.audit(limit=AUDIT_LIMIT + 1)
        assert (len(records), records[-1].detail) == (AUDIT_LIMIT, "350")


async def test_verdicts_are_counted_and_the_newest_remembered_without_content() -> None:
    async with running_node() as node:
        told: list[Verdict] = []
        node.cache.journal.on_verdict = told.append
        for shown in ((make_key(1),), (make_key(1),), ()):
            await node.cache.harvesting.harvest(node.script.mail(*shown), ENVELOPE)
            node.clock.advance(SECOND)
        counts, lines = node.cache.journal.verdicts(2)
        assert counts == {"CACHED": 1, "ALREADY_FRESH": 1, "NO_KEY_MATERIAL": 1}
        assert told == [Verdict.CACHED, Verdict.ALREADY_FRESH, Verdict.NO_KEY_MATERIAL]
        assert [line.verdict for line in lines] == [Verdict.NO_KEY_MATERIAL, Verdict.ALREADY_FRESH]
        assert lines[1] == VerdictLine(
            at=T0 + SECOND,
            message_id="<2@example.org>",
            sender="user1@example.org",
            direction=Direction.INBOUND,
            verdict=Verdict.ALREADY_FRESH,
            detail=Verdict.ALREADY_FRESH.advice,
        )


async def test_verdicts_remembered_are_bounded() -> None:
    async with running_node() as node:
        mail = node.script.mail()
        for _ in range(journal_module.VERDICTS_KEPT + 5):
            await node.cache.harvesting.harvest(mail, ENVELOPE)
        counts, lines = node.cache.journal.verdicts(10_000)
        assert (counts, len(lines)) == ({"NO_KEY_MATERIAL": 1_005}, 1_000)


async def test_an_act_outlives_a_node_that_dies_right_after_it() -> None:
    async with running_node() as node:
        await node.cache.blocks.block(address="a@example.org", until=None, reason="", actor="anna")
        head = await node.log.head()
        await node.stop()
        await node.start()
        assert (await node.cache.journal.audit(limit=1))[0].action == "BLOCK"
        assert await node.log.head() == head
