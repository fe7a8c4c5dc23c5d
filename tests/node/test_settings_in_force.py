"""Timeouts outlive every process, and a change of them removes only what an administrator said it may (DESIGN 2.2, 2.4)."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from keycache.domain.entry import Origin
from support.command import spawn
from support.scenario import clock_off_by, present, running
from support.scenario_people import Person, people

DAY, HOUR = timedelta(days=1), timedelta(hours=1)

DEFAULTS = {"harvested": 500 * DAY, "looked_up": DAY, "imported": 999 * DAY}


async def test_settings_outlive_stops_and_kills_and_so_does_their_history(tmp_path: Path) -> None:
    chosen = {"harvested": 700 * DAY, "looked_up": 36 * HOUR, "imported": HOUR}
    async with running(tmp_path) as node:
        assert await node.timeouts() == DEFAULTS
        await node.settle(**chosen)
        node.kill()
    async with running(tmp_path) as node:
        assert await node.timeouts() == chosen
        await node.settle(imported=2 * HOUR)
    chosen["imported"] = 2 * HOUR
    async with running(tmp_path) as node:
        assert await node.timeouts() == chosen
        shown = json.loads(spawn("settings", "show", "--json", "--data-dir", tmp_path).stdout)
        assert shown["timeouts"] == {name: span.total_seconds() for name, span in chosen.items()}
        history = json.loads(spawn("settings", "history", "--json", "--data-dir", tmp_path).stdout)
        newest, *older = [(line["name"], line["old"], line["new"]) for line in history["changes"]]
        assert newest == ("imported", "1h", "2h")
        assert sorted(older) == [("harvested", "500d", "700d"), ("imported", "999d", "1h"), ("looked_up", "24h", "36h")]


async def test_a_timeout_raised_between_expiry_and_sweep_keeps_the_keys(tmp_path: Path) -> None:
    who = people("raised", 20)
    async with running(tmp_path, PURGE__INTERVAL="24h") as node:
        lines = [person.line({Origin.LOOKED_UP: 23 * HOUR}, present()) for person in who]
        assert set(await node.import_lines(lines)) == {"CACHED"}
        everything = await node.export()
    later = clock_off_by(2 * HOUR)
    async with running(tmp_path, environ=later, PURGE__INTERVAL="24h") as node:
        assert (await node.status()).entries.expired == len(who)
        await node.settle(looked_up=30 * HOUR)
        assert (await node.status()).entries.expired == 0
        node.kill()
    async with running(tmp_path, environ=later, PURGE__INTERVAL="1s") as node:
        await node.purge(trust_clock=True)
        await node.until(lambda status: status.purge.state == "IDLE")
        assert await node.export() == everything
        assert await node.served(person.address for person in who) == {person.address for person in who}


async def test_a_timeout_lowered_over_much_of_the_cache_waits_for_a_second_word(tmp_path: Path) -> None:
    old, young = people("old", 120), people("young", 120)
    now = present()
    async with running(tmp_path, PURGE__INTERVAL="1s") as node:
        lines = [person.line({Origin.IMPORTED: 100 * DAY}, now) for person in old]
        lines += [person.line({Origin.IMPORTED: 10 * DAY}, now) for person in young]
        assert set(await node.import_lines(lines)) == {"CACHED"}
        everything = await node.export()

        asked = spawn("settings", "set", "imported=50d", "--data-dir", tmp_path)
        assert asked.returncode == 1, "nobody said yes"
        assert "120 entries" in asked.stderr.decode() + asked.stdout.decode()
        assert await node.timeouts() == DEFAULTS

        assert spawn("settings", "set", "imported=50d", "--yes", "--data-dir", tmp_path).returncode == 0
        held = await node.until(lambda status: status.purge.state == "HELD_MASS_EXPIRY")
        assert (held.purge.waiting, held.entries.expired, held.entries.live) == (120, 120, 120)
        assert await node.served(person.address for person in old) == set()
        node.kill()

    async with running(tmp_path, PURGE__INTERVAL="1s") as node:
        held = await node.until(lambda status: status.purge.waiting == 120)
        assert held.purge.state == "HELD_MASS_EXPIRY"
        assert await node.export() == everything
        assert spawn("purge", "--confirm-held", "--yes", "--data-dir", tmp_path).returncode == 0
        assert await node.export() == {person.fingerprint: everything[person.fingerprint] for person in young}
        assert (await node.status()).purge.state == "IDLE"


async def test_a_mistaken_timeout_is_taken_back_and_every_key_is_served_again(tmp_path: Path) -> None:
    who = [Person(f"mistaken{number}") for number in range(120)]
    async with running(tmp_path, PURGE__INTERVAL="1s") as node:
        await node.import_lines([person.line({Origin.IMPORTED: 100 * DAY}, present()) for person in who])
        everything = await node.export()
        await node.settle(imported=HOUR)
        await node.until(lambda status: status.purge.state == "HELD_MASS_EXPIRY")
        await node.settle(imported=999 * DAY)
        await node.until(lambda status: status.purge.state == "IDLE")
        assert await node.export() == everything
        assert await node.served(person.address for person in who) == {person.address for person in who}
