"""A node as a whole: how it starts, what it refuses to start on, what it says of itself."""

from __future__ import annotations

from datetime import timedelta

import pytest

from keycache.cache.results import NodeStatus
from keycache.domain.entry import Defect, Origin, Trust
from keycache.domain.errors import LogUnavailable
from keycache.domain.log import SETTINGS, Transaction
from keycache.domain.ports import Counts
from keycache.domain.restart import Action
from keycache.domain.settings import Settings
from keycache.replication.purger import PurgeStatus
from keycache.replication.replicator import LinkState
from keycache.store.memory import MemoryLog
from support.entries import T0, fingerprint_of, make_entry, make_key, make_sighting
from support.node import ENVELOPE, Node, running_node

DAY = timedelta(days=1)
UNMANAGED = "No managed domains are configured: mail needs a stated direction or a listener to be harvested."


async def test_a_node_tells_what_it_holds_and_how_it_is() -> None:
    made = (
        make_entry(1),
        make_entry(2, defect=Defect.REVOKED),
        make_entry(3, trust=Trust.HELD),
        make_entry(4, make_sighting(Origin.LOOKED_UP, cached_at=T0 - DAY)),
    )
    async with running_node(*made) as node:
        node.clock.advance(timedelta(minutes=5))
        assert await node.cache.status() == NodeStatus(
            mode="standalone",
            node_id="node-1",
            version="0.0",
            identity=node.log.identity.text,
            started_at=T0,
            now=T0 + timedelta(minutes=5),
            entries=Counts(live=2, expired=1, held=1),
            applied_revision=await node.log.head(),
            digest=node.replica.digest(),
            digest_revision=await node.log.head(),
            purge=PurgeStatus(),
            settings=Settings(),
            warnings=(UNMANAGED,),
        )
        assert node.cache.not_ready() == ""


async def test_a_node_with_managed_domains_and_a_good_clock_has_nothing_to_warn_of() -> None:
    async with running_node(node=Node(managed=("ours.example",))) as node:
        assert (await node.cache.status()).warnings == ()


async def test_a_node_without_settings_is_not_ready_and_says_why() -> None:
    async with running_node() as node:
        await node.log.commit(Transaction(compare={}, puts={}, deletes=(SETTINGS,)))
        await node.settle()
        assert node.cache.not_ready() == "There are no settings in the log."
        status = await node.cache.status()
        assert (status.settings, status.entries) == (None, Counts(live=0, expired=0, held=0))


async def test_a_node_beside_another_log_serves_what_it_has_and_goes_on_when_the_right_one_is_back() -> None:
    """A data directory beside a wiped and rebuilt log: DESIGN 2.1."""
    async with running_node(make_entry(1), make_entry(2)) as node:
        digest, own = node.replica.digest(), node.log
        await node.stop()
        node.log = other = MemoryLog()
        await node.start()
        assert node.cache.replicator.state is LinkState.REFUSED
        assert node.served("user1@example.org") == [fingerprint_of(1).text]
        assert node.cache.not_ready() == ""
        with pytest.raises(LogUnavailable, match="takes no writes of this node now"):
            await node.cache.harvesting.harvest(node.script.mail(make_key(3)), ENVELOPE)
        with pytest.raises(LogUnavailable):
            await node.cache.entries.delete(fingerprint_of(1).text, "admin")
        report = await node.cache.check()
        assert (report.action, report.kept, report.log_identity) == (Action.REFUSE, 2, other.identity)
        await node.stop()
        assert node.replica.digest() == digest
        assert (await other.head(), node.replica.document(SETTINGS) is not None) == (0, True)
        node.log = own
        await node.start()
        assert node.cache.replicator.state is LinkState.FOLLOWING
        assert node.served("user1@example.org") == [fingerprint_of(1).text]


async def test_a_restart_changes_no_entry_and_writes_nothing() -> None:
    async with running_node() as node:
        await node.cache.harvesting.harvest(node.script.mail(make_key(1)), ENVELOPE)
        head, digest = await node.log.head(), node.replica.digest()
        for down in (timedelta(), timedelta(hours=1), 10 * DAY):
            await node.restart(down=down)
            assert (await node.log.head(), node.replica.digest()) == (head, digest)
            assert node.served("user1@example.org") == [fingerprint_of(1).text]
