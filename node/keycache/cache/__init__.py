"""KeyCache: what every edge calls. One object wired from ports; its parts are the flows.

`build` wires it, `run` keeps it going: replication, purging, and what is rare.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from keycache.cache.authority import AuthorityRecords
from keycache.cache.belonging import Belonging
from keycache.cache.cluster import ClusterDesk, portrait
from keycache.cache.deletions import Deletions
from keycache.cache.delivery import Delivery
from keycache.cache.desks import Blocks, SettingsDesk
from keycache.cache.entries import Entries
from keycache.cache.foresight import Foresight
from keycache.cache.harvesting import Harvesting
from keycache.cache.holdings import Holdings
from keycache.cache.imports import Imports
from keycache.cache.issuers import Issuers
from keycache.cache.journal import Journal
from keycache.cache.lookups import Lookups
from keycache.cache.resolving import Resolving
from keycache.cache.restoring import Restoring
from keycache.cache.results import NodeStatus
from keycache.cache.tokens import Tokens
from keycache.cache.writer import Writer
from keycache.codec import encode_settings
from keycache.domain.errors import KeycacheError, StoreError
from keycache.domain.examination import DirectionPolicy
from keycache.domain.log import ABSENT, SETTINGS, Transaction
from keycache.domain.membership import Witness
from keycache.domain.names import ClusterIdentity, NodeId
from keycache.domain.nodes import ClusterNode
from keycache.domain.ports import Clock, Counts, EntryLog, Examiner, Outbox, Presence, Replica
from keycache.domain.purge import Candidate
from keycache.domain.removal import Removal
from keycache.domain.restart import RestartReport
from keycache.domain.settings import Settings, Timeouts
from keycache.logs import get_logger
from keycache.replication.checking import RestartCheck
from keycache.replication.purger import Purger
from keycache.replication.reconciler import RECONCILE, Reconciler
from keycache.replication.replicator import Offload, Replicator, Watched
from keycache.replication.roster import Roster
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import View

_log = get_logger(__name__)

PURGE_INTERVAL = timedelta(minutes=1)
TRIM_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The world as a node sees it. `offload` runs the blocking writes of replica and outbox apart from the event loop. `presence`: where
    a node says that it lives; None: nobody shares its log."""

    log: EntryLog
    replica: Replica
    outbox: Outbox
    examiner: Examiner
    clock: Clock
    offload: Offload
    presence: Presence | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What is fixed while a node runs. `anchors`, `crls`: DER from the configuration. `cluster_name`: of the log it shares, if it does;
    `address`: where others reach it. `founding`: the identity that its log is to get when this node founds it; None: any.
    `may_found`: False for a node on its way into a log that others have founded."""

    node_id: NodeId
    version: str
    policy: DirectionPolicy = field(default_factory=DirectionPolicy)
    anchors: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()
    purge_interval: timedelta = PURGE_INTERVAL
    reconcile_interval: timedelta = RECONCILE
    cluster_name: str = "keycache"
    founding: ClusterIdentity | None = None
    may_found: bool = True
    address: str = ""


class KeyCache:
    """Made by `build`. Flows are attributes; `run` must be running for writes to become visible."""

    def __init__(self, ports: Ports, facts: NodeFacts, *, on_removed: Callable[[int], None] = lambda _removed: None) -> None:
        self._ports = ports
        self._facts = facts
        self._view = View(
            ports.replica,
            anchors=facts.anchors,
            crls=facts.crls,
            on_trust=ports.examiner.trust,
            on_settings=self._settings_changed,
            on_members=self._members_spoke,
        )
        self._started_at = ports.clock.now()
        own = Witness(node_id=facts.node_id, address=facts.address, version=facts.version, at=self._started_at)
        self._roster = Roster(own=own, view=self._view, clock=ports.clock)
        self._timekeeper = Timekeeper(
            clock=ports.clock, replica=ports.replica, offload=ports.offload, offsets=self._roster.offsets
        )
        check = RestartCheck(
            log=ports.log, replica=ports.replica, view=self._view, timekeeper=self._timekeeper, node_id=facts.node_id
        )
        self.replicator = Replicator(
            log=ports.log,
            replica=ports.replica,
            view=self._view,
            clock=ports.clock,
            offload=ports.offload,
            check=check,
            founding=facts.founding,
            may_found=facts.may_found,
            on_listed=lambda revision: _log.info("replica listed anew", revision=revision),
        )
        self.purger = Purger(
            log=self.replicator.log,
            replica=ports.replica,
            view=self._view,
            timekeeper=self._timekeeper,
            clock=ports.clock,
            interval=facts.purge_interval,
            on_removed=on_removed,
            is_chosen=self._is_purger,
        )
        self.reconciler = Reconciler(
            log=ports.log,
            replica=ports.replica,
            view=self._view,
            replicator=self.replicator,
            clock=ports.clock,
            node_id=facts.node_id,
            interval=facts.reconcile_interval,
        )
        self.cluster = ClusterDesk(
            name=facts.cluster_name,
            own=own,
            view=self._view,
            timekeeper=self._timekeeper,
            replicator=self.replicator,
            roster=self._roster,
            reconciler=self.reconciler,
            purger=self.purger,
            outbox=ports.outbox,
        )
        self.outbox = ports.outbox
        holdings = Holdings(replica=ports.replica, outbox=ports.outbox)
        self.delivery = Delivery(
            log=self.replicator.log,
            outbox=ports.outbox,
            replica=ports.replica,
            replicator=self.replicator,
            view=self._view,
            examiner=ports.examiner,
            timekeeper=self._timekeeper,
            clock=ports.clock,
            offload=ports.offload,
            link_up=self._link_up,
        )
        self._writer = writer = Writer(
            log=self.replicator.log,
            replica=ports.replica,
            replicator=self.replicator,
            outbox=ports.outbox,
            holdings=holdings,
            timekeeper=self._timekeeper,
            offload=ports.offload,
            link_up=self._link_up,
            on_queued=self.delivery.wake,
        )
        replica, view, timekeeper = ports.replica, self._view, self._timekeeper
        self.lookups = Lookups(
            replica=replica,
            outbox=ports.outbox,
            holdings=holdings,
            view=view,
            replicator=self.replicator,
            timekeeper=timekeeper,
        )
        self.journal = Journal(writer=writer, replica=replica, timekeeper=timekeeper)
        self.harvesting = Harvesting(
            examiner=ports.examiner,
            writer=writer,
            holdings=holdings,
            view=view,
            timekeeper=timekeeper,
            journal=self.journal,
            policy=facts.policy,
        )
        self.entries = Entries(
            writer=writer,
            replica=replica,
            outbox=ports.outbox,
            offload=ports.offload,
            view=view,
            timekeeper=timekeeper,
            purger=self.purger,
            journal=self.journal,
        )
        self._deletions = Deletions(writer=writer, replica=replica, timekeeper=timekeeper)
        self.settings = SettingsDesk(writer=writer, replica=replica, view=view, timekeeper=timekeeper, journal=self.journal)
        self.blocks = Blocks(writer=writer, view=view, timekeeper=timekeeper, journal=self.journal)
        self.authority = AuthorityRecords(log=ports.log, writer=writer, replica=replica, view=view, journal=self.journal)
        self.belonging = Belonging(writer=writer, replica=replica, clock=ports.clock, journal=self.journal)
        self.issuers = Issuers(
            writer=writer,
            replica=replica,
            view=view,
            timekeeper=timekeeper,
            examiner=ports.examiner,
            entries=self.entries,
            journal=self.journal,
        )
        self.imports = Imports(
            harvesting=self.harvesting,
            examiner=ports.examiner,
            writer=writer,
            timekeeper=timekeeper,
            journal=self.journal,
            policy=facts.policy,
        )
        self.resolving = Resolving(
            log=ports.log,
            replica=replica,
            view=view,
            replicator=self.replicator,
            purger=self.purger,
            examiner=ports.examiner,
            timekeeper=timekeeper,
            journal=self.journal,
            outbox=ports.outbox,
            offload=ports.offload,
            founding=facts.founding if facts.may_found else None,
        )
        self.restoring = Restoring(
            replicator=self.replicator,
            replica=replica,
            view=view,
            writer=writer,
            settings=self.settings,
            examiner=ports.examiner,
            timekeeper=timekeeper,
            journal=self.journal,
            cluster=self.cluster,
        )
        self.foresight = Foresight(
            log=ports.log,
            replica=replica,
            view=view,
            roster=self._roster,
            timekeeper=timekeeper,
            cluster=self.cluster,
            delivery=self.delivery,
            policy=facts.policy,
        )
        self.warnings = self.foresight.warnings
        self.tokens = Tokens(
            log=self.replicator.log, writer=writer, replica=replica, timekeeper=timekeeper, journal=self.journal
        )

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Until cancelled. `ready` is set when lookups work, and writes as far as the log takes them.

        ORDER: the log is checked, the replica has caught up with it and the settings are read BEFORE the purger starts
        (DESIGN 2.3, 4). A log that is lost later stops it by taking no writes (`replication.link`).
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self.replicator.run(), name="replicator")
            await self.replicator.ready.wait()
            if self.replicator.caught_up.is_set():
                await self._first_settings()
            await self._first_heartbeat()
            if ready is not None:
                ready.set()
            await self.replicator.caught_up.wait()
            await self._first_settings()
            # A node that answers does not end for a full disk; the purger's ticks try again.
            with contextlib.suppress(StoreError):
                await self._first_heartbeat()
            if self._ports.presence is not None:
                group.create_task(self._be_present(self._ports.presence), name="roster")
            group.create_task(self.purger.run(), name="purger")
            group.create_task(self._housekeeping(), name="housekeeping")
            group.create_task(self.delivery.run(), name="delivery")
            group.create_task(self.reconciler.run(), name="reconciler")

    @property
    def node_id(self) -> NodeId:
        return self._facts.node_id

    def find_removal(self, node: NodeId) -> Removal | None:
        """Whether that node was removed from the cluster."""
        return self._view.removed.get(node)

    @property
    def nodes(self) -> Mapping[NodeId, ClusterNode]:
        """Those that belong to the cluster, whether they run or not."""
        return self._view.nodes

    def expired_under(self, timeouts: Timeouts, now: datetime) -> tuple[Candidate, ...]:
        """What would be expired by those timeouts. Reads the whole replica."""
        return tuple(self._ports.replica.expired(now=now, timeouts=timeouts))

    @property
    def settings_in_force(self) -> Settings:
        """Raises Unavailable."""
        return self._view.require_settings()

    async def check(self) -> RestartReport:
        """What a restart would find now. Changes nothing."""
        report, _ = await self.replicator.look()
        return report

    def not_ready(self) -> str:
        """Why lookups do not work yet, as a sentence; empty when they do."""
        if not self.replicator.ready.is_set():
            return self.replicator.reason or "The replica is catching up with the log."
        return "" if self._view.settings is not None else self._view.settings_problem

    def watch(self) -> AsyncIterator[Watched]:
        """Every change of an entry as this node applies it, from now on."""
        return self.replicator.changes()

    async def status(self) -> NodeStatus:
        settings, now = self._view.settings, self._ports.clock.now()
        counts = Counts(live=0, expired=0, held=0)
        if settings is not None:
            counts = await asyncio.to_thread(self._ports.replica.counts, now=now, timeouts=settings.timeouts)
        cluster = self.cluster.status() if self._ports.log.is_shared else None
        cursor, digest = portrait(self._ports.replica)
        return NodeStatus(
            mode="standalone" if cluster is None else "cluster",
            node_id=self._facts.node_id.text,
            version=self._facts.version,
            identity="" if cursor is None else cursor.identity.text,
            started_at=self._started_at,
            now=now,
            entries=counts,
            applied_revision=self.replicator.applied,
            digest=digest,
            digest_revision=ABSENT if cursor is None else cursor.revision,
            purge=self.purger.status,
            settings=settings,
            warnings=self.warnings(),
            cluster=cluster,
            forming=self.cluster.forming,
        )

    async def _first_settings(self) -> None:
        """A log that holds nothing gets the defaults, once and explicitly. One that holds entries but no settings does not: that
        is damage, and nothing is assumed (DESIGN 2.3). Who founds a shared log writes them with its identity."""
        if self._ports.log.is_shared or await self._ports.log.head() != ABSENT:
            return
        await self._writer.commit(Transaction(compare={SETTINGS: ABSENT}, puts={SETTINGS: encode_settings(Settings())}))

    async def _first_heartbeat(self) -> None:
        """BEFORE the first write: a sighting must never be older than any time written down."""
        settings = self._view.settings
        if settings is not None:
            await self._timekeeper.heartbeat(settings.clock_skew_bound)

    async def _housekeeping(self) -> None:
        while True:
            with contextlib.suppress(KeycacheError):  # there is a next hour
                await self.journal.trim()
                await self._deletions.trim()
            await self._ports.clock.sleep(TRIM_SECONDS)

    async def _be_present(self, presence: Presence) -> None:
        cluster, log = self.cluster, self.replicator.log
        await self._roster.run(presence=presence, log=log, describe=cluster.describe, is_following=cluster.is_following)

    def _is_purger(self) -> bool:
        return self.cluster.is_purger()

    def _members_spoke(self, keys: frozenset[str]) -> None:
        self._roster.hear(keys)

    def _link_up(self) -> bool:
        """Whether the log can be reached, as far as this node knows without asking it."""
        return self.replicator.connected

    def _settings_changed(self) -> None:
        self.purger.wake()


def build(ports: Ports, facts: NodeFacts, *, on_removed: Callable[[int], None] = lambda _removed: None) -> KeyCache:
    """Wire a node's flows. `on_removed` is told how many entries each sweep removed, for metrics."""
    return KeyCache(ports, facts, on_removed=on_removed)
