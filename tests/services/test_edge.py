"""The gRPC edge over real TLS on the loopback: who may do what, limits, errors, health and the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from keycache import codec
from keycache.client import MessageTooLarge, Unreachable, connect
from keycache.client.connection import OPTIONS
from keycache.clock import SystemClock
from keycache.domain import errors
from keycache.domain.errors import InvalidInput, KeycacheError, NotFound, PermissionDenied, Refused, Unavailable
from keycache.pki import Identity, Role, new_request, open_pki, read_peer
from keycache.services import auth
from keycache.services.errors import CODES, failure
from keycache.v1 import admin_pb2, cache_pb2, record_pb2
from support.entries import fingerprint_of, make_entry, make_key
from support.service_node import ServiceNode, service_node

MIB = 1 << 20


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[ServiceNode]:
    async with service_node(tmp_path, message_limit=MIB) as running:
        yield running


def channel(node: ServiceNode, identity: Identity) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(identity.ca, identity.key.pem, identity.certificate)
    return grpc.aio.secure_channel(node.target, credentials, options=OPTIONS)


async def said(channel: grpc.aio.Channel, rpc: str, request: bytes = b"", within: float = 10) -> tuple[grpc.StatusCode, str]:
    """What one call ends with; a stream's first answer is good enough."""
    method = descriptor_pool.Default().FindMethodByName(rpc[1:].replace("/", "."))
    make = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, True): channel.stream_stream,
    }[method.client_streaming, method.server_streaming]
    call = make(rpc)([request] if method.client_streaming else request, timeout=within)
    try:
        if method.server_streaming:
            await call.read()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    if call.done():
        return await call.code(), await call.details() or ""
    call.cancel()
    return grpc.StatusCode.OK, ""


# Who may do what.


def every_rpc() -> set[str]:
    pool = descriptor_pool.Default()
    names = ("keycache.v1.KeyCache", "keycache.v1.Admin", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")
    return {f"/{name}/{method.name}" for name in names for method in pool.FindServiceByName(name).methods}


def test_the_table_of_roles_names_every_rpc_and_no_other() -> None:
    assert set(auth.ALLOWED) == every_rpc()


@pytest.mark.parametrize("role", Role)
async def test_a_role_may_call_exactly_what_the_table_allows(node: ServiceNode, role: Role) -> None:
    async with channel(node, node.client(role)) as ours:
        refused = {rpc for rpc in every_rpc() if (await said(ours, rpc))[0] is grpc.StatusCode.PERMISSION_DENIED}
    anybody = {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/List", "/grpc.health.v1.Health/Watch"}
    anybody.add("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    processors = anybody | {rpc for rpc in every_rpc() if rpc.startswith("/keycache.v1.KeyCache/")}
    may = {Role.ADMIN: every_rpc(), Role.MAIL_PROCESSOR: processors, Role.NODE: anybody}
    assert refused == every_rpc() - may[role]


async def test_a_refusal_names_the_role_that_it_takes(node: ServiceNode) -> None:
    async with node.connected(Role.MAIL_PROCESSOR) as mta:
        with pytest.raises(PermissionDenied) as caught:
            await mta.call(mta.admin.GetStatus, admin_pb2.GetStatusRequest())
    assert caught.value.text == "GetStatus needs the role admin, but your certificate has the role mail-processor."
    assert caught.value.hint.startswith("Use a certificate of that role")


async def test_a_stranger_with_an_authority_of_their_own_cannot_speak(node: ServiceNode, tmp_path: Path) -> None:
    stranger = open_pki(tmp_path / "stranger", names=(), now=SystemClock().now()).admin
    disguised = Identity(
        certificate=stranger.certificate, key=stranger.key, ca=node.pki.server.ca, not_after=stranger.not_after
    )
    async with channel(node, disguised) as ours:
        assert await turned_away(ours)


async def turned_away(ours: grpc.aio.Channel) -> bool:
    """Not one call is answered, not even the health check that anybody with a certificate may make."""
    ends = [await said(ours, "/grpc.health.v1.Health/Check", within=5) for _ in range(2)]
    return all(code is grpc.StatusCode.UNAVAILABLE for code, _ in ends)


async def test_who_shows_no_certificate_cannot_speak(node: ServiceNode) -> None:
    async with grpc.aio.secure_channel(node.target, grpc.ssl_channel_credentials(node.pki.server.ca)) as ours:
        assert await turned_away(ours)


async def test_who_speaks_without_tls_is_not_heard(node: ServiceNode) -> None:
    async with grpc.aio.insecure_channel(node.target) as ours:
        assert await turned_away(ours)


async def test_a_certificate_that_has_run_out_opens_nothing(node: ServiceNode) -> None:
    old = node.client(
        Role.ADMIN, age=node.pki.server.not_after - SystemClock().now() + (SystemClock().now() - SystemClock().now())
    )
    assert old.not_after > SystemClock().now()  # the very last of its life: it is the end that counts, not the age
    expired = node.client(Role.ADMIN, age=(node.pki.server.not_after - SystemClock().now()) * 2)
    async with channel(node, expired) as ours:
        assert await turned_away(ours)


async def test_the_servers_own_certificate_is_no_clients(node: ServiceNode) -> None:
    async with channel(node, node.pki.server) as ours:
        assert (await said(ours, "/grpc.health.v1.Health/Check", within=5))[0] is grpc.StatusCode.UNAVAILABLE


async def test_a_client_recognises_another_node(node: ServiceNode, tmp_path: Path) -> None:
    stranger = open_pki(tmp_path / "stranger", names=(), now=SystemClock().now())
    async with connect(node.target, **node.files(stranger.admin)) as ours:
        with pytest.raises(Unreachable, match="not the one that the CA certificate vouches for"):
            await ours.call(ours.cache.Lookup, cache_pb2.LookupRequest(address="a@example.org"), timeout=5)


async def test_a_renewed_certificate_is_shown_to_new_connections_without_a_restart(node: ServiceNode) -> None:
    renewed = node.pki.authority.issue_server(("127.0.0.1",), now=SystemClock().now())
    async with node.connected(name="before") as before:
        await before.call(before.admin.GetStatus, admin_pb2.GetStatusRequest())
        node.server.certificates.replace(renewed)
        await before.call(before.admin.GetStatus, admin_pb2.GetStatusRequest())
        async with node.connected(name="after") as after:
            await after.call(after.admin.GetStatus, admin_pb2.GetStatusRequest())
    assert await shown(node) == renewed.certificate


async def shown(node: ServiceNode) -> bytes:
    import ssl

    context = ssl.create_default_context(cadata=node.pki.server.ca.decode())
    files = node.files(node.client(Role.ADMIN), "look")
    context.load_cert_chain(files["certificate"], files["key"])
    _, writer = await asyncio.open_connection("127.0.0.1", node.server.ports[0], ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(der).encode()


# Lookups and harvest.


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


# Limits and errors.


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


# Administration.


async def test_an_act_stands_in_the_audit_log_under_the_name_in_the_certificate(node: ServiceNode) -> None:
    async with node.connected(name="alice") as alice:
        await alice.call(alice.cache.Harvest, cache_pb2.HarvestRequest(message=b"key 7"))
        await alice.call(alice.admin.Block, admin_pb2.BlockRequest(address="user7@example.org", reason="lost"))
        deleted = await alice.call(alice.admin.DeleteEntry, admin_pb2.DeleteEntryRequest(fingerprint=fingerprint_of(7).text))
        audit = await alice.call(alice.admin.ListAudit, admin_pb2.ListAuditRequest())
    assert deleted.deleted == 1
    assert {record.actor for record in audit.records} == {"alice"}
    assert len(audit.records) == 2


async def test_a_client_that_was_issued_a_certificate_may_call(node: ServiceNode) -> None:
    key, csr = new_request("mta1")
    async with node.connected(name="alice") as alice:
        issued = await alice.call(
            alice.admin.IssueClient, admin_pb2.IssueClientRequest(role="mail-processor", name="mta1", csr=csr)
        )
        audit = await alice.call(alice.admin.ListAudit, admin_pb2.ListAuditRequest())
        for role in ("node", "emperor", ""):
            with pytest.raises(InvalidInput, match="mail-processor or admin"):
                await alice.call(alice.admin.IssueClient, admin_pb2.IssueClientRequest(role=role, name="x", csr=csr))
    identity = Identity(certificate=issued.certificate, key=key, ca=issued.ca, not_after=codec.moment(issued.not_after))
    assert read_peer(issued.certificate).name == "mta1"
    assert [(one.actor, one.action, one.subject) for one in audit.records] == [("alice", "ISSUE_CLIENT", "mail-processor mta1")]
    async with connect(node.target, **node.files(identity)) as mta:
        answer = await mta.call(mta.cache.Lookup, cache_pb2.LookupRequest(address="a@example.org"))
    assert answer.result.miss.code == cache_pb2.MISS_CODE_NOT_FOUND


async def test_an_export_taken_back_is_the_same(node: ServiceNode, tmp_path: Path) -> None:
    async with node.connected() as admin:
        for number in (1, 2, 3):
            await admin.call(admin.cache.Harvest, cache_pb2.HarvestRequest(message=b"key %d" % number))
        exported = [item async for item in admin.stream(admin.admin.Export, admin_pb2.ExportRequest())]
    assert [item.total for item in exported] == [3, 0, 0]
    async with service_node(tmp_path / "other") as other, other.connected() as admin:
        results = [result async for result in admin.exchange(admin.admin.Import, items(exported))]
        again = [item async for item in admin.stream(admin.admin.Export, admin_pb2.ExportRequest())]
    assert [[key.verdict for key in result.keys] for result in results] == [["CACHED"]] * 3
    assert [item.entry.sightings for item in again] == [item.entry.sightings for item in exported]


async def items(exported: list[admin_pb2.ExportItem]) -> AsyncIterator[admin_pb2.ImportItem]:
    for item in exported:
        yield admin_pb2.ImportItem(entry=item.entry, source="export.jsonl")


async def test_an_import_answers_each_item_in_order_and_one_bad_item_spoils_nothing(node: ServiceNode) -> None:
    broken = codec.entry_to_wire(make_entry(5))
    broken.sightings[0].ClearField("refreshed_at")
    sent = [
        admin_pb2.ImportItem(material=make_key(1).material, source="one.pem"),
        admin_pb2.ImportItem(source="empty"),
        admin_pb2.ImportItem(entry=broken, source="broken"),
        admin_pb2.ImportItem(material=b"rubbish", source="rubbish.pem"),
        admin_pb2.ImportItem(message=cache_pb2.HarvestRequest(message=b"key 2"), source="mbox"),
    ]

    async def each() -> AsyncIterator[admin_pb2.ImportItem]:
        for item in sent:
            yield item

    async with node.connected() as admin:
        results = [result async for result in admin.exchange(admin.admin.Import, each())]
    told = [(result.source, result.verdict, [key.verdict for key in result.keys]) for result in results]
    assert told == [
        ("one.pem", "", ["CACHED"]),
        ("empty", "MALFORMED_KEY", []),
        ("broken", "MALFORMED_KEY", []),
        ("rubbish.pem", "", ["MALFORMED_KEY"]),
        ("mbox", "CACHED", ["CACHED"]),
    ]
    assert results[2].detail == "A sighting lacks cached_at or refreshed_at."


async def test_an_import_may_wait_for_each_answer_before_it_goes_on(node: ServiceNode) -> None:
    async with node.connected() as admin:
        call = admin.admin.Import(timeout=10)  # type: ignore[call-arg]
        for number in (1, 2):
            await call.write(admin_pb2.ImportItem(material=make_key(number).material, source=str(number)))
            answer = await call.read()
            assert isinstance(answer, admin_pb2.ImportResult)
            assert (answer.source, answer.keys[0].verdict) == (str(number), "CACHED")
        await call.done_writing()


async def test_what_the_file_of_an_import_raises_comes_back_to_who_reads_it(node: ServiceNode) -> None:
    async def each() -> AsyncIterator[admin_pb2.ImportItem]:
        yield admin_pb2.ImportItem(material=make_key(1).material)
        raise InvalidInput("Line 2 is not JSON.")

    async with node.connected() as admin:
        with pytest.raises(InvalidInput, match="Line 2 is not JSON"):
            async for _ in admin.exchange(admin.admin.Import, each()):
                pass


async def test_settings_are_shown_changed_and_refused_out_of_range(node: ServiceNode) -> None:
    async with node.connected(name="alice") as admin:
        changed = await admin.call(
            admin.admin.SetSettings, admin_pb2.SetSettingsRequest(looked_up_timeout=Duration(seconds=7200), purge_hold_floor=0)
        )
        with pytest.raises(InvalidInput, match="999d"):
            await admin.call(
                admin.admin.SetSettings, admin_pb2.SetSettingsRequest(harvested_timeout=Duration(seconds=1000 * 86400))
            )
        shown = await admin.call(admin.admin.GetSettings, admin_pb2.GetSettingsRequest())
        history = await admin.call(admin.admin.ListSettingChanges, admin_pb2.ListSettingChangesRequest())
    assert (shown.settings.looked_up_timeout.seconds, shown.settings.purge_hold_floor) == (7200, 0)
    assert shown.settings == changed.settings
    assert {(one.actor, one.name) for one in history.changes} == {("alice", one.name) for one in changed.changes}
    assert isinstance(history.changes[0], record_pb2.SettingChange)


async def test_a_purge_says_what_it_matches_and_does_one_thing_at_a_time(node: ServiceNode) -> None:
    async with node.connected() as admin:
        for number in (1, 2):
            await admin.call(admin.cache.Harvest, cache_pb2.HarvestRequest(message=b"key %d" % number))
        one = admin_pb2.EntryFilter(address="user1@example.org")
        dry = await admin.call(admin.admin.Purge, admin_pb2.PurgeRequest(filter=one, dry_run=True))
        with pytest.raises(Refused):
            await admin.call(admin.admin.Purge, admin_pb2.PurgeRequest())
        with pytest.raises(InvalidInput, match="not both"):
            await admin.call(admin.admin.Purge, admin_pb2.PurgeRequest(filter=one, confirm_held=True))
        done = await admin.call(admin.admin.Purge, admin_pb2.PurgeRequest(filter=one))
        await admin.call(admin.admin.Purge, admin_pb2.PurgeRequest(trust_clock=True))
        left = await admin.call(admin.admin.ListEntries, admin_pb2.ListEntriesRequest())
    assert [(dry.matched, dry.removed), (done.matched, done.removed), left.total] == [(1, 0), (1, 1), 1]
    assert left.entries[0].entry.key.fingerprint == fingerprint_of(2).text


async def test_a_page_beyond_the_limit_and_an_unknown_number_are_refused(node: ServiceNode) -> None:
    async with node.connected() as admin:
        for request in (
            admin_pb2.ListEntriesRequest(page_size=1001),
            admin_pb2.ListEntriesRequest.FromString(b"\x0a\x02\x20\x63"),  # filter.protocol = 99
            admin_pb2.ListEntriesRequest(filter=admin_pb2.EntryFilter(older_than=Duration(seconds=-1))),
        ):
            with pytest.raises(InvalidInput):
                await admin.call(admin.admin.ListEntries, request)
        with pytest.raises(NotFound):
            await admin.call(admin.admin.GetEntry, admin_pb2.GetEntryRequest(fingerprint="00" * 32))


async def test_status_counts_what_is_there(node: ServiceNode) -> None:
    async with node.connected() as admin:
        harvested = await admin.call(admin.cache.Harvest, cache_pb2.HarvestRequest(message=b"key 1"))
        status = await admin.call(admin.admin.GetStatus, admin_pb2.GetStatusRequest())
        verdicts = await admin.call(admin.admin.ListVerdicts, admin_pb2.ListVerdictsRequest())
    assert (status.mode, status.node_id, status.entries.live) == ("standalone", "test", 1)
    assert status.applied_revision >= harvested.revision
    assert (dict(verdicts.counts), verdicts.recent[0].verdict) == ({"CACHED": 1}, "CACHED")


# Health, reflection, metrics, the end.


async def test_reflection_lists_every_service(node: ServiceNode) -> None:
    async with channel(node, node.client(Role.MAIL_PROCESSOR)) as ours:
        stub = reflection_pb2_grpc.ServerReflectionStub(ours)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        listed = {service.name async for answer in call for service in answer.list_services_response.service}
    assert listed == {rpc.split("/")[1] for rpc in auth.ALLOWED}


async def test_health_tells_each_service_and_flips_when_told(node: ServiceNode) -> None:
    async with channel(node, node.client(Role.NODE)) as ours:
        stub = health_pb2_grpc.HealthStub(ours)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="keycache.v1.KeyCache"))
        seen = [(await watch.read()).status]
        listed = await stub.List(health_pb2.HealthListRequest())
        node.server.ready(serving=False)
        seen.append((await watch.read()).status)
        states = [(await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in sorted(listed.statuses)]
        node.server.ready()
        seen.append((await watch.read()).status)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="nothing"))
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="nothing"))
        seen.append((await unknown.read()).status)
        watch.cancel()
        unknown.cancel()
    serving, not_serving, no_service = 1, 2, 3
    assert sorted(listed.statuses) == ["", "keycache.v1.Admin", "keycache.v1.KeyCache"]
    assert (seen, states) == ([serving, not_serving, serving, no_service], [not_serving] * 3)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_stop_finishes_the_call_in_flight_ends_watches_and_refuses_new_calls(node: ServiceNode) -> None:
    async with node.connected(Role.MAIL_PROCESSOR) as mta, channel(node, node.client(Role.NODE)) as ours:
        health = health_pb2_grpc.HealthStub(ours).Watch(health_pb2.HealthCheckRequest())
        states = [(await health.read()).status]
        watch = mta.stream(mta.cache.Watch, cache_pb2.WatchRequest())
        await anext(watch)
        in_flight = asyncio.create_task(mta.call(mta.cache.Harvest, cache_pb2.HarvestRequest(message=b"wait")))
        await node.examiner.waiting.wait()
        stopping = asyncio.create_task(node.stop())
        with pytest.raises(Unavailable, match="The node is stopping"):
            await anext(watch)
        states.append((await health.read()).status)
        async with node.connected(Role.MAIL_PROCESSOR, name="late") as late:
            with pytest.raises(Unreachable):
                await late.call(late.cache.Lookup, cache_pb2.LookupRequest(address="a@example.org"), timeout=5)
        assert not in_flight.done()
        node.examiner.go.set()
        assert (await in_flight).verdict == "NO_KEY_MATERIAL"
        await asyncio.wait_for(stopping, 5)
    assert states == [1, 2]


async def test_two_nodes_cannot_share_a_port(node: ServiceNode, tmp_path: Path) -> None:
    from keycache.services.server import Server, ServerOptions

    second = Server(
        cache=node.cache,
        signer=node.pki,
        identity=node.pki.server,
        clock=node.clock,
        metrics=node.metrics,
        options=ServerOptions(listen=(node.target,)),
    )
    with pytest.raises(errors.ConfigError, match=f"Cannot listen on {node.target}"):
        await second.start()
    await second.stop(0)


async def test_calls_and_verdicts_are_counted(node: ServiceNode) -> None:
    async with node.connected(Role.MAIL_PROCESSOR) as mta:
        await mta.call(mta.cache.Harvest, cache_pb2.HarvestRequest(message=b"key 1"))
        with pytest.raises(InvalidInput):
            await mta.call(mta.cache.Lookup, cache_pb2.LookupRequest())
        with pytest.raises(PermissionDenied):
            await mta.call(mta.admin.GetStatus, admin_pb2.GetStatusRequest())
    text = node.metrics.text().decode()
    for line in (
        'keycache_calls_total{code="OK",rpc="Harvest"} 1.0',
        'keycache_call_seconds_count{rpc="Harvest"} 1.0',
        'keycache_calls_total{code="INVALID_ARGUMENT",rpc="Lookup"} 1.0',
        'keycache_calls_total{code="PERMISSION_DENIED",rpc="GetStatus"} 1.0',
        'keycache_messages_total{verdict="CACHED"} 1.0',
    ):
        assert line in text
