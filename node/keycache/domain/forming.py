"""What an administrator may ask of a node to make or enlarge a cluster, and the port behind which that stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol as Port

from keycache.domain.errors import Refused
from keycache.domain.join_token import TokenRecord
from keycache.domain.joining import Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A node is on its way into a cluster, or would be (`dry_run`). `entries`: unexpired ones that it brings along."""

    cluster: str
    checks: tuple[Check, ...]
    entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeToken:
    """`text`: secret and all."""

    text: str
    record: TokenRecord


class Forming(Port):
    """All raise Refused for what forbids it, with the next step, and leave everything as it was."""

    async def create(self, name: str, *, dry_run: bool, skip: frozenset[str]) -> Begun:
        """This node, which works alone, becomes the first of a cluster. Returns once that is written down: the node goes over then,
        and finishes whatever happens to it meanwhile."""
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
    """Raises Refused unless all passed but those to be skipped."""
    failed = [check for check in checks if not check.passed and check.name not in skip]
    if failed:
        told = " ".join(f"[{check.name}] {check.detail}" for check in failed)
        raise Refused(
            f"Nothing was changed: {told}",
            hint="Mend that and try again. What you know better can be passed over with --skip-check NAME.",
        )
