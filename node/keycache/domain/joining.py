"""What passes between a host and a node that joins, and the port behind which the host's flow stands."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol as Port

from keycache.domain.join_token import HostPort
from keycache.domain.names import ClusterIdentity, NodeId, Revision
from keycache.domain.secret import Secret
from keycache.domain.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """Who is there, before a token is used."""

    version: str
    clock: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicant:
    """What a node says of itself. `names`: for its certificate. `grpc`: where others reach it. `etcd_*`: None if it is to run none.
    `clock`: its own as it asked. `entries`: unexpired ones that it brings."""

    node: NodeId
    version: str
    names: tuple[str, ...]
    grpc: HostPort
    etcd_client: HostPort | None
    etcd_peer: HostPort | None
    clock: datetime
    entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """`csr`: PKCS#10 in PEM. `dry_run`: check everything, change nothing."""

    token_id: str
    secret: Secret
    csr: bytes
    applicant: Applicant
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Doing:
    """What the host does now, as a sentence."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """`binding`: nobody may pass over it, since keys would be lost by that."""

    name: str
    passed: bool
    detail: str
    binding: bool = False


class EtcdMode(Enum):
    """MANAGED: nodes run it themselves. EXTERNAL: somebody else does."""

    MANAGED = "MANAGED"
    EXTERNAL = "EXTERNAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """The last answer to a dry run: what the host finds, and what the joiner needs to know to make its own checks BEFORE it uses the
    token. `etcd_endpoints`: URLs. `entries`: unexpired ones of the cluster."""

    checks: tuple[Check, ...]
    settings: Settings
    etcd_mode: EtcdMode
    etcd_endpoints: tuple[str, ...]
    entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdMember:
    """`id`: hexadecimal, as etcd writes it. `name` empty: added, not started yet. Of an external etcd only `client_urls` are known."""

    id: str
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    learner: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdAccess:
    """How nodes prove themselves to an external etcd. PEM."""

    ca: bytes
    certificate: bytes
    key: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """All that makes a node one of the cluster. `ca`, `ca_key`, `certificate`: PEM. `etcd_access` None: to an etcd that nodes run by the
    node's own certificate, to an external one without TLS.
    `digest`, `revision`, `entries`: of the host's replica; the join is done when the joiner's equals it at the same revision."""

    cluster: str
    identity: ClusterIdentity
    ca: bytes
    ca_key: Secret
    certificate: bytes
    etcd_mode: EtcdMode
    etcd_members: tuple[EtcdMember, ...]
    etcd_access: EtcdAccess | None
    settings: Settings
    clock: datetime
    clock_skew_bound: timedelta
    digest: str
    revision: Revision
    entries: int


JoinProgress = Doing | DryRun | Admission


class Admitter(Port):
    """The host's side of a join. Whoever calls it has shown no certificate: nothing is to be told or done for an application before
    its token was judged (`join_token.judge`)."""

    def greet(self) -> Greeting: ...

    def admit(self, application: Application) -> AsyncGenerator[JoinProgress, None]:
        """Progress, then an Admission, or a DryRun when that was asked for.

        Closed early, or failing, it takes back what it had begun for the applicant. Raises PermissionDenied for a token that lets
        nobody in, Refused for what forbids this node, Unavailable.
        """
        ...
