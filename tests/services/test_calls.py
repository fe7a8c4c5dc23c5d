"""What mail processors call, its limits, and how errors are told."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from keycache import codec
from keycache.client import MessageTooLarge
from keycache.domain import errors
from keycache.domain.errors import InvalidInput, KeycacheError, Unavailable
from keycache.pki import Role
from keycache.services.errors import CODES, failure
from keycache.v1 import cache_pb2
from support.entries import fingerprint_of, make_key
from support.service_node import ServiceNode, channel, said

MIB = 1 << 20


async def test_what_was_harvested_is_found(node: ServiceNode) -> None:
    async with node.connected(Role.MAIL_PROCESSOR) as mta:
        request = cache_pb2.HarvestRequest(message=b"key 7", envelope=cache_pb2.Envelope(recipients=["us@example.net"]))
        harvested = await mta.call(mta.cache.Harvest, request)
        answer = await mta.call(
            mta.cache.Lookup, cache_pb2.LookupRequest(address="User7@Example.ORG", min_revision=harvested.revision)
        )
    now = node.clock.now()
    key = cache_pb2.FoundKey(key=codec.key_to_wire(make_key(7)), origin=1)  # type: ignore[arg-type]
    key.cached_at.CopyFrom(codec.timestamp(now))  # type: ignore[arg-type]
    key.refreshed_at.CopyFrom(codec.timestamp(now))  # type: ignore[arg-type]
    key.expires_at.CopyFrom(codec.timestamp(now + node.cache.settings.current()[0].timeouts.harvested))  # type: ignore[arg-type]
    assert answer.result == cache_pb2.LookupResult(address="User7@Example.ORG", keys=[key])
    assert answer.revision >= harvested.revision > 0
    assert (harvested.verdict, [one.verdict for one in harvested.keys]) == ("CACHED", ["CACHED"])
    assert node.examiner.envelopes[0].recipients == ("us@example.net",)


async def test_a_fingerprint_finds_its_key(node: ServiceNode) -> None:
    async with node.connected(Role.MAIL_PROCESSOR) as mta:
        await mta.call(mta.cache.Harvest, cache_pb2.HarvestRequest(message=b"key 7"))
        answer = await mta.call(mta.cache.Lookup, cache_pb2.LookupRequest(fingerprint=fingerprint_of(7).text.upper()))
    assert [found.key.fingerprint for found in answer.result.keys] == [fingerprint_of(7).text]


@pytest.mark.parametrize(
    "request_",
    [
        cache_pb2.LookupRequest(),
        cache_pb2.LookupRequest(address="a@example.org", fingerprint="00" * 32),
        cache_pb2.LookupRequest(address="no address"),
        cache_pb2.LookupRequest(fingerprint="xyz"),
    ],
    ids=["neither", "both", "bad address", "bad fingerprint"],
)
async def test_a_lookup_of_nothing_in_particular_is_refused(node: ServiceNode, request_: cache_pb2.LookupRequest) -> None:
    async with node.connected(Role.MAIL_PROCESSOR) as mta:
        with pytest.raises(InvalidInput):
            await mta.call(mta.cache.Lookup, request_)


async def test_a_batch_answers_in_the_order_asked_and_one_bad_address_spoils_nothing(node: ServiceNode) -> None:
    asked = ["user2@example.org", "nobody", "user1@example.org", "user9@example.org", "user2@example.org"]
    async with node.connected(Role.MAIL_PROCESSOR) as mta:
        for message in (b"key 1", b"key 2"):
            await mta.call(mta.cache.Harvest, cache_pb2.HarvestRequest(message=message))
        answer = await mta.call(mta.cache.BatchLookup, cache_pb2.BatchLookupRequest(addresses=asked))
    told = [
        (one.address, [found.key.fingerprint for found in one.keys], cache_pb2.MissCode.Name(one.miss.code))
        for one in answer.results
    ]
    first, second, nothing = fingerprint_of(1).text, fingerprint_of(2).text, "MISS_CODE_UNSPECIFIED"
    assert told == [
        ("user2@example.org", [second], nothing),
        ("nobody", [], "MISS_CODE_BAD_ADDRESS"),
        ("user1@example.org", [first], nothing),
        ("user9@example.org", [], "MISS_CODE_NOT_FOUND"),
        ("user2@example.org", [second], nothing),
    ]


async def test_a_batch_of_1000_is_answered_and_one_of_1001_refused_with_the_limit(node: ServiceNode) -> None:
    addresses = [f"a{number}@example.org" for number in range(1001)]
    async with node.connected(Role.MAIL_PROCESSOR) as mta:
        answer = await mta.call(mta.cache.BatchLookup, cache_pb2.BatchLookupRequest(addresses=addresses[:1000]))
        assert [one.address for one in answer.results] == addresses[:1000]
        with pytest.raises(InvalidInput, match=r"1001 addresses.*at most 1000"):
            await mta.call(mta.cache.BatchLookup, cache_pb2.BatchLookupRequest(addresses=addresses))


async def test_a_watch_begins_with_its_revision_and_tells_every_change(node: ServiceNode) -> None:
    async with node.connected(Role.MAIL_PROCESSOR) as mta:
        events = mta.stream(mta.cache.Watch, cache_pb2.WatchRequest())
        begun = await anext(events)
        harvested = await mta.call(mta.cache.Harvest, cache_pb2.HarvestRequest(message=b"key 7"))
        change = await anext(events)
        await events.aclose()  # type: ignore[attr-defined]
    assert (begun.kind, begun.revision < harvested.revision) == (cache_pb2.WatchEvent.STARTED, True)
    assert change == cache_pb2.WatchEvent(
        kind=cache_pb2.WatchEvent.UPDATED,
        revision=harvested.revision,
        protocol=1,  # type: ignore[arg-type]
        fingerprint=fingerprint_of(7).text,
        addresses=["user7@example.org"],
    )


async def test_a_message_beyond_the_transports_limit_is_told_apart(node: ServiceNode) -> None:
    async with node.connected(Role.MAIL_PROCESSOR) as mta:
        with pytest.raises(MessageTooLarge) as caught:
            await mta.call(mta.cache.Harvest, cache_pb2.HarvestRequest(message=bytes(2 * MIB + 1)))
        assert caught.value.code == "MESSAGE_TOO_LARGE"
        fits = await mta.call(mta.cache.Harvest, cache_pb2.HarvestRequest(message=bytes(2 * MIB - 64)))
    assert fits.verdict == "NO_KEY_MATERIAL"


async def test_a_request_that_is_no_protobuf_is_the_callers_fault(node: ServiceNode) -> None:
    async with channel(node, node.client(Role.ADMIN)) as ours:
        assert await said(ours, "/keycache.v1.KeyCache/Lookup", b"\xff\xff") == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "The request is not a LookupRequest that can be read.",
        )


async def test_a_mistake_of_ours_gives_a_number_and_none_of_its_content(node: ServiceNode) -> None:
    async with node.connected(Role.MAIL_PROCESSOR) as mta:
        with pytest.raises(KeycacheError, match=r"The node made a mistake \(incident [0-9a-f]{8}\)\. Look for") as caught:
            await mta.call(mta.cache.Harvest, cache_pb2.HarvestRequest(message=b"mistake"))
        assert "content of a mail" not in str(caught.value)
        assert (await mta.call(mta.cache.Harvest, cache_pb2.HarvestRequest(message=b"key 1"))).verdict == "CACHED"


def tree(root: type[KeycacheError] = KeycacheError) -> list[type[KeycacheError]]:
    children = [kind for kind in root.__subclasses__() if kind.__module__ == errors.__name__]
    return [root, *(kind for child in children for kind in tree(child))]


def test_every_error_of_the_tree_has_its_line_in_the_table() -> None:
    assert set(CODES) == set(tree())


@pytest.mark.parametrize("kind", tree())
def test_an_error_goes_out_with_reason_and_hint(kind: type[KeycacheError]) -> None:
    extra = {"compacted": 3} if kind is errors.LogCompacted else {}
    told = failure(kind("What happened.", hint="What to do.", **extra), "/a/b")
    info, hint = error_details_pb2.ErrorInfo(), error_details_pb2.LocalizedMessage()
    status = status_pb2.Status.FromString(told.metadata[0][1])
    assert [status.details[0].Unpack(info), status.details[1].Unpack(hint)] == [True, True]
    assert (told.code, told.text, status.code, status.message) == (CODES[kind], "What happened.", told.code.value[0], told.text)
    assert (info.reason, info.domain, hint.message) == (kind.code, "keycache", "What to do.")


async def test_more_mail_than_the_node_takes_in_hand_is_put_off(node: ServiceNode) -> None:
    async with node.connected(Role.MAIL_PROCESSOR) as mta:
        waits = asyncio.create_task(mta.call(mta.cache.Harvest, cache_pb2.HarvestRequest(message=b"wait")))
        await node.examiner.waiting.wait()
        budget = node.server._budget
        with budget.hold(8 * MIB - 4), pytest.raises(Unavailable, match="takes no more just now"):
            await mta.call(mta.cache.Harvest, cache_pb2.HarvestRequest(message=b"key 1"))
        node.examiner.go.set()
        assert (await waits).verdict == "NO_KEY_MATERIAL"
        assert (await mta.call(mta.cache.Harvest, cache_pb2.HarvestRequest(message=b"key 1"))).verdict == "CACHED"
