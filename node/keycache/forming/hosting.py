"""The host's side of a join: whom it lets in, and what it gives them.

Whoever asks has shown no certificate. ORDER: the token is judged BEFORE anything else is told or done. What admission changes is one
transaction, so there is nothing to take back: the token is used, and the node written down as one that belongs to the cluster. An answer
that was lost is given again to the same node with the same key.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta

from keycache.cache import KeyCache
from keycache.cluster.standing import StandingFile
from keycache.domain.errors import Unavailable
from keycache.domain.forming import require
from keycache.domain.join_token import HostPort, Joiner
from keycache.domain.joining import (
    Admission,
    Admitter,
    Applicant,
    Application,
    Check,
    Doing,
    DryRun,
    EtcdMember,
    EtcdMode,
    Greeting,
    JoinProgress,
)
from keycache.domain.nodes import ClusterNode
from keycache.domain.ports import Clock
from keycache.domain.secret import Secret
from keycache.domain.spans import format_span
from keycache.domain.standing import Phase, Standing
from keycache.forming.authority import refuse_while_changing
from keycache.forming.checks import connects
from keycache.pki import LivePki
from keycache.pki.authority import requested_key_hash


class Hosting(Admitter):
    def __init__(self, *, cache: KeyCache, pki: LivePki, standing: StandingFile, version: str, clock: Clock) -> None:
        self._cache = cache
        self._pki = pki
        self._standing = standing
        self._version = version
        self._clock = clock

    def greet(self) -> Greeting:
        """As the port."""
        return Greeting(version=self._version, clock=self._clock.now())

    async def admit(self, application: Application) -> AsyncGenerator[JoinProgress, None]:
        """As the port."""
        standing = self._standing.now
        if standing is None or standing.phase is not Phase.MEMBER:
            raise Unavailable("The host is on its way into the cluster itself.", hint="Wait until it is done, then try again.")
        applicant = application.applicant
        joiner = Joiner(node=applicant.node, key=requested_key_hash(application.csr))
        await self._cache.tokens.judge(application.token_id, application.secret, joiner)
        refuse_while_changing(self._cache, self._pki)
        yield Doing("Checking this node.")
        checks = await self._checks(applicant)
        if application.dry_run:
            yield DryRun(
                checks=checks,
                settings=self._cache.settings_in_force,
                etcd_mode=_mode(standing),
                etcd_endpoints=standing.endpoints,
                entries=(await self._cache.status()).entries.unexpired,
            )
            return
        require(
            checks, frozenset(check.name for check in checks)
        )  # its own preflight has refused, or was told to pass over them
        now = self._clock.now()
        issued = self._pki.now.sign_node(application.csr, node=applicant.node, names=applicant.names, now=now)
        belongs = ClusterNode(
            node=applicant.node,
            address=str(applicant.grpc),
            joined_at=now,
            etcd_client_url="" if standing.external or applicant.etcd_client is None else f"https://{applicant.etcd_client}",
            etcd_peer_url="" if standing.external or applicant.etcd_peer is None else f"https://{applicant.etcd_peer}",
        )
        await self._cache.tokens.use(
            application.token_id, application.secret, joiner, belongs, authority=self._pki.now.authority.id
        )
        yield await self._admission(standing, issued.certificate)

    async def _checks(self, applicant: Applicant) -> tuple[Check, ...]:
        return (
            Check(
                name="version",
                passed=applicant.version.split(".")[0] == self._version.split(".")[0],
                detail=f"This node runs {applicant.version}, the host {self._version}.",
            ),
            self._clock_check(applicant),
            self._name_check(applicant),
            await _reached(applicant.grpc),
        )

    def _clock_check(self, applicant: Applicant) -> Check:
        bound = self._cache.settings_in_force.clock_skew_bound
        off_by = applicant.clock - self._clock.now()
        if abs(off_by) <= bound:
            return Check(name="clock", passed=True, detail="The clocks agree.")
        way = "ahead of" if off_by > timedelta() else "behind"
        return Check(
            name="clock",
            passed=False,
            detail=f"This node's clock is {format_span(timedelta(seconds=round(abs(off_by).total_seconds())))} {way} the host's, and "
            f"{format_span(bound)} are allowed: set the one that is wrong.",
        )

    def _name_check(self, applicant: Applicant) -> Check:
        where = str(applicant.grpc)
        others = [node for node in self._cache.nodes.values() if node.address == where and node.node != applicant.node]
        if others:
            detail = f"Another node of the cluster is at {where} ({others[0].node}): give this one another address (cluster.address)."
            return Check(name="name", passed=False, detail=detail)
        if self._cache.find_removal(applicant.node) is not None:
            return Check(
                name="name",
                passed=False,
                detail="This node was removed from the cluster under its id: begin with an empty data directory.",
            )
        return Check(name="name", passed=True, detail="Nobody else is at this address.")

    async def _admission(self, standing: Standing, certificate: bytes) -> Admission:
        status, settings = await self._cache.status(), self._cache.settings_in_force
        authority = self._pki.now.authority
        return Admission(
            cluster=standing.cluster,
            identity=standing.identity,
            ca=authority.pem,
            ca_key=Secret(authority.key.pem),
            certificate=certificate,
            etcd_mode=_mode(standing),
            etcd_members=tuple(
                EtcdMember(id="", name="", peer_urls=(), client_urls=(url,), learner=False) for url in standing.endpoints
            ),
            etcd_access=standing.access,
            settings=settings,
            clock=self._clock.now(),
            clock_skew_bound=settings.clock_skew_bound,
            digest=status.digest,
            revision=self._cache.replicator.applied,
            entries=status.entries.unexpired,
        )


def _mode(standing: Standing) -> EtcdMode:
    return EtcdMode.EXTERNAL if standing.external else EtcdMode.MANAGED


async def _reached(where: HostPort) -> Check:
    """Whether the node's port is reached from here."""
    if await connects(where.host, where.port):
        return Check(name="reachable", passed=True, detail=f"The host reaches this node at {where}.")
    return Check(
        name="reachable",
        passed=False,
        detail=f"The host does not reach this node at {where}. Set listen.grpc and cluster.address, and look at the firewall.",
    )
