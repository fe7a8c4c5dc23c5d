"""What an administrator brings: files of keys, past mail, and exports with all their time stamps (DESIGN 2.7)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from keycache.cache.journal import TALLY_SPAN
from keycache.cache.results import KeyResult
from keycache.domain.entry import Change, Defect, Entry, Issuer, Origin, Protocol, Sighting, Trust
from keycache.domain.errors import InvalidInput
from keycache.domain.examination import Finding
from keycache.domain.verdict import Verdict
from support.entries import T0, fingerprint_of, make_entry, make_key, make_sighting
from support.node import ENVELOPE, Node, running_node

US, HOUR, DAY = timedelta(microseconds=1), timedelta(hours=1), timedelta(days=1)


async def bring(node: Node, entry: Entry) -> KeyResult:
    node.script.know(entry.key)
    return await node.cache.imports.entry(entry, "export.jsonl", "anna")


async def acts(node: Node) -> list[tuple[str, str, str, str]]:
    return [(one.actor, one.action, one.subject, one.detail) for one in await node.cache.journal.audit(limit=100)]


# entries
async def test_an_entry_keeps_all_its_time_stamps_to_the_microsecond() -> None:
    entry = make_entry(
        1,
        make_sighting(cached_at=T0 - 300 * DAY - US, refreshed_at=T0 - 3 * DAY - 7 * US, source="<old@example.org>"),
        make_sighting(Origin.LOOKED_UP, cached_at=T0 - HOUR, source="keys.example.org"),
        history=(Change(at=T0 - 300 * DAY, what="CACHED", by="HARVESTED <old@example.org>"),),
    )
    async with running_node() as node:
        result = await bring(node, entry)
        assert result == KeyResult(
            fingerprint=fingerprint_of(1).text,
            protocol=Protocol.SMIME,
            addresses=("user1@example.org",),
            verdict=Verdict.CACHED,
            detail=Verdict.CACHED.advice,
        )
        assert node.entry(fingerprint_of(1)) == entry
        assert await acts(node) == [("anna", "IMPORT", "export.jsonl", "1 entries of an export taken over")]


@pytest.mark.parametrize("origin", Origin)
async def test_an_entry_aged_by_hand_expires_exactly_at_its_origins_timeout(origin: Origin) -> None:
    async with running_node() as node:
        timeout = node.cache.settings.current()[0].timeouts.of(origin)
        await bring(node, make_entry(1, make_sighting(origin, cached_at=T0 - timeout + timedelta(seconds=2))))
        node.clock.advance(timedelta(seconds=1))
        assert node.served("user1@example.org") == [fingerprint_of(1).text]
        node.clock.advance(timedelta(seconds=1) - US)
        assert node.served("user1@example.org") == [fingerprint_of(1).text]
        node.clock.advance(US)
        assert node.served("user1@example.org") == []


async def test_importing_the_same_export_again_changes_nothing() -> None:
    async with running_node() as node:
        await bring(node, make_entry(1))
        before, digest = await node.log.head(), node.replica.digest()
        assert (await bring(node, make_entry(1))).verdict is Verdict.ALREADY_FRESH
        assert (await node.log.head(), node.replica.digest()) == (before, digest)


async def test_a_known_entry_and_an_imported_one_are_joined_and_no_time_stamp_moves_backwards() -> None:
    ours = make_entry(1, make_sighting(cached_at=T0 - 10 * DAY, refreshed_at=T0, source="ours"))
    theirs = make_entry(
        1,
        make_sighting(cached_at=T0 - 20 * DAY, refreshed_at=T0 - 5 * DAY, source="theirs"),
        make_sighting(Origin.IMPORTED, cached_at=T0 - DAY, source="file"),
    )
    async with running_node(ours) as node:
        assert (await bring(node, theirs)).verdict is Verdict.REFRESHED
        entry = node.entry(fingerprint_of(1))
        assert entry is not None
        assert entry.sightings == (
            make_sighting(cached_at=T0 - 20 * DAY, refreshed_at=T0, source="ours"),
            make_sighting(Origin.IMPORTED, cached_at=T0 - DAY, source="file"),
        )


async def test_an_export_of_one_node_makes_the_same_cache_on_another() -> None:
    made = [
        make_entry(0),
        make_entry(1, make_sighting(cached_at=T0 - 9 * DAY, refreshed_at=T0 - US), make_sighting(Origin.IMPORTED)),
        make_entry(2, protocol=Protocol.OPENPGP, addresses=["a@x.example", "B@x.example"]),
        make_entry(3, trust=Trust.HELD),
        make_entry(4, make_sighting(cached_at=T0 - 600 * DAY)),
        make_entry(5, defect=Defect.REVOKED),
    ]
    async with running_node(*made) as first, running_node() as second:
        entries = first.cache.entries
        async for entry, _ in entries.export(entries.query()):
            await bring(second, entry)
        assert second.replica.digest() == first.replica.digest()
        assert await second.in_log() == await first.in_log()


async def test_trust_is_judged_by_this_nodes_own_anchors_and_not_by_the_exports_word() -> None:
    """Else an export would be a way around the approval of issuers."""
    issuer = Issuer(id="aa", name="CN=A", certificate=b"der")
    claimed = make_entry(1, trust=Trust.ANCHORED, issuer=issuer, names=("claimed",))
    async with running_node() as node:
        node.script.know(make_key(1, trust=Trust.HELD, issuer=issuer))
        await node.cache.imports.entry(claimed, "export.jsonl", "anna")
        entry = node.entry(fingerprint_of(1))
        assert entry is not None
        assert (entry.key.trust, entry.key.issuer) == (Trust.HELD, issuer)
        assert node.served("user1@example.org") == []


async def test_a_revocation_in_an_export_is_taken_over_and_one_that_is_known_stays() -> None:
    for ours, theirs in ((None, Defect.REVOKED), (Defect.REVOKED, None)):
        async with running_node(make_entry(1, defect=ours)) as node:
            node.script.know(make_key(1))
            await node.cache.imports.entry(make_entry(1, defect=theirs), "export.jsonl", "anna")
            entry = node.entry(fingerprint_of(1))
            assert entry is not None
            assert entry.key.defect is Defect.REVOKED


async def test_only_addresses_that_the_key_itself_names_are_taken_over() -> None:
    async with running_node() as node:
        node.script.know(make_key(1, addresses=["a@x.example", "b@x.example"]))
        await node.cache.imports.entry(make_entry(1, addresses=["A@x.example", "ceo@x.example"]), "export.jsonl", "anna")
        entry = node.entry(fingerprint_of(1))
        assert entry is not None
        assert [address.text for address in entry.key.addresses] == ["A@x.example"]
        with pytest.raises(InvalidInput, match="names none of the addresses"):
            await node.cache.imports.entry(make_entry(1, addresses=["ceo@x.example"]), "export.jsonl", "anna")


WRONG = {
    "material of another key": (make_entry(1), make_key(2, fingerprint=fingerprint_of(2)), "is not that key"),
    "material of no key": (make_entry(1), None, "is not that key"),
    "material of another protocol": (
        make_entry(1),
        make_key(1, protocol=Protocol.OPENPGP, fingerprint=fingerprint_of(1)),
        "is of another protocol",
    ),
    "cached after it was refreshed": (
        make_entry(1, Sighting(origin=Origin.HARVESTED, source="", cached_at=T0, refreshed_at=T0 - US)),
        make_key(1),
        "cached_at is after its refreshed_at",
    ),
    "refreshed in the future": (make_entry(1, make_sighting(cached_at=T0 + DAY + US)), make_key(1), "is in the future"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_an_entry_that_cannot_be_right_is_refused_and_nothing_is_kept(what: str) -> None:
    entry, found, text = WRONG[what]
    async with running_node() as node:
        shown = (
            Finding(protocol=Protocol.SMIME, key=None, verdict=Verdict.MALFORMED_KEY)
            if found is None
            else Finding(protocol=found.protocol, key=found, verdict=None)
        )
        node.script.file(entry.key.material, shown)
        before = await node.log.head()
        with pytest.raises(InvalidInput, match=text):
            await node.cache.imports.entry(entry, "export.jsonl", "anna")
        assert await node.log.head() == before


async def test_an_entry_from_a_clock_a_little_ahead_is_taken() -> None:
    async with running_node() as node:
        assert (await bring(node, make_entry(1, make_sighting(cached_at=T0 + DAY)))).verdict is Verdict.CACHED


async def test_an_imported_entry_of_a_merged_openpgp_key_is_merged_with_ours() -> None:
    pgp = {"protocol": Protocol.OPENPGP, "addresses": ["a@x.example"]}
    ours = replace(make_entry(1, **pgp), key=replace(make_key(1, **pgp), material=b"1+2"))
    theirs = replace(make_entry(1, **pgp), key=replace(make_key(1, **pgp), material=b"1+3"))
    async with running_node(ours) as node:
        await bring(node, theirs)
        entry = node.entry(ours.key.fingerprint, Protocol.OPENPGP)
        assert entry is not None
        assert entry.key.material == b"1+2+3"


async def test_a_large_import_is_one_line_in_the_audit_log_whose_count_is_right_however_many_run_at_once() -> None:
    async with running_node() as node:
        await asyncio.gather(*(bring(node, make_entry(number)) for number in range(50)))
        assert await acts(node) == [("anna", "IMPORT", "export.jsonl", "50 entries of an export taken over")]
        node.clock.advance(TALLY_SPAN)
        await bring(node, make_entry(50))
        assert [detail.partition(" ")[0] for *_, detail in await acts(node)] == ["1", "50"]


# files and mail
async def test_a_file_of_keys_is_imported_under_its_own_origin_with_one_line_in_the_audit_log() -> None:
    async with running_node(make_entry(2)) as node:
        refused = Finding(protocol=Protocol.OPENPGP, key=None, verdict=Verdict.SECRET_KEY, label="key 3")
        blob = node.script.file(b"keyring", make_key(1), make_key(2), refused)
        results = await node.cache.imports.material(blob, "keys.pem", "anna")
        assert [result.verdict for result in results] == [Verdict.CACHED, Verdict.REFRESHED, Verdict.SECRET_KEY]
        entry = node.entry(fingerprint_of(1))
        assert entry is not None
        assert entry.sightings == (make_sighting(Origin.IMPORTED, source="keys.pem"),)
        assert await acts(node) == [("anna", "IMPORT", "keys.pem", "2 of 3 keys kept")]


async def test_an_administrator_may_import_a_key_of_a_managed_domain() -> None:
    async with running_node(node=Node(managed=("ours.example",))) as node:
        blob = node.script.file(b"file", make_key(1, addresses=["a@ours.example"]))
        (result,) = await node.cache.imports.material(blob, "keys.pem", "anna")
        assert result.verdict is Verdict.CACHED
        assert node.served("a@ours.example") == [fingerprint_of(1).text]


async def test_past_mail_is_imported_as_such_and_counts_as_no_mail_of_today() -> None:
    async with running_node() as node:
        result = await node.cache.imports.message(node.script.mail(make_key(1)), ENVELOPE, "old.mbox", "anna")
        assert result.verdict is Verdict.CACHED
        entry = node.entry(fingerprint_of(1))
        assert entry is not None
        assert entry.sightings == (make_sighting(Origin.IMPORTED, source="old.mbox"),)
        assert await acts(node) == [("anna", "IMPORT", "old.mbox", "1 mails with keys")]
        await node.cache.imports.message(node.script.mail(), ENVELOPE, "old.mbox", "anna")
        assert len(await acts(node)) == 1
        assert node.cache.journal.verdicts(9) == ({}, ())


async def test_past_mail_brings_no_key_for_a_managed_domain() -> None:
    async with running_node(node=Node(managed=("ours.example",))) as node:
        mail = node.script.mail(make_key(1, addresses=["stranger@example.org", "boss@ours.example"]))
        result = await node.cache.imports.message(mail, ENVELOPE, "old.mbox", "anna")
        assert result.verdict is Verdict.CACHED
        assert node.served("stranger@example.org") == [fingerprint_of(1).text]
        assert node.served("boss@ours.example") == []
