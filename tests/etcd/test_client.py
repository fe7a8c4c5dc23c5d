"""Which endpoint is asked after which answer, and how often."""

from __future__ import annotations

import time

import pytest

from contract.log_words import committed, put
from keycache.domain.errors import LogOverloaded, LogUnavailable
from keycache.domain.log import ABSENT
from keycache.domain.names import ClusterIdentity, Revision
from keycache.etcd.client import PATIENCE_SECONDS
from support.etcd_log import opened
from support.scripted_etcd import LEASE_NOT_FOUND, NO_LEADER, TOO_MANY_REQUESTS, ScriptedEtcd

OURS = ClusterIdentity("ours")
NOT_FOR_LEARNERS = (NO_LEADER[0], "etcdserver: rpc not supported for learner")


async def test_an_election_is_waited_for_by_asking_again() -> None:
    async with ScriptedEtcd.run(NO_LEADER, NO_LEADER) as one, ScriptedEtcd.run(NO_LEADER, NO_LEADER, NO_LEADER) as two:
        async with opened([one.endpoint, two.endpoint]) as log:
            log.bind(OURS)
            await committed(log, put(a=b"1"))
        assert (len(one.asked), len(two.asked)) == (3, 2)


async def test_an_outage_is_waited_for_once_and_then_told_at_once() -> None:
    async with ScriptedEtcd.run(always=NO_LEADER) as one, opened([one.endpoint]) as log:
        log.bind(OURS)
        begin = time.monotonic()
        with pytest.raises(LogUnavailable, match="has no leader"):
            await log.commit(put(a=b"1"))
        assert time.monotonic() - begin >= PATIENCE_SECONDS
        asked = len(one.asked)
        with pytest.raises(LogUnavailable, match="has no leader"):
            await log.commit(put(a=b"1"))
        assert len(one.asked) == asked + 1
        one.always = None
        await committed(log, put(a=b"1"))


async def test_what_does_not_pass_is_not_waited_for() -> None:
    async with ScriptedEtcd.run(always=NOT_FOR_LEARNERS) as one, opened([one.endpoint]) as log:
        log.bind(OURS)
        with pytest.raises(LogUnavailable, match="is a learner"):
            await log.commit(put(a=b"1"))
        assert len(one.asked) == 1


async def test_an_overloaded_etcd_is_left_alone() -> None:
    async with ScriptedEtcd.run(TOO_MANY_REQUESTS) as one, ScriptedEtcd.run() as two:
        async with opened([one.endpoint, two.endpoint]) as log:
            log.bind(OURS)
            with pytest.raises(LogOverloaded):
                await log.commit(put({"a": ABSENT}, a=b"1"))
        assert (len(one.asked), len(two.asked)) == (1, 0)


async def test_the_endpoint_that_answered_is_asked_first_the_next_time() -> None:
    async with ScriptedEtcd.run(always=NOT_FOR_LEARNERS) as one, ScriptedEtcd.run() as two:
        async with opened([one.endpoint, two.endpoint]) as log:
            log.bind(OURS)
            for _ in range(3):
                await committed(log, put(a=b"1"))
        assert (len(one.asked), len(two.asked)) == (1, 3)


async def test_a_lease_that_ends_between_two_calls_is_granted_anew() -> None:
    async with ScriptedEtcd.run() as one, opened([one.endpoint]) as log:
        log.bind(OURS)
        assert await log.announce("members/1", b"1") == Revision(1)
        one.fail_next(LEASE_NOT_FOUND)
        assert await log.announce("members/1", b"2") == Revision(1)
        assert [request.success[0].request_put.lease for request in one.asked] == [1, 1, 2]


async def test_an_etcd_that_keeps_no_lease_is_not_asked_forever() -> None:
    async with ScriptedEtcd.run(always=LEASE_NOT_FOUND) as one, opened([one.endpoint]) as log:
        log.bind(OURS)
        with pytest.raises(LogUnavailable, match="as soon as it is granted"):
            await log.announce("members/1", b"1")
        assert len(one.asked) == 2
