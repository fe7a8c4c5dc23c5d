"""A node's certificates when it joins a cluster and when it leaves. `DIR` is its own directory (`DATA_DIR/pki`).

    DIR.joining       what the host gave, complete before anything else changes
    DIR.before-join   the node's own first authority, kept for the day it leaves
    DIR.leaving       a cluster's, about to be wiped

Every node of a cluster holds the authority's key. Any node can then let others in, certify clients and renew its own certificates, with
no special node whose loss stops it; and a key on one node only would protect nothing, since each node may read and write the whole
cache. The price is told in `domain.removal`: who takes a node's disk takes the authority. So the key travels once, over the connection
whose authority the joiner's token pins, and lies in files of mode 0600.

ORDER: whole directories change places by rename, the old one away before the new one in; a crash leaves at most a missing DIR, and
`settle`, which every start calls first, ends the exchange in the direction it had.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from keycache.domain.errors import ConfigError, PermissionDenied, Refused
from keycache.domain.names import NodeId
from keycache.pki import files
from keycache.pki.authority import Authority, request_for, requested_key_hash
from keycache.pki.identity import PrivateKey, Role, read_peer
from keycache.pki.rotation import CA, CA_KEY, authority_id


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """`csr`: PKCS#10 in PEM. `key`: SHA-256 of its public key, by which a repeated request is recognised (`domain.join_token`)."""

    csr: bytes
    key: bytes


def prepare_join(directory: Path, node: NodeId) -> JoinRequest:
    """The request for this node's certificate. Its key stays here: asked again, until the join is taken or abandoned, it is for the
    same key, so that a join cut off anywhere goes on with the same token. Raises ConfigError."""
    joining = _joining(directory)
    files.private_directory(joining)
    pem = files.read(joining / "server.key")
    if pem is None:
        pem = PrivateKey.generate().pem
        files.write_private(joining / "server.key", pem)
    csr = request_for(PrivateKey(pem), node.text)
    return JoinRequest(csr=csr, key=requested_key_hash(csr))


def accept_admission(
    directory: Path, *, node: NodeId, certificate: bytes, ca: bytes, ca_key: PrivateKey, authority: bytes, now: datetime
) -> None:
    """Keep what the host answered, checked, beside the present certificates, which stay in force.

    `ca`, `certificate`: PEM. `authority`: the hash in the token. Raises Refused when the parts do not fit together, ConfigError.
    """
    joining = _joining(directory)
    key = files.read(joining / "server.key")
    if key is None:
        raise Refused("There is no request that this could be the answer to.", hint="Begin the join anew.")
    try:
        theirs = Authority(ca, ca_key)
        own = x509.load_pem_x509_certificate(certificate)
        fits = theirs.id == authority.hex() and theirs.vouches_for(own) and PrivateKey(key).fits(own)
        peer = read_peer(certificate)
    except (ConfigError, PermissionDenied, ValueError) as error:
        raise Refused(f"The host's answer cannot be used: {error}", hint="Report this; nothing was changed here.") from error
    if not fits or (peer.role, peer.node) != (Role.NODE, node):
        raise Refused("The host's answer is not for this node's request.", hint="Report this; nothing was changed here.")
    if not theirs.not_before <= now <= theirs.not_after:
        raise Refused(
            f"The cluster's authority is valid from {theirs.not_before:%Y-%m-%d} to {theirs.not_after:%Y-%m-%d}, but this machine's "
            f"clock says {now:%Y-%m-%d %H:%M} UTC.",
            hint="Set this machine's clock, then join again.",
        )
    files.write_private(joining / CA_KEY, ca_key.pem)
    files.write_public(joining / "server.pem", certificate)
    files.write_public(joining / CA, ca)


def take_admission(directory: Path, *, authority: bytes) -> None:
    """The certificates of the cluster become this node's. `authority`: the hash in the token.

    May be repeated: a node that has them already is left as it is. Raises Refused when none were accepted, ConfigError.
    """
    settle(directory)
    joining = _joining(directory)
    if authority_id(directory / CA) == authority.hex():
        return
    if authority_id(joining / CA) != authority.hex():
        raise Refused("No host has admitted this node.", hint="Begin the join anew.")
    own = _before(directory)
    if directory.exists():
        # A node that was in a cluster before and has not left it: its own first authority is put by already.
        files.rename(directory, _leaving(directory) if own.exists() else own)
    files.rename(joining, directory)
    settle(directory)


def await_answer(directory: Path) -> None:
    """Forget what a host answered, its authority's key first of all, but not what was asked for: by the same key the same token is
    good again, while the host may have used it up for this node already. Raises ConfigError."""
    for name in (CA_KEY, "server.pem", CA):
        files.remove(_joining(directory) / name)


def abandon_join(directory: Path) -> None:
    """Forget a join that was not taken, the cluster's key first of all."""
    settle(directory)
    _wipe(_joining(directory))


def return_to_own(directory: Path) -> bool:
    """Leave: wipe the cluster's certificates and key, and go back to the node's own authority.

    False: it had none put by, for it founded the cluster; the next start makes a new one, and clients need new certificates.
    """
    abandon_join(directory)
    if directory.exists():
        files.rename(directory, _leaving(directory))
    settle(directory)
    return directory.exists()


def settle(directory: Path) -> None:
    """End what a crash cut off. Does nothing otherwise. Raises ConfigError."""
    if not directory.exists():
        joining, own = _joining(directory), _before(directory)
        put_by = own.exists() or _leaving(directory).exists()
        if put_by and files.read(joining / CA) is not None:
            files.rename(joining, directory)
        elif own.exists():
            files.rename(own, directory)
    _wipe(_leaving(directory))


def _wipe(directory: Path) -> None:
    """Keys first, so that an interrupted wipe leaves none. Overwriting would promise what journals and flash do not keep."""
    try:
        for key in sorted(directory.glob("*.key")):
            key.unlink()
        if directory.exists():
            shutil.rmtree(directory)
    except OSError as error:
        raise ConfigError(
            f"Cannot remove {directory}: {error.strerror or error}.", hint="Remove it by hand: it holds keys."
        ) from error


def _joining(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.joining")


def _before(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.before-join")


def _leaving(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.leaving")
