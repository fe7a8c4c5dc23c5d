"""What an administrator may ask of a node to make or enlarge a cluster, and the port behind which that stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol as Port

from keycache.domain.errors import InvalidInput, Refused
from keycache.domain.join_token import TokenRecord
from keycache.domain.joining import Check, EtcdAccess


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A node is on its way into a cluster, or would be (`dry_run`). `entries`: unexpired ones that it brings along."""

    cluster: str
    checks: tuple[Check, ...]
    entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalEtcd:
    """An etcd that somebody else runs. `endpoints`: URLs. `access` None: without TLS. Raises InvalidInput when
    these do not fit together."""

    endpoints: tuple[str, ...]
    access: EtcdAccess | None

    def __post_init__(self) -> None:
        schemes = {endpoint.partition(":")[0] for endpoint in self.endpoints}
        if len(schemes) > 1:
            raise InvalidInput("Some endpoints of etcd are http and some https.", hint="Write all of them alike.")
        if "https" in schemes and self.access is None:
            raise InvalidInput(
                "etcd is reached by https, and it is not said what its certificates end in.", hint="Say --etcd-ca FILE."
            )
        if "https" not in schemes and self.access is not None:
            raise InvalidInput(
                "Certificates are for an etcd that is reached by https.",
                hint="Write https, or leave --etcd-ca and the like out.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a node that joined holds, beside what another one holds, before it is healthy. `address`: of the other; empty: none
    answered. `revision`: at which both were; `digest`, `entries` here and there."""

    address: str
    revision: int = 0
    digest: str = ""
    their_digest: str = ""
    entries: int = 0
    their_entries: int = 0

    @property
    def is_equal(self) -> bool:
        return bool(self.digest) and self.digest == self.their_digest

    @property
    def sentence(self) -> str:
        if not self.address:
            return "No other node of the cluster answered, so what is here was compared with nothing."
        if self.is_equal:
            return f"The same as on {self.address} at revision {self.revision}."
        return (
            f"At revision {self.revision} this node holds {self.entries} unexpired entries with digest {self.digest}, and {self.address} "
            f"{self.their_entries} with digest {self.their_digest}: they differ."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeToken:
    """`text`: secret and all."""

    text: str
    record: TokenRecord


class Forming(Port):
    """All raise Refused for what forbids it, with the next step, and leave everything as it was."""

    async def create(self, name: str, *, etcd: ExternalEtcd | None, dry_run: bool, skip: frozenset[str]) -> Begun:
        """This node, which works alone, becomes the first of a cluster. `etcd` None: the node runs one. Returns once that is written
        down: the node goes over then, and finishes whatever happens to it meanwhile. On a node of that cluster, with an etcd of
        others: it is reached in this way from now on."""
        ...

    async def join(self, token: str, *, dry_run: bool, skip: frozenset[str], discard: bool) -> Begun:
        """As `create`, into the cluster that made the token. `discard`: forget this node's own entries."""
        ...

    async def leave(self, *, dry_run: bool) -> Begun:
        """This node works alone again, with every entry. As `create`."""
        ...

    async def recover(self, *, dry_run: bool, skip: frozenset[str]) -> Begun:
        """The cluster's etcd is lost for good: this node begins it anew with what it holds. As `create`."""
        ...

    async def remove(self, node: str, actor: str) -> str:
        """A node that does not live belongs to the cluster no more. `node`: its id, or how that begins, or its address. The id."""
        ...

    async def make_token(self, ttl: timedelta, actor: str) -> MadeToken: ...


def require(checks: Sequence[Check], skip: frozenset[str]) -> None:
    """Raises Refused unless all passed but those to be skipped, of which binding ones are none."""
    failed = [check for check in checks if not check.passed and (check.binding or check.name not in skip)]
    if failed:
        told = " ".join(f"[{check.name}] {check.detail}" for check in failed)
        waivable = (
            "" if any(check.binding for check in failed) else " What you know better can be passed over with --skip-check NAME."
        )
        raise Refused(f"Nothing was changed: {told}", hint=f"Mend that and try again.{waivable}")
