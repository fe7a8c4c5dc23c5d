"""The node's own public key infrastructure (DESIGN 4): an authority, the node's certificate, and clients with roles.

Rules:
1. The authority is made once, at the first start, and never replaced by itself: a lost or foreign file is reported, not made anew.
2. Every other certificate can be made again from it; so the node's and the administrator's are renewed at start, silently.
3. A private key is on disk before the certificate that names it, each file written whole or not at all: a first start that
   was interrupted anywhere is finished by the next one.
4. Of a signing request only the public key is taken. Name, role and purposes are ours.
5. A client's role stands in its certificate as the URI `urn:keycache:role:ROLE`, exactly once; nothing else gives a role.
6. A node of a cluster has one certificate for everything it does, and it says which node it is (`urn:keycache:node:ID`): the log names
   those that were removed. Every node holds the cluster's authority and its key (`joining`).
"""

from keycache.pki.authority import Authority, Issued, new_request
from keycache.pki.files import write_private, write_public
from keycache.pki.identity import Identity, Peer, PrivateKey, Role, read_peer
from keycache.pki.live import LivePki
from keycache.pki.node import NodePki, machine_names, open_pki

__all__ = [
    "Authority",
    "Identity",
    "Issued",
    "LivePki",
    "NodePki",
    "Peer",
    "PrivateKey",
    "Role",
    "machine_names",
    "new_request",
    "open_pki",
    "read_peer",
    "write_private",
    "write_public",
]
