"""Who calls, and what they may. The TLS handshake has turned strangers away before anything here is asked, except on the port for nodes
that join (`join`): who shows no certificate has no role there, and may call what ALLOWED lists for NO_CERTIFICATE.

1. A role comes from the client's certificate alone, which our own authority signed (`pki`).
2. What is not in ALLOWED may be called by nobody. A test holds the table and the services together.
3. That a certificate has run out is noticed at the handshake; a connection is renewed every hour (`server`), so it is noticed
   within that time on connections that stay open, too.
4. A node's certificate counts as long as the log does not name the node as removed (`domain.removal`). That is asked at every call.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import grpc

from keycache.domain.errors import PermissionDenied
from keycache.domain.removal import FindRemoval, none_removed, refuse_removed
from keycache.pki import Peer, Role, read_peer
from keycache.pki.identity import ROLE_URI

ANYBODY = frozenset(Role)
"""Whoever holds a certificate of this node's authority."""
NO_CERTIFICATE = None
"""In place of a role, which it is not: no certificate can carry it."""
_NOT_ISSUED = (NO_CERTIFICATE, Role.NODE)
"""Not to be had by asking for a certificate."""
_JOINERS = frozenset({NO_CERTIFICATE})
_PROCESSORS = frozenset({Role.MAIL_PROCESSOR, Role.ADMIN})
_ADMINS = frozenset({Role.ADMIN})

_CACHE = "/keycache.v1.KeyCache/"
_ADMIN = "/keycache.v1.Admin/"
_CLUSTER = "/keycache.v1.Cluster/"
_HEALTH = "/grpc.health.v1.Health/"
_JOIN = "/keycache.v1.Join/"

_CLUSTER_ACTS = (
    *("ListMembers", "Check", "Resolve"),
    *("Create", "JoinCluster", "LeaveCluster", "RecoverCluster", "RemoveNode", "CreateToken", "ListTokens", "RevokeToken"),
    *("GetAuthority", "BeginAuthorityChange", "ConfirmAuthorityChange", "WithdrawAuthorityChange"),
)

ALLOWED: Mapping[str, frozenset[Role | None]] = {
    **{
        _CACHE + rpc: _PROCESSORS
        for rpc in (
            "Lookup",
            "BatchLookup",
            "Harvest",
            "Explain",
            "Put",
            "Watch",
        )
    },
    **{
        _ADMIN + rpc: _ADMINS
        for rpc in (
            "ListEntries",
            "GetEntry",
            "DeleteEntry",
            "Purge",
            "Block",
            "Unblock",
            "ListBlocks",
            "GetSettings",
            "SetSettings",
            "ListSettingChanges",
            "ListIssuers",
            "DecideIssuer",
            "Import",
            "Export",
            "Backup",
            "Restore",
            "ListAudit",
            "ListVerdicts",
            "IssueClient",
        )
    },
    # A node that joined compares what it holds with what the others do.
    _ADMIN + "GetStatus": _ADMINS | {Role.NODE},
    **{_CLUSTER + rpc: _ADMINS for rpc in _CLUSTER_ACTS},
    _CLUSTER + "FetchNextAuthority": frozenset({Role.NODE}),
    **{_JOIN + rpc: _JOINERS for rpc in ("Ping", "Join")},
    _HEALTH + "Check": ANYBODY,
    _HEALTH + "List": ANYBODY,
    _HEALTH + "Watch": ANYBODY,
    # Served by the reflection library itself; it tells nothing but the protocol's description.
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": ANYBODY,
}

_BY_IDENTITY: Mapping[bytes, Role] = {f"{ROLE_URI}{role.value}".encode(): role for role in Role if role is not Role.NODE}
"""Not of nodes: there it matters which one it is."""

_CERTIFICATE_HINT = "Call the node's listen.grpc with a certificate: keycache client issue ..."

Context = grpc.aio.ServicerContext[Any, Any]


class Caller:
    """Who makes one call. The name costs more to find out than the role, so it is looked up when asked for."""

    __slots__ = ("_context", "role")

    def __init__(self, role: Role | None, context: Context) -> None:
        self.role = role
        self._context = context

    @property
    def name(self) -> str:
        """As in the certificate: what the audit log calls them."""
        return peer_of(self._context).name


def authorize(rpc: str, allowed: frozenset[Role | None], context: Context, find: FindRemoval = none_removed) -> Caller:
    """The caller, if they may call `rpc`. `find`: of removed nodes. Raises PermissionDenied.

    gRPC gives a peer's subject alternative names in 3 microseconds, and its whole certificate in 12. Our authority writes
    exactly one such name into a client's certificate, so the first is enough to know the role; anything else is looked at closely.
    """
    identities = tuple(context.peer_identities() or ())
    role = _BY_IDENTITY.get(identities[0]) if len(identities) == 1 else None
    if role is None and context.auth_context().get("x509_pem_cert"):
        peer = peer_of(context)
        role = peer.role
        if role is Role.NODE:
            refuse_removed(peer.node, find)
    if role not in allowed:
        name, may = rpc.rpartition("/")[2], sorted(one.value for one in allowed if one not in _NOT_ISSUED)
        if role is None:
            raise PermissionDenied(f"{name} needs a client certificate, and this connection has none.", hint=_CERTIFICATE_HINT)
        if not may:
            whom = "nodes of the cluster" if Role.NODE in allowed else "nodes that join, and have no certificate yet"
            raise PermissionDenied(f"{name} is for {whom}.")
        raise PermissionDenied(
            f"{name} needs the role {' or '.join(may)}, but your certificate has the role {role.value}.",
            hint=f"Use a certificate of that role: keycache client issue --role {may[0]} ...",
        )
    return Caller(role, context)


def peer_of(context: Context) -> Peer:
    """Who calls, by their whole certificate. Raises PermissionDenied for a connection without one."""
    certificates = tuple(context.auth_context().get("x509_pem_cert", ()))
    if len(certificates) != 1:
        raise PermissionDenied("This connection has no client certificate.")
    return _known_peer(certificates[0])


_known_peer = lru_cache(maxsize=1024)(read_peer)
"""By the whole certificate, so a name can never come from another one."""
