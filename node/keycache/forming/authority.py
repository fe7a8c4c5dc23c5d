"""The cluster's authority is changed while all nodes run: what administrators ask for, and how this node follows.

The log holds the cluster's step, each node's report of where it is, and never a key. A node follows by itself, once a second: it gets the
next authority from a node that has it, over the connection of two nodes that prove to be such; it switches; it forgets. Its own etcd
reads whom it trusts only when it starts, so it is restarted, one node after the other (`domain.rotation.is_turn`). Whoever sees first
that all are there writes the next step. Nothing is kept in memory that a crash could lose: each round begins from the disk and the log.

What undoes something is decided by the log itself, not by a replica that may lag. ORDER of a beginning: on this node's disk BEFORE in the
log, so that there is always one node to get the key from; what a crash leaves on the disk alone is withdrawn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from keycache.cache import KeyCache
from keycache.client import connect
from keycache.cluster.own_etcd import OwnEtcd
from keycache.cluster.standing import StandingFile
from keycache.domain.authority import Authorities, AuthorityNode, AuthorityStatus, Confirmation
from keycache.domain.errors import Conflict, KeycacheError, NotFound, Refused, Unavailable
from keycache.domain.log import Record
from keycache.domain.names import NodeId
from keycache.domain.ports import Clock
from keycache.domain.rotation import (
    Act,
    Advance,
    AuthorityChange,
    AuthorityReport,
    Finished,
    RotationDecision,
    Step,
    Wait,
    arrived,
    is_turn,
    own_act,
    rotation_step,
)
from keycache.domain.secret import Secret
from keycache.domain.standing import Phase
from keycache.logs import Recurring, get_logger
from keycache.pki import Authority, LivePki, PrivateKey, rotation
from keycache.v1 import cluster_pb2

_log = get_logger(__name__)

LOOK_SECONDS = 1.0

ETCD_SECONDS = 60.0
"""For this node's etcd to be healthy again after its restart; a second, on machines that are not busy."""

FETCH_SECONDS = 10.0

SEE = "See 'keycache authority show'."


class AuthorityKeeper(Authorities):
    """Of one life of a node. `name`: of the cluster, or of this machine: how its next authority is called."""

    def __init__(
        self,
        *,
        node: NodeId,
        name: str,
        cache: KeyCache,
        pki: LivePki,
        own: OwnEtcd | None,
        standing: StandingFile,
        clock: Clock,
        former_clients: Callable[[], frozenset[str]],
    ) -> None:
        """`own` None: this node runs no etcd. `former_clients`: those that came by certificates of the former authority lately."""
        self._node = node
        self._name = name
        self._cache = cache
        self._pki = pki
        self._own = own
        self._standing = standing
        self._clock = clock
        self._former_clients = former_clients
        self._turn = asyncio.Lock()
        self._restarting = False
        self._trouble = Recurring(_log, "this node cannot follow the change of the authority now")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            try:
                async with self._turn:
                    await self._round()
                self._trouble.over()
            except Conflict:
                pass  # another node was first
            except KeycacheError as error:  # there is a next round
                self._trouble.tell(error)

    # What administrators ask for

    def status(self) -> AuthorityStatus:
        """As the port."""
        change, now = current_change(self._cache, self._pki), self._pki.now
        decision = None if change is None else self._decide(change)
        reports = self._cache.authority.reports
        return AuthorityStatus(
            signing=now.authority.id,
            ends_at=now.authority.not_after,
            step=Step.SETTLED if change is None else change.step,
            change=change,
            waits=decision.reason if isinstance(decision, Wait) else "",
            nodes=tuple(
                AuthorityNode(node=node, address=self._address(node), there=change is None or _there(change, reports.get(node)))
                for node in sorted(self._nodes(), key=str)
            ),
            former_clients=frozenset() if change is None else self._all_former_clients(),
            ca=now.trusted,
        )

    def cautions(self) -> tuple[str, ...]:
        """That a change is under way, and what it waits for."""
        status = self.status()
        if status.change is None:
            return ()
        return (f"The authority is being changed, and no node joins or leaves meanwhile. {status.waits or SEE}",)

    async def begin(self, actor: str) -> AuthorityStatus:
        """As the port."""
        self._refuse_on_its_way()
        async with self._turn:
            refuse_while_changing(self._cache, self._pki)
            now = self._clock.now()
            following = rotation.new_authority(self._name, now=now)
            change = AuthorityChange(
                former=self._pki.now.authority.id,
                following=following.id,
                certificate=following.pem,
                step=Step.SPREAD,
                begun_at=now,
                begun_by=actor,
            )
            await self._on_disk(lambda: rotation.announce(self._pki.now.directory, following))
            await self._cache.authority.begin(change)
            _log.info("the authority changes", following=following.id)
        return self.status()

    async def confirm(self, what: Confirmation, actor: str) -> AuthorityStatus:
        """As the port."""
        async with self._turn:
            change, known = await self._from_log()
            wanted = Step.SPREAD if what is Confirmation.CLIENTS_TRUST else Step.SWITCHED
            if change.step is not wanted:
                raise Refused(f"The change is at the step {change.step.value}, and this belongs to {wanted.value}.", hint=SEE)
            if what is Confirmation.CLIENTS_TRUST:
                change = replace(change, clients_trust=True)
            else:
                still = self._all_former_clients()
                if still:
                    names = ", ".join(sorted(still))
                    raise Refused(
                        f"These clients came by certificates of the former authority within a day: {names}.",
                        hint="Issue them new ones with 'keycache client renew'; a call with the new one is enough.",
                    )
                change = replace(change, clients_renewed=True)
            await self._cache.authority.amend(change, known, actor, f"AUTHORITY_{what.value}")
        return self.status()

    async def withdraw(self, actor: str) -> AuthorityStatus:
        """As the port."""
        async with self._turn:
            change, known = await self._from_log()
            if change.step is not Step.SPREAD:
                raise Refused(
                    "Nodes show certificates of the next authority already.",
                    hint=f"Finish the change, then begin another. {SEE}",
                )
            await self._cache.authority.end(change, known, self._cache.authority.reports, actor, "AUTHORITY_WITHDRAW")
            await self._round()
        return self.status()

    async def hand_out(self, following: str) -> tuple[bytes, Secret]:
        """As the port."""
        async with self._pki.alone:
            found = await asyncio.to_thread(rotation.find_authority, self._pki.now.directory, following)
        if found is None:
            raise NotFound("This node does not have that authority.", hint="Ask another node.")
        return found.pem, Secret(found.key.pem)

    # How this node follows

    async def _round(self) -> None:
        standing = self._standing.now
        if (standing is not None and standing.phase is not Phase.MEMBER) or not self._cache.cluster.is_following():
            return
        now = self._pki.now
        change = current_change(self._cache, self._pki)
        if change is None:
            if now.step is not Step.SETTLED and await self._is_over():
                await self._act(own_act(None, on_disk=now.step, signing=now.authority.id), None)
            return
        await self._act(own_act(change, on_disk=now.step, signing=now.authority.id), change)
        await self._restart_etcd(change)
        report = self._pki.now.report(
            self._node,
            etcd_trusts=self._own.trusted if self._own is not None and self._own.is_started else None,
            forgetting=change.step is Step.SETTLED,
            former_clients=self._former_clients(),
        )
        await self._cache.authority.report(report, change)
        await self._advance(change)

    async def _is_over(self) -> bool:
        """Whether the log itself knows of no change that this node's disk is in the middle of."""
        now = self._pki.now
        former = now.trusted_ids - {now.authority.id} if now.step is Step.SWITCHED else {now.authority.id}
        return all([await self._cache.authority.read(one) is None for one in former])

    async def _act(self, act: Act, change: AuthorityChange | None) -> None:
        directory = self._pki.now.directory
        if act is Act.NOTHING:
            return
        if act is Act.TAKE:
            assert change is not None
            following = await self._fetch(change)
            await self._on_disk(lambda: rotation.announce(directory, following))
        else:
            acts = {Act.SWITCH: rotation.switch, Act.FORGET: rotation.forget_former, Act.WITHDRAW: rotation.withdraw}
            await self._on_disk(lambda: acts[act](directory))
        _log.info("followed the change of the authority", act=act.value, signing=self._pki.now.authority.id)

    async def _on_disk(self, change: Callable[[], None]) -> None:
        """Whatever holds certificates has heard of it when this returns."""
        async with self._pki.alone:
            await asyncio.to_thread(change)
            await self._pki.read(self._clock.now())

    async def _fetch(self, change: AuthorityChange) -> Authority:
        """From any node that lives and has it. Not by the reports: a node that has it reports so only once its etcd trusts it, too, and for
        the turn to restart that it may wait for this one. Raises Unavailable."""
        problem = "No other node lives."
        directory = self._pki.now.directory
        alive = {member.node_id for member in self._cache.cluster.members() if member.alive and not member.is_this_node}
        for node in sorted(self._nodes(), key=str):
            address = self._address(node)
            if node.text not in alive or not address:
                continue
            try:
                ca, certificate, key = (directory / name for name in (rotation.TRUSTED, "server.pem", "server.key"))
                async with connect(address, ca=ca, certificate=certificate, key=key) as other:
                    request = cluster_pb2.FetchNextAuthorityRequest(following=change.following)
                    answer = await other.call(other.cluster.FetchNextAuthority, request, timeout=FETCH_SECONDS)
                following = Authority(answer.certificate, PrivateKey(answer.key))
            except KeycacheError as error:
                problem = str(error)
                continue
            if following.id == change.following:
                return following
            problem = f"{address} answered with another one."
        raise Unavailable(
            f"The next authority cannot be had. {problem}", hint="Start a node that has it, or withdraw the change."
        )

    async def _restart_etcd(self, change: AuthorityChange) -> None:
        own, now = self._own, self._pki.now
        if own is None or not own.is_started:
            return
        if not self._restarting:
            if own.trusted == now.trusted_ids or now.step is not change.step:
                return
            reports, nodes = self._cache.authority.reports, self._cache.nodes
            seats = [node for node in nodes if nodes[node].etcd_client_url]
            if not is_turn(self._node, seats, [node for node in seats if _there(change, reports.get(node))]):
                return
            _log.info("this node's etcd is restarted, to trust whom the node trusts")
            self._restarting = True
            await own.restart()
        await own.wait_until_healthy(ETCD_SECONDS)
        self._restarting = False

    async def _advance(self, change: AuthorityChange) -> None:
        """By the log itself: whoever is second finds it done."""
        decision = self._decide(change)
        if isinstance(decision, Wait):
            return
        found = await self._cache.authority.read(change.former)
        if found is None or found[0] != change:
            return
        actor = f"node {self._node}"
        if isinstance(decision, Advance):
            await self._cache.authority.amend(
                replace(change, step=decision.step), found[1], actor, f"AUTHORITY_{decision.step.value}"
            )
        elif isinstance(decision, Finished):
            await self._cache.authority.end(change, found[1], self._cache.authority.reports, actor, "AUTHORITY_END")
            _log.info("the authority is changed", signing=change.following)

    def _decide(self, change: AuthorityChange) -> RotationDecision:
        return rotation_step(
            step=change.step,
            former=change.former,
            following=change.following,
            nodes=self._nodes(),
            reports=[report for node, report in self._cache.authority.reports.items() if node in self._nodes()],
            clients_know=change.clients_trust,
            clients_renewed=change.clients_renewed,
            clients_of_former=self._all_former_clients(),
        )

    def _all_former_clients(self) -> frozenset[str]:
        """By this node's knowledge, and by what the others reported."""
        others = (report.former_clients for node, report in self._cache.authority.reports.items() if node != self._node)
        return self._former_clients().union(*others)

    def _nodes(self) -> frozenset[NodeId]:
        """Who has this authority: the nodes of the cluster; a node that is in none, or that was given an etcd, has its own."""
        return frozenset({self._node}) if self._standing.now is None else frozenset({self._node, *self._cache.nodes})

    def _address(self, node: NodeId) -> str:
        known = self._cache.nodes.get(node)
        return self._cache.cluster.address if node == self._node else "" if known is None else known.address

    async def _from_log(self) -> tuple[AuthorityChange, Record]:
        change = current_change(self._cache, self._pki)
        found = None if change is None else await self._cache.authority.read(change.former)
        if found is None:
            raise Refused("No change of the authority is under way.", hint="Begin one with 'keycache authority begin'.")
        return found

    def _refuse_on_its_way(self) -> None:
        standing = self._standing.now
        if standing is not None and standing.phase is not Phase.MEMBER:
            raise Refused("This node is on its way into a cluster, or out of one.", hint="Wait until it is there.")


def _there(change: AuthorityChange, report: AuthorityReport | None) -> bool:
    return arrived(report, step=change.step, former=change.former, following=change.following)


def current_change(cache: KeyCache, pki: LivePki) -> AuthorityChange | None:
    """The change of this node's own authority, as replicated here."""
    now = pki.now
    mine = now.trusted_ids if now.step is Step.SWITCHED else {now.authority.id}
    changes = cache.authority.changes.values()
    return next((one for one in changes if one.former in mine or one.following == now.authority.id), None)


def refuse_while_changing(cache: KeyCache, pki: LivePki) -> None:
    """Nobody joins or leaves meanwhile: who comes would know one authority only. Raises Refused."""
    if current_change(cache, pki) is not None or pki.now.step is not Step.SETTLED:
        raise Refused(
            "The authority is being changed, and until that is done no node joins or leaves.",
            hint="See 'keycache authority show'; finish it or withdraw it, then try again with a new token.",
        )
