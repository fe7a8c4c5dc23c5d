"""One certificate for everything that a node of a cluster does. The foreign judges are the openssl command and Python's ssl."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from keycache.clock import SystemClock
from keycache.domain.errors import InvalidInput
from keycache.domain.names import NodeId
from keycache.pki import NodePki, Peer, Role, new_request, open_pki, read_peer
from keycache.pki.authority import LEAF_LIFE, NODE_HOST, NODE_NAMES_MAX, requested_key_hash
from support.handshakes import handshake, node_client, node_server

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NODE = NodeId("0d9b1c52-6f5e-4a7e-9a43-1f2e3d4c5b6a")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "data" / "pki"


def opened(place: Path, *names: str, now: datetime = NOW, node: NodeId | None = NODE) -> NodePki:
    return open_pki(place, names=names, now=now, node=node)


def alternatives(certificate: bytes) -> list[str]:
    parsed = x509.load_pem_x509_certificate(certificate)
    return [str(name.value) for name in parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]


def test_a_nodes_certificate_says_its_names_its_role_and_which_node_it_is(place: Path) -> None:
    certificate = opened(place, "cache.example.org").server.certificate
    assert alternatives(certificate) == [
        "localhost",
        "127.0.0.1",
        "::1",
        "cache.example.org",
        "keycache-node.invalid",
        "urn:keycache:role:node",
        f"urn:keycache:node:{NODE}",
    ]
    parsed = x509.load_pem_x509_certificate(certificate)
    purposes = parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    assert read_peer(certificate) == Peer(role=Role.NODE, name=NODE.text, not_after=NOW + LEAF_LIFE, node=NODE)


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_accepts_a_nodes_certificate_as_server_and_as_client(place: Path, purpose: str) -> None:
    pki = opened(place, "cache.example.org")
    openssl = shutil.which("openssl")
    assert openssl, "these tests need the openssl command"
    command = [
        openssl,
        "verify",
        "-x509_strict",
        "-CAfile",
        pki.trusted_file,
        "-purpose",
        purpose,
        "-attime",
        str(int(NOW.timestamp())),
    ]
    done = subprocess.run([*command, place / "server.pem"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_nodes_of_one_authority_talk_and_a_client_of_it_is_no_server(place: Path) -> None:
    pki = opened(place, now=SystemClock().now())
    assert handshake(node_client(pki), node_server(pki)) == "OK"
    assert handshake(node_client(pki), node_server(pki), NODE_HOST) == "OK"
    assert handshake(node_client(pki), node_server(pki), "elsewhere.example") == "CERTIFICATE_VERIFY_FAILED"


def test_a_node_that_founds_a_cluster_gets_a_nodes_certificate_and_loses_it_when_it_is_alone_again(place: Path) -> None:
    alone = opened(place, node=None)
    founder = opened(place)
    assert founder.server.certificate != alone.server.certificate
    assert founder.authority.pem == alone.authority.pem
    assert opened(place).server == founder.server
    assert founder.etcd_file.read_bytes() == founder.server.key.pem + founder.server.certificate
    assert founder.etcd_file.stat().st_mode & 0o777 == 0o600
    again = opened(place, node=None)
    assert not any(name.startswith("urn:") for name in alternatives(again.server.certificate))
    assert not again.etcd_file.exists()


def test_a_node_of_another_id_takes_no_certificate_that_is_there(place: Path) -> None:
    first = opened(place)
    other = opened(place, node=NodeId("other"))
    assert other.server.certificate != first.server.certificate
    assert read_peer(other.server.certificate).node == NodeId("other")


def test_a_nodes_certificate_renews_itself_and_etcds_file_with_it(place: Path) -> None:
    first = opened(place, "cache.example.org")
    late = first.server.not_after - LEAF_LIFE / 3 + timedelta(seconds=1)
    renewed = first.renewed(late)
    assert (renewed.server.not_after, renewed.names, renewed.node) == (late + LEAF_LIFE, first.names, NODE)
    assert renewed.etcd_file.read_bytes() == renewed.server.key.pem + renewed.server.certificate
    assert renewed.trusted == first.trusted


def test_a_joiners_request_gets_our_names_and_role_whatever_it_asks_for(place: Path) -> None:
    pki = opened(place)
    key, csr = new_request("root of all")
    joiner = NodeId("joiner-1")
    issued = pki.sign_node(csr, node=joiner, names=("b.example.org", "192.0.2.8", "B.example.org"), now=NOW)
    assert alternatives(issued.certificate) == [
        "b.example.org",
        "192.0.2.8",
        NODE_HOST,
        "urn:keycache:role:node",
        "urn:keycache:node:joiner-1",
    ]
    assert read_peer(issued.certificate) == Peer(role=Role.NODE, name="joiner-1", not_after=NOW + LEAF_LIFE, node=joiner)
    assert key.fits(x509.load_pem_x509_certificate(issued.certificate))
    assert issued.ca == pki.trusted
    assert len(requested_key_hash(csr)) == 32


@pytest.mark.parametrize("node", ["", "a/b", "-a", "a" * 65, "a\n", "ä", "a,URI:urn:keycache:role:admin"])
def test_an_id_that_could_be_read_as_something_else_is_refused(place: Path, node: str) -> None:
    _, csr = new_request("x")
    with pytest.raises(InvalidInput, match="cannot be the id of a node"):
        opened(place).sign_node(csr, node=NodeId(node), names=(), now=NOW)


def test_names_that_are_none_and_too_many_names_are_refused(place: Path) -> None:
    pki = opened(place)
    _, csr = new_request("x")
    with pytest.raises(InvalidInput, match="neither a host name nor an IP address"):
        pki.sign_node(csr, node=NODE, names=("urn:keycache:role:admin",), now=NOW)
    with pytest.raises(InvalidInput, match="at most 64 names"):
        pki.sign_node(csr, node=NODE, names=["a.example"] * (NODE_NAMES_MAX + 1), now=NOW)


def test_nobody_gets_the_role_node_as_a_client(place: Path) -> None:
    pki = opened(place)
    _, csr = new_request("x")
    with pytest.raises(InvalidInput, match="must say which node"):
        pki.sign_client(csr, role=Role.NODE, name="x", now=NOW)
    with pytest.raises(InvalidInput, match="must say which node"):
        pki.authority.issue_client(Role.NODE, "x", now=NOW)


def test_no_client_can_carry_the_host_name_by_which_etcd_knows_nodes(place: Path) -> None:
    pki = opened(place)
    _, csr = new_request("x")
    for role in (Role.ADMIN, Role.MAIL_PROCESSOR):
        assert NODE_HOST not in alternatives(pki.sign_client(csr, role=role, name="x", now=NOW).certificate)
    assert NODE_HOST not in alternatives(pki.admin.certificate)
