"""How this node stands to the log it shares, and what it knows of the others that do."""

from __future__ import annotations

from datetime import datetime, timedelta

from keycache.cache.results import ClusterStatus, ListedMember
from keycache.domain.capacity import EtcdEndpoint
from keycache.domain.forming import Comparison
from keycache.domain.membership import Member, Witness, lag
from keycache.domain.ports import Cursor, Outbox, Replica
from keycache.domain.purge import PurgeState
from keycache.replication.link import LinkState
from keycache.replication.purger import Purger
from keycache.replication.reconciler import Reconciler
from keycache.replication.replicator import Replicator
from keycache.replication.roster import Roster
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import Said, View

_NEEDING_A_PERSON = {PurgeState.HELD_MASS_EXPIRY.value, PurgeState.HELD_CLOCK.value}


class ClusterDesk:
    """`own`: this node, and when it started. `address`: where others reach it. `endpoints` of etcd as last looked at, and `advice` on
    them, are fed from outside; so is `forming`: what this node does or waits for on its way into a cluster
    or out of one, empty once it is there; `seating`: why etcd's members cannot be made what they should be; and `comparison`: what a
    node that joined found itself to be beside another one."""

    def __init__(
        self,
        *,
        name: str,
        own: Witness,
        view: View,
        timekeeper: Timekeeper,
        replicator: Replicator,
        roster: Roster,
        reconciler: Reconciler,
        purger: Purger,
        outbox: Outbox,
    ) -> None:
        self._name = name
        self._own = own
        self._view = view
        self._timekeeper = timekeeper
        self._replicator = replicator
        self._roster = roster
        self._outbox = outbox
        self._reconciler = reconciler
        self._purging = purger
        self.address = own.address
        self.forming = ""
        self.seating = ""
        self.comparison: Comparison | None = None
        self.endpoints: tuple[EtcdEndpoint, ...] = ()
        self.advice: tuple[str, ...] = ()

    def describe(self) -> Member:
        """This node's word about itself, now."""
        settings, purge = self._view.settings, self._purging.status
        return Member(
            node_id=self._own.node_id,
            address=self.address,
            version=self._own.version,
            started_at=self._own.at,
            clock=self._timekeeper.now(),
            applied=self._replicator.applied,
            purge_state=purge.state.value,
            purge_reason=purge.reason,
            purge_waiting=purge.waiting,
            clock_trusted=settings is None or self._timekeeper.verdict(settings.clock_skew_bound).trusted,
            outbox=self._outbox.count,
        )

    def purge_held(self) -> str:
        """What holds the purge, where it needs a person; empty if nothing does. Where nodes share the log, of the one whose turn it is."""
        own = self.describe()
        chosen = (self._roster.purger(own) if self.is_following() else None) or own
        if chosen.purge_state not in _NEEDING_A_PERSON:
            return ""
        return chosen.purge_reason if chosen is own else f"{chosen.label} holds the purge. {chosen.purge_reason}"

    def is_following(self) -> bool:
        return self._replicator.state is LinkState.FOLLOWING

    @property
    def waiting(self) -> int:
        """Entries in the outbox."""
        return self._outbox.count

    def is_purger(self) -> bool:
        """Whether it is this node's turn."""
        return self._purger() == self._own.node_id.text

    def status(self) -> ClusterStatus:
        """While this node does not follow the log it does not know whose turn it is."""
        chosen = self._roster.purger(self.describe()) if self.is_following() else None
        purge = chosen or self.describe()
        offsets = self._roster.offsets().values()
        return ClusterStatus(
            name=self._name,
            link=self._replicator.state.value,
            reason=self._replicator.reason,
            log_age=self._replicator.log_age,
            outbox_entries=self._outbox.count,
            outbox_bytes=self._outbox.size,
            outbox_limit_bytes=self._outbox.limit,
            purger="" if chosen is None else chosen.label,
            purge_state=purge.purge_state,
            purge_reason=purge.purge_reason,
            purge_waiting=purge.purge_waiting,
            repaired=self._reconciler.repaired,
            reconciled_at=self._reconciler.reconciled_at,
            members=1 + len(self._roster.others),
            worst_skew=max(offsets, key=abs, default=timedelta()),
            etcd=self.endpoints,
            comparison=self.comparison,
        )

    def members(self) -> tuple[ListedMember, ...]:
        """This node first, then those that live, then those that are gone."""
        purger = self._purger()
        living = sorted(self._roster.others.items(), key=lambda one: one[1].member.label)
        listed = [self._listed_own(purger), *(self._listed(key, said, purger) for key, said in living)]
        known = {member.node_id for member in listed}
        gone = [witness for witness in self._view.witnesses.values() if witness.node_id.text not in known]
        return (*listed, *(_gone(witness) for witness in sorted(gone, key=lambda one: one.at, reverse=True)))

    def warnings(self) -> tuple[str, ...]:
        """Things an administrator should know, as sentences."""
        told = [self.forming] if self.forming else []
        if self._replicator.state is LinkState.REFUSED and not self.forming:
            report = self._replicator.report
            told.append("This node does not take its log as it is." if report is None else report.hint)
        told.extend(self.advice)
        if self.seating:
            told.append(f"etcd's members are not as they should be. {self.seating}")
        if self._roster.has_double:
            told.append(
                f"Another node calls itself by this node's id, {self._own.node_id}: its data directory was copied. Stop one of them, "
                "and start it with an empty data directory."
            )
        return tuple(told)

    def _purger(self) -> str:
        chosen = self._roster.purger(self.describe())
        return "" if chosen is None else chosen.node_id.text

    def _listed_own(self, purger: str) -> ListedMember:
        """How far the others are, it knows by what they said."""
        own = self.describe()
        newest = max((said.member.applied for said in self._roster.others.values()), default=own.applied)
        return _alive(own, purger, is_this_node=True, last_seen=own.clock, lag=max(0, newest - own.applied), skew=None)

    def _listed(self, key: str, said: Said, purger: str) -> ListedMember:
        """`last_seen` by our clock, or by its own where we only found its word."""
        silent = self._roster.silent_for(key)
        seen = said.member.clock if silent is None else self._timekeeper.now() - silent
        return _alive(
            said.member,
            purger,
            is_this_node=False,
            last_seen=seen,
            lag=lag(said.revision, said.member.applied),
            skew=self._roster.offset_of(key),
        )


def _alive(
    member: Member, purger: str, *, is_this_node: bool, last_seen: datetime, lag: int, skew: timedelta | None
) -> ListedMember:
    return ListedMember(
        node_id=member.node_id.text,
        address=member.address,
        version=member.version,
        alive=True,
        is_this_node=is_this_node,
        last_seen=last_seen,
        started_at=member.started_at,
        applied_revision=member.applied,
        lag=lag,
        skew=skew,
        clock_trusted=member.clock_trusted,
        purger=member.node_id.text == purger,
        purge_state=member.purge_state,
        purge_reason=member.purge_reason,
        purge_waiting=member.purge_waiting,
        outbox=member.outbox,
    )


def _gone(witness: Witness) -> ListedMember:
    return ListedMember(
        node_id=witness.node_id.text,
        address=witness.address,
        version=witness.version,
        alive=False,
        is_this_node=False,
        last_seen=witness.at,
    )


def portrait(replica: Replica) -> tuple[Cursor | None, str]:
    """Where it is, and its digest there: read until nothing was applied in between, which takes longer than reading."""
    while True:
        cursor, digest = replica.cursor(), replica.digest()
        if replica.cursor() == cursor:
            return cursor, digest
