"""From a message to kept keys: what is written, what is not, and under which verdict."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from keycache.cache.harvesting import KEYS_PER_ADDRESS
from keycache.cache.results import KeyResult, MessageResult
from keycache.domain.entry import Change, Defect, HeldReason, Origin, Protocol, Trust
from keycache.domain.examination import Direction, Envelope, Finding, Gate
from keycache.domain.log import CHAIN, Transaction
from keycache.domain.verdict import Verdict
from support.entries import T0, fingerprint_of, make_entry, make_key, make_sighting
from support.node import ENVELOPE, Node, running_node

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
KEPT = (Gate(name="administrator's blocks", passed=True), Gate(name="kept", passed=True, detail="CACHED"))


async def harvest(node: Node, *shown, **mail) -> MessageResult:
    return await node.cache.harvesting.harvest(node.script.mail(*shown, **mail), ENVELOPE)


async def head(node: Node) -> int:
    return await node.log.head()


# what is kept
async def test_a_new_key_is_cached_and_served_when_the_call_returns() -> None:
    async with running_node() as node:
        result = await harvest(node, make_key(1))
        assert result == MessageResult(
            direction=Direction.INBOUND,
            verdict=Verdict.CACHED,
            detail=Verdict.CACHED.advice,
            keys=(
                KeyResult(
                    fingerprint=fingerprint_of(1).text,
                    protocol=Protocol.SMIME,
                    addresses=("user1@example.org",),
                    verdict=Verdict.CACHED,
                    detail=Verdict.CACHED.advice,
                    gates=KEPT,
                ),
            ),
            gates=(),
            revision=2,
            sender="user1@example.org",
            message_id="<1@example.org>",
        )
        assert node.cache.lookups.revision >= result.revision
        assert node.served("user1@example.org") == [fingerprint_of(1).text]
        assert node.entry(fingerprint_of(1)) == replace(
            make_entry(1, make_sighting(source="<1@example.org>")),
            history=(Change(at=T0, what="CACHED", by="HARVESTED <1@example.org>"),),
        )


async def test_a_thousand_mails_of_one_sender_in_a_day_cost_one_write() -> None:
    async with running_node() as node:
        first = await harvest(node, make_key(1))
        before = await head(node)
        verdicts = set()
        for _ in range(999):
            node.clock.advance(timedelta(seconds=86))
            verdicts.add((await harvest(node, make_key(1))).verdict)
        assert (first.verdict, verdicts) == (Verdict.CACHED, {Verdict.ALREADY_FRESH})
        assert await head(node) == before
        node.clock.advance(HOUR)
        assert (await harvest(node, make_key(1))).verdict is Verdict.REFRESHED
        assert await head(node) == before + 1


@pytest.mark.parametrize(("lasts", "wait"), [(HOUR, timedelta(minutes=3)), (10 * DAY, 12 * HOUR), (500 * DAY, DAY)])
async def test_a_refresh_is_written_after_a_day_or_a_twentieth_of_the_timeout(lasts: timedelta, wait: timedelta) -> None:
    async with running_node() as node:
        await node.cache.settings.change(harvested=lasts, actor="admin")
        await harvest(node, make_key(1))
        node.clock.advance(wait - timedelta(seconds=1))
        assert (await harvest(node, make_key(1))).verdict is Verdict.ALREADY_FRESH
        node.clock.advance(timedelta(seconds=1))
        assert (await harvest(node, make_key(1))).verdict is Verdict.REFRESHED
        entry = node.entry(fingerprint_of(1))
        assert entry is not None
        assert entry.sightings == (make_sighting(cached_at=T0, refreshed_at=T0 + wait, source="<3@example.org>"),)


async def test_two_programs_of_one_sender_cost_no_more_writes_than_one() -> None:
    async with running_node() as node:
        await harvest(node, make_key(1, capabilities=("1.2.3",)))
        before = await head(node)
        for number in range(10):
            node.clock.advance(timedelta(minutes=1))
            assert (await harvest(node, make_key(1, capabilities=(f"1.{number}",)))).verdict is Verdict.ALREADY_FRESH
        assert await head(node) == before


async def test_each_origin_has_its_own_sighting_and_its_own_time() -> None:
    async with running_node() as node:
        await harvest(node, make_key(1))
        node.clock.advance(HOUR)
        blob = node.script.file(b"file", make_key(1))
        results, revision = await node.cache.harvesting.put(blob, "user1@example.org", "keys.example.org")
        assert [result.verdict for result in results] == [Verdict.REFRESHED]
        assert revision == await head(node)
        entry = node.entry(fingerprint_of(1))
        assert entry is not None
        assert entry.sightings == (
            make_sighting(source="<1@example.org>"),
            make_sighting(Origin.LOOKED_UP, cached_at=T0 + HOUR, source="keys.example.org"),
        )
        node.clock.advance(30 * DAY)
        assert await node.sweep() == 0
        assert node.served("user1@example.org") == [fingerprint_of(1).text]


async def test_a_key_whose_time_had_run_out_is_cached_anew_also_before_it_was_purged() -> None:
    async with running_node(make_entry(1, make_sighting(cached_at=T0 - 600 * DAY))) as node:
        assert node.served("user1@example.org") == []
        assert (await harvest(node, make_key(1))).verdict is Verdict.CACHED
        assert node.served("user1@example.org") == [fingerprint_of(1).text]


async def test_several_keys_of_one_mail_have_their_own_results_and_the_best_verdict_is_the_mails() -> None:
    refused = Finding(
        protocol=Protocol.OPENPGP, key=None, verdict=Verdict.AUTOCRYPT_INVALID, detail="No addr.", label="Autocrypt"
    )
    async with running_node(make_entry(2)) as node:
        result = await harvest(node, refused, make_key(1), make_key(2))
        assert [(key.fingerprint, key.verdict) for key in result.keys] == [
            ("Autocrypt", Verdict.AUTOCRYPT_INVALID),
            (fingerprint_of(1).text, Verdict.CACHED),
            (fingerprint_of(2).text, Verdict.ALREADY_FRESH),
        ]
        assert (result.verdict, result.keys[0].detail) == (Verdict.CACHED, "No addr.")


async def test_a_mail_whose_whole_ends_the_matter_writes_nothing_and_says_why() -> None:
    async with running_node() as node:
        before = await head(node)
        result = await harvest(node, verdict=Verdict.OUTBOUND_MESSAGE, detail="Sent by us.", direction=Direction.OUTBOUND)
        assert (result.verdict, result.detail, result.keys) == (Verdict.OUTBOUND_MESSAGE, "Sent by us.", ())
        assert (await harvest(node)).verdict is Verdict.NO_KEY_MATERIAL
        assert await head(node) == before


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [(HeldReason.UNKNOWN_ISSUER, Verdict.UNTRUSTED_ISSUER), (HeldReason.SELF_SIGNED, Verdict.SELF_SIGNED)],
)
async def test_a_held_key_is_kept_and_not_served_and_costs_no_write_a_mail(reason: HeldReason, verdict: Verdict) -> None:
    async with running_node() as node:
        key = make_key(1, trust=Trust.HELD, held=reason)
        assert (await harvest(node, key)).verdict is verdict
        before = await head(node)
        assert (await harvest(node, key)).verdict is verdict
        assert await head(node) == before
        assert node.served("user1@example.org") == []
        assert (await node.cache.status()).entries.held == 1


async def test_intermediates_are_kept_once_each_apart_from_entries_and_help_the_next_path() -> None:
    async with running_node() as node:
        await harvest(node, make_key(1), chain=(b"ca 1", b"ca 2"))
        before = await head(node)
        await harvest(node, make_key(2), chain=(b"ca 2", b"ca 3"))
        assert await head(node) == before + 1
        records = node.replica.documents(CHAIN)
        assert sorted(record.value for record in records) == [b"ca 1", b"ca 2", b"ca 3"]
        assert sorted(node.script.base.intermediates) == [b"ca 1", b"ca 2", b"ca 3"]
        await harvest(node, make_key(1), chain=(b"ca 4",))  # already fresh: nothing is written, not even that
        assert len(node.replica.documents(CHAIN)) == 3


async def test_intermediates_are_bounded() -> None:
    async with running_node() as node:
        full = {f"{CHAIN}{number:064x}": b"%d" % number for number in range(9_999)}
        await node.log.commit(Transaction(compare={}, puts=full))
        await node.settle()
        await harvest(node, make_key(1), chain=(b"ca 1", b"ca 2", b"ca 3"))
        assert len(node.replica.documents(CHAIN)) == 10_000


async def test_what_nobody_vouches_for_neither_crowds_out_trusted_intermediates_nor_rides_on_a_trusted_key() -> None:
    unproven = make_key(2, trust=Trust.HELD, held=HeldReason.UNKNOWN_ISSUER)
    async with running_node() as node:
        full = {f"{CHAIN}{number:064x}": b"%d" % number for number in range(999)}
        await node.log.commit(Transaction(compare={}, puts=full))
        await node.settle()
        await harvest(node, unproven, chain=(b"evil 1", b"evil 2"))
        await harvest(node, make_key(1), make_key(3, trust=Trust.HELD, held=HeldReason.UNKNOWN_ISSUER), chain=(b"evil 3",))
        kept = {record.value for record in node.replica.documents(CHAIN)}
        assert {b"evil 1", b"evil 2", b"evil 3"} & kept == {b"evil 1"}
        await harvest(node, make_key(4), chain=(b"ca 1",))
        assert b"ca 1" in {record.value for record in node.replica.documents(CHAIN)}


async def test_intermediates_are_bounded_in_size_so_that_every_worker_can_hold_them() -> None:
    async with running_node() as node:
        full = {f"{CHAIN}{number:064x}": bytes(32_000) + b"%d" % number for number in range(520)}
        await node.log.commit(Transaction(compare={}, puts=full))
        await node.settle()
        await harvest(node, make_key(1), chain=tuple(bytes(32_000) + b"more %d" % number for number in range(8)))
        kept = [record.value for record in node.replica.documents(CHAIN)]
        assert (len(kept), sum(map(len, kept)) <= 16 << 20) == (524, True)


# what is not
async def test_nobodys_key_is_cached_for_a_managed_domain() -> None:
    async with running_node(node=Node(managed=("ours.example",))) as node:
        both = make_key(1, addresses=["a@ours.example", "a@theirs.example"])
        assert (await harvest(node, both)).verdict is Verdict.CACHED
        assert node.served("a@ours.example") == []
        assert node.served("a@theirs.example") == [fingerprint_of(1).text]
        before = await head(node)
        assert (await harvest(node, make_key(2, addresses=["b@OURS.example"]))).verdict is Verdict.OWN_DOMAIN
        results, _ = await node.cache.harvesting.put(b"any", "b@ours.example", "keys.example.org")
        assert [result.verdict for result in results] == [Verdict.OWN_DOMAIN]
        assert await head(node) == before


async def test_a_flood_of_self_made_keys_for_one_address_ends_and_never_keeps_out_a_trusted_or_known_one() -> None:
    flood = [make_entry(number, trust=Trust.BOUND, addresses=["victim@example.org"]) for number in range(KEYS_PER_ADDRESS)]
    async with running_node(*flood) as node:
        late = make_key(100, trust=Trust.BOUND, addresses=["victim@example.org"])
        result = await node.cache.harvesting.harvest(node.script.mail(late), ENVELOPE)
        assert result.verdict is Verdict.TOO_MANY_KEYS
        assert node.entry(fingerprint_of(100)) is None
        known = await node.cache.harvesting.harvest(node.script.mail(flood[0].key), ENVELOPE)
        assert known.verdict in {Verdict.ALREADY_FRESH, Verdict.REFRESHED}
        trusted = make_key(101, addresses=["victim@example.org"])
        assert (await node.cache.harvesting.harvest(node.script.mail(trusted), ENVELOPE)).verdict is Verdict.CACHED
        assert node.served("victim@example.org")[0] == fingerprint_of(101).text
        blob = node.script.file(b"late", late)
        (imported,) = await node.cache.imports.material(blob, "late.asc", "anna")
        assert imported.verdict is Verdict.CACHED


async def test_what_the_examiner_refuses_is_not_kept() -> None:
    async with running_node() as node:
        before = await head(node)
        refused = Finding(protocol=Protocol.SMIME, key=make_key(1), verdict=Verdict.SIGNING_ONLY, detail="Only signs.")
        result = await harvest(node, refused)
        assert (result.verdict, result.detail) == (Verdict.SIGNING_ONLY, "Only signs.")
        assert await head(node) == before


async def test_explain_says_what_harvest_would_say_and_writes_nothing() -> None:
    async with running_node(make_entry(2), make_entry(3, make_sighting(cached_at=T0 - 2 * DAY))) as node:
        before, digest = await head(node), node.replica.digest()
        for shown in (make_key(1), make_key(2), make_key(3), make_key(4, trust=Trust.HELD), make_key(2, defect=Defect.REVOKED)):
            mail = node.script.mail(shown, chain=(b"ca",))
            told = await node.cache.harvesting.explain(mail, ENVELOPE)
            assert (await head(node), node.replica.digest()) == (before, digest)
            other = Node()
            async with running_node(*(entry.entry for entry in _all(node)), node=other):
                other.script = node.script
                other.cache.harvesting._examiner = node.script
                done = await other.cache.harvesting.harvest(mail, ENVELOPE)
            assert (told.verdict, told.keys) == (done.verdict, done.keys)
        counts, lines = node.cache.journal.verdicts(10)
        assert (counts, lines) == ({}, ())


def _all(node: Node):
    return node.replica.query(node.cache.entries.query(limit=100)).entries


async def test_the_envelope_reaches_the_examiner_as_given() -> None:
    async with running_node() as node:
        envelope = Envelope(stated=Direction.INBOUND, listener="10.0.0.1:25", recipients=("a@ours.example",))
        await node.cache.harvesting.harvest(node.script.mail(), envelope)
        assert node.script.envelopes == [envelope]


# revocations
async def test_a_revocation_stops_serving_at_once_and_prolongs_nothing() -> None:
    async with running_node() as node:
        await harvest(node, make_key(1))
        node.clock.advance(DAY)
        result = await harvest(node, make_key(1, defect=Defect.REVOKED))
        assert result.verdict is Verdict.REVOCATION_LEARNED
        assert node.served("user1@example.org") == []
        entry = node.entry(fingerprint_of(1))
        assert entry is not None
        assert entry.sightings[0].refreshed_at == T0
        before = await head(node)
        assert (await harvest(node, make_key(1, defect=Defect.REVOKED))).verdict is Verdict.KEY_REVOKED
        assert (await harvest(node, make_key(1))).verdict is Verdict.REVOCATION_LEARNED
        assert node.served("user1@example.org") == []
        assert await head(node) <= before + 1


@pytest.mark.parametrize("verdict", [Verdict.KEY_REVOKED, Verdict.CERTIFICATE_REVOKED])
async def test_a_revoked_key_that_the_examiner_refuses_still_teaches_and_an_unknown_one_is_not_kept(verdict: Verdict) -> None:
    async with running_node(make_entry(1)) as node:
        refused = [
            Finding(protocol=Protocol.SMIME, key=make_key(number, defect=Defect.REVOKED), verdict=verdict) for number in (1, 2)
        ]
        assert [key.verdict for key in (await harvest(node, *refused)).keys] == [Verdict.REVOCATION_LEARNED, verdict]
        assert node.entry(fingerprint_of(2)) is None


async def test_an_older_copy_of_an_openpgp_key_is_merged_and_takes_nothing_away() -> None:
    pgp = {"protocol": Protocol.OPENPGP}
    async with running_node() as node:
        await harvest(node, replace(make_key(1, **pgp, addresses=["a@x.example"]), material=b"1+2"))
        await harvest(node, replace(make_key(1, **pgp, addresses=["b@x.example"]), material=b"1+3"))
        entry = node.entry(fingerprint_of(1, Protocol.OPENPGP), Protocol.OPENPGP)
        assert entry is not None
        assert entry.key.material == b"1+2+3"
        assert [address.text for address in entry.key.addresses] == ["a@x.example", "b@x.example"]
        before = await head(node)
        older = replace(make_key(1, **pgp, addresses=["a@x.example"]), material=b"2")
        assert (await harvest(node, older)).verdict is Verdict.ALREADY_FRESH
        assert await head(node) == before


# blocks
async def test_a_blocked_key_is_not_kept_however_it_comes_but_learns_of_its_revocation() -> None:
    async with running_node(make_entry(1)) as node:
        for number in (1, 2):
            fingerprint = fingerprint_of(number).text
            await node.cache.blocks.block(fingerprint=fingerprint, until=None, reason="Stolen", actor="admin")
        before = await head(node)
        node.clock.advance(2 * DAY)
        result = await harvest(node, make_key(1), make_key(2))
        assert [key.verdict for key in result.keys] == [Verdict.BLOCKED, Verdict.BLOCKED]
        assert result.detail == "Blocked by admin: Stolen."
        assert await head(node) == before
        revoked = await harvest(node, make_key(1, defect=Defect.REVOKED), make_key(2, defect=Defect.REVOKED))
        assert [key.verdict for key in revoked.keys] == [Verdict.BLOCKED, Verdict.BLOCKED]
        entry = node.entry(fingerprint_of(1))
        assert entry is not None
        assert entry.key.defect is Defect.REVOKED
        assert node.entry(fingerprint_of(2)) is None


async def test_a_key_is_kept_as_long_as_one_of_its_addresses_is_not_blocked() -> None:
    async with running_node() as node:
        key = make_key(1, addresses=["a@x.example", "b@x.example"])
        await node.cache.blocks.block(address="A@x.example", until=None, reason="", actor="admin")
        assert (await harvest(node, key)).verdict is Verdict.CACHED
        assert (node.served("a@x.example"), node.served("b@x.example")) == ([], [fingerprint_of(1).text])
        await node.cache.blocks.block(address="b@x.example", until=T0 + DAY, reason="", actor="admin")
        node.clock.advance(HOUR)
        blocked = await harvest(node, replace(key, fingerprint=fingerprint_of(2)))
        assert (blocked.verdict, blocked.detail) == (Verdict.BLOCKED, "Blocked by admin.")
        node.clock.advance(DAY)
        assert (await harvest(node, replace(key, fingerprint=fingerprint_of(2)))).verdict is Verdict.CACHED
