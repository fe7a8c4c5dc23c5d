"""What administrators removed does not come back from a node that was cut off, and does come back with mail that came later."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from keycache.cache.deletions import BATCH, DELETION_KEPT, removed_at
from keycache.codec import decode, deletion_from_wire
from keycache.domain.administration import Deletion, IssuerState
from keycache.domain.entry import Defect, Issuer, Protocol, Trust
from keycache.domain.errors import InvalidInput
from keycache.domain.log import DELETIONS, Record, Transaction, deletion_key
from keycache.domain.names import Revision
from keycache.domain.verdict import Verdict
from keycache.v1 import record_pb2
from support.entries import T0, fingerprint_of, make_entry, make_key, make_sighting, record_of
from support.lines import Line, Once, cluster, shared_log
from support.node import ENVELOPE, Node, running_node

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
OLD = make_sighting(cached_at=T0 - 2 * DAY)


async def harvest(node: Node, *shown) -> Verdict:
    return (await node.cache.harvesting.harvest(node.script.mail(*shown), ENVELOPE)).verdict


def remembered(node: Node) -> dict[str, Deletion]:
    return {
        record.key.removeprefix(DELETIONS): deletion_from_wire(decode(record_pb2.Deletion, record.value))
        for record in node.replica.documents(DELETIONS)
    }


def smime(*numbers: int) -> list[str]:
    return [f"smime/{fingerprint_of(number).text}" for number in numbers]


# what is remembered
async def test_every_removal_by_an_administrator_is_remembered_with_who_and_when() -> None:
    held = make_entry(3, trust=Trust.HELD, issuer=Issuer(id="3" * 16, name="CN=CA"))
    released = make_entry(4, issuer=Issuer(id="3" * 16, name="CN=CA"))
    async with running_node(make_entry(1), make_entry(2), held, released, make_entry(5)) as node:
        await node.cache.entries.delete(fingerprint_of(1).text, "anna")
        node.clock.advance(MINUTE)
        query = node.cache.entries.query(address="user2@example.org")
        await node.cache.entries.purge(query, everything=False, dry_run=False, actor="bert")
        node.clock.advance(MINUTE)
        await node.cache.issuers.decide("3" * 16, IssuerState.REJECTED, b"", "carl")
        assert remembered(node) == {
            **dict.fromkeys(smime(1), Deletion(at=T0, actor="anna")),
            **dict.fromkeys(smime(2), Deletion(at=T0 + MINUTE, actor="bert")),
            **dict.fromkeys(smime(3, 4), Deletion(at=T0 + 2 * MINUTE, actor="carl")),
        }


async def test_the_purger_remembers_nothing_of_what_expired() -> None:
    async with running_node(make_entry(1, make_sighting(cached_at=T0 - 600 * DAY))) as node:
        await node.sweep()
        assert (node.entry(fingerprint_of(1)), remembered(node)) == (None, {})


async def test_a_large_purge_stays_within_what_etcd_takes_and_makes_nobody_read_anything_anew() -> None:
    log = shared_log()
    node = Node(log=Line(log))  # the line checks the number of operations
    loads: list[str] = []
    async with running_node(*(make_entry(number) for number in range(200)), node=node):
        view, script = node.cache._view, node.script
        script.trust = lambda base: loads.append("trust")  # type: ignore[method-assign]
        view._on_trust = script.trust
        view._load_blocks = lambda: loads.append("blocks")  # type: ignore[method-assign]
        view._load_settings = lambda: loads.append("settings")  # type: ignore[method-assign]
        done = await node.cache.entries.purge(None, everything=True, dry_run=False, actor="anna")
        assert (done.removed, len(remembered(node)), loads) == (200, 200, [])


async def test_it_is_forgotten_after_a_week_that_this_node_saw_pass() -> None:
    numbers = range(BATCH + 5)
    async with running_node(*(make_entry(number) for number in numbers)) as node:
        await node.cache.entries.purge(None, everything=True, dry_run=False, actor="anna")
        trim = node.cache._deletions.trim
        node.clock.advance(DELETION_KEPT)
        await trim()
        assert len(remembered(node)) == len(numbers)
        await node.seed(make_entry(0))
        await node.cache.entries.delete(fingerprint_of(0).text, "bert")
        node.clock.advance(timedelta(seconds=1))
        await trim()
        await node.settle()
        assert remembered(node) == {smime(0)[0]: Deletion(at=T0 + DELETION_KEPT, actor="bert")}
        node.clock.step(30 * DAY)
        await trim()
        assert len(remembered(node)) == 1


async def test_one_that_is_renewed_while_it_is_trimmed_stays() -> None:
    async with cluster(make_entry(1)) as (a, b):
        await a.cache.entries.delete(fingerprint_of(1).text, "anna")
        a.clock.advance(DELETION_KEPT + HOUR)
        b.clock.advance(DELETION_KEPT + HOUR)
        await b.settle()

        async def again() -> None:
            await b.seed(make_entry(1))
            await b.cache.entries.delete(fingerprint_of(1).text, "bert")

        a.line.before = Once(again)
        await a.cache._deletions.trim()
        await a.settle()
        assert remembered(a) == {smime(1)[0]: Deletion(at=T0 + DELETION_KEPT + HOUR, actor="bert")}


def test_a_deletion_without_a_time_or_unreadable_holds_nothing_back() -> None:
    with pytest.raises(InvalidInput, match="lacks its time"):
        deletion_from_wire(record_pb2.Deletion(actor="anna"))
    for value in (b"", b"\xff"):
        assert removed_at(Record(key="x", value=value, mod_revision=Revision(1))) is None


# what does not come back
async def test_what_was_deleted_while_a_node_was_cut_off_does_not_come_back() -> None:
    """Seen by the node before the deletion, in four ways: refreshed, unchanged but for its address, revoked, and new to it."""
    known = [make_entry(number, OLD) for number in (1, 3)]
    async with cluster(*known, make_entry(2)) as (a, b):
        a.line.cut()
        await harvest(a, make_key(1), make_key(2, addresses=["user2@example.org", "x@example.org"]))
        await harvest(a, make_key(3, defect=Defect.REVOKED), make_key(4))
        await harvest(b, make_key(4))
        assert a.outbox.count == 4
        for node in (a, b):
            node.clock.advance(MINUTE)
        for number in (1, 2):
            await b.cache.entries.delete(fingerprint_of(number).text, "anna")
        await b.cache.entries.purge(b.cache.entries.query(), everything=True, dry_run=False, actor="anna")
        await a.mended()
        await a.deliver()
        assert await b.in_log() == {}
        assert a.outbox.count == 0
        assert [a.answered(f"user{number}@example.org") for number in (1, 2, 3, 4)] == [[]] * 4


async def test_what_was_deleted_in_the_very_moment_of_its_delivery_does_not_come_back() -> None:
    """1. The delivery finds neither entry nor deletion. 2. Another node puts the key, and it is deleted there. 3. The delivery."""
    async with cluster() as (a, b):
        a.line.cut()
        await harvest(a, make_key(1), make_key(2))
        await a.mended()

        async def put_and_delete() -> None:
            await harvest(b, make_key(1))
            await b.cache.entries.delete(fingerprint_of(1).text, "anna")

        a.line.before = Once(put_and_delete)
        await a.deliver()
        assert list(await b.in_log()) == [fingerprint_of(2).text]
        assert a.outbox.count == 0


async def test_a_key_that_is_deleted_while_it_waits_goes_at_once_and_for_good() -> None:
    async with cluster(make_entry(2, OLD)) as (a, b):
        a.line.cut()
        await harvest(a, make_key(1), make_key(2))
        await a.mended()
        assert (await a.cache.entries.delete(fingerprint_of(1).text, "anna"))[0] == 1
        assert (await a.cache.entries.delete(fingerprint_of(2).text, "anna"))[0] == 1
        assert (a.outbox.count, a.answered("user1@example.org"), a.answered("user2@example.org")) == (0, [], [])
        await a.deliver()
        assert (await b.in_log(), sorted(remembered(b))) == ({}, sorted(smime(1, 2)))


async def test_a_purge_takes_what_waits_of_the_keys_it_removes() -> None:
    async with cluster(make_entry(1, OLD)) as (a, _):
        a.line.cut()
        await harvest(a, make_key(1))
        await a.mended()
        await a.cache.entries.purge(a.cache.entries.query(text="user1"), everything=False, dry_run=False, actor="anna")
        assert (a.outbox.count, a.answered("user1@example.org")) == (0, [])


async def test_keys_of_an_issuer_that_was_rejected_meanwhile_are_not_delivered() -> None:
    issuer = Issuer(id="3" * 16, name="CN=CA")
    async with cluster(make_entry(2, trust=Trust.HELD, issuer=issuer)) as (a, b):
        a.line.cut()
        await harvest(a, make_key(1, trust=Trust.HELD, issuer=issuer), make_key(3, issuer=issuer), make_key(4))
        await b.cache.issuers.decide("3" * 16, IssuerState.REJECTED, b"", "anna")
        await a.mended()
        await a.deliver()
        assert (a.outbox.count, list(await b.in_log())) == (0, [fingerprint_of(4).text])


# what does
async def test_a_key_that_is_seen_after_its_deletion_comes_back() -> None:
    async with cluster(make_entry(1, OLD), make_entry(2, OLD)) as (a, b):
        a.line.cut()
        await harvest(a, make_key(2))
        for number in (1, 2):
            await b.cache.entries.delete(fingerprint_of(number).text, "anna")
        a.clock.advance(2 * DAY)
        await harvest(a, make_key(1), make_key(2))
        await a.mended()
        await a.deliver()
        assert set(await b.in_log()) == {fingerprint_of(number).text for number in (1, 2)}
        await b.settle()
        await b.cache.entries.delete(fingerprint_of(1).text, "anna")
        assert await harvest(b, make_key(1)) is Verdict.CACHED


async def test_an_administrators_import_brings_back_what_was_deleted_and_no_delivery_undoes_it() -> None:
    async with cluster(make_entry(1, OLD)) as (a, b):
        a.line.cut()
        await harvest(a, make_key(1))
        b.clock.advance(HOUR)
        await b.cache.entries.delete(fingerprint_of(1).text, "anna")
        exported = make_entry(1, OLD, addresses=["imported@example.org"])
        b.script.know(exported.key)
        assert (await b.cache.imports.entry(exported, "export.jsonl", "anna")).verdict is Verdict.CACHED
        await a.mended()
        await a.deliver()
        assert (await b.in_log(), a.outbox.count) == ({fingerprint_of(1).text: exported}, 0)


async def test_a_key_that_was_deleted_and_brought_back_learns_of_a_revocation_and_of_nothing_else() -> None:
    async with cluster(make_entry(1, OLD)) as (a, b):
        a.line.cut()
        await harvest(a, make_key(1, addresses=["user1@example.org", "wrong@example.org"], defect=Defect.REVOKED))
        b.clock.advance(HOUR)
        await b.cache.entries.delete(fingerprint_of(1).text, "anna")
        await harvest(b, make_key(1))
        (before,) = (await b.in_log()).values()
        await a.mended()
        await a.deliver()
        (after,) = (await b.in_log()).values()
        assert after == replace(before, key=replace(before.key, defect=Defect.REVOKED))


async def test_a_deletion_record_is_no_hindrance_once_it_is_trimmed_or_older() -> None:
    async with cluster(make_entry(1, make_sighting(cached_at=T0 - 2 * DAY))) as (a, b):
        old = record_pb2.Deletion(actor="anna")
        old.at.FromDatetime(T0 - DAY)
        name = deletion_key(Protocol.SMIME, fingerprint_of(1))
        await b.log.commit(Transaction(compare={}, puts={name: old.SerializeToString(), **dict([record_of(make_entry(2))])}))
        a.line.cut()
        await harvest(a, make_key(1))
        await a.mended()
        await a.deliver()
        assert set(await b.in_log()) == {fingerprint_of(number).text for number in (1, 2)}
