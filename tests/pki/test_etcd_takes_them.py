"""etcd's own opinion of a node's certificate: as server, as peer, as client; renewed and under a changing authority, without a stop
where etcd needs none."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from keycache.clock import SystemClock
from keycache.domain.names import NodeId
from keycache.pki import Identity, NodePki, Role, open_pki
from keycache.pki.authority import LEAF_LIFE, NODE_HOST
from keycache.pki.joining import accept_admission, prepare_join, take_admission
from keycache.pki.rotation import announce, forget_former, new_authority, switch

START_SECONDS = 30
NOW = SystemClock().now()
RANGE = b"\x0a\x01a"
"""RangeRequest(key=b"a"), linearizable."""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass
class Member:
    pki: NodePki
    client_port: int
    peer_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        assert self.pki.node is not None
        return self.pki.node.text

    @property
    def peer_url(self) -> str:
        return f"https://127.0.0.1:{self.peer_port}"

    def start(self, cluster: list[Member]) -> None:
        etcd = shutil.which("etcd")
        assert etcd, "these tests need etcd"
        client_url = f"https://127.0.0.1:{self.client_port}"
        options = {
            "name": self.name,
            "data-dir": self.pki.directory.parent / "etcd",
            "listen-client-urls": client_url,
            "advertise-client-urls": client_url,
            "listen-peer-urls": self.peer_url,
            "initial-advertise-peer-urls": self.peer_url,
            "initial-cluster": ",".join(f"{member.name}={member.peer_url}" for member in cluster),
            "cert-file": self.pki.etcd_file,
            "key-file": self.pki.etcd_file,
            "trusted-ca-file": self.pki.trusted_file,
            "client-cert-auth": "true",
            "client-cert-allowed-hostname": NODE_HOST,
            "enable-grpc-gateway": "false",
            "peer-cert-file": self.pki.etcd_file,
            "peer-key-file": self.pki.etcd_file,
            "peer-trusted-ca-file": self.pki.trusted_file,
            "peer-client-cert-auth": "true",
            "peer-cert-allowed-hostname": NODE_HOST,
        }
        with (self.pki.directory.parent / "etcd.log").open("ab") as log:
            command = [etcd, *(f"--{name}={value}" for name, value in options.items())]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def ask(self, client: Identity) -> str:
        """'healthy' once the cluster has a leader that answers, or what went wrong. `client.ca`: whom the client trusts.

        Over gRPC: etcd's JSON gateway is its own client, and does not get past the check of the host name (3.4.23).
        """
        credentials = grpc.ssl_channel_credentials(client.ca, client.key.pem, client.certificate)
        options = (("grpc.use_local_subchannel_pool", 1),)
        with grpc.secure_channel(f"127.0.0.1:{self.client_port}", credentials, options) as channel:
            try:
                channel.unary_unary("/etcdserverpb.KV/Range")(RANGE, timeout=5)
            except grpc.RpcError as error:
                return f"{error.code().name} {error.details()}"
        return "healthy"

    def ready(self, client: Identity) -> None:
        end, told = time.monotonic() + START_SECONDS, ""
        while time.monotonic() < end:
            told = self.ask(client)
            if told == "healthy":
                return
            time.sleep(0.1)
        pytest.fail(f"{told}\n{(self.pki.directory.parent / 'etcd.log').read_text()[-3000:]}")

    def shows(self) -> bytes:
        """The certificate that etcd shows at a new handshake."""
        context = ssl.create_default_context(cadata=self.pki.trusted.decode())
        context.load_cert_chain(self.pki.etcd_file)
        raw = socket.create_connection(("127.0.0.1", self.client_port), 10)
        with raw, context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
            shown = tls.getpeercert(binary_form=True)
            assert shown is not None
            return ssl.DER_cert_to_PEM_cert(shown).encode()


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[Member]]:
    """A founder and a node that joined it, as their certificates lie on disk after that; each with its etcd."""
    ports = free_ports(4)
    founder = open_pki(tmp_path / "a" / "pki", names=(), now=NOW, node=NodeId("a"))
    place, joiner = tmp_path / "b" / "pki", NodeId("b")
    signed = founder.sign_node(prepare_join(place, joiner).csr, node=joiner, names=founder.names, now=NOW)
    pinned = bytes.fromhex(founder.authority.id)
    accept_admission(
        place,
        node=joiner,
        certificate=signed.certificate,
        ca=founder.authority.pem,
        ca_key=founder.authority.key,
        authority=pinned,
        now=NOW,
    )
    take_admission(place, authority=pinned)
    joined = open_pki(place, names=(), now=NOW, node=joiner)
    assert joined.server.certificate == signed.certificate
    both = [Member(founder, *ports[:2]), Member(joined, *ports[2:])]
    try:
        for member in both:
            member.start(both)
        for member in both:
            member.ready(member.pki.server)
        yield both
    finally:
        for member in both:
            member.stop()


def test_etcd_takes_nodes_as_servers_peers_and_clients_and_no_mail_processor(members: list[Member]) -> None:
    """That both answer proves the peers: two members need each other for a quorum."""
    one, other = members
    assert (one.ask(other.pki.server), other.ask(one.pki.server)) == ("healthy", "healthy")
    for role in (Role.MAIL_PROCESSOR, Role.ADMIN):
        assert one.ask(one.pki.authority.issue_client(role, "mta1", now=NOW)).startswith("UNAVAILABLE")


def test_a_running_etcd_shows_a_renewed_certificate_and_takes_up_a_new_authority_where_it_says_it_does(
    members: list[Member],
) -> None:
    one, other = members
    late = NOW + LEAF_LIFE - LEAF_LIFE / 4
    before = one.shows()
    one.pki = one.pki.renewed(late)
    assert one.shows() == one.pki.server.certificate != before

    following = new_authority("cluster", now=NOW)
    former, stale = one.pki.server, one.pki.authority.id
    for member in members:
        announce(member.pki.directory, following)
        member.pki = member.pki.renewed(NOW)
    newcomer = following.issue_node(NodeId("b"), ("127.0.0.1",), now=NOW)
    trusting = Identity(certificate=newcomer.certificate, key=newcomer.key, ca=one.pki.trusted, not_after=newcomer.not_after)
    assert one.ask(trusting) != "healthy", "a running etcd does not read its bundle again (etcd#11555)"
    for member in members:
        member.stop()
        member.start(members)
        member.ready(member.pki.server)
    assert one.ask(trusting) == "healthy"

    for member in members:
        switch(member.pki.directory)
        member.pki = member.pki.renewed(NOW)
        assert member.shows() == member.pki.server.certificate, "a running etcd takes up certificate and key"
    assert (one.pki.authority.id, other.pki.authority.id) == (following.id, following.id) != (stale, stale)
    still = Identity(certificate=former.certificate, key=former.key, ca=one.pki.trusted, not_after=former.not_after)
    assert one.ask(still) == "healthy"

    for member in members:
        forget_former(member.pki.directory)
        member.pki = member.pki.renewed(NOW)
        member.stop()
        member.start(members)
        member.ready(member.pki.server)
    assert one.ask(still).startswith("UNAVAILABLE")
    assert (one.ask(other.pki.server), other.ask(one.pki.server)) == ("healthy", "healthy")
