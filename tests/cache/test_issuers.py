"""An administrator decides on an issuer, and all its keys follow at once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from keycache.cache.results import IssuerResult, ListedIssuer
from keycache.domain.administration import IssuerState
from keycache.domain.entry import Defect, Entry, HeldReason, Issuer, Trust
from keycache.domain.errors import InvalidInput, NotFound, Refused
from keycache.domain.verdict import Verdict
from support.entries import T0, fingerprint_of, make_entry, make_key, make_sighting
from support.node import ENVELOPE, Node, running_node

DAY = timedelta(days=1)
A = Issuer(id="aaaaaaaaaaaaaaaa", name="CN=Company A", certificate=b"der of A")
B = Issuer(id="bbbbbbbbbbbbbbbb", name="CN=Company B")


def held(number: int, issuer: Issuer = A, **key) -> Entry:
    return make_entry(number, trust=Trust.HELD, issuer=issuer, **key)


async def with_script(node: Node, *entries: Entry) -> None:
    for entry in entries:
        node.script.know(entry.key)
    await node.seed(*entries)


def served(node: Node, *numbers: int) -> list[int]:
    return [number for number in numbers if node.served(f"user{number}@example.org")]


async def test_issuers_of_held_keys_are_listed_with_how_many_and_whose_most_keys_first() -> None:
    async with running_node(held(1, B), *(held(number) for number in range(2, 8)), make_entry(9)) as node:
        addresses = tuple(f"user{number}@example.org" for number in range(2, 5))
        assert await node.cache.issuers.all() == (
            ListedIssuer(id=A.id, name=A.name, state=None, held=6, has_certificate=True, sample_addresses=addresses),
            ListedIssuer(
                id=B.id, name=B.name, state=None, held=1, has_certificate=False, sample_addresses=("user1@example.org",)
            ),
        )


async def test_approving_serves_all_keys_of_the_issuer_at_once_and_prolongs_none() -> None:
    async with running_node() as node:
        await with_script(node, *(held(number) for number in range(1, 4)), held(4, B))
        node.clock.advance(DAY)
        result = await node.cache.issuers.decide(A.id, IssuerState.APPROVED, b"", "anna")
        assert result == IssuerResult(entries=3, still_held=0, revision=await node.log.head())
        assert served(node, 1, 2, 3, 4) == [1, 2, 3]
        entry = node.entry(fingerprint_of(1))
        assert entry is not None
        assert entry.sightings == (make_sighting(),)
        assert [(one.what, one.at) for one in entry.history] == [("RELEASED", T0 + DAY)]
        assert node.script.base.approved == (b"der of A",)
        (first, second) = await node.cache.issuers.all()
        assert (second.id, second.state, second.held, second.by, second.at) == (A.id, IssuerState.APPROVED, 0, "anna", T0 + DAY)
        assert (first.id, first.state) == (B.id, None)
        acts = [(one.actor, one.action, one.subject, one.detail) for one in await node.cache.journal.audit(limit=9)]
        assert acts == [("anna", "APPROVE_ISSUER", A.id, "CN=Company A")]


async def test_approval_survives_a_restart_and_holds_for_mail_to_come() -> None:
    async with running_node() as node:
        await with_script(node, held(1))
        await node.cache.issuers.decide(A.id, IssuerState.APPROVED, b"", "anna")
        await node.restart()
        assert node.script.base.approved == (b"der of A",)
        result = await node.cache.harvesting.harvest(node.script.mail(held(2).key), ENVELOPE)
        assert result.verdict is Verdict.CACHED


async def test_approving_needs_the_issuers_certificate_one_and_only_one() -> None:
    async with running_node() as node:
        await with_script(node, held(1, B))
        with pytest.raises(Refused, match="did not come along") as refused:
            await node.cache.issuers.decide(B.id, IssuerState.APPROVED, b"", "anna")
        assert "--certificate FILE" in refused.value.hint
        with pytest.raises(InvalidInput, match="holds 2 certificates"):
            await node.cache.issuers.decide(B.id, IssuerState.APPROVED, b"one|two", "anna")
        assert (await node.cache.issuers.all())[0].state is None


async def test_a_certificate_that_verifies_none_of_the_held_keys_is_refused_and_not_trusted() -> None:
    async with running_node() as node:
        await with_script(node, held(1, B))
        with pytest.raises(Refused, match="None of the 1 held keys"):
            await node.cache.issuers.decide(B.id, IssuerState.APPROVED, b"der of another", "anna")
        assert node.script.base.approved == ()
        assert (await node.cache.issuers.all())[0].state is None
        assert [one.action for one in await node.cache.journal.audit(limit=9)] == ["TAKE_BACK_APPROVAL", "APPROVE_ISSUER"]


async def test_a_self_signed_certificate_is_approved_by_itself() -> None:
    own = Issuer(id="cccccccccccccccc", name="CN=Carl")
    async with running_node() as node:
        await with_script(node, held(1, own, held=HeldReason.SELF_SIGNED))
        result = await node.cache.issuers.decide(own.id, IssuerState.APPROVED, b"", "anna")
        assert result.entries == 1
        assert served(node, 1) == [1]


async def test_of_a_self_signed_certificate_every_address_is_shown_since_approving_it_believes_them_all() -> None:
    own = Issuer(id="cccccccccccccccc", name="CN=Carl")
    addresses = [f"harmless{number}@evil.example" for number in range(5)] + ["zoe@partner.example"]
    async with running_node(held(1, own, held=HeldReason.SELF_SIGNED, addresses=addresses)) as node:
        (listed,) = await node.cache.issuers.all()
        assert listed.sample_addresses == tuple(addresses)


async def test_rejecting_drops_all_keys_of_the_issuer_and_no_mail_brings_them_back() -> None:
    async with running_node() as node:
        await with_script(node, held(1), held(2), held(3, B))
        result = await node.cache.issuers.decide(A.id, IssuerState.REJECTED, b"", "anna")
        assert result == IssuerResult(entries=2, still_held=0, revision=await node.log.head())
        assert [number for number in (1, 2, 3) if node.entry(fingerprint_of(number))] == [3]
        again = await node.cache.harvesting.harvest(node.script.mail(held(1).key), ENVELOPE)
        assert again.verdict is Verdict.ISSUER_REJECTED
        assert node.entry(fingerprint_of(1)) is None
        acts = [(one.action, one.subject) for one in await node.cache.journal.audit(limit=9)]
        assert acts == [("PURGE", f"issuer={A.id}"), ("REJECT_ISSUER", A.id)]


async def test_an_approval_taken_back_drops_what_it_had_released() -> None:
    async with running_node() as node:
        await with_script(node, held(1), held(2), held(3, B), make_entry(4, issuer=Issuer(id="dd", name="CN=Root")))
        await node.cache.issuers.decide(A.id, IssuerState.APPROVED, b"", "anna")
        assert served(node, 1, 2, 3, 4) == [1, 2, 4]
        result = await node.cache.issuers.decide(A.id, IssuerState.REJECTED, b"", "anna")
        assert result.entries == 2
        assert served(node, 1, 2, 3, 4) == [4]
        assert [number for number in range(1, 5) if node.entry(fingerprint_of(number))] == [3, 4]


async def test_a_rejection_taken_back_lets_mail_bring_the_keys_again() -> None:
    async with running_node() as node:
        await with_script(node, held(1))
        await node.cache.issuers.decide(A.id, IssuerState.REJECTED, b"", "anna")
        result = await node.cache.issuers.decide(A.id, IssuerState.APPROVED, b"", "anna")
        assert result.entries == 0
        assert (await node.cache.harvesting.harvest(node.script.mail(held(1).key), ENVELOPE)).verdict is Verdict.CACHED


async def test_a_key_with_a_fault_of_its_own_stays_held() -> None:
    async with running_node() as node:
        await with_script(node, held(1))
        await node.seed(held(2))  # nobody knows its material
        result = await node.cache.issuers.decide(A.id, IssuerState.APPROVED, b"", "anna")
        assert (result.entries, result.still_held) == (1, 1)
        assert served(node, 1, 2) == [1]


async def test_a_release_keeps_a_revocation_and_the_addresses() -> None:
    async with running_node() as node:
        node.script.know(make_key(1, trust=Trust.HELD, issuer=A, addresses=["a@x.example", "other@x.example"]))
        await node.seed(held(1, addresses=["a@x.example"], defect=Defect.REVOKED))
        await node.cache.issuers.decide(A.id, IssuerState.APPROVED, b"", "anna")
        entry = node.entry(fingerprint_of(1))
        assert entry is not None
        assert (entry.key.trust, entry.key.defect) == (Trust.ANCHORED, Defect.REVOKED)
        assert [address.text for address in entry.key.addresses] == ["a@x.example"]


async def test_an_issuer_that_nobody_knows_is_not_found() -> None:
    async with running_node() as node:
        for state in IssuerState:
            with pytest.raises(NotFound):
                await node.cache.issuers.decide("ffffffffffffffff", state, b"", "anna")


async def test_more_held_keys_than_one_page_all_follow() -> None:
    async with running_node() as node:
        await with_script(node, *(held(number) for number in range(1_050)))
        result = await node.cache.issuers.decide(A.id, IssuerState.APPROVED, b"", "anna")
        assert (result.entries, result.still_held) == (1_050, 0)
