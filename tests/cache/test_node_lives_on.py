"""What nobody foresaw, of the log or of the disk, ends no node that can answer."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from keycache.domain.errors import KeycacheError, StoreError
from keycache.replication.link import LinkState
from support.entries import fingerprint_of, make_entry
from support.lines import cluster, idle
from support.node import eventually


async def test_a_log_that_answers_what_nobody_foresaw_is_waited_for() -> None:
    async with cluster(make_entry(1)) as (a, _):
        survey = a.line.survey
        asked = 0

        async def refusing(*_what: Any, **_more: Any) -> Any:
            nonlocal asked
            asked += 1
            raise KeycacheError("etcd refuses our request.")

        a.line.survey = refusing  # type: ignore[method-assign]
        a.line.cut()
        await eventually(lambda: asked > 2)
        assert a.cache.replicator.state is LinkState.SERVE_ONLY
        assert "refuses our request" in a.cache.replicator.reason
        assert a.answered("user1@example.org") == [fingerprint_of(1).text]
        a.line.survey = survey  # type: ignore[method-assign]
        await a.mended()


async def test_a_disk_that_is_full_when_the_log_comes_back_is_waited_for() -> None:
    async with cluster(make_entry(1)) as (a, _):
        a.line.cut()
        await a.restart()
        a.clock.advance(timedelta(minutes=10))
        tried = 0

        def full(_moment: datetime, *, force: bool = False) -> None:
            nonlocal tried
            tried += 1
            raise StoreError("No room is left.")

        a.replica.raise_high_water = full  # type: ignore[method-assign]
        await a.mended()
        await eventually(lambda: tried > 0)
        await idle()
        assert a._running is not None
        assert not a._running.done()
