"""`DATA_DIR/cluster.json`: how this node belongs to a cluster. Replaced as a whole, durably: the one atomic step of joining.

Mode 0600: it also holds what the node shows to an etcd that others run, so that endpoints and certificates never stand there half
exchanged.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keycache.domain.errors import ConfigError
from keycache.domain.joining import EtcdAccess
from keycache.domain.names import ClusterIdentity
from keycache.domain.secret import Secret
from keycache.domain.standing import Phase, Standing
from keycache.pki.files import read, remove, write_private

FILE = "cluster.json"


class StandingFile:
    """`now`: None: the node works alone."""

    def __init__(self, data_dir: Path) -> None:
        """Raises ConfigError for a file that cannot be read: nothing is to be assumed then."""
        self._path = data_dir / FILE
        self.now = _read(self._path)

    def write(self, standing: Standing) -> None:
        """Durable when this returns. Raises ConfigError."""
        content = {
            "cluster": standing.cluster,
            "identity": standing.identity.text,
            "phase": standing.phase.value,
            "endpoints": list(standing.endpoints),
            "etcd_client": standing.etcd_client,
            "etcd_peer": standing.etcd_peer,
            "authority": standing.authority,
            "founded": standing.founded,
            "external": standing.external,
            "access": None if standing.access is None else _access_out(standing.access),
            "discard": standing.discard,
        }
        write_private(self._path, json.dumps(content, indent=1).encode() + b"\n")
        self.now = standing

    def forget(self) -> None:
        """The node works alone. Durable when this returns. Raises ConfigError."""
        remove(self._path)
        self.now = None


def _read(path: Path) -> Standing | None:
    content = read(path)
    if content is None:
        return None
    try:
        said = json.loads(content)
        return Standing(
            cluster=str(said["cluster"]),
            identity=ClusterIdentity(str(said["identity"])),
            phase=Phase(said["phase"]),
            endpoints=tuple(str(one) for one in said["endpoints"]),
            etcd_client=str(said["etcd_client"]),
            etcd_peer=str(said["etcd_peer"]),
            authority=str(said["authority"]),
            founded=bool(said["founded"]),
            external=bool(said["external"]),
            access=None if said["access"] is None else _access_in(said["access"]),
            discard=bool(said["discard"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is damaged, so it is not known which cluster this node belongs to.",
            hint="Restore it from a backup. Without it the node would work alone, with the entries that it has.",
        ) from error


def _access_out(access: EtcdAccess) -> dict[str, str]:
    return {"ca": access.ca.decode(), "certificate": access.certificate.decode(), "key": access.key.reveal().decode()}


def _access_in(said: dict[str, Any]) -> EtcdAccess:
    ca, certificate, key = (str(said[name]).encode() for name in ("ca", "certificate", "key"))
    return EtcdAccess(ca=ca, certificate=certificate, key=Secret(key))
