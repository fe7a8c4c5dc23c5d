"""Settings and blocks: each change with its line in history and audit, effective at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from keycache.cache.results import SettingsResult
from keycache.domain.administration import Block, BlockKind
from keycache.domain.entry import Origin
from keycache.domain.errors import Conflict, InvalidInput, NotFound, OutOfRange
from keycache.domain.settings import SettingChange, Settings, Timeouts
from support.entries import T0, fingerprint_of, make_entry, make_sighting
from support.node import Node, running_node

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def audit(node: Node) -> list[tuple[str, str, str, str]]:
    return [(one.actor, one.action, one.subject, one.detail) for one in await node.cache.journal.audit(limit=100)]


# settings
async def test_a_change_tells_what_would_expire_and_a_dry_run_changes_nothing() -> None:
    aged = [make_entry(number, make_sighting(cached_at=T0 - number * DAY)) for number in range(1, 6)]
    held_by_import = make_entry(9, make_sighting(cached_at=T0 - 9 * DAY), make_sighting(Origin.IMPORTED))
    long_gone = make_entry(10, make_sighting(cached_at=T0 - 600 * DAY))
    async with running_node(*aged, held_by_import, long_gone) as node:
        before = await node.log.head()
        told = await node.cache.settings.change(harvested=3 * DAY, dry_run=True, actor="anna")
        change = SettingChange(at=T0, actor="anna", name="harvested", old="500d", new="3d")
        settings = Settings(timeouts=Timeouts(harvested=3 * DAY))
        assert told == SettingsResult(settings=settings, would_expire=3, changes=(change,), revision=1)
        assert await node.log.head() == before
        assert node.cache.settings.current() == (Settings(), 1)


async def test_a_change_is_in_force_in_the_history_and_in_the_audit_log_when_the_call_returns() -> None:
    async with running_node() as node:
        desk = node.cache.settings
        done = await desk.change(harvested=30 * DAY, looked_up=90 * timedelta(minutes=1), actor="anna", reason="Audit of 2026")
        assert (
            desk.current()
            == (done.settings, done.revision)
            == (
                Settings(timeouts=Timeouts(harvested=30 * DAY, looked_up=timedelta(minutes=90))),
                await node.log.head(),
            )
        )
        node.clock.advance(DAY)
        await desk.change(purge_hold_share=0.5, purge_hold_floor=7, clock_skew_bound=timedelta(minutes=5), actor="bert")
        history = await desk.history()
        assert {(one.at, one.actor, one.name, one.old, one.new) for one in history} == {
            (T0, "anna", "harvested", "500d", "30d"),
            (T0, "anna", "looked_up", "24h", "90m"),
            (T0 + DAY, "bert", "purge_hold_share", "0.2", "0.5"),
            (T0 + DAY, "bert", "purge_hold_floor", "100", "7"),
            (T0 + DAY, "bert", "clock_skew_bound", "2m", "5m"),
        }
        assert [one.at for one in history] == [T0 + DAY] * 3 + [T0] * 2
        assert await audit(node) == [
            (
                "bert",
                "SETTINGS",
                "settings",
                "purge_hold_share: 0.2 to 0.5; purge_hold_floor: 100 to 7; clock_skew_bound: 2m to 5m",
            ),
            ("anna", "SETTINGS", "settings", "harvested: 500d to 30d; looked_up: 24h to 90m (Audit of 2026)"),
        ]


async def test_settings_and_their_history_survive_restarts() -> None:
    async with running_node() as node:
        await node.cache.settings.change(harvested=30 * DAY, actor="anna")
        history = await node.cache.settings.history()
        await node.restart()
        assert node.cache.settings.current()[0].timeouts.harvested == 30 * DAY
        assert await node.cache.settings.history() == history


async def test_a_change_of_a_fraction_of_a_second_is_a_change() -> None:
    async with running_node() as node:
        done = await node.cache.settings.change(harvested=HOUR + timedelta(milliseconds=1), actor="anna")
        assert [(one.old, one.new) for one in done.changes] == [("500d", "1h0.001s")]
        assert node.cache.settings.current()[0] == done.settings


async def test_a_change_to_what_is_in_force_already_writes_nothing() -> None:
    async with running_node() as node:
        before = await node.log.head()
        done = await node.cache.settings.change(harvested=500 * DAY, actor="anna")
        assert done == SettingsResult(settings=Settings(), would_expire=0, changes=(), revision=1)
        assert await node.log.head() == before


@pytest.mark.parametrize(
    "change",
    [
        {"harvested": HOUR - timedelta(seconds=1)},
        {"looked_up": 999 * DAY + timedelta(seconds=1)},
        {"purge_hold_share": 1.5},
        {"purge_hold_floor": -1},
        {"clock_skew_bound": timedelta()},
    ],
)
async def test_a_change_out_of_range_is_refused_and_nothing_is_changed(change: dict) -> None:
    async with running_node() as node:
        with pytest.raises(OutOfRange):
            await node.cache.settings.change(**change, imported=2 * HOUR, actor="anna")
        assert node.cache.settings.current() == (Settings(), 1)
        assert await audit(node) == []


async def test_two_changes_at_once_are_not_mixed_one_of_them_is_told_to_look_again() -> None:
    async with running_node() as node:
        desk = node.cache.settings
        outcomes = await asyncio.gather(
            desk.change(harvested=30 * DAY, actor="anna"), desk.change(looked_up=2 * HOUR, actor="bert"), return_exceptions=True
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == [Conflict.__name__, SettingsResult.__name__]
        (done,) = (outcome for outcome in outcomes if isinstance(outcome, SettingsResult))
        assert desk.current()[0] == done.settings
        assert len(await audit(node)) == 1


# blocks
async def test_a_block_names_one_key_or_one_address_and_is_in_the_audit_log() -> None:
    async with running_node() as node:
        blocks = node.cache.blocks
        key = await blocks.block(fingerprint=fingerprint_of(1).text.upper(), until=None, reason="Stolen", actor="anna")
        address = await blocks.block(address="BOB@Example.org", until=T0 + DAY, reason="", actor="bert")
        assert key == Block(kind=BlockKind.FINGERPRINT, value=fingerprint_of(1).text, reason="Stolen", by="anna", at=T0)
        assert address == Block(kind=BlockKind.ADDRESS, value="bob@example.org", until=T0 + DAY, by="bert", at=T0)
        assert {*blocks.all()} == {key, address}
        assert await audit(node) == [
            ("bert", "BLOCK", "bob@example.org", "until 2026-03-02 12:00 UTC"),
            ("anna", "BLOCK", fingerprint_of(1).text, "for good Stolen"),
        ]
        await node.restart()
        assert {*node.cache.blocks.all()} == {key, address}


async def test_blocking_again_replaces_the_block() -> None:
    async with running_node() as node:
        await node.cache.blocks.block(address="bob@example.org", until=T0 + DAY, reason="one", actor="anna")
        second = await node.cache.blocks.block(address="Bob@example.org", until=None, reason="two", actor="bert")
        assert node.cache.blocks.all() == (second,)


@pytest.mark.parametrize(
    "named",
    [{}, {"fingerprint": "a" * 40, "address": "a@example.org"}, {"fingerprint": "xyz"}, {"address": "nobody"}],
)
async def test_a_block_of_nothing_of_two_things_or_of_no_name_is_refused(named: dict) -> None:
    async with running_node() as node:
        with pytest.raises(InvalidInput):
            await node.cache.blocks.block(**named, until=None, reason="", actor="anna")
        with pytest.raises(InvalidInput):
            await node.cache.blocks.unblock(**named, actor="anna")
        assert node.cache.blocks.all() == ()


async def test_a_block_that_would_have_ended_already_is_refused() -> None:
    async with running_node() as node:
        with pytest.raises(InvalidInput, match="which is past"):
            await node.cache.blocks.block(address="a@example.org", until=T0, reason="", actor="anna")


async def test_unblocking_serves_again_and_what_is_not_blocked_is_not_found() -> None:
    async with running_node(make_entry(1)) as node:
        blocks = node.cache.blocks
        await blocks.block(fingerprint=fingerprint_of(1).text, until=None, reason="", actor="anna")
        assert node.served("user1@example.org") == []
        await blocks.unblock(fingerprint=fingerprint_of(1).text, actor="bert")
        assert node.served("user1@example.org") == [fingerprint_of(1).text]
        assert (await audit(node))[0] == ("bert", "UNBLOCK", fingerprint_of(1).text, "")
        with pytest.raises(NotFound):
            await blocks.unblock(fingerprint=fingerprint_of(1).text, actor="bert")
