"""What administrators call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from keycache import codec
from keycache.client import connect
from keycache.domain.errors import InvalidInput, NotFound, Refused
from keycache.pki import Identity, new_request, read_peer
from keycache.v1 import admin_pb2, cache_pb2, record_pb2
from support.entries import fingerprint_of, make_entry, make_key
from support.service_node import ServiceNode, service_node


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
        ("one.pem", "CACHED", ["CACHED"]),
        ("empty", "MALFORMED_KEY", []),
        ("broken", "MALFORMED_KEY", []),
        ("rubbish.pem", "MALFORMED_KEY", ["MALFORMED_KEY"]),
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


async def test_what_the_file_of_an_import_raises_comes_back_after_the_answers_to_what_came_before(node: ServiceNode) -> None:
    async def each() -> AsyncIterator[admin_pb2.ImportItem]:
        yield admin_pb2.ImportItem(material=make_key(1).material, source="line 1")
        raise InvalidInput("Line 2 is not JSON.")

    async with node.connected() as admin:
        results = admin.exchange(admin.admin.Import, each())
        assert (await anext(results)).source == "line 1"
        with pytest.raises(InvalidInput, match="Line 2 is not JSON"):
            await anext(results)


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
