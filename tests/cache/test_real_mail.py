"""The flows with the real parsers behind them: one mail of each kind from bytes to lookup."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta

from keycache.cache.results import MessageResult
from keycache.codec import entry_of_halves
from keycache.domain.administration import IssuerState
from keycache.domain.entry import Defect, Origin, Trust
from keycache.domain.examination import Direction, Envelope
from keycache.domain.lookup import MissCode
from keycache.domain.verdict import Verdict
from support import openpgp, smime
from support.direct_examiner import DirectExaminer
from support.lines import cluster
from support.node import Node, running_node

DAY = timedelta(days=1)
INBOUND = Envelope(stated=Direction.INBOUND)
ROOT = smime.authority("Trusted Root")
OTHER = smime.authority("Somebody's Own")


def real_node() -> Node:
    return Node(start=smime.NOW, examiner=DirectExaminer(), anchors=(ROOT.der,), managed=("ours.example",))


async def harvest(node: Node, mail: bytes) -> MessageResult:
    return await node.cache.harvesting.harvest(mail, INBOUND)


def autocrypt_mail(certificate: bytes, sender: str) -> bytes:
    keydata = base64.b64encode(certificate).decode()
    folded = "\r\n ".join(keydata[start : start + 70] for start in range(0, len(keydata), 70))
    header = f"From: {sender}\r\nTo: a@ours.example\r\nDate: Mon, 1 Jun 2026 10:00:00 +0000\r\nMessage-ID: <1@x.example>\r\n"
    return f"{header}Autocrypt: addr={sender}; keydata=\r\n {folded}\r\n\r\nHello\r\n".encode()


async def test_a_signed_mail_makes_its_certificate_known_and_the_next_one_costs_nothing() -> None:
    async with running_node(node=real_node()) as node:
        alice = smime.person("alice@example.org", ROOT)
        mail = smime.signed_mail(alice, ROOT)
        first = await harvest(node, mail)
        assert (first.verdict, [key.verdict for key in first.keys]) == (Verdict.CACHED, [Verdict.CACHED])
        head = await node.log.head()
        assert (await harvest(node, mail)).verdict is Verdict.ALREADY_FRESH
        assert await node.log.head() == head
        (found,) = node.cache.lookups.by_address("Alice@example.org").keys
        entry = entry_of_halves(found.row.key, found.row.rest)
        assert (entry.key.material, entry.key.trust, found.origin) == (alice.der, Trust.ANCHORED, Origin.HARVESTED)
        node.clock.advance(2 * DAY)
        assert (await harvest(node, mail)).verdict is Verdict.REFRESHED


async def test_an_unknown_issuer_is_held_until_an_administrator_approves_and_dropped_when_he_rejects() -> None:
    async with running_node(node=real_node()) as node:
        people = [smime.person(f"{name}@example.org", OTHER) for name in ("alice", "bob")]
        mails = [
            smime.signed_mail(one, OTHER, sender=f"{name}@example.org")
            for one, name in zip(people, ("alice", "bob"), strict=True)
        ]
        for mail in mails:
            assert (await harvest(node, mail)).verdict is Verdict.UNTRUSTED_ISSUER
        head = await node.log.head()
        assert (await harvest(node, mails[0])).verdict is Verdict.UNTRUSTED_ISSUER
        assert await node.log.head() == head
        assert node.cache.lookups.by_address("alice@example.org").miss is MissCode.HELD
        (issuer,) = await node.cache.issuers.all()
        assert (issuer.held, issuer.has_certificate) == (2, True)
        approved = await node.cache.issuers.decide(issuer.id, IssuerState.APPROVED, b"", "anna")
        assert (approved.entries, approved.still_held) == (2, 0)
        assert len(node.served("alice@example.org")) == len(node.served("bob@example.org")) == 1
        rejected = await node.cache.issuers.decide(issuer.id, IssuerState.REJECTED, b"", "anna")
        assert rejected.entries == 2
        assert (await harvest(node, mails[0])).verdict is Verdict.ISSUER_REJECTED
        assert node.served("alice@example.org") == []


async def test_a_self_signed_certificate_is_a_case_of_its_own() -> None:
    async with running_node(node=real_node()) as node:
        mail = smime.signed_mail(smime.person("alice@example.org"))
        assert (await harvest(node, mail)).verdict is Verdict.SELF_SIGNED
        (issuer,) = await node.cache.issuers.all()
        assert (await node.cache.issuers.decide(issuer.id, IssuerState.APPROVED, b"", "anna")).entries == 1
        assert (await harvest(node, mail)).verdict in {Verdict.ALREADY_FRESH, Verdict.REFRESHED}
        assert len(node.served("alice@example.org")) == 1
        dropped = await node.cache.issuers.decide(issuer.id, IssuerState.REJECTED, b"", "anna")
        assert dropped.entries == 1
        assert node.served("alice@example.org") == []


async def test_an_openpgp_key_that_comes_with_either_of_its_addresses_is_one_key_and_settles() -> None:
    maker = openpgp.Maker()
    whole = maker.certificate("Alice <alice@x.example>", "Alice <alice@y.example>")
    async with running_node(node=real_node()) as node:
        mails = [autocrypt_mail(whole, f"alice@{domain}.example") for domain in "xy"]
        verdicts = [(await harvest(node, mail)).verdict for mail in (*mails, *mails)]
        assert verdicts == [Verdict.CACHED, Verdict.REFRESHED, Verdict.ALREADY_FRESH, Verdict.ALREADY_FRESH]
        assert node.served("alice@x.example") == node.served("alice@y.example")
        assert len(node.served("alice@x.example")) == 1


async def test_a_revoked_openpgp_key_is_served_no_more_and_an_old_copy_does_not_bring_it_back() -> None:
    maker = openpgp.Maker()
    user = "Alice <alice@x.example>"
    good = maker.certificate(user)
    revoked = maker.certificate(user, before=maker.revoke(at=openpgp.BIRTH + DAY))
    async with running_node(node=real_node()) as node:
        assert (await harvest(node, autocrypt_mail(good, "alice@x.example"))).verdict is Verdict.CACHED
        assert (await harvest(node, autocrypt_mail(revoked, "alice@x.example"))).verdict is Verdict.REVOCATION_LEARNED
        assert node.cache.lookups.by_address("alice@x.example").miss is MissCode.UNUSABLE
        again = await harvest(node, autocrypt_mail(good, "alice@x.example"))
        assert not again.verdict.is_served
        (stored,) = node.replica.query(node.cache.entries.query()).entries
        assert stored.entry.key.defect is Defect.REVOKED


async def test_an_export_of_real_keys_is_taken_by_another_node_with_all_its_time_stamps() -> None:
    async with running_node(node=real_node()) as first, running_node(node=real_node()) as second:
        await harvest(first, smime.signed_mail(smime.person("alice@example.org", ROOT), ROOT))
        await harvest(first, smime.signed_mail(smime.person("bob@example.org", OTHER), OTHER, sender="bob@example.org"))
        await harvest(first, autocrypt_mail(openpgp.Maker().certificate("Carl <carl@x.example>"), "carl@x.example"))
        second.clock.advance(3 * DAY)
        async for entry, _ in first.cache.entries.export(first.cache.entries.query()):
            assert (await second.cache.imports.entry(entry, "export.jsonl", "anna")).verdict is Verdict.CACHED
        ours, theirs = await first.in_log(), await second.in_log()
        # An issuer's certificate counts only as a signed mail brought it: an export must not smuggle in one to be approved.
        held = next(name for name, entry in ours.items() if entry.key.trust is Trust.HELD)
        key = ours[held].key
        assert key.issuer is not None
        ours[held] = replace(ours[held], key=replace(key, issuer=replace(key.issuer, certificate=b"")))
        assert theirs == ours


async def test_what_we_send_ourselves_is_not_harvested() -> None:
    async with running_node(node=real_node()) as node:
        mail = smime.signed_mail(smime.person("a@ours.example", ROOT), ROOT, sender="a@ours.example")
        head = await node.log.head()
        result = await node.cache.harvesting.harvest(mail, Envelope(stated=Direction.OUTBOUND))
        assert result.verdict is Verdict.OUTBOUND_MESSAGE
        assert not (await harvest(node, mail)).verdict.is_kept
        assert await node.log.head() == head


async def test_copies_of_a_real_openpgp_key_that_waited_on_two_nodes_settle_and_a_second_delivery_writes_nothing() -> None:
    maker = openpgp.Maker()
    users = [f"Alice <alice@{domain}.example>" for domain in "xyz"]
    copies = [maker.certificate(user) for user in users]
    revoked = maker.certificate(users[2], before=maker.revoke(at=openpgp.BIRTH + DAY))
    async with cluster(start=smime.NOW, examiner=DirectExaminer()) as (a, b):
        await harvest(a, autocrypt_mail(copies[0], "alice@x.example"))
        for node in (a, b):
            node.line.cut()
        assert (await harvest(a, autocrypt_mail(copies[1], "alice@y.example"))).keys[0].queued
        for copy in (copies[2], revoked):
            assert (await harvest(b, autocrypt_mail(copy, "alice@z.example"))).keys[0].queued
        for node in (b, a):
            waiting = node.outbox.first(1)
            await node.mended()
            await node.deliver()
            head = await node.line.log.head()
            node.outbox.put(waiting[0].entry, waiting[0].puts, waiting[0].queued_at)
            await node.deliver()
            assert (node.outbox.count, await node.line.log.head()) == (0, head)
        (entry,) = (await a.in_log()).values()
        assert entry.key.defect is Defect.REVOKED
        assert [address.text for address in entry.key.addresses] == ["alice@x.example", "alice@y.example", "alice@z.example"]
