"""Real etcd for tests: one member or several, on free loopback ports, with or without TLS; each ended by its own process id.

`EtcdCluster` is a context manager. `shared_etcd` is one member for the whole test process, for tests that only need an etcd of their
own key space: a cluster name nobody else takes (`fresh_name`).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from keycache.clock import SystemClock
from support.certificates import Form, Identity, authority, certify, name, private_key, usage
from support.network import Network

START_SECONDS = 30
"""A single member needs 0.2 s; three on two busy cores have been seen to need 5."""

JUNK = "junk/"
"""Keys of nobody's, with which tests fill an etcd."""

PORTS = range(20_000, 32_000)
"""Below the ephemeral range (32768 and up), so that no outgoing connection takes the port of a member that is down."""


def free_port() -> int:
    """A loopback port nobody listens on now."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of one authority: the servers' certificate, and one for clients."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def tls_files(folder: Path, *, root: str = "etcd Root", address: str = "127.0.0.1") -> TlsFiles:
    """Make them. `root`: another name is another authority, which does not vouch for these. `address`: in the server's certificate."""
    folder.mkdir(parents=True, exist_ok=True)
    now = SystemClock().now()
    span: dict[str, Any] = {"not_before": now - timedelta(days=1), "not_after": now + timedelta(days=30)}
    issuer = authority(root, **span)

    def issue(role: str, *purposes: x509.ObjectIdentifier) -> tuple[Path, Path]:
        form = Form(
            subject=name(role),
            key=private_key("p256", len(role)),
            usage=usage("digital_signature"),
            purposes=purposes,
            alternatives=(x509.IPAddress(IPv4Address(address)),),
            **span,
        )
        return _written(folder / role, certify(form, issuer))

    server, server_key = issue("server", ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    client, client_key = issue("client", ExtendedKeyUsageOID.CLIENT_AUTH)
    ca, _ = _written(folder / "ca", issuer)
    return TlsFiles(ca=ca, server=server, server_key=server_key, client=client, client_key=client_key)


def _written(stem: Path, identity: Identity) -> tuple[Path, Path]:
    certificate, key = stem.with_suffix(".crt"), stem.with_suffix(".key")
    certificate.write_bytes(identity.pem)
    key.write_bytes(identity.key_pem)
    key.chmod(0o600)
    return certificate, key


@dataclass(kw_only=True)
class EtcdMember:
    """One process. Its data and ports stay over `kill` and `start`. `address` and `inside`: of a host of `support.network`."""

    name: str
    folder: Path
    flags: Sequence[str] = ()
    tls: TlsFiles | None = None
    address: str = "127.0.0.1"
    inside: Sequence[str] = ()
    client_port: int = field(default_factory=free_port)
    peer_port: int = field(default_factory=free_port)
    initial_cluster: str = ""
    initial_state: str = "new"
    _process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """URL for clients."""
        return f"{'http' if self.tls is None else 'https'}://{self.address}:{self.client_port}"

    @property
    def peer_url(self) -> str:
        """Between members TLS is never on: no test looks there."""
        return f"http://{self.address}:{self.peer_port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start the process, with the data it had; `wait_until_healthy` waits for it."""
        assert not self.is_running
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            *self.inside,
            *("etcd", "--name", self.name, "--data-dir", str(self.folder / "data"), "--logger", "zap", "--log-level", "warn"),
            *("--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint),
            *("--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url),
            *("--initial-cluster", self.initial_cluster or f"{self.name}={self.peer_url}"),
            *("--initial-cluster-state", self.initial_state),
            *self.flags,
        ]
        if self.tls is not None:
            command += ["--cert-file", str(self.tls.server), "--key-file", str(self.tls.server_key)]
            command += ["--trusted-ca-file", str(self.tls.ca), "--client-cert-auth"]
        environ = {key: value for key, value in os.environ.items() if not key.startswith("ETCD")}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)

    def wait_until_healthy(self) -> None:
        """Until it takes part in a quorum and says so. A member with an alarm never does."""
        deadline = time.monotonic() + START_SECONDS
        while not self._is_healthy():
            if not self.is_running or time.monotonic() > deadline:
                raise EtcdNotStarted(f"etcd {self.name} did not start:\n{self.log}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, as a power cut."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)

    def pause(self) -> None:
        """SIGSTOP: connections stay open, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill, start, wait."""
        self.kill()
        self.start()
        self.wait_until_healthy()

    def stop(self) -> None:
        """Ended for good, paused or not."""
        if self.is_running:
            self.kill()

    def wipe(self) -> None:
        """All data gone, as after a lost disk; the process must be down."""
        assert not self.is_running
        shutil.rmtree(self.folder / "data")

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _is_healthy(self) -> bool:
        if self.inside:
            command = [*self.inside, "etcdctl", "--endpoints", self.endpoint, "--command-timeout", "2s", "endpoint", "health"]
            environ = {**os.environ, "ETCDCTL_API": "3"}
            return subprocess.run(command, env=environ, capture_output=True, timeout=60, check=False).returncode == 0
        context = None
        if self.tls is not None:
            context = ssl.create_default_context(cafile=str(self.tls.ca))
            context.check_hostname = False  # a certificate for another address is a test's business, not ours
            context.load_cert_chain(self.tls.client, self.tls.client_key)
        try:
            with urllib.request.urlopen(f"{self.endpoint}/health", timeout=2, context=context) as answer:
                document: dict[str, str] = json.load(answer)
        except (OSError, urllib.error.URLError, ValueError):
            return False
        return document.get("health") == "true"


class EtcdNotStarted(AssertionError):
    pass


class EtcdCluster:
    """One member or several. `flags`: of etcd, for all of them. Started when made by `run`, which also waits until it is healthy.
    `network`: on its hosts m0, m1, ..., else all on loopback."""

    def __init__(
        self,
        folder: Path,
        *,
        size: int = 1,
        tls: TlsFiles | None = None,
        flags: Sequence[str] = (),
        network: Network | None = None,
    ) -> None:
        self.folder = folder
        self.tls = tls
        self.members = [
            EtcdMember(name=f"m{number}", folder=folder / f"m{number}", tls=tls, flags=flags) for number in range(size)
        ]
        self._flags = flags
        self._inside = () if network is None else network.middle.inside
        for member in self.members:
            if network is not None:
                member.address, member.inside = network.hosts[member.name].address, network.hosts[member.name].inside
        together = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        for member in self.members:
            member.initial_cluster = together

    @classmethod
    @contextlib.contextmanager
    def run(
        cls,
        folder: Path,
        *,
        size: int = 1,
        tls: TlsFiles | None = None,
        flags: Sequence[str] = (),
        network: Network | None = None,
    ) -> Iterator[EtcdCluster]:
        """Started and healthy; ended on leaving, whatever state it is in."""
        cluster = cls._started(folder, size, tls, flags, network)
        try:
            yield cluster
        finally:
            cluster.stop()

    @classmethod
    def _started(
        cls, folder: Path, size: int, tls: TlsFiles | None, flags: Sequence[str], network: Network | None = None
    ) -> EtcdCluster:
        for attempt in range(3):  # somebody else may have taken a port since we looked
            cluster = cls(folder / f"etcd{attempt}", size=size, tls=tls, flags=flags, network=network)
            try:
                cluster.start()
            except EtcdNotStarted as error:
                cluster.stop()
                if "address already in use" not in str(error):
                    raise
            else:
                return cluster
        raise EtcdNotStarted("No free ports.")

    @property
    def endpoints(self) -> tuple[str, ...]:
        """URLs for clients, one a member."""
        return tuple(member.endpoint for member in self.members)

    def start(self) -> None:
        for member in self.members:
            if not member.is_running:
                member.start()
        for member in self.members:
            member.wait_until_healthy()

    def stop(self) -> None:
        for member in self.members:
            member.stop()

    def fill(self) -> None:
        """Up to the quota (`flags`), with somebody else's junk: from then on it takes no writes (alarm NOSPACE)."""
        for number in range(1000):
            try:
                self.etcdctl("put", f"{JUNK}{number}", stdin=b"x" * 2**20)
            except AssertionError as error:
                if "space exceeded" in str(error):
                    return
                raise
        raise AssertionError("the quota was never reached")

    def relieve(self) -> None:
        """What etcd's documentation says to do about NOSPACE; all members must run."""
        self.etcdctl("del", "--prefix", JUNK)
        self.compact()
        for member in self.members:
            self.etcdctl("defrag", endpoints=(member.endpoint,))
        self.etcdctl("alarm", "disarm")

    def recover(self) -> None:
        """All members run, take part and are well, whatever state they were in."""
        for member in self.members:
            if member.is_running:
                member.resume()
            else:
                member.start()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if self.etcdctl("alarm", "list").strip():
                    self.relieve()
                break
            except AssertionError:  # no leader yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        for member in self.members:
            member.wait_until_healthy()

    def save(self, snapshot: Path) -> None:
        """A backup of the first member that runs."""
        self.etcdctl("snapshot", "save", str(snapshot))

    def restore(self, snapshot: Path) -> None:
        """As an administrator does who lost everything, or believes so: new data directories from the backup, same URLs and token. All
        members must be down; `start` starts them."""
        for member in self.members:
            member.wipe()
            self.etcdctl(
                *("snapshot", "restore", str(snapshot), "--name", member.name, "--data-dir", str(member.folder / "data")),
                *("--initial-cluster", member.initial_cluster, "--initial-advertise-peer-urls", member.peer_url),
                endpoints=self.endpoints,
            )

    def add_learner(self) -> EtcdMember:
        """A further member without a vote, started; it is listed in `members`, and so in `endpoints`. Waits until etcd takes one: it
        calls a cluster unhealthy until all members have been connected for five seconds."""
        number = len(self.members)
        learner = EtcdMember(name=f"m{number}", folder=self.folder / f"m{number}", tls=self.tls, flags=self._flags)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.etcdctl("member", "add", learner.name, "--learner", "--peer-urls", learner.peer_url)
                break
            except AssertionError as error:
                if "unhealthy cluster" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        learner.initial_cluster = ",".join(f"{member.name}={member.peer_url}" for member in (*self.members, learner))
        learner.initial_state = "existing"
        learner.start()
        self.members.append(learner)
        return learner

    def leader(self) -> EtcdMember:
        """Asked of those that run."""
        for member in self.members:
            if not member.is_running:
                continue
            (status,) = json.loads(self.etcdctl("endpoint", "status", "-w", "json", endpoints=(member.endpoint,)))
            if status["Status"]["leader"] == status["Status"]["header"]["member_id"]:
                return member
        raise AssertionError("no leader")

    def etcdctl(self, *arguments: str, endpoints: Sequence[str] = (), stdin: bytes = b"") -> str:
        """What it prints. Without `endpoints` it asks the first member that runs."""
        chosen = endpoints or [member.endpoint for member in self.members if member.is_running][:1]
        command = [*self._inside, "etcdctl", "--endpoints", ",".join(chosen), "--command-timeout", "20s"]
        if self.tls is not None:
            command += ["--cacert", str(self.tls.ca), "--cert", str(self.tls.client), "--key", str(self.tls.client_key)]
        environ = {**{key: value for key, value in os.environ.items() if not key.startswith("ETCD")}, "ETCDCTL_API": "3"}
        done = subprocess.run([*command, *arguments], input=stdin, env=environ, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def revision(self) -> int:
        (status,) = json.loads(self.etcdctl("endpoint", "status", "-w", "json"))
        revision: int = status["Status"]["header"]["revision"]
        return revision

    def compact(self) -> int:
        """Forget all history up to now; the revision."""
        revision = self.revision()
        self.etcdctl("compact", str(revision))
        return revision


def fresh_name() -> str:
    """A cluster name that nobody else on a shared etcd has."""
    return f"test-{secrets.token_hex(6)}"


@cache
def shared_etcd() -> EtcdCluster:
    """One member for this test process, started at the first call and ended with the process."""
    folder = Path(tempfile.mkdtemp(prefix="keycache-etcd-"))
    cluster = EtcdCluster._started(folder, 1, None, ())

    def end() -> None:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return cluster
