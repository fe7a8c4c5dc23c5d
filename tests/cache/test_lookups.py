"""Answers from the replica, as callers get them."""

from __future__ import annotations

import tracemalloc
from datetime import timedelta

import pytest

from keycache.domain.entry import Defect, Origin, Protocol
from keycache.domain.errors import InvalidInput, OutOfRange, Unavailable
from keycache.domain.log import SETTINGS, Transaction
from keycache.domain.lookup import Answer, LookupFilter, MissCode
from support.entries import T0, fingerprint_of, make_entry, make_sighting
from support.node import Node, running_node

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def test_an_address_is_found_in_any_case_with_the_exact_spelling_first() -> None:
    small, capital = make_entry(1, addresses=["bob@example.org"]), make_entry(2, addresses=["Bob@example.org"])
    async with running_node(small, capital) as node:
        assert node.served("bob@EXAMPLE.org") == [fingerprint_of(1).text, fingerprint_of(2).text]
        assert node.served("Bob@example.org") == [fingerprint_of(2).text, fingerprint_of(1).text]
        assert sorted(node.served("BOB@example.org")) == sorted([fingerprint_of(1).text, fingerprint_of(2).text])
        assert node.cache.lookups.by_address("eve@example.org") == Answer((), MissCode.NOT_FOUND)


async def test_a_lookup_obeys_the_settings_in_force_from_the_moment_they_are_changed() -> None:
    async with running_node(make_entry(1, make_sighting(cached_at=T0 - 2 * HOUR))) as node:
        assert node.served("user1@example.org")
        await node.cache.settings.change(harvested=HOUR, purge_hold_floor=0, purge_hold_share=0.0, actor="admin")
        assert node.cache.lookups.by_address("user1@example.org") == Answer((), MissCode.EXPIRED)
        await node.cache.settings.change(harvested=500 * DAY, actor="admin")
        assert node.served("user1@example.org") == [fingerprint_of(1).text]


async def test_a_batch_answers_in_the_order_asked_and_names_what_is_no_address_with_none() -> None:
    async with running_node(make_entry(1), make_entry(2)) as node:
        asked = ["user2@example.org", "not an address", "nobody@example.org", "user1@example.org", "user2@example.org"]
        answers = node.cache.lookups.by_addresses(asked)
        single = [None if text == "not an address" else node.cache.lookups.by_address(text) for text in asked]
        assert answers == single
        assert node.cache.lookups.by_addresses([]) == []


async def test_a_batch_is_bounded() -> None:
    async with running_node() as node:
        assert len(node.cache.lookups.by_addresses(["a@example.org"] * 1000)) == 1000
        with pytest.raises(OutOfRange, match="1001 addresses"):
            node.cache.lookups.by_addresses(["a@example.org"] * 1001)


async def test_a_fingerprint_is_found_in_any_spelling_and_with_either_protocol() -> None:
    pgp = make_entry(1, protocol=Protocol.OPENPGP)
    async with running_node(pgp, make_entry(2)) as node:
        by_fingerprint = node.cache.lookups.by_fingerprint
        (found,) = by_fingerprint(f"0x{pgp.key.fingerprint.text.upper()}").keys
        assert (found.row.fingerprint, found.origin) == (pgp.key.fingerprint.text, Origin.HARVESTED)
        assert by_fingerprint(fingerprint_of(3).text).miss is MissCode.NOT_FOUND
        smime = LookupFilter(protocols=frozenset({Protocol.SMIME}))
        assert by_fingerprint(pgp.key.fingerprint.text, smime).miss is MissCode.FILTERED


@pytest.mark.parametrize("text", ["", "nobody", "a@b@c", "\x00@example.org"])
async def test_what_cannot_be_asked_is_refused(text: str) -> None:
    async with running_node() as node:
        with pytest.raises(InvalidInput):
            node.cache.lookups.by_address(text)
        with pytest.raises(InvalidInput):
            node.cache.lookups.by_fingerprint(text)


async def test_blocks_withhold_keys_and_addresses_until_their_end() -> None:
    async with running_node(make_entry(1), make_entry(2, addresses=["user1@example.org", "x@example.org"])) as node:
        blocks = node.cache.blocks
        await blocks.block(fingerprint=fingerprint_of(1).text, until=T0 + DAY, reason="", actor="admin")
        assert node.served("user1@example.org") == [fingerprint_of(2).text]
        await blocks.block(address="USER1@example.org", until=T0 + 2 * DAY, reason="", actor="admin")
        assert node.cache.lookups.by_address("user1@example.org") == Answer((), MissCode.BLOCKED)
        assert node.served("x@example.org") == [fingerprint_of(2).text]
        node.clock.advance(DAY)
        assert node.served("user1@example.org") == []
        node.clock.advance(DAY)
        assert len(node.served("user1@example.org")) == 2


async def test_a_key_whose_addresses_are_all_blocked_is_not_served_by_its_fingerprint_either() -> None:
    async with running_node(make_entry(1, addresses=["a@example.org", "b@example.org"])) as node:
        for address, miss in (("a@example.org", None), ("b@example.org", MissCode.BLOCKED)):
            await node.cache.blocks.block(address=address, until=None, reason="", actor="admin")
            assert node.cache.lookups.by_fingerprint(fingerprint_of(1).text).miss is miss


async def test_an_expired_revoked_or_blocked_key_does_not_hide_a_good_one() -> None:
    bob = {"addresses": ["bob@example.org"]}
    expired = make_entry(1, make_sighting(cached_at=T0 - 600 * DAY), **bob, evidence_at=T0)
    revoked = make_entry(2, **bob, defect=Defect.REVOKED, evidence_at=T0)
    over, early = make_entry(3, **bob, not_after=T0 - DAY), make_entry(4, **bob, not_before=T0 + DAY)
    async with running_node(expired, revoked, over, early, make_entry(5, **bob), make_entry(6, **bob)) as node:
        await node.cache.blocks.block(fingerprint=fingerprint_of(6).text, until=None, reason="", actor="admin")
        assert node.served("bob@example.org") == [fingerprint_of(5).text]


async def test_without_settings_nothing_is_answered_rather_than_guessed() -> None:
    async with running_node(make_entry(1)) as node:
        await node.log.commit(Transaction(compare={}, puts={}, deletes=(SETTINGS,)))
        await node.settle()
        with pytest.raises(Unavailable, match="no settings"):
            node.cache.lookups.by_address("user1@example.org")
        assert node.cache.not_ready()


async def test_a_node_serves_while_its_log_is_away() -> None:
    node = Node()
    async with running_node(make_entry(1), node=node):
        node.log.interrupt()  # type: ignore[attr-defined] # the log in memory
        assert node.served("user1@example.org") == [fingerprint_of(1).text]
        node.log.resume()  # type: ignore[attr-defined]


async def test_a_caller_may_wait_for_a_revision() -> None:
    async with running_node(make_entry(1)) as node:
        revision = await node.log.head()
        await node.cache.lookups.reach(revision)
        assert node.cache.lookups.revision == revision
        assert node.cache.lookups.log_age is None


async def test_texts_that_are_far_too_long_for_an_address_are_not_remembered() -> None:
    async with running_node(make_entry(1)) as node:
        lookups = node.cache.lookups
        tracemalloc.start()
        try:
            for number in range(20):
                lookups.serve_all([f"{number}{'x' * 1_000_000}@example.org"])
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept < 5_000_000  # not the 20 MB that were asked for
        assert lookups.by_addresses([f"{'x' * 1_000_000}@example.org", "user1@example.org"])[0] is None
