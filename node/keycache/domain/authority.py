"""What an administrator may ask about the authority that certifies nodes and clients, and the port behind which that stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol as Port

from keycache.domain.names import NodeId
from keycache.domain.rotation import AuthorityChange, Step
from keycache.domain.secret import Secret


class Confirmation(Enum):
    """CLIENTS_TRUST: every client has the new CA file. CLIENTS_RENEWED: every client has a certificate of the next authority."""

    CLIENTS_TRUST = "CLIENTS_TRUST"
    CLIENTS_RENEWED = "CLIENTS_RENEWED"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityNode:
    """`there`: whether it is where the change is."""

    node: NodeId
    address: str
    there: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityStatus:
    """`signing`: id of the authority that signs; `ends_at`: its end. `step`: of the change, or SETTLED. `waits`: for what, as a sentence.
    `ca`: PEM of all that are trusted now, for clients."""

    signing: str
    ends_at: datetime
    step: Step
    change: AuthorityChange | None
    waits: str
    nodes: tuple[AuthorityNode, ...]
    former_clients: frozenset[str]
    ca: bytes


class Authorities(Port):
    """All raise Refused for what forbids it, LogUnavailable, Conflict, and then nothing was changed that is not cleared away again."""

    def status(self) -> AuthorityStatus: ...

    async def begin(self, actor: str) -> AuthorityStatus:
        """A next authority is made, and every node comes to trust it."""
        ...

    async def confirm(self, what: Confirmation, actor: str) -> AuthorityStatus: ...

    async def withdraw(self, actor: str) -> AuthorityStatus:
        """While nobody shows a certificate of the next authority."""
        ...

    async def hand_out(self, following: str) -> tuple[bytes, Secret]:
        """Certificate and key of the authority `following`, in PEM, to another node. Raises NotFound."""
        ...
