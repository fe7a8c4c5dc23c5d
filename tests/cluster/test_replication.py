"""Three nodes are one cache: what one is told, all know; what one administrator decides, all obey."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import timedelta
from pathlib import Path

import pytest

from keycache.clock import SystemClock
from keycache.domain.entry import Origin
from keycache.v1 import admin_pb2, cache_pb2, record_pb2
from support.cluster import NAME, Cluster, cluster
from support.etcd import tls_files
from support.scenario import Running, eventually, present
from support.scenario_people import Person, people
from support.smime import BODY, authority, multipart_signed, person, sign

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ENTRIES = f"/keycache/{NAME}/entries/"


async def test_what_one_node_takes_all_answer_at_its_revision_with_the_same_times(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        mails, puts = people("mail", 3), people("put", 3)
        for number, (one, other) in enumerate(zip(mails, puts, strict=True)):
            node = made.node(number)
            harvested, put = await node.harvest(one.mail()), await node.put(other.material, other.address)
            assert (harvested.verdict, put.keys[0].verdict) == ("CACHED", "CACHED")
            for elsewhere in made.nodes:
                for who, revision in ((one, harvested.revision), (other, put.revision)):
                    assert await elsewhere.running.outcome(who.address, revision=revision) == "served"
        await made.settled()
        exports = [await node.running.export() for node in made.nodes]
        assert set(exports[0]) == {one.fingerprint for one in (*mails, *puts)}
        assert exports == [exports[0]] * 3


async def test_a_known_key_is_known_on_every_node_and_its_deletion_too(tmp_path: Path) -> None:
    async with cluster(tmp_path, members=1) as made:
        who = Person("known")
        first = await made.node(0).harvest(who.mail())
        assert await made.node(1).outcome(who.address, revision=first.revision) == "served"
        assert (await made.node(1).harvest(who.mail())).verdict == "ALREADY_FRESH"
        deleted = await made.node(2).delete(who.fingerprint)
        assert deleted.deleted == 1
        for node in made.nodes:
            assert await node.running.outcome(who.address, revision=deleted.revision) == "NOT_FOUND"
        assert (await made.node(0).harvest(who.mail())).verdict == "CACHED", "deleted is not blocked"


async def test_timeouts_raised_and_lowered_on_one_node_hold_on_all_from_their_revision_on(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        who = Person("between")
        await made.node(0).settle(imported=3 * HOUR)
        assert await made.node(0).import_lines([who.line({Origin.IMPORTED: 2 * HOUR}, present())]) == ["CACHED"]
        await made.settled()
        # Lowered last: the purger looks as soon as it hears of it.
        for span, outcomes in ((4 * HOUR, {"served"}), (150 * MINUTE, {"served"}), (HOUR, {"EXPIRED", "NOT_FOUND"})):
            changed = await made.node(span // MINUTE // 10 % 3).settle(imported=span)
            for node in made.nodes:
                assert await node.running.outcome(who.address, revision=changed.revision) in outcomes
                assert (await node.running.timeouts())["imported"] == span


async def test_a_raised_timeout_saves_what_another_nodes_purger_was_about_to_take(tmp_path: Path) -> None:
    """Lowered by mistake below the age of everything, which is held since it is so much, and raised again elsewhere: all is served."""
    async with cluster(tmp_path, members=1) as made:
        await made.node(0).settle(imported=10 * DAY)
        everybody = people("mistake", 120)
        await made.node(0).import_lines([one.line({Origin.IMPORTED: 5 * DAY}, present()) for one in everybody])
        await made.node(1).settle(imported=HOUR)
        for node in made.nodes:
            await node.running.until(lambda status: status.entries.expired == 120)
        changed = await made.node(2).settle(imported=10 * DAY)
        for node in made.nodes:
            await node.running.lookup(everybody[0].address, revision=changed.revision)
            assert len(await node.running.served(one.address for one in everybody)) == 120


async def test_blocks_issuers_and_the_audit_replicate(tmp_path: Path) -> None:
    async with cluster(tmp_path, members=1) as made:
        blocked, held = Person("blocked"), "held@partners.example"
        now = SystemClock().now()
        span = {"not_before": now - DAY, "not_after": now + 30 * DAY}
        partner = authority("Partner Root", **span)
        mail = multipart_signed(sign(BODY, person(held, partner, **span), partner), sender=held)
        first, second = await made.node(0).harvest(blocked.mail()), await made.node(1).harvest(mail)
        assert (first.verdict, second.verdict) == ("CACHED", "UNTRUSTED_ISSUER")
        await made.settled()
        await made.node(2).block(address=blocked.address, reason="asked by phone")
        (issuer,) = await issuers(made.node(2))
        assert (issuer.held, issuer.state) == (1, record_pb2.IssuerState.ISSUER_STATE_UNSPECIFIED)
        await decide(made.node(2), issuer.id)
        await made.settled()
        for node in made.nodes:
            running = node.running
            assert await running.outcome(blocked.address) == "BLOCKED"
            assert await running.outcome(held) == "served"
            (told,) = await issuers(running)
            assert told.state == record_pb2.IssuerState.ISSUER_STATE_APPROVED
        audits = [await node.running.audit() for node in made.nodes]
        assert audits == [audits[0]] * 3
        assert {line.split()[0] for line in audits[0]} == {"BLOCK", "APPROVE_ISSUER"}


async def issuers(node: Running) -> list[admin_pb2.ListedIssuer]:
    answer = await node.connection.call(node.connection.admin.ListIssuers, admin_pb2.ListIssuersRequest())
    return list(answer.issuers)


async def decide(node: Running, issuer: str) -> None:
    request = admin_pb2.DecideIssuerRequest(id=issuer, state=record_pb2.IssuerState.ISSUER_STATE_APPROVED)
    await node.connection.call(node.connection.admin.DecideIssuer, request)


async def test_a_watch_on_one_node_tells_what_another_took(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2, members=1) as made:
        node, who = made.node(1), Person("watched")
        stream = node.connection.stream(node.connection.cache.Watch, cache_pb2.WatchRequest())
        started = await anext(stream)
        assert started.kind == cache_pb2.WatchEvent.STARTED
        taken = await made.node(0).harvest(who.mail())
        async with asyncio.timeout(60):
            told = await anext(stream)
        assert (told.kind, told.fingerprint, told.revision) == (cache_pb2.WatchEvent.UPDATED, who.fingerprint, taken.revision)
        await stream.aclose()


@pytest.mark.timeout(180)
async def test_a_thousand_mails_of_one_sender_over_three_nodes_are_one_write_to_etcd(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        who = Person("busy")
        first = await made.node(0).harvest(who.mail())
        for node in made.nodes:
            await node.running.lookup(who.address, revision=first.revision)

        async def send(node: Running, count: int) -> set[str]:
            return {(await node.harvest(who.mail())).verdict for _ in range(count)}

        assert await asyncio.gather(*(send(node.running, 333) for node in made.nodes)) == [{"ALREADY_FRESH"}] * 3
        assert written_since(made, first.revision) == []
        assert [record["version"] for record in records(made, ENTRIES)] == [1]


async def test_many_nodes_that_see_a_new_sender_at_once_agree_on_one_entry(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        everybody = people("together", 10)
        for who in everybody:
            answers = await asyncio.gather(*(node.running.harvest(who.mail()) for node in made.nodes for _ in range(2)))
            assert {answer.verdict for answer in answers} <= {"CACHED", "ALREADY_FRESH"}
        await made.settled()
        lines = await made.node(0).export()
        assert set(lines) == {who.fingerprint for who in everybody}
        assert all(record["version"] == 1 for record in records(made, ENTRIES))


def records(made: Cluster, prefix: str) -> list[dict[str, int]]:
    """As etcd tells them: key, mod_revision, version (the number of writes)."""
    return json.loads(made.etcd.etcdctl("get", "--prefix", prefix, "-w", "json")).get("kvs", [])


def written_since(made: Cluster, revision: int) -> list[str]:
    """Keys written after that revision, but for what nodes say of themselves."""
    found = [
        (record["mod_revision"], base64.b64decode(record["key"]).decode()) for record in records(made, f"/keycache/{NAME}/")
    ]
    own = tuple(f"/keycache/{NAME}/{name}/" for name in ("members", "witnesses"))
    return [key for at, key in found if at > revision and not key.startswith(own)]


async def test_over_tls_with_certificates_on_both_sides_it_is_the_same(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2, members=1, tls=tls_files(tmp_path / "tls")) as made:
        assert all(endpoint.startswith("https://") for endpoint in made.etcd.endpoints)
        who = Person("confidential")
        taken = await made.node(0).harvest(who.mail())
        assert await made.node(1).outcome(who.address, revision=taken.revision) == "served"
        made.etcd.members[0].restart()
        await made.settled()
        assert (await made.node(1).harvest(Person("after").mail())).verdict == "CACHED"


async def test_a_node_that_comes_later_lists_everything(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2, members=1, started=False) as made:
        await made.nodes[0].start()
        everybody = people("early", 50)
        await made.node(0).import_lines([who.line({Origin.IMPORTED: HOUR}, present()) for who in everybody])
        before = await made.node(0).export()
        node = await made.nodes[1].start()

        async def same() -> bool | None:
            return True if await node.export() == before else None

        assert await eventually(same)
        assert await made.node(0).export() == before
