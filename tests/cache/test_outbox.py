"""While the cluster's log takes no writes, what comes with mail is kept and served on this node (DESIGN 2.6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keycache.cache.harvesting import KEYS_PER_ADDRESS, QUEUED
from keycache.cache.lookups import Lookups
from keycache.cache.results import MessageResult
from keycache.cache.writer import RECORD_BYTES
from keycache.domain.entry import Defect, Origin, Protocol, Trust
from keycache.domain.errors import (
    ForeignLog,
    KeycacheError,
    LogFull,
    LogOverloaded,
    LogUnavailable,
    NotFound,
    OutboxFull,
    RecordTooLarge,
    Unavailable,
)
from keycache.domain.log import CHAIN
from keycache.domain.lookup import LookupFilter, MissCode
from keycache.domain.names import Revision
from keycache.domain.verdict import Verdict
from keycache.services import convert
from keycache.store.memory import MemoryLog, MemoryOutbox
from support.entries import T0, fingerprint_of, make_entry, make_key, make_sighting, put
from support.lines import Member, cluster, shared_log
from support.node import ENVELOPE, Node, running_node

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PGP: dict[str, Any] = {"protocol": Protocol.OPENPGP}


async def harvest(node: Node, *shown, **mail) -> MessageResult:
    return await node.cache.harvesting.harvest(node.script.mail(*shown, **mail), ENVELOPE)


async def put_key(node: Node, number: int):
    blob = node.script.file(b"file %d" % number, make_key(number))
    results, _ = await node.cache.harvesting.put(blob, f"user{number}@example.org", "keys.example.org")
    return results[0]


# what is taken
async def test_a_harvested_key_is_kept_here_and_served_here_at_once() -> None:
    async with cluster() as (a, b):
        a.line.cut()
        before = await b.log.head()
        result = await harvest(a, make_key(1), chain=(b"ca",))
        (key,) = result.keys
        assert (result.verdict, key.verdict, key.queued, key.detail) == (Verdict.CACHED, Verdict.CACHED, True, QUEUED)
        assert (result.detail, result.revision) == (QUEUED, before)
        assert convert.key_verdict(key).queued
        assert a.answered("user1@example.org") == [fingerprint_of(1).text]
        assert [found.row.fingerprint for found in a.cache.lookups.by_fingerprint(fingerprint_of(1).text).keys] == [
            fingerprint_of(1).text
        ]
        (pending,) = a.outbox.first(9)
        assert [name[: len(CHAIN)] for name in pending.puts] == [CHAIN]
        assert pending.queued_at == T0
        assert b.answered("user1@example.org") == []
        assert await b.log.head() == before


async def test_a_key_that_was_looked_up_is_kept_here_too() -> None:
    async with cluster() as (a, _):
        a.line.cut()
        result = await put_key(a, 1)
        assert (result.verdict, result.queued) == (Verdict.CACHED, True)
        assert a.waiting()[0].sightings == (make_sighting(Origin.LOOKED_UP, source="keys.example.org"),)
        assert a.answered("user1@example.org") == [fingerprint_of(1).text]


async def test_a_known_and_fresh_key_costs_nothing() -> None:
    async with cluster(make_entry(1)) as (a, _):
        a.line.cut()
        result = await harvest(a, make_key(1))
        assert (result.verdict, result.keys[0].queued) == (Verdict.ALREADY_FRESH, False)
        assert a.waiting() == []


async def test_a_refresh_is_kept_here_and_counts_here() -> None:
    async with cluster(make_entry(1, make_sighting(Origin.LOOKED_UP))) as (a, b):
        a.line.cut()
        a.clock.advance(20 * HOUR)
        assert (await put_key(a, 1)).verdict is Verdict.REFRESHED
        a.clock.advance(5 * HOUR)
        assert a.answered("user1@example.org") == [fingerprint_of(1).text]
        b.clock.advance(25 * HOUR)
        assert b.answered("user1@example.org") == []


async def test_a_thousand_mails_of_one_sender_cost_one_write_to_the_outbox() -> None:
    async with cluster(outbox=MemoryOutbox()) as (a, _):
        assert isinstance(a.outbox, MemoryOutbox)
        a.line.cut()
        first = await harvest(a, make_key(1))
        told = set()
        for _number in range(999):
            a.clock.advance(timedelta(seconds=86))
            result = await harvest(a, make_key(1))
            told.add((result.verdict, result.keys[0].queued))
        assert (first.verdict, told) == (Verdict.CACHED, {(Verdict.ALREADY_FRESH, True)})
        assert a.outbox.puts_made == 1
        a.clock.advance(HOUR)
        assert (await harvest(a, make_key(1))).verdict is Verdict.REFRESHED
        assert (a.outbox.puts_made, a.outbox.count) == (2, 1)


async def test_a_key_that_waits_goes_on_waiting_when_it_is_seen_again_though_the_log_is_back() -> None:
    async with cluster() as (a, b):
        a.line.cut()
        await harvest(a, make_key(1))
        await a.mended()
        before = await b.log.head()
        result = await harvest(a, make_key(1, addresses=["user1@example.org", "new@example.org"]))
        assert (result.verdict, result.keys[0].queued) == (Verdict.REFRESHED, True)
        assert await b.log.head() == before
        assert (await harvest(a, make_key(2))).keys[0].queued is False
        assert await b.log.head() == before + 1


@pytest.mark.parametrize(
    "error", [LogFull("Full."), LogOverloaded("Busy."), ForeignLog("Another one."), LogUnavailable("Away.")]
)
async def test_whatever_keeps_the_log_from_taking_it_the_key_is_kept_here(error: KeycacheError) -> None:
    async with cluster() as (a, _):
        a.line.failing = error
        assert (await harvest(a, make_key(1))).keys[0].queued
        assert a.answered("user1@example.org") == [fingerprint_of(1).text]


async def test_where_the_link_is_known_to_be_down_the_log_is_not_even_asked() -> None:
    def down(cache) -> None:
        cache._writer._link_up = lambda: False

    async with cluster(adapt=down) as (a, _):
        asked = a.line.asked
        assert (await harvest(a, make_key(1))).keys[0].queued
        assert a.line.asked == asked


async def test_two_mails_with_one_openpgp_key_at_once_lose_neither_address() -> None:
    async with cluster() as (a, _):
        a.line.cut()
        await harvest(a, replace(make_key(1, **PGP, addresses=["a@x.example"]), material=b"1"))
        started, go = asyncio.Event(), asyncio.Event()
        merge = a.script.merge

        async def slowly(*keys: Any) -> Any:
            started.set()
            await go.wait()
            return await merge(*keys)

        a.script.merge = slowly  # type: ignore[method-assign]
        both = [
            asyncio.create_task(harvest(a, replace(make_key(1, **PGP, addresses=[address]), material=material)))
            for address, material in (("b@x.example", b"2"), ("c@x.example", b"3"))
        ]
        await started.wait()
        go.set()
        await asyncio.gather(*both)
        (entry,) = a.waiting()
        assert [address.text for address in entry.key.addresses] == ["a@x.example", "b@x.example", "c@x.example"]
        assert entry.key.material == b"1+2+3"


async def test_a_revocation_learned_meanwhile_counts_here_at_once() -> None:
    async with cluster(make_entry(1)) as (a, _):
        a.line.cut()
        result = await harvest(a, make_key(1, defect=Defect.REVOKED))
        assert (result.verdict, result.keys[0].queued) == (Verdict.REVOCATION_LEARNED, True)
        assert a.answered("user1@example.org") == []
        assert a.cache.lookups.by_address("user1@example.org").miss is MissCode.UNUSABLE
        await harvest(a, make_key(2))
        assert (await harvest(a, make_key(2, defect=Defect.REVOKED))).verdict is Verdict.REVOCATION_LEARNED
        assert a.answered("user2@example.org") == []


async def test_keys_that_wait_count_when_an_address_is_flooded() -> None:
    async with cluster() as (a, _):
        a.line.cut()
        victim: dict[str, Any] = {"trust": Trust.BOUND, "addresses": ["victim@example.org"]}
        told = [(await harvest(a, make_key(number, **victim))).verdict for number in range(KEYS_PER_ADDRESS + 1)]
        assert told == [Verdict.CACHED] * KEYS_PER_ADDRESS + [Verdict.TOO_MANY_KEYS]


# what is refused
async def test_a_full_outbox_says_so_and_goes_on_serving_and_recognising() -> None:
    async with cluster(make_entry(3), outbox=MemoryOutbox(limit=500)) as (a, _):
        a.line.cut()
        assert (await harvest(a, make_key(1))).keys[0].queued
        with pytest.raises(OutboxFull, match="outbox of this node is full") as refused:
            await harvest(a, make_key(2, material_size=400))
        assert "Bring etcd back" in refused.value.hint
        assert (await harvest(a, make_key(1))).verdict is Verdict.ALREADY_FRESH
        assert (await harvest(a, make_key(3))).verdict is Verdict.ALREADY_FRESH
        assert a.answered("user1@example.org") == [fingerprint_of(1).text]
        await a.mended()
        await a.deliver()
        assert (await harvest(a, make_key(2, material_size=400))).keys[0].queued is False


async def test_a_key_too_large_for_the_log_is_a_verdict_and_no_failure() -> None:
    async with cluster() as (a, _):
        a.line.largest = 1000
        result = await harvest(a, make_key(1, material_size=2000), make_key(2))
        assert [key.verdict for key in result.keys] == [Verdict.KEY_TOO_LARGE, Verdict.CACHED]
        assert "the log takes 1,000" in result.keys[0].detail
        a.line.cut()
        result = await harvest(a, make_key(3, material_size=RECORD_BYTES + 1))
        assert (result.verdict, result.keys[0].queued) == (Verdict.KEY_TOO_LARGE, False)
        assert a.waiting() == []


async def test_administrators_acts_fail_plainly_and_leave_nothing_behind() -> None:
    async with cluster(make_entry(1)) as (a, b):
        a.line.cut()
        await harvest(a, make_key(2))
        cache, waiting = a.cache, a.waiting()
        file = a.script.file(b"file", make_key(3))
        for act in (
            cache.entries.delete(fingerprint_of(1).text, "anna"),
            cache.entries.delete(fingerprint_of(2).text, "anna"),
            cache.entries.purge(None, everything=True, dry_run=False, actor="anna"),
            cache.settings.change(harvested=DAY, actor="anna"),
            cache.blocks.block(address="a@example.org", until=None, reason="", actor="anna"),
            cache.imports.material(file, "keys.asc", "anna"),
            cache.imports.message(a.script.mail(make_key(3)), ENVELOPE, "old.eml", "anna"),
            cache.imports.entry(make_entry(3), "export.jsonl", "anna"),
        ):
            with pytest.raises(LogUnavailable, match="etcd does not answer"):
                await act
        assert a.waiting() == waiting
        assert (a.answered("user1@example.org"), a.answered("user2@example.org")) == (
            [fingerprint_of(1).text],
            [fingerprint_of(2).text],
        )
        await a.mended()
        assert set(await b.in_log()) == {fingerprint_of(1).text}


async def test_an_import_too_large_for_the_log_fails_plainly() -> None:
    async with cluster() as (a, _):
        a.line.largest = 1000
        large = make_entry(1, material_size=2000)
        a.script.know(large.key)
        with pytest.raises(RecordTooLarge):
            await a.cache.imports.entry(large, "export.jsonl", "anna")


async def test_a_node_that_is_alone_has_no_outbox() -> None:
    async with running_node() as node:
        assert isinstance(node.log, MemoryLog)
        node.log.interrupt()
        with pytest.raises(LogUnavailable):
            await harvest(node, make_key(1))
        assert node.outbox.count == 0


async def test_a_key_that_is_safe_in_the_log_is_no_failure_though_this_node_does_not_show_it_yet() -> None:
    class Lagging:
        applied = Revision(0)

        async def reach(self, revision: int, *, timeout_seconds: float = 5.0) -> None:
            raise Unavailable("Not yet.")

    async with cluster() as (a, b):
        a.cache._writer._replicator = Lagging()  # type: ignore[assignment]
        result = await harvest(a, make_key(1))
        assert (result.verdict, result.keys[0].queued, result.revision) == (Verdict.CACHED, False, await b.log.head())
        with pytest.raises(Unavailable):
            await a.cache.settings.change(harvested=DAY, actor="anna")


# lookups
async def test_what_waits_takes_the_place_of_the_same_key_and_stands_beside_others() -> None:
    old = make_entry(1, make_sighting(cached_at=T0 - 2 * DAY), addresses=["bob@example.org"])
    async with cluster(old, make_entry(2, addresses=["bob@example.org"])) as (a, _):
        a.line.cut()
        await harvest(a, make_key(1, addresses=["bob@example.org"]), make_key(3, addresses=["bob@example.org"]))
        answer = a.cache.lookups.by_address("bob@example.org")
        assert sorted(found.row.fingerprint for found in answer.keys) == sorted(fingerprint_of(n).text for n in (1, 2, 3))
        (one,) = a.cache.lookups.by_fingerprint(fingerprint_of(1).text).keys
        assert one.refreshed_at == one.cached_at + 2 * DAY // timedelta(microseconds=1)


async def test_expiry_blocks_and_filters_hold_for_what_waits_as_for_all() -> None:
    async with cluster() as (a, _):
        await a.cache.blocks.block(address="user3@example.org", until=T0 + 2 * DAY, reason="", actor="anna")
        a.line.cut()
        await put_key(a, 1)
        await harvest(a, make_key(2, trust=Trust.HELD), make_key(4))
        lookups = a.cache.lookups
        assert lookups.by_address("user2@example.org").miss is MissCode.HELD
        assert lookups.by_address("user2@example.org", LookupFilter(trusts=frozenset(Trust))).keys
        imported = LookupFilter(origins=frozenset({Origin.IMPORTED}))
        assert lookups.by_address("user4@example.org", imported).miss is MissCode.FILTERED
        assert (await harvest(a, make_key(3))).verdict is Verdict.BLOCKED
        await harvest(a, make_key(5, addresses=["user3@example.org", "user5@example.org"]))
        assert lookups.by_address("user3@example.org").miss is MissCode.BLOCKED
        a.clock.advance(DAY)
        assert lookups.by_address("user1@example.org").miss is MissCode.EXPIRED
        assert a.answered("user4@example.org")
        assert [bool(one and one.keys) for one in lookups.by_addresses(["user1@example.org", "x", "user4@example.org"])] == [
            False,
            False,
            True,
        ]


async def test_a_revocation_that_the_log_tells_of_holds_against_what_waits() -> None:
    """The log tells what others wrote, and takes no writes: it is full."""
    async with cluster(make_entry(1, make_sighting(cached_at=T0 - 2 * DAY))) as (a, b):
        a.line.failing = LogFull("Full.")
        await harvest(a, make_key(1, addresses=["user1@example.org", "new@example.org"]))
        assert a.answered("new@example.org")
        await harvest(b, make_key(1, defect=Defect.REVOKED))
        await a.settle()
        assert a.answered("user1@example.org") == a.answered("new@example.org") == []
        assert a.cache.lookups.by_fingerprint(fingerprint_of(1).text).miss is MissCode.UNUSABLE


def short_way(lookups: Lookups) -> bool:
    answer = lookups.serve("user1@example.org")
    return isinstance(answer, tuple) or bool(answer.keys)


LOOKS: list[Callable[[Lookups], bool]] = [
    short_way,
    lambda lookups: bool(lookups.by_address("user1@example.org").keys),
    lambda lookups: bool(lookups.by_fingerprint(fingerprint_of(1).text).keys),
]


@pytest.mark.parametrize("look", LOOKS)
async def test_a_key_that_leaves_the_outbox_in_the_middle_of_a_lookup_is_found_all_the_same(look: Callable) -> None:
    """As in `Holdings`, with the delivery between its two reads."""

    class Leaving(MemoryOutbox):
        def rows(self, addresses):
            found = super().rows(addresses)
            self.leave()
            return found

        def rows_of(self, fingerprint):
            found = super().rows_of(fingerprint)
            self.leave()
            return found

        def leave(self) -> None:
            node.replica.apply([put(make_entry(1), 50)], replace(node.replica.cursor(), revision=Revision(50)))
            self.clear()

    node = Member(shared_log(), outbox=Leaving())
    await node.start()
    node.outbox.put(make_entry(1), {}, T0)
    assert look(node.cache.lookups)
    assert node.outbox.count == 0
    await node.stop()


async def test_a_key_that_waits_is_shown_and_an_unknown_one_is_not_found() -> None:
    async with cluster() as (a, _):
        a.line.cut()
        await harvest(a, make_key(1))
        (listed,), _ = await a.cache.entries.get(fingerprint_of(1).text)
        assert (listed.entry.key, listed.mod_revision) == (make_key(1), 0)
        with pytest.raises(NotFound):
            await a.cache.entries.get(fingerprint_of(2).text)
