"""A wrong clock removes nothing, however wrong, however it came about; right again, everything is served again (DESIGN 2.1, 2.4)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from keycache.domain.entry import Origin
from keycache.domain.errors import Refused
from support.command import spawn
from support.scenario import ClockFile, Running, clock_off_by, present, running
from support.scenario_people import Person, people

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
TEN_YEARS, ALMOST_A_YEAR = 3650 * DAY, 364 * DAY
"""As far ahead as the node's authority lives, and behind as far as it reaches back: beyond both the node refuses to start."""


async def fill(node: Running, who: list[Person]) -> dict[str, str]:
    """Import them, a tenth by each age up to 90 days; what an export shows of them."""
    now = present()
    lines = [person.line({Origin.IMPORTED: (number % 10) * 10 * DAY}, now) for number, person in enumerate(who)]
    assert await node.import_lines(lines) == ["CACHED"] * len(who)
    return await node.export()


@pytest.mark.parametrize(
    ("count", "state", "told"), [(130, "HELD_MASS_EXPIRY", "--confirm-held"), (5, "HELD_CLOCK", "--trust-clock")]
)
async def test_a_clock_ten_years_ahead_over_a_restart_removes_nothing_of_much_or_little(
    tmp_path: Path, count: int, state: str, told: str
) -> None:
    who = people("ahead", count)
    addresses = {person.address for person in who}
    async with running(tmp_path, PURGE__INTERVAL="1s") as node:
        everything = await fill(node, who)
    async with running(tmp_path, environ=clock_off_by(TEN_YEARS), PURGE__INTERVAL="1s") as node:
        held = await node.until(lambda status: status.purge.waiting == count)
        assert held.purge.state == state
        assert told in held.purge.reason
        assert await node.served(addresses) == set()
        assert await node.outcome(who[0].address) == "EXPIRED"
        assert await node.export() == everything
    async with running(tmp_path, PURGE__INTERVAL="1s") as node:
        status = await node.until(lambda status: status.purge.state == "IDLE")
        assert (status.entries.live, status.entries.expired) == (count, 0)
        assert await node.served(addresses) == addresses
        assert await node.export() == everything


async def test_a_clock_a_year_behind_is_told_removes_nothing_and_stamps_nothing_that_expires_early(tmp_path: Path) -> None:
    known, late, later = people("behind", 5), Person("late"), Person("later")
    begun = present()
    async with running(tmp_path, PURGE__INTERVAL="1s") as node:
        everything = await fill(node, known)
        await node.put(late.material, late.address)
        before = await node.export()
    async with running(tmp_path, environ=clock_off_by(-ALMOST_A_YEAR), PURGE__INTERVAL="1s") as node:
        held = await node.until(lambda status: status.purge.state != "IDLE")
        assert held.purge.state == "HELD_CLOCK"
        assert "364.0 days behind the newest time this node wrote down" in held.purge.reason
        assert held.purge.reason in held.warnings
        with pytest.raises(Refused, match="behind"):
            await node.purge(confirm_held=True)
        assert (await node.harvest(later.mail())).verdict == "CACHED"
        (key,) = (await node.lookup(later.address)).keys
        assert key.cached_at.ToDatetime(begun.tzinfo) >= begun
        assert await node.served(person.address for person in known) == {person.address for person in known}
        assert {**before, later.fingerprint: (await node.export())[later.fingerprint]} == await node.export()
        node.kill()
    async with running(tmp_path, PURGE__INTERVAL="1s") as node:
        assert (await node.until(lambda status: status.purge.state == "IDLE")).entries.live == len(everything) + 2
        (key,) = (await node.lookup(later.address)).keys
        assert key.refreshed_at.ToDatetime(begun.tzinfo) >= begun


async def test_an_administrators_word_on_a_clock_that_went_back_ends_the_hold_and_removes_nothing(tmp_path: Path) -> None:
    who = people("word", 5)
    async with running(tmp_path, PURGE__INTERVAL="1s") as node:
        everything = await fill(node, who)
    async with running(tmp_path, environ=clock_off_by(-30 * DAY), PURGE__INTERVAL="1s") as node:
        await node.until(lambda status: status.purge.state == "HELD_CLOCK")
        told = spawn("purge", "--trust-clock", "--yes", "--data-dir", tmp_path)
        assert (told.returncode, told.stderr) == (0, b"")
        await node.until(lambda status: status.purge.state == "IDLE")
        assert await node.export() == everything
        node.kill()
    async with running(tmp_path, environ=clock_off_by(-30 * DAY), PURGE__INTERVAL="1s") as node:
        assert (await node.status()).purge.state == "IDLE", "the word outlives the process"
        assert await node.export() == everything


async def test_a_clock_set_while_the_node_runs_holds_the_purger_until_it_is_set_back(tmp_path: Path) -> None:
    clock, data = ClockFile(tmp_path / "clock"), tmp_path / "data"
    old, brief = Person("old"), Person("brief")
    async with running(data, environ=clock.environ, PURGE__INTERVAL="1s") as node:
        now = present()
        ages = {old: {Origin.HARVESTED: 499 * DAY}, brief: {Origin.LOOKED_UP: 23 * HOUR}}
        await node.import_lines([person.line(ages[person], now) for person in (old, brief)])
        everything = await node.export()
        for step, expired in ((3 * HOUR, 1), (-3 * HOUR, 0)):
            clock.go(step)
            held = await node.until(
                lambda status: status.purge.state == "HELD_CLOCK" and status.purge.waiting == status.entries.expired
            )
            assert "was set by" in held.purge.reason
            assert held.purge.waiting == expired
            assert await node.outcome(brief.address) == ("EXPIRED" if expired else "served")
            assert await node.export() == everything
            clock.go()
            await node.until(lambda status: status.purge.state == "IDLE" and not status.entries.expired)
            assert await node.served([old.address, brief.address]) == {old.address, brief.address}
            assert await node.export() == everything


async def test_a_clock_set_ahead_and_then_a_kill_are_not_forgotten_by_the_next_start(tmp_path: Path) -> None:
    """The step is seen by the process alone; what protects the keys over its end is the time that it wrote down."""
    clock, data, old = ClockFile(tmp_path / "clock"), tmp_path / "data", Person("old")
    async with running(data, environ=clock.environ, PURGE__INTERVAL="1s") as node:
        await node.import_lines([old.line({Origin.HARVESTED: 499 * DAY}, present())])
        everything = await node.export()
        clock.go(400 * DAY)
        await node.until(lambda status: status.purge.state == "HELD_CLOCK")
        node.kill()
    async with running(data, environ=clock.environ, PURGE__INTERVAL="1s") as node:
        held = await node.until(lambda status: status.purge.waiting == 1)
        assert held.purge.state == "HELD_CLOCK"
        assert "did not see pass" in held.purge.reason
        assert await node.export() == everything
    async with running(data, PURGE__INTERVAL="1s") as node:
        assert await node.outcome(old.address) == "served"


@pytest.mark.parametrize("wrong", [3700 * DAY, -20_000 * DAY], ids=["beyond the authority's end", "as without a battery"])
async def test_a_clock_that_no_certificate_stands_is_refused_and_nothing_is_touched(tmp_path: Path, wrong: timedelta) -> None:
    async with running(tmp_path) as node:
        everything = await fill(node, people("far", 3))
    before = (tmp_path / "keycache.db").read_bytes()
    refused = spawn("serve", "--data-dir", tmp_path, KEYCACHE_LISTEN__GRPC="127.0.0.1:0", **clock_off_by(wrong))
    assert refused.returncode == 1
    assert "but this machine's clock says" in refused.stderr.decode()
    assert "Check the clock" in refused.stderr.decode()
    assert (tmp_path / "keycache.db").read_bytes() == before
    async with running(tmp_path) as node:
        assert await node.export() == everything
