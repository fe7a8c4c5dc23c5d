"""How one member of etcd is started: the values, and the command line made of them. PURE.

1. The command line alone decides: etcd also reads ETCD_* from its environment (ETCD_FORCE_NEW_CLUSTER among them), so it gets none.
2. Only flags that 3.4, 3.5 and 3.6 have in common, none of them experimental.
3. Both ports speak TLS and ask for a certificate. An authority that also certifies clients of another kind must not be enough:
   `allowed_name` is a name that only the nodes' certificates carry.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keycache.domain.errors import ConfigError

HEARTBEAT_MS = 100
ELECTION_MS = 1_000
"""etcd's defaults, for members up to some 10 ms apart; a tenth is what its tuning guide asks for. Between continents: 300 and 3000."""

QUOTA_BYTES = 2 * 1024**3
"""etcd's own default (--quota-backend-bytes); 8 GiB is the most that it advises."""

COMPACTION = "1h"
"""History kept (periodic): a replica that was away longer lists anew."""


@dataclass(frozen=True, slots=True)
class HostPort:
    """Where a member is reached: a host name or an IP address (without brackets), and a port."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"https://{self}"

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address: etcd listens on those alone."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPaths:
    """PEM files of one side. The peers' certificate serves both as server and as client (extended key usages), and must name the
    address or host name from which its member connects: etcd compares them."""

    certificate: Path
    key: Path
    ca: Path
    allowed_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One member as `initial_cluster` names it."""

    name: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSpec:
    """One member.

    `client`, `peer`: as others reach it. `listen_host`: the IP address to listen on, empty for that of `client` and `peer`.
    `initial_cluster`: all members of now, itself included; `is_new`: they are founded together, else this one was added to them.
    Both count for an empty data directory only. `token`: sets foreign clusters apart while one is founded. `metrics_port`: plain HTTP
    on loopback, None for off. Raises ConfigError for what etcd would refuse.
    """

    name: str
    data_dir: Path
    client: HostPort
    peer: HostPort
    client_tls: TlsPaths
    peer_tls: TlsPaths
    initial_cluster: Sequence[Peer]
    is_new: bool
    token: str
    listen_host: str = ""
    quota_bytes: int = QUOTA_BYTES
    heartbeat_ms: int = HEARTBEAT_MS
    election_ms: int = ELECTION_MS
    metrics_port: int | None = None

    def __post_init__(self) -> None:
        mine = [peer for peer in self.initial_cluster if peer.name == self.name]
        if [peer.url for peer in mine] != [self.peer.url]:
            raise ConfigError(f"etcd's initial cluster must name {self.name} once, at {self.peer.url}.")
        if any(char in peer.name for peer in self.initial_cluster for char in ",= ") or not self.name:
            raise ConfigError("Names of members of etcd must not hold commas, blanks or equals signs.")
        for where in (self.client, self.peer):
            if not self.listening(where).is_address:
                raise ConfigError(
                    f"etcd cannot listen on the name {where.host}.",
                    hint="Say on which IP address of this machine it shall listen; 0.0.0.0 is all of them.",
                )

    def listening(self, where: HostPort) -> HostPort:
        """What the socket for `where` is bound to."""
        return HostPort(self.listen_host or where.host, where.port)


def command_line(spec: EtcdSpec) -> tuple[str, ...]:
    """The arguments after the program's name, one word each."""
    words = {
        "name": spec.name,
        "data-dir": spec.data_dir,
        "listen-client-urls": spec.listening(spec.client).url,
        "advertise-client-urls": spec.client.url,
        "listen-peer-urls": spec.listening(spec.peer).url,
        "initial-advertise-peer-urls": spec.peer.url,
        "initial-cluster": ",".join(f"{peer.name}={peer.url}" for peer in spec.initial_cluster),
        "initial-cluster-state": "new" if spec.is_new else "existing",
        "initial-cluster-token": spec.token,
        **_tls("", spec.client_tls),
        **_tls("peer-", spec.peer_tls),
        "heartbeat-interval": spec.heartbeat_ms,
        "election-timeout": spec.election_ms,
        "pre-vote": "true",  # one that was cut off does not unseat the leader when it comes back; default since 3.5
        "quota-backend-bytes": spec.quota_bytes,
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": COMPACTION,
        "enable-grpc-gateway": "false",  # a second way in that nobody uses, and a client of etcd's own that would need a certificate
        "logger": "zap",  # 3.4 would write its old format
        "log-outputs": "stderr",
        "log-level": "info",
    }
    if spec.metrics_port is not None:
        words["listen-metrics-urls"] = f"http://127.0.0.1:{spec.metrics_port}"
    return tuple(f"--{flag}={value}" for flag, value in words.items())


def _tls(side: str, paths: TlsPaths) -> dict[str, object]:
    words: dict[str, object] = {
        f"{side}cert-file": paths.certificate,
        f"{side}key-file": paths.key,
        f"{side}trusted-ca-file": paths.ca,
        f"{side}client-cert-auth": "true",
    }
    if paths.allowed_name:
        # The one flag of the two whose name does not follow the others': --client-cert-allowed-hostname, --peer-cert-allowed-hostname.
        words[f"{side or 'client-'}cert-allowed-hostname"] = paths.allowed_name
    return words
