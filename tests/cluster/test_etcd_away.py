"""etcd gone, without a quorum, or full: lookups are answered, mail is taken, administrators are told, and in the end nothing is missing
(DESIGN 2.6)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from keycache.domain.entry import Origin
from keycache.domain.errors import KeycacheError, LogUnavailable, Unavailable
from keycache.v1 import admin_pb2, cache_pb2
from support.cluster import Cluster, cluster
from support.command import spawn
from support.ledger import now
from support.nemesis import QUOTA
from support.scenario import Running, eventually, present
from support.scenario_people import Person, people

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


async def noticed(node: Running) -> admin_pb2.Status:
    """Once the node knows that its log is away."""
    return await node.until(lambda status: status.cluster.link == "SERVE_ONLY")


async def queued(node: Running, who: Sequence[Person]) -> None:
    """Mails of these, taken while the log takes no writes: acknowledged, and served on this node at once."""
    for one in who:
        answer = await node.harvest(one.mail())
        assert (answer.verdict, answer.keys[0].queued) == ("CACHED", True)
        assert await node.outcome(one.address) == "served"


async def acts_that_fail(node: Running, known: Person) -> None:
    """What an administrator must be able to rely on is not done by halves."""
    acts: list[Callable[[], Awaitable[object]]] = [
        lambda: node.delete(known.fingerprint),
        lambda: node.settle(harvested=400 * DAY),
        lambda: node.purge(all=True),
        lambda: node.block(address=known.address),
    ]
    for act in acts:
        with pytest.raises(Unavailable) as caught:
            await act()
        assert isinstance(caught.value, LogUnavailable), caught.value
        assert "log" in caught.value.text
        assert caught.value.hint


@pytest.mark.parametrize("lost", [2, 3], ids=["below the quorum", "altogether"])
async def test_with_etcd_gone_lookups_and_mail_go_on_and_all_is_delivered_later_over_a_kill(tmp_path: Path, lost: int) -> None:
    async with cluster(tmp_path) as made:
        known, later, elsewhere = people("known", 5), people("later", 5), people("elsewhere", 3)
        for one in known:
            await made.node(0).harvest(one.mail())
        await made.settled()
        before = await made.node(0).export()
        for member in made.etcd.members[:lost]:
            member.kill()
        told = await noticed(made.node(0))
        assert told.cluster.reason
        assert any("log" in warning for warning in told.warnings)
        await queued(made.node(0), later)
        await noticed(made.node(1))
        await queued(made.node(1), elsewhere)
        assert await made.node(0).served(one.address for one in known) == {one.address for one in known}
        await acts_that_fail(made.node(0), known[0])
        status = await made.node(0).status()
        assert (status.cluster.outbox_entries, status.cluster.outbox_bytes > 0) == (5, True)
        waiting = {one.fingerprint: times(await made.node(0).find(one.fingerprint)) for one in later}

        await made.nodes[0].kill()
        node = await made.nodes[0].start()
        everybody = [*known, *later]
        assert await node.served(one.address for one in everybody) == {one.address for one in everybody}
        assert (await node.status()).cluster.outbox_entries == 5

        await asyncio.to_thread(made.etcd.start)
        for status in await made.settled():
            assert status.cluster.outbox_entries == 0
            assert status.entries.live == 13
        for each in made.nodes:
            lines = await each.running.export()
            assert {key: lines[key] for key in before} == before, "what was there is untouched"
            for fingerprint, stamps in waiting.items():
                assert times(await each.running.find(fingerprint)) == stamps, (
                    "times are those of the harvest, not of the delivery"
                )


def times(result: cache_pb2.LookupResult) -> list[tuple[int, int]]:
    return [(key.cached_at.ToMicroseconds(), key.refreshed_at.ToMicroseconds()) for key in result.keys]


async def test_a_refresh_queued_before_a_deletion_elsewhere_does_not_bring_the_key_back(tmp_path: Path) -> None:
    """1. A is cut off; a mail refreshes K there. 2. K is deleted on B. 3. A delivers. One whose mail came AFTER the deletion is kept."""
    async with cluster(tmp_path, nodes=2, members=1, partitions=True) as made:
        before, after = Person("before"), Person("after")
        lines = [one.line({Origin.HARVESTED: 10 * DAY}, present()) for one in (before, after)]
        assert await made.node(1).import_lines(lines) == ["CACHED"] * 2
        await made.settled()
        await asyncio.to_thread(made.network.isolate, "n0")
        await noticed(made.node(0))
        assert (await made.node(0).harvest(before.mail())).verdict == "REFRESHED"
        for one in (before, after):
            assert (await made.node(1).delete(one.fingerprint)).deleted == 1
        assert (await made.node(0).harvest(after.mail())).verdict == "REFRESHED"
        assert await made.node(0).served([before.address, after.address]) == {before.address, after.address}
        await asyncio.to_thread(made.network.heal)
        await made.settled()
        for node in made.nodes:
            assert set(await node.running.export()) == {after.fingerprint}


async def test_a_node_starts_and_answers_while_etcd_is_down_and_goes_on_from_where_it_was(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2) as made:
        first, second = people("first", 20), people("second", 20)
        for one in first:
            await made.node(0).harvest(one.mail())
        await made.settled()
        await made.nodes[1].kill()
        for one in second:
            await made.node(0).harvest(one.mail())
        for member in made.etcd.members:
            member.kill()
        begun = now()
        node = await made.nodes[1].start()
        assert await node.served(one.address for one in (*first, *second)) == {one.address for one in first}
        assert (await node.status()).cluster.log_age.ToTimedelta() <= now() - begun + timedelta(seconds=1)
        await asyncio.to_thread(made.etcd.start)
        await made.settled()
        assert await node.served(one.address for one in (*first, *second)) == {one.address for one in (*first, *second)}
        assert listings(made, 1) == 1, "it listed once, at its first start; then it went on from its cursor"


async def test_a_node_killed_and_started_again_does_not_list_again_unless_the_log_was_compacted(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2, members=1) as made:
        everybody = people("counted", 30)
        for number, one in enumerate(everybody):
            if number == 10:
                await made.settled()
                await made.nodes[1].kill()
            await made.node(0).harvest(one.mail())
        await made.nodes[1].start()
        await made.settled()
        assert listings(made, 1) == 1
        await made.nodes[1].kill()
        await made.node(0).harvest(Person("more").mail())
        await asyncio.to_thread(made.etcd.compact)
        await made.nodes[1].start()
        statuses = await made.settled()
        assert listings(made, 1) == 2
        assert [status.entries.live for status in statuses] == [31, 31]


def listings(made: Cluster, number: int) -> int:
    """How often that node listed the log, by its own log."""
    return made.nodes[number].log.count('"replica listed anew"')


async def test_a_full_etcd_is_told_mail_is_queued_and_room_brings_everything_back(tmp_path: Path) -> None:
    async with cluster(tmp_path, flags=QUOTA) as made:
        known, later = people("known", 3), people("later", 5)
        for one in known:
            await made.node(0).harvest(one.mail())
        await made.settled()
        await asyncio.to_thread(made.etcd.fill)
        node = made.node(0)

        async def told() -> admin_pb2.Status | None:
            await node.harvest(later[0].mail())
            status = await node.status()
            return status if any("NOSPACE" in endpoint.alarms for endpoint in status.cluster.etcd) else None

        status = await eventually(told)
        assert any("compact" in warning or "NOSPACE" in warning for warning in status.warnings), list(status.warnings)
        for one in later:
            answer = await node.harvest(one.mail())
            assert answer.verdict in {"CACHED", "ALREADY_FRESH"}
            assert await node.outcome(one.address) == "served"
        assert (await node.status()).cluster.outbox_entries == 5
        with pytest.raises(KeycacheError) as caught:
            await node.settle(harvested=400 * DAY)
        assert caught.value.code == "LOG_FULL", caught.value
        assert await node.served(one.address for one in known) == {one.address for one in known}
        await asyncio.to_thread(made.etcd.relieve)
        statuses = await made.settled()
        assert [status.entries.live for status in statuses] == [8] * 3

        async def quiet() -> bool | None:
            return True if not any(endpoint.alarms for endpoint in (await node.status()).cluster.etcd) else None

        assert await eventually(quiet)


async def test_a_member_that_stands_still_or_is_cut_off_from_the_others_leaves_no_node_behind(tmp_path: Path) -> None:
    """The member that a node watches: its connection lives, and nothing comes."""
    async with cluster(tmp_path, partitions=True) as made:
        names = [member.name for member in made.etcd.members]
        for number, member in enumerate(made.etcd.members):
            member.pause()
            await heard_by_all(made, f"paused{number}")
            member.resume()
            await asyncio.to_thread(made.network.isolate, member.name, of=names)
            await heard_by_all(made, f"apart{number}")
            await asyncio.to_thread(made.network.heal)
        await made.settled()


async def heard_by_all(made: Cluster, prefix: str) -> None:
    """Every node takes a mail into the log, not into its outbox, and every other answers it."""
    for node in made.nodes:
        number = 0

        async def delivered(node: Running = node.running, name: str = f"{prefix}-{node.name}") -> int | None:
            nonlocal number
            number += 1
            answer = await node.harvest(Person(f"{name}-{number}").mail())
            return None if answer.keys[0].queued else answer.revision

        revision = await eventually(delivered)
        for elsewhere in made.nodes:

            async def seen(elsewhere: Running = elsewhere.running, revision: int = revision) -> bool | None:
                return True if (await elsewhere.status()).applied_revision >= revision else None

            assert await eventually(seen)


async def test_the_command_tells_in_one_sentence_why_an_act_failed(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=1, members=1) as made:
        made.etcd.members[0].kill()
        await noticed(made.node(0))
        data_dir = made.nodes[0].data_dir
        refused = await asyncio.to_thread(spawn, "settings", "set", "harvested=400d", "--yes", "--data-dir", data_dir)
        assert refused.returncode == 1, refused
        assert b"The log takes no writes" in refused.stderr
        assert b"Traceback" not in refused.stderr
        told = await asyncio.to_thread(spawn, "status", "--data-dir", data_dir)
        assert told.returncode == 0, told
