"""What administrators do with entries: list, show, delete, purge, export; each act in the audit log."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from keycache.cache.results import Listed, PurgeResult
from keycache.domain.entry import Entry, Origin, Protocol, Trust
from keycache.domain.errors import ConfirmationNeeded, InvalidInput, LogUnavailable, NotFound, Refused
from keycache.domain.log import Transaction, entry_key
from keycache.domain.ports import SortBy
from keycache.store.memory import MemoryLog
from support.entries import T0, fingerprint_of, make_entry, make_sighting, record_of
from support.node import Node, running_node
from support.odd_logs import InterposedLog

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def acts(node: Node) -> list[tuple[str, str, str, str]]:
    """Newest first: who, what, to what, detail."""
    return [(one.actor, one.action, one.subject, one.detail) for one in await node.cache.journal.audit(limit=100)]


async def numbers_left(node: Node) -> list[int]:
    in_log = await node.in_log()
    return [number for number in range(400) if fingerprint_of(number).text in in_log]


# list and show
async def test_a_listing_goes_page_by_page_and_tells_how_many_match() -> None:
    async with running_node(*(make_entry(number) for number in range(25))) as node:
        entries, seen, after = node.cache.entries, [], ""
        while True:
            page, after, total = await entries.page(entries.query(limit=10, after=after, sort=SortBy.FINGERPRINT))
            assert total == 25
            seen += [listed.entry.key.fingerprint for listed in page]
            if not after:
                break
        assert seen == sorted(fingerprint_of(number) for number in range(25))


async def test_what_is_listed_says_when_it_expires_by_which_origin_and_whether_it_is_blocked() -> None:
    entry = make_entry(1, make_sighting(cached_at=T0 - DAY), make_sighting(Origin.LOOKED_UP, cached_at=T0 - 2 * DAY))
    async with running_node(entry, make_entry(2, make_sighting(Origin.LOOKED_UP, cached_at=T0 - DAY))) as node:
        block = await node.cache.blocks.block(address="user1@example.org", until=None, reason="x", actor="admin")
        (first, second), _, _ = await node.cache.entries.page(node.cache.entries.query())
        assert first == Listed(
            entry=entry, expires_at=T0 + 499 * DAY, expired=False, origin=Origin.HARVESTED, block=block, mod_revision=2
        )
        assert (second.expires_at, second.expired, second.origin, second.block) == (T0, True, Origin.LOOKED_UP, None)


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_a_page_has_1_to_1000_entries(limit: int) -> None:
    async with running_node() as node:
        with pytest.raises(InvalidInput, match=f"A page of {limit} entries"):
            node.cache.entries.query(limit=limit)


async def test_a_filter_is_normalised_like_what_it_filters() -> None:
    async with running_node(make_entry(1, addresses=["Bob@bücher.example"])) as node:
        entries = node.cache.entries
        for query in (entries.query(address="BOB@XN--BCHER-KVA.example"), entries.query(domain="@Bücher.example.")):
            assert (await entries.page(query))[2] == 1
        for wrong in ({"address": "nobody"}, {"domain": "a b"}):
            with pytest.raises(InvalidInput):
                entries.query(**wrong)


async def test_everything_known_of_a_key_is_shown_with_what_was_done_to_it() -> None:
    async with running_node(make_entry(1)) as node:
        fingerprint = fingerprint_of(1).text
        await node.cache.blocks.block(fingerprint=fingerprint, until=None, reason="Lost", actor="anna")
        await node.cache.blocks.unblock(fingerprint=fingerprint, actor="bert")
        await node.cache.blocks.block(fingerprint=fingerprint_of(2).text, until=None, reason="", actor="anna")
        (listed,), done = await node.cache.entries.get(f" {fingerprint.upper()} ")
        assert listed.entry == make_entry(1)
        assert [(act.actor, act.action) for act in done] == [("bert", "UNBLOCK"), ("anna", "BLOCK")]
        with pytest.raises(NotFound, match=f"No key {fingerprint_of(2)}"):
            await node.cache.entries.get(fingerprint_of(2).text)


# delete
async def test_a_deleted_key_is_gone_from_log_and_replica_and_the_act_is_in_the_audit_log() -> None:
    async with running_node(make_entry(1), make_entry(2)) as node:
        deleted, revision = await node.cache.entries.delete(fingerprint_of(1).text, "anna")
        assert (deleted, revision) == (1, await node.log.head())
        assert node.entry(fingerprint_of(1)) is None
        assert await numbers_left(node) == [2]
        assert await acts(node) == [("anna", "DELETE", fingerprint_of(1).text, "user1@example.org")]
        with pytest.raises(NotFound):
            await node.cache.entries.delete(fingerprint_of(1).text, "anna")
        assert len(await acts(node)) == 1


async def test_a_key_that_is_refreshed_while_it_is_deleted_is_deleted_all_the_same() -> None:
    log = InterposedLog()
    async with running_node(make_entry(1), node=Node(log=log)) as node:
        log.before = lambda: log.commit(Transaction(compare={}, puts=dict([record_of(make_entry(1, names=("new",)))])))
        assert (await node.cache.entries.delete(fingerprint_of(1).text, "anna"))[0] == 1
        assert await numbers_left(node) == []
        assert len(await acts(node)) == 1


async def test_a_key_that_somebody_else_deleted_meanwhile_is_not_found() -> None:
    log = InterposedLog()
    async with running_node(make_entry(1), node=Node(log=log)) as node:
        name = entry_key(Protocol.SMIME, fingerprint_of(1))
        log.before = lambda: log.commit(Transaction(compare={}, puts={}, deletes=(name,)))
        with pytest.raises(NotFound):
            await node.cache.entries.delete(fingerprint_of(1).text, "anna")
        assert await acts(node) == []


async def test_a_deleted_key_comes_back_with_the_next_mail_and_not_before() -> None:
    async with running_node(make_entry(1)) as node:
        await node.cache.entries.delete(fingerprint_of(1).text, "anna")
        await node.restart()
        assert node.served("user1@example.org") == []


async def test_without_a_log_administrators_acts_fail_and_change_nothing() -> None:
    async with running_node(make_entry(1)) as node:
        assert isinstance(node.log, MemoryLog)
        node.log.interrupt()
        cache = node.cache
        for act in (
            cache.entries.delete(fingerprint_of(1).text, "anna"),
            cache.entries.purge(None, everything=True, dry_run=False, actor="anna"),
            cache.settings.change(harvested=DAY, actor="anna"),
            cache.blocks.block(address="a@example.org", until=None, reason="", actor="anna"),
        ):
            with pytest.raises(LogUnavailable):
                await act
        node.log.resume()
        assert await numbers_left(node) == [1]
        assert await acts(node) == []


# purge
PURGED: dict[str, tuple[dict, list[int]]] = {
    "origin": ({"origin": Origin.LOOKED_UP}, [1]),
    "domain": ({"domain": "other.example"}, [2]),
    "older than": ({"older_than": 10 * DAY}, [3]),
    "expired": ({"expired": True}, [4]),
    "not expired": ({"expired": False}, [0, 1, 2, 3, 5]),
    "protocol": ({"protocol": Protocol.OPENPGP}, []),
    "trust": ({"trust": Trust.HELD}, [5]),
    "text": ({"text": "USER2"}, [2]),
    "address": ({"address": "user0@example.org"}, [0]),
    "two at once": ({"older_than": 10 * DAY, "trust": Trust.HELD}, []),
}


def mixed() -> list[Entry]:
    return [
        make_entry(0),
        make_entry(1, make_sighting(Origin.LOOKED_UP)),
        make_entry(2, addresses=["user2@other.example"]),
        make_entry(3, make_sighting(cached_at=T0 - 11 * DAY)),
        make_entry(
            4, make_sighting(Origin.LOOKED_UP, cached_at=T0 - DAY), make_sighting(Origin.IMPORTED, cached_at=T0 - 999 * DAY)
        ),
        make_entry(5, trust=Trust.HELD),
    ]


@pytest.mark.parametrize("what", PURGED)
async def test_a_purge_removes_exactly_what_its_filter_names(what: str) -> None:
    filters, gone = PURGED[what]
    if what == "origin":
        gone = [*gone, 4]
    async with running_node(*mixed()) as node:
        entries = node.cache.entries
        told = await entries.purge(entries.query(**filters), everything=False, dry_run=True, actor="anna")
        assert told == PurgeResult(matched=len(gone), removed=0, revision=node.cache.lookups.revision)
        assert await acts(node) == []
        assert await numbers_left(node) == list(range(6))
        done = await entries.purge(entries.query(**filters), everything=False, dry_run=False, actor="anna")
        assert (done.matched, done.removed) == (len(gone), len(gone))
        assert await numbers_left(node) == [number for number in range(6) if number not in gone]
        assert [(who, act, detail) for who, act, _, detail in await acts(node)] == (
            [("anna", "PURGE", f"{len(gone)} entries")] if gone else []
        )


async def test_a_purge_without_any_filter_is_refused_unless_everything_is_meant() -> None:
    async with running_node(*mixed()) as node:
        entries = node.cache.entries
        for query in (None, entries.query()):
            with pytest.raises(Refused, match="would remove every key") as refused:
                await entries.purge(query, everything=False, dry_run=False, actor="anna")
            assert not isinstance(refused.value, ConfirmationNeeded)
        assert await numbers_left(node) == list(range(6))
        done = await entries.purge(None, everything=True, dry_run=False, actor="anna")
        assert (done.matched, done.removed) == (6, 6)
        assert await numbers_left(node) == []
        assert await acts(node) == [("anna", "PURGE", "all", "6 entries")]


async def test_a_purge_of_many_goes_in_batches_and_what_changes_meanwhile_stays() -> None:
    log = InterposedLog()
    async with running_node(*(make_entry(number) for number in range(250)), node=Node(log=log)) as node:
        early = min(range(250), key=lambda number: fingerprint_of(number).text)
        changed = replace(make_entry(early), sightings=(make_sighting(cached_at=T0, source="<new@example.org>"),))
        log.before = lambda: log.commit(Transaction(compare={}, puts=dict([record_of(changed)])))
        before = log.commits
        query = node.cache.entries.query(text="user")
        done = await node.cache.entries.purge(query, everything=False, dry_run=False, actor="anna")
        assert (done.matched, done.removed) == (250, 249)
        assert await numbers_left(node) == [early]
        assert log.commits - before == 1 + 1 + 6  # the audit line, the change, five batches and one tried again


async def test_a_purge_that_breaks_off_half_way_is_in_the_audit_log() -> None:
    log = InterposedLog()
    async with running_node(*(make_entry(number) for number in range(150)), node=Node(log=log)) as node:

        def after_first() -> None:
            log.before = log.interrupt

        log.before = after_first
        with pytest.raises(LogUnavailable):
            await node.cache.entries.purge(None, everything=True, dry_run=False, actor="anna")
        log.resume()
        assert len(await node.in_log()) == 90
        assert await acts(node) == [("anna", "PURGE", "all", "150 entries")]


async def test_confirming_a_hold_under_a_suspect_clock_or_without_settings_is_refused() -> None:
    async with running_node(make_entry(1)) as node:
        node.clock.step(600 * DAY)
        with pytest.raises(Refused, match="The clock was set by"):
            await node.cache.entries.confirm_held("anna")
        assert await numbers_left(node) == [1]
        assert await acts(node) == []


async def test_trusting_the_clock_is_an_act_and_lets_the_purger_go_on() -> None:
    async with running_node(make_entry(1), make_entry(2, make_sighting(cached_at=T0 + 599 * DAY))) as node:
        node.clock.step(600 * DAY)
        await node.sweep()
        assert await numbers_left(node) == [1, 2]
        await node.cache.entries.trust_clock("anna")
        await node.settle()
        assert await numbers_left(node) == [2]
        assert await acts(node) == [("anna", "TRUST_CLOCK", "clock", f"{T0 + 600 * DAY:%Y-%m-%d %H:%M:%S} UTC")]


# export
async def test_an_export_holds_every_match_with_all_its_time_stamps_in_the_order_of_fingerprints() -> None:
    made = [make_entry(number, make_sighting(cached_at=T0 - number * HOUR)) for number in range(30)]
    async with running_node(*made) as node:
        entries = node.cache.entries
        exported = [one async for one in entries.export(entries.query(limit=1))]
        assert exported == [(entry, 30) for entry in sorted(made, key=lambda entry: entry.key.fingerprint)]
        assert [entry async for entry, _ in entries.export(entries.query(address="user3@example.org"))] == [made[3]]
        assert [one async for one in entries.export(entries.query(text="nothing like it"))] == []


async def test_entries_may_change_while_an_export_runs() -> None:
    async with running_node(*(make_entry(number) for number in range(5))) as node:
        exporting = node.cache.entries.export(node.cache.entries.query())
        first, _ = await anext(exporting)
        await asyncio.gather(*(node.cache.entries.delete(fingerprint_of(number).text, "anna") for number in range(5)))
        rest = [entry async for entry, _ in exporting]
        assert len({entry.key.fingerprint for entry in [first, *rest]}) == len([first, *rest])
