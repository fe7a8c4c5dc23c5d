from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from contract.log_words import committed, heard, put
from keycache.domain.errors import LogUnavailable
from keycache.etcd.client import EtcdClient
from keycache.etcd.monitor import EtcdMonitor
from support.etcd import EtcdCluster
from support.etcd_log import founded, opened


async def test_a_learner_is_passed_over_and_says_so_where_it_is_alone(tmp_path: Path) -> None:
    with EtcdCluster.run(tmp_path) as etcd:
        learner = await asyncio.to_thread(etcd.add_learner)
        voter = etcd.members[0]
        async with founded([learner.endpoint, voter.endpoint]) as log:
            start = await committed(log, put(a=b"1"))
            watch = log.watch(after=start)
            second = await committed(log, put(a=b"2"))
            assert (await heard(watch)).revision == second
        async with opened([learner.endpoint]) as log:
            with pytest.raises(LogUnavailable, match=f"{learner.endpoint} is a learner"):
                await log.survey()
        client = EtcdClient([learner.endpoint, voter.endpoint])
        seen = await EtcdMonitor(client).endpoints()
        await client.close()
        assert [(one.reachable, one.learner, one.leader) for one in seen] == [(True, True, False), (True, False, True)]
