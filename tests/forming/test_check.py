"""`cluster check` tells a monitor, by its exit code, and a person, by sentences, what will need somebody soon."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from support.command import spawn
from support.forming import in_cluster, keycache, places, token_of
from support.scenario import eventually, running


async def checked(folder: Path) -> tuple[int, list[str]]:
    done = await asyncio.to_thread(spawn, "cluster", "check", "--json", "--data-dir", folder)
    return done.returncode, json.loads(done.stdout)["warnings"]


async def test_a_node_that_is_well_has_no_warnings_and_one_in_the_middle_of_a_change_has_four_for_a_code(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, **places()):
        assert await checked(tmp_path) == (0, [])
        await keycache(tmp_path, "authority", "begin", "--yes")
        code, warnings = await checked(tmp_path)
        assert code == 4
        assert ["being changed" in one for one in warnings] == [True]
        await keycache(tmp_path, "authority", "withdraw")
        assert await checked(tmp_path) == (0, [])


async def test_a_node_that_belongs_and_does_not_run_is_told_of(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(first, **places()))
        await keycache(first, "cluster", "create", "--name", "mail")
        async with running(second, **places()):
            await keycache(second, "cluster", "join", "--token", await token_of(first))
            await in_cluster(second)

        async def told() -> list[str] | None:
            code, warnings = await checked(first)
            return [one for one in warnings if "belongs to the cluster and was last seen" in one] or None if code == 4 else None

        found: Any = await eventually(told)
        assert "keycache cluster remove" in found[0]
