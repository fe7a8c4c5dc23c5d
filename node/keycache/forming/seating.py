"""Who of the nodes is a member of the etcd that they run, and who votes there: looked at and put right, step by step.

Every node looks after its own seat: it starts its etcd once somebody added it, and clears away the data of a member that was removed.
What concerns all (`domain.voters`) is done by the node whose own etcd leads, so by one at a time; two that take themselves for it do no
harm, since each change is a goal (`cluster.etcd_members`). Nothing is kept that a crash could lose: each round begins from what etcd and
the log say now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from keycache.cache import KeyCache
from keycache.cluster.etcd_members import EtcdMembers, Member, MemberReport
from keycache.cluster.etcd_spec import QUOTA_BYTES, Peer
from keycache.cluster.etcd_upkeep import EtcdUpkeep
from keycache.cluster.own_etcd import OwnEtcd
from keycache.cluster.seats import KnownNode, Seating, SeatWatch, report_of
from keycache.cluster.standing import StandingFile
from keycache.domain.errors import KeycacheError, LogUnavailable, Refused
from keycache.domain.names import NodeId
from keycache.domain.ports import Clock
from keycache.domain.standing import Phase
from keycache.domain.voters import Move, Step, next_step, quorum
from keycache.etcd.client import EtcdClient
from keycache.logs import Recurring, get_logger
from keycache.replication.link import LinkState
from keycache.replication.waiting import unless

_log = get_logger(__name__)

REST_SECONDS, BUSY_SECONDS = 5.0, 0.5
"""Between two looks: each costs every member a status call."""

UPKEEP_SECONDS, FULL_SECONDS = 300.0, 15.0
"""Between two looks at what etcd's files hold; while it takes no writes for want of room."""

CHANGE_SECONDS = 3.0
"""For one change, then everything is looked at again."""

LEAVE_SECONDS = 120.0
"""For a node's etcd to be missed by nobody: another one copies all first, if it has the only vote."""

ANNOUNCE_SECONDS = 15.0
"""For the log to come back, before a node leaves that does not reach it: longer than an election."""


class SeatKeeper:
    """Of one life of a node whose cluster runs etcd itself."""

    def __init__(
        self,
        *,
        node: NodeId,
        cache: KeyCache,
        own: OwnEtcd | None,
        members: EtcdMembers,
        client: EtcdClient,
        standing: StandingFile,
        clock: Clock,
        quota: int,
    ) -> None:
        """`own` None: this node runs no etcd. `client`: of the log; it is told where voters are. `quota`: bytes, 0 for etcd's default."""
        self._node = node
        self._cache = cache
        self._own = own
        self._members = members
        self._client = client
        self._standing = standing
        self._clock = clock
        self._watch = SeatWatch()
        self._upkeep = EtcdUpkeep(members, quota_bytes=quota or QUOTA_BYTES)
        self._kept_up = 0.0
        self._step = Step(move=Move.WAIT, reason="Nobody has looked yet.")
        self._has_seat = True  # until seen otherwise
        self._looked = asyncio.Event()
        self._hurry = asyncio.Event()
        self._failed: dict[str, object] = {}
        self._vacating = False
        self._trouble = Recurring(_log, "the members of etcd cannot be looked after now")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            pause = BUSY_SECONDS
            try:
                if self._may_look():
                    pause = await self._round()
                self._trouble.over()
            except KeycacheError as error:  # there is a next round
                self._trouble.tell(error)
                pause = REST_SECONDS
            finally:
                self._looked.set()
            self._hurry.clear()
            await unless(self._hurry, self._clock.sleep(pause))

    def _may_look(self) -> bool:
        """Not while this node finds another log than its own in the cluster's place: those members are others' then."""
        standing = self._standing.now
        refused = self._cache.replicator.state is LinkState.REFUSED
        return standing is not None and standing.phase is Phase.MEMBER and not refused

    async def vacate(self) -> None:
        """Before this node leaves: until it is no member of etcd, and nobody misses its vote. Whoever does not reach the log any more
        leaves without: nothing of it is to be had, and the others can remove the node. Raises Refused; then it stays a member."""
        self._vacating = True
        try:
            if await self._announce():
                await self._until_gone()
        finally:
            self._vacating = False

    async def _until_gone(self) -> None:
        end = self._clock.sample().monotonic + LEAVE_SECONDS
        while True:
            self._looked.clear()
            self._hurry.set()
            await self._looked.wait()
            if not self._has_seat:
                return
            over = self._clock.sample().monotonic >= end
            if over or (self._step.move is Move.BLOCKED and self._step.node == self._node.text):
                raise Refused(
                    f"This node cannot leave now. {self._step.reason}", hint="Then say it again; see 'keycache cluster check'."
                )
            await self._clock.sleep(BUSY_SECONDS)

    async def abandon(self) -> None:
        """This node's etcd stops, for this life of the node."""
        own = self._own
        self._own = None
        if own is not None:
            await own.stop()

    async def _announce(self) -> bool:
        end = self._clock.sample().monotonic + ANNOUNCE_SECONDS
        while True:
            try:
                await self._cache.belonging.announce_leaving(self._node)
            except KeycacheError as error:
                if self._clock.sample().monotonic >= end:
                    await self._require_lost(error)
                    return False
                await self._clock.sleep(BUSY_SECONDS)
            else:
                return True

    async def _require_lost(self, error: KeycacheError) -> None:
        """Raises Refused unless etcd is out of reach, or another cluster's: while it is well, this node's vote may be the one it needs."""
        if self._cache.replicator.state is not LinkState.REFUSED:
            try:
                await self._members.list()
            except KeycacheError:
                pass
            else:
                raise Refused(
                    f"The cluster cannot be told that this node leaves. {error}",
                    hint="See 'keycache cluster check', mend what it tells, then say it again. Nothing was changed.",
                )
        _log.warning("left without a word to the cluster", problem=str(error))

    async def _round(self) -> float:
        """Seconds until the next one."""
        reports = await self._members.survey()
        moved = await self._sit(reports)
        if self._cache.cluster.is_following():  # else these might be members of another cluster in the place of this one's
            self._follow([report.member for report in reports])
        known = self._cache.nodes.get(self._node)
        if known is not None and known.leaving and not self._vacating:  # it was cut off, or could not
            await self._cache.belonging.announce_leaving(self._node, leaving=False)
        seating = self._seating(reports)
        self._step = next_step(seating.nodes)
        self._has_seat = self._node.text in seating.members
        self._cache.cluster.seating = self._step.reason if self._step.move is Move.BLOCKED else ""
        if not self._leads(reports) or not self._cache.cluster.is_following():
            return BUSY_SECONDS if moved or self._step.move not in {Move.KEEP, Move.BLOCKED} else REST_SECONDS
        if self._step.move in {Move.KEEP, Move.WAIT, Move.BLOCKED}:
            await self._keep_up(reports)
            return BUSY_SECONDS if self._step.move is Move.WAIT else REST_SECONDS
        _log.info("etcd's members change", move=self._step.move.name, node=self._step.node, reason=self._step.reason)
        await self._carry_out(self._step, seating)
        return BUSY_SECONDS

    async def _sit(self, reports: Sequence[MemberReport]) -> bool:
        """Start this node's etcd, or clear it away, as its seat wants it. Whether something was done."""
        own = self._own
        if own is None:
            return False
        found = report_of(self._node.text, own.peer.url, reports)
        mine = None if found is None else found.member
        if own.is_useless and (mine is None or not mine.has_started):
            _log.info("this node's etcd is cleared away", reason="etcd removed its member")
            await own.clear()
        if own.is_started:
            return False
        if own.has_data:
            await own.start()
        elif mine is None:
            return False
        elif mine.has_started:
            return await self._give_up(mine, reports)
        else:
            others = [one.member for one in reports if one.member is not mine]
            await own.start([Peer(name=one.name or f"{one.id:x}", url=url) for one in others for url in one.peer_urls])
        return True

    async def _give_up(self, mine: Member, reports: Sequence[MemberReport]) -> bool:
        """The data of this node's member is gone, so it can never answer again: removed, it may begin as a learner."""
        others = [one for one in reports if not one.member.is_learner and one.member is not mine]
        live = sum(one.status is not None for one in others)
        if not mine.is_learner and live < quorum(len(others)):
            raise LogUnavailable(
                f"The data of this node's etcd is gone, and without its vote only {live} of {len(others)} voters answer.",
                hint="Start the etcd of the other nodes.",
            )
        _log.warning("the data of this node's etcd is gone", member=mine.name, hint="It begins anew as a learner.")
        await self._members.remove(mine.id, seconds=CHANGE_SECONDS)
        return True

    def _follow(self, members: Sequence[Member]) -> None:
        """Know where etcd answers: this node's own first, learners last; what was known stays in its place."""
        started = [one for one in members if one.has_started]
        own = "" if self._own is None else self._own.client.url
        ordered = sorted(started, key=lambda one: (one.is_learner, own not in one.client_urls, one.id))
        urls = tuple(url for one in ordered for url in one.client_urls)
        standing = self._standing.now
        if standing is None or standing.phase is not Phase.MEMBER or not urls:
            return
        if urls != standing.endpoints:
            self._standing.write(replace(standing, endpoints=urls))
        self._client.use(urls)
        self._members.use([url for one in ordered if not one.is_learner for url in one.client_urls])

    def _seating(self, reports: Sequence[MemberReport]) -> Seating:
        started = self._living()
        known = [
            KnownNode(
                name=node.node.text,
                peer_url=node.etcd_peer_url,
                answers=node.node.text in started,
                may_sit=bool(node.etcd_peer_url) and self._failed.get(node.node.text, self) != started.get(node.node.text),
                leaving=node.leaving,
            )
            for node in sorted(self._cache.nodes.values(), key=lambda one: one.joined_at)
        ]
        names = {node.name for node in known}
        for report in reports:
            name = report.member.name
            if name and name not in names and self._cache.find_removal(NodeId(name)) is not None:
                known.append(KnownNode(name=name, answers=False, may_sit=False, leaving=True))
        return self._watch.look(known, reports, monotonic=self._clock.sample().monotonic)

    def _living(self) -> dict[str, datetime | None]:
        """The nodes that live, by id, and since when."""
        return {one.node_id: one.started_at for one in self._cache.cluster.members() if one.alive}

    def _leads(self, reports: Sequence[MemberReport]) -> bool:
        return any(one.member.name == self._node.text and one.status is not None and one.status.leads for one in reports)

    async def _carry_out(self, step: Step, seating: Seating) -> None:
        member = seating.members.get(step.node, 0)
        if step.move is Move.ADD_LEARNER:
            await self._members.add_learner(self._cache.nodes[NodeId(step.node)].etcd_peer_url, seconds=CHANGE_SECONDS)
        elif step.move is Move.PROMOTE:
            await self._members.promote(member, seconds=CHANGE_SECONDS)
        elif step.move is Move.MOVE_LEADER:
            await self._members.move_leader(seating.members[step.to], seconds=CHANGE_SECONDS)
        else:
            if step.move is Move.REMOVE_DEAD_LEARNER:  # not again before the node was restarted
                self._failed[step.node] = self._living().get(step.node)
            await self._members.remove(member, seconds=CHANGE_SECONDS)

    async def _keep_up(self, reports: Sequence[MemberReport]) -> None:
        """Now and then: defragmentation, and the alarm taken back; if etcd is full, all that makes room."""
        full = any("NOSPACE" in problem for one in reports if one.status is not None for problem in one.status.problems)
        monotonic = self._clock.sample().monotonic
        if self._kept_up and monotonic - self._kept_up < (FULL_SECONDS if full else UPKEEP_SECONDS):
            return
        self._kept_up = monotonic
        if full:
            await self._upkeep.make_room(self._clock.now())
        else:
            await self._upkeep.step(self._clock.now())
