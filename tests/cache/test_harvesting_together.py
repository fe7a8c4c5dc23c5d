"""Many mails, processors and nodes at once, logs that lag or are away, entries of later versions."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from keycache.cache.results import MessageResult
from keycache.codec import entry_to_wire
from keycache.domain.entry import Issuer, Origin, Protocol, Sighting, Trust
from keycache.domain.errors import InvalidInput, LogUnavailable
from keycache.domain.log import Transaction, entry_key
from keycache.domain.verdict import Verdict
from keycache.store.memory import MemoryLog
from support.entries import T0, fingerprint_of, make_entry, make_key
from support.node import ENVELOPE, Node, running_node
from support.odd_logs import CountingLog

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def harvest(node: Node, *shown, **mail) -> MessageResult:
    return await node.cache.harvesting.harvest(node.script.mail(*shown, **mail), ENVELOPE)


async def head(node: Node) -> int:
    return await node.log.head()


async def test_concurrent_mails_with_one_new_key_write_it_once_and_all_see_it() -> None:
    node = Node(log=CountingLog())
    async with running_node(node=node):
        assert isinstance(node.log, CountingLog)
        before = await head(node)
        results = await asyncio.gather(*(harvest(node, make_key(1)) for _ in range(40)))
        assert sorted({result.verdict for result in results}, key=lambda one: one.rank) == [
            Verdict.CACHED,
            Verdict.ALREADY_FRESH,
        ]
        assert sum(result.verdict is Verdict.CACHED for result in results) == 1
        assert await head(node) == before + 1
        assert node.served("user1@example.org") == [fingerprint_of(1).text]


async def test_concurrent_mails_that_each_add_an_address_lose_none() -> None:
    async with running_node() as node:
        keys = [make_key(1, addresses=[f"a{number}@x.example"]) for number in range(10)]
        await asyncio.gather(*(harvest(node, key) for key in keys))
        entry = node.entry(fingerprint_of(1))
        assert entry is not None
        assert {address.text for address in entry.key.addresses} == {f"a{number}@x.example" for number in range(10)}


class LaggingLog(MemoryLog):
    """Another node's write lies in the log that this node's replica has not got yet."""

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()
        self.released.set()

    async def watch(self, *, after):
        async for batch in super().watch(after=after):
            await self.released.wait()
            yield batch


async def test_who_is_told_that_a_key_is_fresh_can_look_it_up_at_once_also_if_another_node_wrote_it() -> None:
    log = LaggingLog()
    async with running_node(node=Node(log=log)) as node:
        log.released.clear()
        key = make_entry(1)
        await log.commit(
            Transaction(
                compare={},
                puts={
                    entry_key(key.key.protocol, key.key.fingerprint): entry_to_wire(key).SerializeToString(deterministic=True)
                },
            )
        )
        harvesting = asyncio.create_task(harvest(node, make_key(1)))
        await asyncio.sleep(0.01)
        assert not harvesting.done()
        log.released.set()
        assert (await harvesting).verdict is Verdict.ALREADY_FRESH
        assert node.served("user1@example.org") == [fingerprint_of(1).text]


async def test_an_entry_of_a_later_version_is_left_as_it_is_and_the_mail_still_gets_a_verdict() -> None:
    async with running_node() as node:
        message = entry_to_wire(make_entry(1))
        message.key.trust = 9
        value = message.SerializeToString()
        key = entry_key(Protocol.SMIME, fingerprint_of(1))
        await node.log.commit(Transaction(compare={}, puts={key: value}))
        await node.settle()
        assert (await harvest(node, make_key(1))).verdict is Verdict.ALREADY_FRESH
        record = node.replica.document(key)
        assert record is not None
        assert record.value == value


async def test_a_log_that_takes_no_writes_is_told_to_the_caller_and_known_keys_need_none() -> None:
    async with running_node(make_entry(1)) as node:
        assert isinstance(node.log, MemoryLog)
        node.log.interrupt()
        assert (await harvest(node, make_key(1))).verdict is Verdict.ALREADY_FRESH
        with pytest.raises(LogUnavailable):
            await harvest(node, make_key(2))
        node.log.resume()


# put
async def test_a_put_needs_its_source_and_an_address() -> None:
    async with running_node() as node:
        blob = node.script.file(b"file", make_key(1))
        for address, source in (("user1@example.org", " "), ("no address", "keys.example.org")):
            with pytest.raises(InvalidInput):
                await node.cache.harvesting.put(blob, address, source)


async def test_a_put_keeps_only_what_names_the_address_and_expires_by_its_own_timeout() -> None:
    async with running_node() as node:
        blob = node.script.file(b"file", make_key(1), make_key(2))
        results, _ = await node.cache.harvesting.put(blob, "user1@example.org", "s" * 300)
        assert [result.verdict for result in results] == [Verdict.CACHED, Verdict.ADDRESS_MISMATCH]
        entry = node.entry(fingerprint_of(1))
        assert entry is not None
        assert entry.sightings == (Sighting(origin=Origin.LOOKED_UP, source="s" * 200, cached_at=T0, refreshed_at=T0),)
        node.clock.advance(DAY)
        assert node.served("user1@example.org") == []


async def test_the_issuer_of_a_held_key_does_not_flicker_with_the_chain_that_mails_bring() -> None:
    whole = Issuer(id="aa", name="CN=A", certificate=b"der")
    bare = Issuer(id="bb", name="CN=B")
    async with running_node() as node:
        await harvest(node, make_key(1, trust=Trust.HELD, issuer=whole))
        before = await head(node)
        for issuer in (bare, whole, bare):
            await harvest(node, make_key(1, trust=Trust.HELD, issuer=issuer))
        assert await head(node) == before
