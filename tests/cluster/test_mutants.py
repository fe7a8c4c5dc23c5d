"""For each guard of a cluster: taken out of real nodes, something is lost; in place, in the very same scenario, nothing is (habit 14).

A mutant is put into the node's process from outside (`mutants/sitecustomize.py` on its PYTHONPATH). Races are had every time: the
purger's transaction waits until the scenario lets it go.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from keycache.domain.entry import Origin
from support.cluster import Cluster, ClusterNode, cluster
from support.scenario import eventually, present
from support.scenario_people import Person, people

HOUR, DAY, SECOND = timedelta(hours=1), timedelta(days=1), timedelta(seconds=1)
FOLDER = Path(__file__).parent / "mutants"

Scenario = Callable[[Path, Mapping[str, str]], Awaitable[bool]]
"""Whether something was lost. Its arguments: a folder, and what names the mutant in the environment of a node."""


def with_stall(node: ClusterNode) -> Path:
    """Its removals wait from the next start on; where they tell of it, and are let go."""
    folder = node.data_dir.parent / f"{node.name}.stall"
    folder.mkdir()
    node.environ["KEYCACHE_TEST_STALL"] = str(folder)
    return folder


async def any_waits(folders: list[Path]) -> bool:
    async def look() -> bool | None:
        return True if any((folder / "waits").exists() for folder in folders) else None

    return await eventually(look)


def let_go(folders: list[Path]) -> None:
    for folder in folders:
        (folder / "go").touch()


async def is_lost(made: Cluster, *who: Person) -> bool:
    """Anywhere, once all is settled."""
    await made.settled()
    lines = [await node.running.export() for node in made.nodes]
    return any(one.fingerprint not in each for one in who for each in lines)


async def with_a_removal_under_way(
    folder: Path, mutant: Mapping[str, str], meanwhile: Callable[[Cluster, Person], Awaitable[None]]
) -> bool:
    """Of a key that has expired just now; `meanwhile` it comes to life again on the other node."""
    async with cluster(folder, nodes=2, members=1, environ=mutant, started=False) as made:
        stalls = [with_stall(node) for node in made.nodes]
        await made.start()
        who = Person("expiring")
        await made.node(0).settle(imported=HOUR)
        line = who.line({Origin.IMPORTED: HOUR - 3 * SECOND}, present())
        assert await made.node(0).import_lines([line]) == ["CACHED"]
        await any_waits(stalls)
        await meanwhile(made, who)
        let_go(stalls)
        for node in made.nodes:
            await node.running.until(lambda status: not status.entries.expired)
        return await is_lost(made, who)


# 2.2
async def refreshed_while_its_removal_is_under_way(folder: Path, mutant: Mapping[str, str]) -> bool:
    async def meanwhile(made: Cluster, who: Person) -> None:
        assert (await made.node(1).harvest(who.mail())).verdict in {"CACHED", "REFRESHED"}

    return await with_a_removal_under_way(folder, mutant, meanwhile)


async def timeout_raised_while_a_removal_is_under_way(folder: Path, mutant: Mapping[str, str]) -> bool:
    async def meanwhile(made: Cluster, _who: Person) -> None:
        await made.node(1).settle(imported=999 * DAY)

    return await with_a_removal_under_way(folder, mutant, meanwhile)


# 2.4
async def put_under_a_clock_that_was_behind(folder: Path, mutant: Mapping[str, str]) -> bool:
    """1. The clock is 40 hours behind. 2. A key is put, for a day. 3. The clock is set right: is the key 40 hours old?"""
    async with cluster(folder, nodes=1, members=1, clocks=True, environ=mutant) as made:
        node, who = made.nodes[0], Person("early")
        node.set_clock(-40 * HOUR)
        await node.running.until(lambda status: status.purge.state == "HELD_CLOCK")
        await node.running.put(who.material, who.address)
        node.set_clock(timedelta())
        await node.running.until(lambda status: status.purge.state == "IDLE" and not status.entries.expired)
        return await is_lost(made, who)


# 2.6
async def killed_with_mail_in_its_outbox(folder: Path, mutant: Mapping[str, str]) -> bool:
    async with cluster(folder, nodes=1, members=1, environ=mutant) as made:
        who = Person("queued")
        made.etcd.members[0].kill()
        answer = await made.node(0).harvest(who.mail())
        assert (answer.verdict, answer.keys[0].queued) == ("CACHED", True)
        await made.nodes[0].kill()
        await asyncio.to_thread(made.etcd.start)
        await made.nodes[0].start()
        return await is_lost(made, who)


async def deleted_while_its_refresh_waits_elsewhere(folder: Path, mutant: Mapping[str, str]) -> bool:
    """Lost is the administrator's act: the key is back."""
    async with cluster(folder, nodes=2, members=1, environ=mutant) as made:
        who = Person("unwanted")
        await made.node(0).import_lines([who.line({Origin.HARVESTED: 10 * DAY}, present())])
        await made.settled()
        made.etcd.members[0].kill()
        refreshed = await made.node(0).harvest(who.mail())
        assert (refreshed.verdict, refreshed.keys[0].queued) == ("REFRESHED", True)
        await made.nodes[0].kill()
        await asyncio.to_thread(made.etcd.start)
        await made.settled()
        assert (await made.node(1).delete(who.fingerprint)).deleted == 1
        await made.nodes[0].start()
        await made.settled()
        return who.fingerprint in await made.node(0).export()


# 2.1, the restart check
async def etcd_wiped_and_begun_anew(folder: Path, mutant: Mapping[str, str]) -> bool:
    """By a node that knows nothing. Lost is what no lookup anywhere finds, or what is not in the log that all follow."""
    async with cluster(folder, nodes=2, members=1, environ=mutant) as made:
        known = people("known", 5)
        for one in known:
            await made.node(0).harvest(one.mail())
        await made.settled()
        await made.nodes[1].stop()
        for member in made.etcd.members:
            member.kill()
            member.wipe()
        await made.nodes[0].kill()
        await asyncio.to_thread(made.etcd.start)
        stranger = ClusterNode("n9", folder, made.etcd, host=None, clock=False, environ={}, settings={})
        made.nodes.append(stranger)
        await stranger.start()
        for one in people("strange", 20):
            await stranger.running.harvest(one.mail())
        node = await made.nodes[0].start()
        status = await node.until(lambda status: status.cluster.link in {"REFUSED", "FOLLOWING"})
        if status.cluster.link == "REFUSED":  # an administrator is asked, and says what shall be
            assert len(await node.served(one.address for one in known)) == 5
            await node.resolve("MERGE")
        both = [made.nodes[0], stranger]
        await asyncio.sleep(1)
        found = [await each.running.served(one.address for one in known) for each in both]
        return any(len(each) < 5 for each in found)


# 2.8
async def an_event_of_the_watch_is_lost(folder: Path, mutant: Mapping[str, str]) -> bool:
    """Lost is a key that one node never hears of, though it says that it follows."""
    async with cluster(folder, nodes=2, members=1) as made:
        await made.nodes[1].stop()
        made.nodes[1].environ.update(mutant)
        node = await made.nodes[1].start()
        everybody = people("heard", 15)
        for one in everybody:
            await made.node(0).harvest(one.mail())
        await node.until(lambda status: status.cluster.reconciled_at.seconds > 0)

        async def all_there() -> bool | None:
            return True if len(await node.export()) == 15 else None

        try:
            return not await asyncio.wait_for(eventually(all_there), 20)
        except (TimeoutError, AssertionError):
            return True


GUARDS: list[tuple[Scenario, str]] = [
    (refreshed_while_its_removal_is_under_way, "purges_without_comparing_entries"),
    (timeout_raised_while_a_removal_is_under_way, "purges_without_comparing_settings"),
    (put_under_a_clock_that_was_behind, "stamps_by_the_raw_clock"),
    (killed_with_mail_in_its_outbox, "forgets_its_outbox"),
    (deleted_while_its_refresh_waits_elsewhere, "delivers_whatever_was_deleted"),
    (etcd_wiped_and_begun_anew, "lists_whatever_log_it_finds"),
    (etcd_wiped_and_begun_anew, "takes_any_log_for_its_own"),
]


@pytest.mark.parametrize(("scenario", "mutant"), GUARDS, ids=[mutant for _, mutant in GUARDS])
async def test_with_the_guard_nothing_is_lost_and_without_it_something_is(
    scenario: Scenario, mutant: str, tmp_path: Path
) -> None:
    path = os.pathsep.join((str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])))
    for name, lost in (("", False), (mutant, True)):
        folder = tmp_path / (name or "guarded")
        folder.mkdir()
        environ = {"PYTHONPATH": path, **({"KEYCACHE_TEST_MUTANT": name} if name else {})}
        assert await scenario(folder, environ) == lost, name or "with the guard"
