"""A disk that fills up: writes are refused with a sentence, lookups go on, and with room again so do writes. Nothing is lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from keycache.domain.errors import KeycacheError, Unavailable
from keycache.v1 import cache_pb2
from support.command import spawn
from support.disks import fill_up, give_back, small_disk
from support.scenario import Running, digest_of, running
from support.scenario_people import Person, people

MIB, PAGE = 1024 * 1024, 4096


async def harvest_until_refused(node: Running, who: Iterator[Person]) -> tuple[list[Person], Person, KeycacheError]:
    """Who was kept before, who was refused, and how."""
    kept: list[Person] = []
    for person in who:
        try:
            assert (await node.harvest(person.mail())).verdict == "CACHED"
        except KeycacheError as error:
            return kept, person, error
        kept.append(person)
    raise AssertionError("the disk never filled up")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount the small file system this needs")
async def test_a_full_disk_refuses_writes_plainly_serves_on_and_recovers_by_itself(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 24 * MIB) as disk:
        who = iter(people("full", 2000))
        async with running(disk / "data", PURGE__INTERVAL="1s") as node:
            kept = [next(who) for _ in range(20)]
            for person in kept:
                await node.put(person.material, person.address)
            ballast = fill_up(disk)
            more, refused, error = await harvest_until_refused(node, who)
            kept += more
            assert isinstance(error, Unavailable)
            assert "room" in error.text
            assert "Free some space" in error.hint
            addresses = {person.address for person in kept}
            assert await node.served(addresses) == addresses
            for refuse in (node.put(refused.material, refused.address), node.delete(kept[0].fingerprint)):
                with pytest.raises(Unavailable, match="room"):
                    await refuse
            # Calls go on being refused, not hanging: every one of many at once.
            answers = await asyncio.gather(*(node.harvest(refused.mail()) for _ in range(20)), return_exceptions=True)
            assert {type(one).__name__ for one in answers} == {type(error).__name__}
            assert node.node.process.poll() is None
            status = await node.status()
            assert (status.entries.live, status.entries.expired) == (len(kept), 0)

            ballast.unlink()
            assert (await node.harvest(refused.mail())).verdict == "CACHED"
            kept.append(refused)
            lines = await node.export()
            assert set(lines) == {person.fingerprint for person in kept}
            assert (await node.status()).digest == digest_of(lines.values())
        async with running(disk / "data") as node:
            assert await node.export() == lines


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount the small file system this needs")
async def test_room_for_the_log_but_not_for_the_replica_ends_no_node_and_loses_nothing(tmp_path: Path) -> None:
    """1. The log takes a write. 2. The disk is full. 3. The replica cannot follow: the caller hears that it is not there yet."""
    with small_disk(tmp_path / "disk", 24 * MIB) as disk:
        who = iter(people("half", 2000))
        async with running(disk / "data", log_file=tmp_path / "log") as node:
            kept = next(who)
            await node.put(kept.material, kept.address)
            ballast = fill_up(disk)
            half, call = await make_room_until_the_log_takes_it(node, who, ballast)
            assert await node.served([kept.address, half.address]) == {kept.address}
            ballast.unlink()
            assert (await call).verdict == "CACHED", "the replica follows by itself, and the caller hears of it"

            ballast = fill_up(disk)
            other, call = await make_room_until_the_log_takes_it(node, who, ballast)
            assert node.node.process.poll() is None
            node.kill()
            await asyncio.wait([call])
            assert isinstance(call.exception(), Unavailable)
        refused = spawn(
            "serve", "--data-dir", disk / "data", KEYCACHE_LISTEN__GRPC="127.0.0.1:0", KEYCACHE_LISTEN__METRICS="off"
        )
        assert refused.returncode == 1
        assert "No room is left" in refused.stderr.decode()
        assert "Traceback" not in refused.stderr.decode()
        ballast.unlink()
        async with running(disk / "data", log_file=tmp_path / "log") as node:
            lines = await node.export()
            assert set(lines) == {kept.fingerprint, half.fingerprint, other.fingerprint}
            assert (await node.status()).digest == digest_of(lines.values())


async def make_room_until_the_log_takes_it(
    node: Running, who: Iterator[Person], ballast: Path
) -> tuple[Person, asyncio.Task[cache_pb2.HarvestResponse]]:
    """Whose key is in the log alone, and the call that waits for the replica: one that is refused is so within milliseconds."""
    for person in who:
        give_back(ballast, PAGE)
        call = asyncio.create_task(node.harvest(person.mail()))
        await asyncio.wait([call], timeout=1.0)
        if not call.done():
            return person, call
        assert isinstance(call.exception(), Unavailable)
    raise AssertionError("the log never took any")
