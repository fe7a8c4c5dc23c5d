"""What an administrator asks of a node: begin a cluster, enter one, let others in.

Each looks first, with named checks, and changes nothing if one fails. What it then changes is one file (`cluster.standing`); the node
goes over to what that says by building its inside anew, and `adopting` does the rest, now or after any crash.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from keycache.cache import KeyCache
from keycache.client.joining import JoinConnection, join_connection
from keycache.cluster.external_etcd import check_endpoints, check_form
from keycache.cluster.own_etcd import host_port, put_away
from keycache.cluster.standing import StandingFile
from keycache.domain.errors import KeycacheError, NotFound, PermissionDenied, Refused
from keycache.domain.forming import Begun, ExternalEtcd, Forming, MadeToken, require
from keycache.domain.join_token import HostPort, JoinToken
from keycache.domain.joining import Admission, Applicant, Application, Check, DryRun, EtcdMode
from keycache.domain.names import ClusterIdentity, NodeId
from keycache.domain.ports import Clock
from keycache.domain.retention import expires_at, lasting
from keycache.domain.standing import Phase, Standing
from keycache.etcd.keys import KeySpace
from keycache.forming.authority import refuse_while_changing
from keycache.forming.checks import checked, free_ports, installed, passes, reached, room, same, unused
from keycache.forming.recovering import recovered, refuse_to_recover
from keycache.forming.seating import SeatKeeper
from keycache.pki import LivePki
from keycache.pki.bootstrap import find_host
from keycache.pki.identity import PrivateKey
from keycache.pki.joining import abandon_join, accept_admission, await_answer, prepare_join

SAME_TOKEN_HINT = "This node works alone as before. Then say the same again: the token may be used up, but not for this node."  # noqa: S105

Answer = TypeVar("Answer", DryRun, Admission)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a node is. `names`: for its certificate. `etcd_client`, `etcd_peer`: host:port for an etcd of its own. `configured`: its
    configuration names an etcd. `join`: where others reach its port for joins; None: it has none open. `listen_join`: what that port is to
    be bound to (host:port); empty: it is off."""

    data_dir: Path
    node: NodeId
    version: str
    names: tuple[str, ...]
    grpc: HostPort
    etcd_client: str
    etcd_peer: str
    configured: bool
    join: HostPort | None
    listen_join: str


class FormingDesk(Forming):
    def __init__(
        self,
        *,
        place: Callable[[], Place],
        standing: StandingFile,
        cache: KeyCache,
        pki: LivePki,
        clock: Clock,
        turn: Callable[[], None],
        seats: SeatKeeper | None,
    ) -> None:
        """`place`: known once the ports are open. `turn`: called when the node is to go over to what its standing says now. `seats`:
        of the etcd that nodes run; None: this one is in no such cluster."""
        self._place = place
        self._standing = standing
        self._cache = cache
        self._pki = pki
        self._clock = clock
        self._turn = turn
        self._seats = seats
        self._alone = asyncio.Lock()

    async def create(self, name: str, *, etcd: ExternalEtcd | None, dry_run: bool, skip: frozenset[str]) -> Begun:
        """As the port."""
        place, standing = self._place(), self._standing.now
        if etcd is not None:
            check_form(etcd)
        async with self._alone:
            if standing is not None and standing.cluster == name and standing.phase is not Phase.LEAVING:
                if standing.external and etcd is not None:
                    return await self._reach_anew(standing, etcd, dry_run=dry_run, skip=skip)
                if standing.founded and standing.phase is Phase.ADOPTING:
                    return await self._begun(name, ())  # begun before, and going on
            self._refuse_member(place)
            refuse_while_changing(self._cache, self._pki)
            KeySpace(name)
            client, peer = host_port(place.etcd_client), host_port(place.etcd_peer)
            checks = (
                *(
                    (
                        await checked("etcd", installed()),
                        await checked("ports", free_ports(place.listen_join, client, peer)),
                        await checked("disk", room(place.data_dir, runs_etcd=True)),
                    )
                    if etcd is None
                    else (
                        await checked("etcd", check_endpoints(etcd)),
                        await checked("cluster", unused(etcd, name), binding=True),
                        await checked("ports", free_ports(place.listen_join)),
                    )
                ),
                await checked("settings", passes(lambda: self._cache.settings_in_force, "The settings in force are known.")),
            )
            require(checks, skip)
            begun = await self._begun(name, checks)
            if not dry_run:
                await asyncio.to_thread(put_away, place.data_dir)
                self._go(
                    Standing(
                        cluster=name,
                        identity=ClusterIdentity(secrets.token_hex(16)),
                        phase=Phase.ADOPTING,
                        endpoints=(client.url,) if etcd is None else etcd.endpoints,
                        etcd_client=place.etcd_client if etcd is None else "",
                        etcd_peer=place.etcd_peer if etcd is None else "",
                        founded=True,
                        external=etcd is not None,
                        access=None if etcd is None else etcd.access,
                    ),
                )
            return begun

    async def _reach_anew(self, standing: Standing, etcd: ExternalEtcd, *, dry_run: bool, skip: frozenset[str]) -> Begun:
        """Other endpoints or certificates for the same cluster. Said again as it was, it changes nothing."""
        changed = replace(standing, endpoints=etcd.endpoints, access=etcd.access)
        if changed == standing:
            return await self._begun(standing.cluster, ())
        founding = standing.founded and standing.phase is Phase.ADOPTING
        checks = (
            await checked("etcd", check_endpoints(etcd)),
            await checked("cluster", same(etcd, standing.cluster, standing.identity, founding=founding), binding=True),
        )
        require(checks, skip)
        begun = await self._begun(standing.cluster, checks)
        if not dry_run:
            self._go(changed)
        return begun

    async def join(self, token: str, *, dry_run: bool, skip: frozenset[str], discard: bool) -> Begun:
        """As the port."""
        parsed, place, standing = JoinToken.parse(token), self._place(), self._standing.now
        async with self._alone:
            if standing is not None and standing.phase is Phase.ADOPTING and standing.authority == parsed.authority.hex():
                return await self._begun(standing.cluster, ())  # begun before, and going on
            self._refuse_member(place)
            refuse_while_changing(self._cache, self._pki)
            etcd = await checked("etcd", installed())
            host = await find_host(parsed, now=self._clock.now())
            pki = place.data_dir / "pki"
            request = prepare_join(pki, place.node)
            begun = await self._begun("", ())

            def application(*, dry: bool) -> Application:
                applicant = Applicant(
                    node=place.node,
                    version=place.version,
                    names=place.names,
                    grpc=place.grpc,
                    etcd_client=HostPort.parse(place.etcd_client) if etcd.passed else None,
                    etcd_peer=HostPort.parse(place.etcd_peer) if etcd.passed else None,
                    clock=self._clock.now(),
                    entries=begun.entries,
                )
                return Application(token_id=parsed.id, secret=parsed.secret, csr=request.csr, applicant=applicant, dry_run=dry)

            asked = False
            try:
                async with join_connection(host.endpoint, host.ca) as connection:
                    report = await _last(connection, application(dry=True), DryRun)
                    own = await self._own_checks(place, report, etcd, entries=begun.entries, discard=discard)
                    begun = replace(begun, checks=(*own, *report.checks))
                    require(begun.checks, skip)
                    if dry_run:
                        abandon_join(pki)
                        return begun
                    asked = True
                    admission = await _last(connection, application(dry=False), Admission)
                accept_admission(
                    pki,
                    node=place.node,
                    certificate=admission.certificate,
                    ca=admission.ca,
                    ca_key=PrivateKey(admission.ca_key.reveal()),
                    authority=parsed.authority,
                    now=self._clock.now(),
                )
                await asyncio.to_thread(put_away, place.data_dir)
                runs_etcd = etcd.passed and admission.etcd_mode is EtcdMode.MANAGED
                self._go(
                    Standing(
                        cluster=admission.cluster,
                        identity=admission.identity,
                        phase=Phase.ADOPTING,
                        endpoints=tuple(url for member in admission.etcd_members for url in member.client_urls),
                        etcd_client=place.etcd_client if runs_etcd else "",
                        etcd_peer=place.etcd_peer if runs_etcd else "",
                        authority=parsed.authority.hex(),
                        external=admission.etcd_mode is EtcdMode.EXTERNAL,
                        access=admission.etcd_access,
                        discard=discard,
                    ),
                )
            except BaseException as error:
                if not asked:
                    abandon_join(pki)
                    raise
                await_answer(pki)
                if isinstance(error, KeycacheError) and not isinstance(error, PermissionDenied):
                    error.hint = f"{error.hint} {SAME_TOKEN_HINT}".strip()
                raise
            return replace(begun, cluster=admission.cluster)

    async def make_token(self, ttl: timedelta, actor: str) -> MadeToken:
        """As the port."""
        place = self._place()
        if self._standing.now is None or self._standing.now.phase is not Phase.MEMBER:
            raise Refused(
                "This node belongs to no cluster that others could join.",
                hint="Begin one with 'keycache cluster create --name NAME'; if it was begun, wait until it is done.",
            )
        refuse_while_changing(self._cache, self._pki)
        if place.join is None:
            raise Refused(
                'Nodes cannot join here: listen.join is "off".', hint="Set it to an address that they reach, and restart."
            )
        token, record = await self._cache.tokens.make(
            endpoints=(place.join,), authority=bytes.fromhex(self._pki.now.authority.id), ttl=ttl, actor=actor
        )
        return MadeToken(text=token.reveal(), record=record)

    async def leave(self, *, dry_run: bool) -> Begun:
        """As the port."""
        place = self._place()
        async with self._alone:
            standing = self._standing.now
            if standing is None:
                raise Refused("This node works alone.", hint="There is no cluster to leave.")
            begun = await self._begun(standing.cluster, ())
            if standing.phase is Phase.LEAVING:
                return begun  # begun before, and going on
            refuse_while_changing(self._cache, self._pki)
            others = [node for node in self._cache.nodes if node != place.node]
            if not dry_run:
                if others and self._seats is not None and standing.phase is Phase.MEMBER:
                    await self._seats.vacate()
                standing = self._standing.now or standing  # where etcd is may have changed meanwhile
                # A cluster that goes on without the node that began it is not that node's own any more, and neither is its authority.
                self._go(
                    replace(
                        standing,
                        phase=Phase.LEAVING,
                        founded=standing.founded and not others,
                        authority=self._pki.now.authority.id,
                    )
                )
            return begun

    async def recover(self, *, dry_run: bool, skip: frozenset[str]) -> Begun:
        """As the port. ORDER: the old etcd's data is put by BEFORE the standing names a new one, which is founded where there is none."""
        place = self._place()
        async with self._alone:
            standing = self._standing.now
            if standing is not None and standing.phase is Phase.ADOPTING and standing.founded:
                return await self._begun(standing.cluster, ())  # begun before, and going on
            standing = await refuse_to_recover(standing, self._cache, self._clock)
            checks = (
                await checked("etcd", installed()),
                await checked("disk", room(place.data_dir, runs_etcd=True)),
                await checked("settings", passes(lambda: self._cache.settings_in_force, "The settings in force are known.")),
            )
            require(checks, skip)
            begun = await self._begun(standing.cluster, checks)
            if not dry_run:
                if self._seats is not None:
                    await self._seats.abandon()
                await asyncio.to_thread(put_away, place.data_dir)
                self._go(recovered(standing))
            return begun

    async def remove(self, node: str, actor: str) -> str:
        """As the port."""
        if self._standing.now is None:
            raise Refused("This node works alone.", hint="There is no cluster to remove a node from.")
        found = [one for one in self._cache.nodes.values() if node and (one.node.text.startswith(node) or one.address == node)]
        if len(found) != 1:
            raise NotFound(
                f"{node[:80]!r} names {len(found)} nodes of the cluster.",
                hint="See the ids in 'keycache cluster members --json'.",
            )
        chosen = found[0]
        if any(member.alive and member.node_id == chosen.node.text for member in self._cache.cluster.members()):
            raise Refused(
                f"Node {chosen.node} lives.", hint="Run 'keycache cluster leave' there, or stop it and wait 15 seconds."
            )
        await self._cache.belonging.dismiss(chosen.node, actor)
        return chosen.node.text

    def _refuse_member(self, place: Place) -> None:
        if self._standing.now is not None:
            raise Refused(
                f"This node belongs to cluster {self._standing.now.cluster} already.", hint="See 'keycache cluster members'."
            )
        if place.configured:
            raise Refused(
                "This node's configuration names an etcd (cluster.endpoints), so it is in a cluster by that.",
                hint="To begin one with an etcd of its own, take cluster.endpoints out and restart the node.",
            )

    async def _begun(self, name: str, checks: tuple[Check, ...]) -> Begun:
        status = await self._cache.status()
        return Begun(cluster=name, checks=checks, entries=status.entries.unexpired)

    async def _own_checks(self, place: Place, report: DryRun, etcd: Check, *, entries: int, discard: bool) -> tuple[Check, ...]:
        """What a node that joins looks at itself. `etcd`: whether there is one for it to run; whoever passes over that takes no part in
        the cluster's."""
        managed = report.etcd_mode is EtcdMode.MANAGED
        runs_etcd = managed and etcd.passed
        places = (host_port(place.etcd_client), host_port(place.etcd_peer)) if runs_etcd else ()
        return (
            *((etcd,) if managed else ()),
            await checked("ports", free_ports(place.listen_join, *places)),
            await checked("disk", room(place.data_dir, runs_etcd=runs_etcd, entries=report.entries)),
            await checked("etcd-reachable", reached(report.etcd_endpoints)),
            *(() if discard else (await checked("timeouts", self._none_expires(report, entries), binding=True),)),
        )

    async def _none_expires(self, report: DryRun, entries: int) -> str:
        """BEFORE the token is used: entries that live by this node's timeouts and would not by the cluster's. Raises Refused. Timeouts that
        are changed between this and the end are looked at by the merge itself (`cache.resolving`)."""
        theirs, ours, now = report.settings.timeouts, self._cache.settings_in_force.timeouts, self._clock.now()
        expired = await asyncio.to_thread(lambda: self._cache.expired_under(theirs, now))
        lost = sum(expires_at(lasting(one.sightings, ours), ours) > now for one in expired)
        if lost:
            raise Refused(
                f"{lost} keys of this node are unexpired by its own timeouts, and would be expired by those of the cluster.",
                hint="Raise the cluster's timeouts first ('keycache settings set' there), or say --discard-local.",
            )
        return f"None of the {entries} entries of this node expires by the cluster's timeouts."

    def _go(self, standing: Standing) -> None:
        """ORDER: written BEFORE anything else happens; what follows can be begun anew from it at any time."""
        self._standing.write(standing)
        self._turn()


async def _last(connection: JoinConnection, application: Application, kind: type[Answer]) -> Answer:
    """The answer of that kind, which ends the stream. Raises KeycacheError."""
    async for progress in connection.join(application):
        if isinstance(progress, kind):
            return progress
    raise Refused("The host broke off the join.", hint="See its log, then try again with the same token.")
