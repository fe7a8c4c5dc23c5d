"""An administrator's ways on from a refused log: MERGE loses no unexpired key and no time stamp, DISCARD only what it says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from keycache.cache.bringing import BATCH
from keycache.cache.resolving import Resolved
from keycache.codec import encode_settings, timestamp
from keycache.domain.entry import Change, Defect, Entry, Origin, Protocol
from keycache.domain.errors import LogUnavailable, RecordTooLarge, Refused
from keycache.domain.log import DELETIONS, ENTRIES, SETTINGS, CommitResult, Transaction, deletion_key, entry_key
from keycache.domain.merge import join_entries
from keycache.domain.names import ClusterIdentity
from keycache.domain.restart import Action, Way
from keycache.domain.settings import Settings, Timeouts
from keycache.replication.link import LinkState
from keycache.store.memory import MemoryLog
from keycache.v1 import record_pb2
from support.entries import T0, fingerprint_of, make_entry, make_key, make_sighting, record_of
from support.lines import cluster
from support.node import ENVELOPE, Node, eventually, running_node
from support.odd_logs import RestorableLog

US, HOUR, DAY = timedelta(microseconds=1), timedelta(hours=1), timedelta(days=1)
AGED = make_sighting(cached_at=T0 - 500 * DAY)
LONGER = Settings(timeouts=Timeouts(harvested=999 * DAY))
THEIRS = "b" * 32


def sharing(log: RestorableLog | None = None, *, name: str = "node-1") -> Node:
    return Node(log=log or RestorableLog(), name=name)


def log_of(node: Node) -> RestorableLog:
    assert isinstance(node.log, RestorableLog)
    return node.log


async def replaced(node: Node, *entries: Entry, settings: Settings | None = None, **documents: bytes) -> None:
    """Another log, with this in it, in the place of the node's own."""
    log = log_of(node)
    log.wipe(THEIRS)
    await log.put(SETTINGS, encode_settings(settings or Settings()))
    for key, value in {**dict(record_of(entry) for entry in entries), **documents}.items():
        await log.put(key, value)
    await node.until(LinkState.REFUSED)


def key_of(entry: Entry) -> str:
    return entry_key(entry.key.protocol, entry.key.fingerprint)


def deleted(at_age: timedelta) -> bytes:
    return record_pb2.Deletion(at=timestamp(T0 - at_age), actor="admin").SerializeToString()


async def merged(node: Node) -> Resolved:
    result = await node.cache.resolving.resolve(Way.MERGE, "admin")
    await node.settle()
    assert node.cache.replicator.state is LinkState.FOLLOWING
    return result


async def audit_of(node: Node) -> list[tuple[str, str, str]]:
    return [(line.actor, line.action, line.detail) for line in await node.cache.journal.audit(limit=100)]


# MERGE
async def test_a_merge_brings_every_unexpired_entry_into_another_log_to_the_microsecond() -> None:
    kept = [
        make_entry(1, make_sighting(cached_at=T0 - 3 * DAY - US, refreshed_at=T0 - 7 * US)),
        make_entry(2, make_sighting(Origin.LOOKED_UP, cached_at=T0 - HOUR), make_sighting(Origin.IMPORTED, cached_at=T0 - DAY)),
        make_entry(3, protocol=Protocol.OPENPGP, history=(Change(at=T0 - DAY, what="CACHED", by="HARVESTED"),)),
    ]
    there = make_entry(4)
    async with running_node(*kept, make_entry(9, AGED), node=sharing()) as node:
        await replaced(node, there)
        told: list[tuple[int, int]] = []
        result = await node.cache.resolving.resolve(Way.MERGE, "admin", progress=lambda done, total: told.append((done, total)))
        assert result == Resolved(
            way=Way.MERGE, entries=3, known=0, deleted=0, identity=THEIRS, revision=node.cache.replicator.applied
        )
        assert told == [(3, 3)]
        await node.settle()
        assert node.cache.replicator.state is LinkState.FOLLOWING
        assert await node.in_log() == {entry.key.fingerprint.text: entry for entry in (*kept, there)}
        assert {
            name: node.entry(entry.key.fingerprint, entry.key.protocol) for name, entry in (await node.in_log()).items()
        } == (await node.in_log())
        assert await audit_of(node) == [("admin", "RESOLVE", "MERGE: 3 keys brought, 0 known already, 0 removed there before")]
        assert (await node.cache.check()).action is Action.RESUME


async def test_a_merge_joins_what_both_have_and_no_time_stamp_is_lost() -> None:
    ours = make_entry(1, make_sighting(cached_at=T0 - 9 * DAY, refreshed_at=T0 - DAY), addresses=["a@example.org"])
    theirs = make_entry(1, make_sighting(Origin.IMPORTED, cached_at=T0 - 2 * DAY), addresses=["b@example.org"])
    same = make_entry(2)
    async with running_node(ours, same, node=sharing()) as node:
        await replaced(node, theirs, same)
        result = await merged(node)
        assert (result.entries, result.known) == (2, 2)
        assert node.entry(fingerprint_of(1)) == join_entries(theirs, ours)
        assert node.entry(fingerprint_of(2)) == same


async def test_a_merge_joins_the_material_of_an_openpgp_key_and_keeps_a_revocation() -> None:
    ours = make_entry(1, protocol=Protocol.OPENPGP, defect=Defect.REVOKED)
    ours = replace(ours, key=replace(ours.key, material=b"a+b"))
    theirs = make_entry(1, protocol=Protocol.OPENPGP)
    theirs = replace(theirs, key=replace(theirs.key, material=b"b+c"))
    async with running_node(ours, node=sharing()) as node:
        await replaced(node, theirs)
        await merged(node)
        entry = node.entry(ours.key.fingerprint, Protocol.OPENPGP)
        assert entry is not None
        assert (entry.key.material, entry.key.defect) == (b"a+b+c", Defect.REVOKED)


@pytest.mark.parametrize(("age", "back"), [(timedelta(), False), (DAY, False), (DAY + US, True)])
async def test_a_merge_brings_no_entry_back_that_was_deleted_after_it_was_last_seen(age: timedelta, back: bool) -> None:
    entry = make_entry(1, make_sighting(cached_at=T0 - 3 * DAY, refreshed_at=T0 - DAY))
    async with running_node(entry, make_entry(2), node=sharing()) as node:
        await replaced(node, **{deletion_key(Protocol.SMIME, fingerprint_of(1)): deleted(age)})
        result = await merged(node)
        assert (result.entries, result.deleted) == ((2, 0) if back else (1, 1))
        assert (node.entry(fingerprint_of(1)) == entry) == back


async def test_a_merge_brings_documents_that_the_log_has_none_of_and_overwrites_none() -> None:
    async with running_node(make_entry(1), node=sharing()) as node:
        await node.cache.blocks.block(address="eve@example.org", until=None, reason="", actor="admin")
        await node.cache.blocks.block(address="mallory@example.org", until=None, reason="ours", actor="admin")
        await node.cache.settings.change(looked_up=2 * DAY, actor="admin")
        records = {record.key: record.value for record in node.replica.documents("")}
        mallory = next(key for key in records if "mallory" in key)
        await replaced(node, settings=LONGER, **{mallory: b"theirs", "chain/00": b"their intermediate"})
        await merged(node)
        after = {record.key: record.value for record in node.replica.documents("")}
        brought = {key: value for key, value in records.items() if key not in {SETTINGS, mallory}}
        assert {key: after[key] for key in brought} == brought
        assert (after[mallory], after["chain/00"]) == (b"theirs", b"their intermediate")
        assert node.cache.settings.current()[0] == LONGER


async def test_an_entry_that_this_version_cannot_read_is_brought_as_it_is() -> None:
    key = key_of(make_entry(1))
    async with running_node(make_entry(2), node=sharing()) as node:
        await node.log.commit(Transaction(compare={}, puts={key: b"\xff of a later version"}))
        await node.settle()
        await replaced(node)
        result = await merged(node)
        assert result.entries == 2
        record = log_of(node)._record(key)
        assert record is not None
        assert record.value == b"\xff of a later version"


async def test_an_emptied_log_is_founded_under_the_settings_that_were_in_force() -> None:
    async with running_node(make_entry(1, make_sighting(cached_at=T0 - 700 * DAY)), node=sharing()) as node:
        await node.cache.settings.change(harvested=999 * DAY, actor="admin")
        before = log_of(node).identity
        log_of(node).wipe()
        await node.until(LinkState.REFUSED)
        result = await merged(node)
        assert result.identity not in ("", before.text)
        assert node.cache.settings.current()[0] == LONGER
        assert await node.sweep() == 0
        assert node.entry(fingerprint_of(1)) is not None


async def test_an_emptied_log_gets_no_settings_from_a_node_that_does_not_know_any() -> None:
    """The defaults would be a guess, and what they expire would be gone."""
    async with running_node(make_entry(1, AGED), node=sharing()) as node:
        await node.log.commit(Transaction(compare={}, puts={}, deletes=(SETTINGS,)))
        await node.settle()
        log_of(node).wipe()
        await node.until(LinkState.REFUSED)
        await merged(node)
        assert await node.sweep() == 0
        assert node.entry(fingerprint_of(1)) is not None
        assert log_of(node)._record(SETTINGS) is None


async def test_a_log_that_went_back_is_founded_anew_with_the_later_settings_and_every_node_brings_its_own() -> None:
    log = RestorableLog()
    async with (
        running_node(make_entry(1), node=sharing(log)) as first,
        running_node(node=sharing(log, name="node-2")) as second,
    ):
        backup, before = log.snapshot(), log.identity
        await first.cache.settings.change(harvested=999 * DAY, actor="admin")
        await first.seed(make_entry(2, make_sighting(cached_at=T0 - 700 * DAY)))
        await second.settle()
        await log.restore(backup)
        for node in (first, second):
            await node.until(LinkState.REFUSED)
        result = await merged(first)
        assert (result.entries, result.known) == (2, 1)
        assert result.identity != before.text
        assert first.cache.settings.current()[0] == LONGER
        assert (await second.cache.check()).log_identity == ClusterIdentity(result.identity)
        assert second.cache.replicator.state is LinkState.REFUSED
        assert (await merged(second)).known == 2
        assert await first.sweep() == await second.sweep() == 0
        assert await first.in_log() == await second.in_log()
        assert len(await first.in_log()) == 2


async def test_a_merge_under_whose_settings_entries_would_expire_is_refused_and_changes_nothing() -> None:
    entries = [make_entry(number, make_sighting(cached_at=T0 - 700 * DAY)) for number in range(3)]
    async with running_node(node=sharing()) as node:
        await node.cache.settings.change(harvested=999 * DAY, actor="admin")
        await node.seed(*entries)
        fresher = make_entry(0)
        await replaced(node, fresher)
        head = (await node.log.survey()).head
        for dry_run in (True, False):
            with pytest.raises(Refused, match="2 keys of this node are unexpired by the timeouts it knows") as refused:
                await node.cache.resolving.resolve(Way.MERGE, "admin", dry_run=dry_run)
            assert "Raise the timeouts there first" in refused.value.hint
        assert (await node.log.survey()).head == head
        await log_of(node).put(SETTINGS, encode_settings(LONGER))
        assert (await merged(node)).entries == 3
        assert await node.sweep() == 0
        assert len(await node.in_log()) == 3


async def test_what_a_suspect_clock_takes_for_expired_is_brought_too() -> None:
    async with running_node(make_entry(1), node=sharing()) as node:
        log_of(node).wipe()
        await node.restart(clock_moves=600 * DAY)
        assert (await merged(node)).entries == 1
        assert fingerprint_of(1).text in await node.in_log()


async def test_many_entries_go_in_transactions_that_etcd_would_take() -> None:
    class Strict(RestorableLog):
        """As etcd by default (FACTS 3), with its own comparison of the identity."""

        async def commit(self, transaction: Transaction) -> CommitResult:
            assert max(len(transaction.compare), len(transaction.puts)) < 128
            if sum(map(len, transaction.puts.values())) > 1.5 * 1024 * 1024:
                raise RecordTooLarge("More than 1.5 MiB.")
            return await super().commit(transaction)

    small = [make_entry(number) for number in range(2 * BATCH + 7)]
    large = [make_entry(1000 + number, material_size=400_000) for number in range(4)]
    async with running_node(node=sharing(Strict())) as node:
        for entry in (*small, *large):
            await node.seed(entry)
        log_of(node).wipe()
        await node.until(LinkState.REFUSED)
        before = log_of(node).commits
        assert (await merged(node)).entries == len(small) + 4
        assert len(await node.in_log()) == len(small) + 4
        assert log_of(node).commits - before <= 2 + 3 + 4 + 2


async def test_what_others_write_meanwhile_is_joined_and_stops_nothing() -> None:
    class Contended(RestorableLog):
        """Before each of the first commits of a merge, somebody refreshes key 1."""

        refreshes = 0

        async def commit(self, transaction: Transaction) -> CommitResult:
            if self.refreshes and any(key.startswith(ENTRIES) for key in transaction.puts):
                self.refreshes -= 1
                moment = T0 - timedelta(hours=self.refreshes)
                entry = make_entry(1, make_sighting(Origin.LOOKED_UP, cached_at=T0 - DAY, refreshed_at=moment))
                await self.put(*record_of(entry))
            return await super().commit(transaction)

    async with running_node(*(make_entry(number) for number in range(5)), node=sharing(Contended())) as node:
        await replaced(node)
        log_of(node).refreshes = 5  # type: ignore[attr-defined]
        await merged(node)
        entry = node.entry(fingerprint_of(1))
        assert entry is not None
        assert [one.origin for one in entry.sightings] == [Origin.HARVESTED, Origin.LOOKED_UP]
        assert entry.sightings[1].refreshed_at == T0
        assert len(await node.in_log()) == 5


# DISCARD
async def test_a_discard_takes_what_is_in_the_log_and_says_what_it_forgot() -> None:
    async with running_node(make_entry(1), make_entry(2, AGED), node=sharing()) as node:
        await replaced(node, make_entry(3), settings=LONGER)
        result = await node.cache.resolving.resolve(Way.DISCARD, "admin")
        assert result == Resolved(
            way=Way.DISCARD, entries=2, known=0, deleted=0, identity=THEIRS, revision=node.cache.replicator.applied
        )
        await node.settle()
        assert await node.in_log() == {fingerprint_of(3).text: make_entry(3)}
        assert [node.entry(fingerprint_of(number)) for number in (1, 2, 3)] == [None, None, make_entry(3)]
        assert node.cache.settings.current()[0] == LONGER
        assert await audit_of(node) == [("admin", "RESOLVE", "DISCARD: 2 keys of this node forgotten")]


async def test_a_discard_before_an_empty_log_founds_it_and_keeps_the_settings() -> None:
    async with running_node(make_entry(1), node=sharing()) as node:
        await node.cache.settings.change(looked_up=2 * DAY, actor="admin")
        settings = node.cache.settings.current()[0]
        log_of(node).wipe()
        await node.until(LinkState.REFUSED)
        await node.cache.resolving.resolve(Way.DISCARD, "admin")
        await node.until(LinkState.FOLLOWING)
        assert await node.in_log() == {}
        assert node.cache.settings.current()[0] == settings


# a node that goes back to standing alone
@pytest.mark.parametrize("way", Way)
async def test_a_node_that_leaves_its_cluster_merges_into_its_own_log_or_begins_anew(way: Way) -> None:
    async with running_node(make_entry(1), node=sharing()) as node:
        await node.cache.settings.change(harvested=999 * DAY, actor="admin")
        node.log = own = MemoryLog()
        await node.restart()
        assert node.cache.replicator.state is LinkState.REFUSED
        assert (await own.head(), node.served("user1@example.org")) == (0, [fingerprint_of(1).text])
        await node.cache.resolving.resolve(way, "admin")
        await node.settle()
        assert node.cache.replicator.state is LinkState.FOLLOWING
        assert node.cache.settings.current()[0] == LONGER
        assert list(await node.in_log()) == ([fingerprint_of(1).text] if way is Way.MERGE else [])
        await node.cache.harvesting.harvest(node.script.mail(make_key(2)), ENVELOPE)
        await node.restart()
        assert fingerprint_of(2).text in await node.in_log()


# both
@pytest.mark.parametrize("way", Way)
async def test_where_nothing_is_refused_nothing_is_resolved(way: Way) -> None:
    async with running_node(make_entry(1), node=sharing()) as node:
        with pytest.raises(Refused, match="There is nothing to resolve"):
            await node.cache.resolving.resolve(way, "admin")
        log_of(node).interrupt()
        with pytest.raises(LogUnavailable):
            await node.cache.resolving.resolve(way, "admin")


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("identity", ["", THEIRS])
async def test_a_dry_run_says_what_would_be_done_and_changes_nothing(way: Way, identity: str) -> None:
    async with running_node(make_entry(1), make_entry(2), make_entry(9, AGED), node=sharing()) as node:
        log = log_of(node)
        log.wipe(identity)
        if identity:
            await log.put(*record_of(make_entry(1)))
        await node.until(LinkState.REFUSED)
        before = await log.survey([key_of(make_entry(number)) for number in (1, 2)])
        result = await node.cache.resolving.resolve(way, "admin", dry_run=True)
        assert result == Resolved(
            way=way,
            entries=2 if way is Way.MERGE else 3,
            known=1 if way is Way.MERGE and identity else 0,
            deleted=0,
            identity=identity,
            revision=before.head,
        )
        assert await log.survey([key_of(make_entry(number)) for number in (1, 2)]) == before
        assert node.cache.replicator.state is LinkState.REFUSED


# the outbox
@pytest.mark.parametrize("way", Way)
async def test_what_mail_brought_meanwhile_is_delivered_after_a_merge_and_forgotten_with_a_discard(way: Way) -> None:
    async with running_node(make_entry(1), node=sharing()) as node:
        await replaced(node)
        await node.cache.harvesting.harvest(node.script.mail(make_key(2)), ENVELOPE)
        assert node.outbox.count == 1
        await node.cache.resolving.resolve(way, "admin", dry_run=True)
        assert node.outbox.count == 1
        await node.cache.resolving.resolve(way, "admin")
        await eventually(lambda: node.outbox.count == 0)
        await node.settle()
        assert sorted(await node.in_log()) == sorted(fingerprint_of(one).text for one in ((1, 2) if way is Way.MERGE else ()))


async def test_what_was_deleted_does_not_come_back_with_a_node_that_was_cut_off_when_the_log_is_made_anew() -> None:
    async with cluster(make_entry(1), make_entry(2), make_entry(3)) as (a, b):
        b.line.cut()
        for number in (1, 3):
            await a.cache.entries.delete(fingerprint_of(number).text, "admin")
        await a.cache.harvesting.harvest(a.script.mail(make_key(3)), ENVELOPE)
        await a.deliver()
        a.line.log.wipe()
        await a.until(LinkState.REFUSED)
        await merged(a)
        assert len(a.replica.documents(DELETIONS)) == 1
        b.line.mend()
        await b.until(LinkState.REFUSED)
        await merged(b)
        assert set(await b.in_log()) == {fingerprint_of(number).text for number in (2, 3)}
