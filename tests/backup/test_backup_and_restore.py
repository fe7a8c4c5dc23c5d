"""Backup and restore by the commands that an administrator types, on nodes that run."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from keycache.codec import decode_entry
from keycache.codec.backup import BackupWriter, Source, read_backup
from keycache.domain.entry import Origin
from support.command import spawn
from support.disks import fill_up, small_disk
from support.forming import exported, filled, in_cluster, keycache, places, token_of
from support.scenario import Running, eventually, present, running
from support.scenario_people import people

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
OLD = {Origin.HARVESTED: 499 * DAY, Origin.LOOKED_UP: 40 * DAY}


async def backed_up(folder: Path, path: Path) -> Any:
    return await keycache(folder, "backup", path)


def contents(path: Path) -> tuple[Source, dict[str, bytes]]:
    source, *rows = read_backup(path.read_bytes().splitlines(keepends=True))
    return source, dict(rows)  # type: ignore[arg-type, return-value]


async def test_what_was_backed_up_is_on_a_new_node_as_it_was(tmp_path: Path) -> None:
    """Time stamps to the microsecond, settings, blocks; also what only the backup's settings keep from being expired."""
    path = tmp_path / "backup"
    async with running(tmp_path / "old") as node:
        await filled(node, people("old", 80), OLD)
        assert (await node.harvest(next(iter(people("fresh", 1))).mail())).verdict == "CACHED"
        await node.settle(harvested=900 * DAY)
        await filled(node, people("ancient", 5), {Origin.HARVESTED: 800 * DAY})
        await node.block(address="eve@example.com", reason="left")
        deleted = people("deleted", 1)[0]
        await filled(node, [deleted], OLD)
        await node.delete(deleted.fingerprint)
        told = await backed_up(tmp_path / "old", path)
        assert told["entries"] == 86
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        before, digest = await exported(tmp_path / "old"), (await node.status()).digest
        assert len(before) == 86
        audit = await node.audit()
    async with running(tmp_path / "new") as node:
        would = await keycache(tmp_path / "new", "restore", path, "--dry-run")
        assert (would["brought"], would["expired"], would["dry_run"]) == (86, 0, True)
        assert would["settings"] == ["harvested 500d -> 900d"]
        assert await exported(tmp_path / "new") == {}
        done = await keycache(tmp_path / "new", "restore", path, "--yes")
        assert (done["brought"], done["known"], done["settings"]) == (86, 0, would["settings"])
        assert await exported(tmp_path / "new") == before
        assert (await node.status()).digest == digest
        assert (await node.timeouts())["harvested"] == 900 * DAY
        blocks = await keycache(tmp_path / "new", "block", "list")
        assert [block["value"] for block in blocks["blocks"]] == ["eve@example.com"]
        assert {*audit} < {*await node.audit()}
        again = await keycache(tmp_path / "new", "restore", path, "--yes")
        assert (again["brought"], again["known"], again["documents"], again["settings"]) == (0, 86, 0, [])
        # a later backup differs in nothing but what the restore itself wrote
        await backed_up(tmp_path / "new", tmp_path / "second")
        first, second = contents(path)[1], contents(tmp_path / "second")[1]
        assert {key for key in second if second[key] != first.get(key)} == {
            key for key in second if key not in first and key.startswith(("audit/", "settings-history/"))
        }


async def test_newer_sightings_stay_and_older_ones_come(tmp_path: Path) -> None:
    path, who = tmp_path / "backup", people("both", 10)
    async with running(tmp_path / "old") as node:
        await filled(node, who, {Origin.HARVESTED: 300 * DAY, Origin.LOOKED_UP: HOUR})
        await backed_up(tmp_path / "old", path)
    async with running(tmp_path / "new") as node:
        await filled(node, who[:5], {Origin.HARVESTED: 10 * DAY})
        before = await exported(tmp_path / "new")
        done = await keycache(tmp_path / "new", "restore", path, "--yes")
        assert (done["brought"], done["known"], done["settings"]) == (5, 5, [])
        after, saved = await exported(tmp_path / "new"), {}
        for value in contents(path)[1].values():
            try:
                entry = decode_entry(value)
            except Exception:  # noqa: BLE001 -- no entry
                continue
            saved[entry.key.fingerprint.text] = {one.origin.value: one for one in entry.sightings}
        for fingerprint in before:
            was = before[fingerprint][0]
            merged = {one["origin"]: one for one in after[fingerprint]}
            assert set(merged) == {"HARVESTED", "LOOKED_UP"}
            assert merged["HARVESTED"]["refreshed_at"] == was["refreshed_at"]
            assert merged["HARVESTED"]["cached_at"] < was["cached_at"]


async def test_a_node_in_use_keeps_its_settings_and_lets_nothing_expire_by_them(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    async with running(tmp_path / "old") as node:
        await filled(node, people("old", 5), {Origin.HARVESTED: 100 * DAY})
        await backed_up(tmp_path / "old", path)
    async with running(tmp_path / "new") as node:
        await filled(node, people("own", 3), {Origin.HARVESTED: 10 * DAY})
        await node.settle(harvested=50 * DAY)
        before = await exported(tmp_path / "new")
        refused = await keycache(tmp_path / "new", "restore", path, "--yes", code=1)
        assert "would be expired by those in force" in refused
        assert "--take-settings" in refused
        assert await exported(tmp_path / "new") == before
        kept = await keycache(tmp_path / "new", "restore", path, "--keep-settings", "--dry-run")
        assert (kept["brought"], kept["expired"]) == (5, 5)
        await keycache(tmp_path / "new", "restore", path, "--take-settings", "--yes")
        assert (await node.timeouts())["harvested"] == 500 * DAY
        assert len(await exported(tmp_path / "new")) == 8
        # the other way round: the backup's settings must not expire what is here
        await node.settle(harvested=999 * DAY)
        await filled(node, people("ancient", 2), {Origin.HARVESTED: 900 * DAY})
        refused = await keycache(tmp_path / "new", "restore", path, "--take-settings", "--yes", code=1)
        assert "2 keys that are here would be expired" in refused
        assert (await node.timeouts())["harvested"] == 999 * DAY


async def test_what_was_deleted_since_the_backup_stays_away(tmp_path: Path) -> None:
    path, who = tmp_path / "backup", people("some", 6)
    async with running(tmp_path) as node:
        await filled(node, who, OLD)
        await backed_up(tmp_path, path)
        await node.delete(who[0].fingerprint)
        done = await keycache(tmp_path, "restore", path, "--yes")
        assert (done["brought"], done["known"], done["deleted"]) == (0, 5, 1)
        assert set(await exported(tmp_path)) == {person.fingerprint for person in who[1:]}


async def test_files_that_are_no_whole_backups_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    async with running(tmp_path / "node") as node:
        await filled(node, people("some", 20), OLD)
        await backed_up(tmp_path / "node", path)
        assert "exists already" in await keycache(tmp_path / "node", "backup", path, code=1)
        good = path.read_bytes()
        assert not (tmp_path / ".backup.unfinished").exists()
        missing = tmp_path / "nowhere" / "backup"
        assert str(missing) in await keycache(tmp_path / "node", "backup", missing, code=1)
        await node.purge(all=True)
        broken = tmp_path / "broken"
        for data, told in (
            (good[:-1000], "cut off"),
            (good.replace(b"A", b"B", 1), "damaged"),
            (re.sub(rb"^keycache backup 1", b"keycache backup 9", good), "upgrade Keycache"),
            (b"-----BEGIN CERTIFICATE-----\n", "no backup of Keycache"),
            (os.urandom(3000), "no backup of Keycache"),
        ):
            broken.write_bytes(data)
            assert told in await keycache(tmp_path / "node", "restore", broken, "--yes", code=2)
            assert await exported(tmp_path / "node") == {}
        assert "restore" not in " ".join(await node.audit()).lower()


async def test_a_backup_from_the_future_is_refused(tmp_path: Path) -> None:
    path, late = tmp_path / "backup", tmp_path / "late"
    async with running(tmp_path / "node") as node:
        await filled(node, people("some", 2), OLD)
        await backed_up(tmp_path / "node", path)
        source, rows = contents(path)
        writer = BackupWriter()
        ahead = Source(
            made_at=present() + 3 * DAY, cluster="", identity=source.identity, revision=source.revision, version=source.version
        )
        late.write_bytes(writer.begin(ahead) + b"".join(writer.record(*row) for row in rows.items()) + writer.end())
        assert "in the future" in await keycache(tmp_path / "node", "restore", late, "--yes", code=1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount the small file system this needs")
async def test_a_full_disk_leaves_no_half_backup(tmp_path: Path) -> None:
    async with running(tmp_path / "node") as node:
        await filled(node, people("some", 40), OLD)
        with small_disk(tmp_path / "disk", 1024 * 1024) as disk:
            fill_up(disk)
            told = await keycache(tmp_path / "node", "backup", disk / "backup", code=1)
            assert "No space left" in told
            assert str(disk / "backup") in told
            assert [one.name for one in disk.iterdir()] == ["ballast"]


async def test_a_restore_cut_off_by_kill_9_is_begun_anew(tmp_path: Path) -> None:
    path, fresh = tmp_path / "backup", tmp_path / "new"
    async with running(tmp_path / "old") as node:
        await filled(node, people("old", 1500), OLD)
        await node.settle(harvested=600 * DAY)
        await backed_up(tmp_path / "old", path)
        before, digest = await exported(tmp_path / "old"), (await node.status()).digest
    async with running(fresh) as node:
        command = asyncio.create_task(asyncio.to_thread(spawn, "restore", path, "--yes", "--data-dir", fresh))

        async def some() -> bool | None:
            return True if (await node.status()).entries.live > 100 else None

        await eventually(some)
        node.kill()
        done = await command
        assert done.returncode != 0, done.stdout
        assert b"Traceback" not in done.stderr
    async with running(fresh) as node:
        part = (await node.status()).entries.live
        assert 100 < part < 1500
        assert (await node.timeouts())["harvested"] == 600 * DAY
        again = await keycache(fresh, "restore", path, "--yes")
        assert (again["brought"], again["known"]) == (1500 - part, part)
        assert await exported(fresh) == before
        assert (await node.status()).digest == digest


async def test_a_clusters_backup_comes_back_in_another_cluster(tmp_path: Path) -> None:
    path, first, second = tmp_path / "backup", tmp_path / "first", tmp_path / "second"
    async with running(first, **places()) as node:
        await filled(node, people("old", 30), OLD)
        await keycache(first, "cluster", "create", "--name", "mail")
        told = await backed_up(first, path)
        assert (told["cluster"], told["entries"]) == ("mail", 30)
        before = await exported(first)
    source, rows = contents(path)
    assert not [key for key in rows if key.startswith(("nodes/", "tokens/", "members/", "witnesses/", "removed/", "identity"))]
    async with running(tmp_path / "new", **places()), running(second, **places()) as other:
        await keycache(tmp_path / "new", "cluster", "create", "--name", "other")
        await keycache(second, "cluster", "join", "--token", await token_of(tmp_path / "new"))
        await keycache(second, "restore", path, "--yes")  # any node will do
        assert await exported(second) == before

        async def there() -> bool | None:
            return True if await exported(tmp_path / "new") == before else None

        assert await eventually(there)
        status = await in_cluster(second)
        assert status["identity"] != source.identity
        assert await is_same(other, tmp_path / "new")


async def is_same(node: Running, folder: Path) -> bool:
    done = await asyncio.to_thread(spawn, "status", "--json", "--data-dir", folder)
    return bool(json.loads(done.stdout)["digest"] == (await node.status()).digest)
