"""The Python client of several nodes, against real nodes over real TLS. They have one authority, as the nodes of a cluster, but each has a
key of its own, so that an answer tells whose it is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from shutil import copytree

import pytest

from keycache.client import Nodes, Unreachable, connect_cluster
from keycache.domain.errors import InvalidInput, KeycacheError, Unavailable
from keycache.pki import Role
from keycache.v1 import cache_pb2
from support.entries import make_key
from support.service_node import ServiceNode, service_node

ADDRESSES = [f"user{number}@example.org" for number in range(3)]


@asynccontextmanager
async def serving(folder: Path, count: int) -> AsyncIterator[list[ServiceNode]]:
    """Node 0 serves a key of user0, node 1 one of user1, and so on."""
    async with AsyncExitStack() as stack:
        made: list[ServiceNode] = []
        for number in range(count):
            place = folder / f"node{number}"
            if made:
                copytree(made[0].directory / "pki", place / "pki")
            place.mkdir(exist_ok=True)
            made.append(await stack.enter_async_context(service_node(place)))
            async with made[-1].connected() as connection:
                await connection.call(connection.cache.Harvest, cache_pb2.HarvestRequest(message=f"key {number}".encode()))
        yield made


@asynccontextmanager
async def client(made: list[ServiceNode], *targets: str) -> AsyncIterator[Nodes]:
    """`targets`: instead of the nodes'."""
    files = made[0].files(made[0].client(Role.MAIL_PROCESSOR))
    async with connect_cluster(targets or [one.target for one in made], **files) as nodes:
        yield nodes


async def who_answers(nodes: Nodes) -> int:
    results = (await nodes.batch_lookup(cache_pb2.BatchLookupRequest(addresses=ADDRESSES))).results
    (number,) = [number for number, result in enumerate(results) if result.keys]
    return number


async def until_ready(nodes: Nodes, *made: ServiceNode) -> None:
    async with asyncio.timeout(20):
        while nodes.ready != tuple(one.target for one in made):  # noqa: ASYNC110 -- a client tells nobody
            await asyncio.sleep(0.01)


async def test_the_first_of_the_nodes_that_are_ready_answers(tmp_path: Path) -> None:
    async with serving(tmp_path, 3) as made, client(made) as nodes:
        await until_ready(nodes, *made)
        assert await who_answers(nodes) == 0
        made[0].server.ready(serving=False)
        await until_ready(nodes, *made[1:])
        assert await who_answers(nodes) == 1
        made[0].server.ready(serving=True)
        await until_ready(nodes, *made)
        assert await who_answers(nodes) == 0


async def test_nobody_hears_of_a_node_that_stops_or_of_one_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as bound:  # taken, but nobody listens
        bound.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{bound.getsockname()[1]}"
        async with serving(tmp_path, 2) as made, client(made, nowhere, *(one.target for one in made)) as nodes:
            await until_ready(nodes, *made)
            stopping = asyncio.create_task(made[0].stop())
            answers = [await who_answers(nodes) for _ in range(200)]
            await stopping
            assert answers[-1] == 1
            assert set(answers) <= {0, 1}


async def test_a_lookup_that_one_node_sits_on_is_answered_by_another(tmp_path: Path) -> None:
    """It waits for a revision that only the second has."""
    async with serving(tmp_path, 2) as made, client(made) as nodes:
        await until_ready(nodes, *made)
        async with made[1].connected() as connection:
            harvest = [
                await connection.call(connection.cache.Harvest, cache_pb2.HarvestRequest(message=f"key {number}".encode()))
                for number in range(10, 15)
            ]
        request = cache_pb2.LookupRequest(address="user14@example.org", min_revision=harvest[-1].revision)
        async with asyncio.timeout(5):
            answer = await nodes.lookup(request)
        assert [found.key.fingerprint for found in answer.result.keys] == [make_key(14).fingerprint.text]
        await until_ready(nodes, *made)  # the first lives, and is asked again


async def test_a_call_waits_for_a_node_to_be_ready_and_is_told_no_miss_meanwhile(tmp_path: Path) -> None:
    async with serving(tmp_path, 1) as made:
        made[0].server.ready(serving=False)
        async with client(made) as nodes:
            request = cache_pb2.LookupRequest(address="nobody@example.org")
            with pytest.raises(Unavailable, match="It is not ready") as caught:
                await nodes.lookup(request, timeout=0.5)
            assert not isinstance(caught.value, Unreachable)
            waiting = asyncio.create_task(nodes.lookup(request))
            await asyncio.sleep(0.3)
            assert not waiting.done()
            made[0].server.ready(serving=True)
            assert (await waiting).result.miss.code == cache_pb2.MISS_CODE_NOT_FOUND


async def test_when_no_node_is_there_each_is_told_with_what_is_wrong(tmp_path: Path) -> None:
    async with serving(tmp_path, 2) as made:
        await asyncio.gather(*(one.stop() for one in made))
        async with client(made) as nodes:
            with pytest.raises(Unreachable) as caught:
                await nodes.lookup(cache_pb2.LookupRequest(address=ADDRESSES[0]), timeout=1.0)
    for one in made:
        assert f"No node answers at {one.target}" in caught.value.text
    assert "keycache serve" in caught.value.hint


async def test_mails_and_keys_are_handed_to_the_next_node_too(tmp_path: Path) -> None:
    async with serving(tmp_path, 2) as made, client(made) as nodes:
        await until_ready(nodes, *made)
        await made[0].stop()
        assert (await nodes.harvest(cache_pb2.HarvestRequest(message=b"key 7"))).verdict == "CACHED"
        request = cache_pb2.PutRequest(material=make_key(8).material, address="user8@example.org")
        assert [one.verdict for one in (await nodes.put(request)).keys] == ["CACHED"]


async def test_a_request_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, 2) as made, client(made) as nodes:
        with pytest.raises(InvalidInput, match="either an address or a fingerprint"):
            await nodes.lookup(cache_pb2.LookupRequest())


async def test_what_every_node_fails_at_is_asked_of_each_once(tmp_path: Path) -> None:
    async with serving(tmp_path, 2) as made, client(made) as nodes:
        await until_ready(nodes, *made)
        before = [len(one.examiner.envelopes) for one in made]
        with pytest.raises(KeycacheError, match="The node made a mistake"):
            await nodes.harvest(cache_pb2.HarvestRequest(message=b"mistake"))
        assert [len(one.examiner.envelopes) for one in made] == [count + 1 for count in before]


async def test_no_nodes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        async with connect_cluster([], ca="ca.pem", certificate="c.pem", key="c.key"):
            pass
