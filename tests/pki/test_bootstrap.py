"""A joiner knows whom it talks to before it says anything: against real gRPC servers, honest and other."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from keycache.clock import SystemClock
from keycache.domain.errors import KeycacheError, Refused, Unavailable
from keycache.domain.join_token import HostPort, JoinToken
from keycache.pki import NodePki, PrivateKey, Role
from keycache.pki.authority import LEAF_LIFE, Authority
from keycache.pki.bootstrap import Doubt, Doubtful, Host, find_host, judge_chain, look_at
from keycache.services.server import Certificates
from support.certificates import Form, authority, certify, name, private_key, usage
from support.join_host import host_pki, joining_host, listening, token_for

NOW = SystemClock().now()


@pytest.fixture
def host(tmp_path: Path) -> NodePki:
    return host_pki(tmp_path / "host")


async def doubt(token: JoinToken, *, now: datetime = NOW, within: float = 5) -> tuple[Doubt, str]:
    """What look_at says of the token's one host; that find_host raises the same."""
    found = await look_at(token.endpoints[0], authority=token.authority, now=now, timeout=within)
    assert isinstance(found, Doubtful)
    with pytest.raises(KeycacheError) as raised:
        await find_host(token, now=now, timeout=within)
    assert raised.value.text == found.text
    return found.doubt, str(raised.value)


async def test_the_host_of_the_token_is_found_and_grpc_takes_its_authority_as_root(host: NodePki) -> None:
    async with joining_host(host) as port:
        found = await find_host(token_for(host, port), now=NOW)
        assert found == Host(endpoint=HostPort("127.0.0.1", port), ca=host.authority.pem)
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(found.ca)) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as told:
                await channel.unary_unary("/any/Call")(b"", timeout=10)
    assert told.value.code() is grpc.StatusCode.UNIMPLEMENTED, "the channel came about"


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_host_names_and_addresses_both_do(host: NodePki, name: str) -> None:
    async with joining_host(host) as port:
        assert isinstance(await find_host(token_for(host, port, host=name), now=NOW), Host)


async def test_nothing_but_a_handshake_reaches_a_stranger(host: NodePki) -> None:
    """What the listener reads are TLS records of handshakes (22), alerts (21) and the change of ciphers (20): no application data."""
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(65536))
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        heard.extend(await reader.read())
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        token = token_for(host, server.sockets[0].getsockname()[1])
        assert (await doubt(token))[0] is Doubt.NO_TLS
    at, kinds = 0, set()
    while at < len(heard):
        kinds.add(heard[at])
        at += 5 + int.from_bytes(heard[at + 3 : at + 5])
    assert kinds <= {20, 21, 22}
    assert token.secret.reveal() not in heard


async def test_a_host_that_is_off_is_unreachable(host: NodePki) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        port = taken.getsockname()[1]
        what, text = await doubt(token_for(host, port))
    assert what is Doubt.UNREACHABLE
    assert text.startswith(f"127.0.0.1:{port} cannot be reached: ")
    assert "listen.join" in text


async def test_a_name_that_does_not_exist_is_unreachable(host: NodePki) -> None:
    assert (await doubt(token_for(host, 7642, host="nowhere.invalid")))[0] is Doubt.UNREACHABLE


@asynccontextmanager
async def talking(answer: bytes, *, end: bool = True) -> AsyncIterator[int]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        if end:
            writer.close()
        else:
            await reader.read()
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    "answer", [b"", b"220 mx.example.org ESMTP\r\n", b"\x16\x03\x03\xff\xff", b"\x15\x03\x03\x00\x02\x02\x28"]
)
async def test_what_speaks_no_tls_is_told_as_that(host: NodePki, answer: bytes) -> None:
    async with talking(answer) as port:
        what, text = await doubt(token_for(host, port))
    assert what is Doubt.NO_TLS
    assert f"What listens on 127.0.0.1:{port} does not speak TLS 1.3." in text


async def test_a_host_that_says_nothing_is_waited_for_only_so_long(host: NodePki) -> None:
    async with talking(b"", end=False) as port:
        assert (await doubt(token_for(host, port), within=0.2))[0] is Doubt.NO_TLS


async def test_a_flood_in_place_of_a_handshake_is_not_read_to_its_end(host: NodePki) -> None:
    record = b"\x16\x03\x03\x40\x00" + b"\x02\x00\xff\xff" + bytes(0x3FFC)
    async with talking(record * 64, end=False) as port:
        assert (await doubt(token_for(host, port)))[0] is Doubt.NO_TLS


async def test_tls_of_an_older_version_is_not_taken(host: NodePki) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(host.directory / "server.pem", host.directory / "server.key")
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        assert (await doubt(token_for(host, server.sockets[0].getsockname()[1])))[0] is Doubt.NO_TLS


async def test_the_port_for_clients_is_told_from_the_port_for_joiners(host: NodePki) -> None:
    async with listening(Certificates(host.server).credentials()) as port:
        what, text = await doubt(token_for(host, port))
    assert what is Doubt.NO_AUTHORITY
    assert "must name the host's listen.join, not its listen.grpc" in text


async def test_a_man_in_the_middle_with_an_authority_of_their_own_is_told_and_gets_nothing(host: NodePki) -> None:
    now = SystemClock().now()
    span = {"not_before": now - timedelta(days=1), "not_after": now + timedelta(days=1)}
    root = authority("Somebody", **span)
    form = Form(subject=name("host"), key=private_key("p256", 1), usage=usage("digital_signature"), **span)
    leaf = certify(form, root)
    pair = [(leaf.key_pem, leaf.pem + root.pem)]
    async with listening(grpc.ssl_server_credentials(pair)) as port:
        what, text = await doubt(token_for(host, port))
    assert what is Doubt.MISMATCH
    assert "man in the middle" in text
    assert "Nothing was sent." in text


async def test_a_node_of_another_cluster_is_told(host: NodePki, tmp_path: Path) -> None:
    other = host_pki(tmp_path / "other", "other.example")
    async with joining_host(other) as port:
        what, text = await doubt(token_for(host, port))
    assert what is Doubt.OTHER_CLUSTER
    assert "shows the authority 'Keycache CA of other.example', which is not the token's" in text
    assert "man in the middle" in text


async def test_who_copies_the_authoritys_certificate_needs_its_key_too(host: NodePki, tmp_path: Path) -> None:
    """The true authority shown behind a certificate that it did not issue."""
    other = host_pki(tmp_path / "other")
    pair = [(other.server.key.pem, other.server.certificate + host.authority.pem)]
    async with listening(grpc.ssl_server_credentials(pair)) as port:
        what, text = await doubt(token_for(host, port))
    assert what is Doubt.FORGED
    assert "shows the right authority, but a certificate that is not a host's of it" in text


@pytest.mark.parametrize("role", [Role.MAIL_PROCESSOR, Role.ADMIN])
async def test_a_client_of_the_same_authority_is_no_host(host: NodePki, role: Role) -> None:
    client = host.authority.issue_client(role, "mta1", now=NOW)
    async with listening(grpc.ssl_server_credentials([(client.key.pem, client.certificate + host.authority.pem)])) as port:
        assert (await doubt(token_for(host, port)))[0] is Doubt.FORGED


async def test_a_host_that_does_not_bear_the_name_in_the_token_is_told(host: NodePki) -> None:
    bare = host.authority.issue_server(("elsewhere.example",), now=NOW)
    async with listening(Certificates(bare).join_credentials()) as port:
        what, text = await doubt(token_for(host, port))
    assert what is Doubt.WRONG_NAME
    assert "does not name 127.0.0.1. Nothing was sent. Add the name to listen.names" in text


@pytest.mark.parametrize(
    ("off", "told"), [(LEAF_LIFE + timedelta(days=1), "it is ahead, or"), (timedelta(days=-400), "it is behind, or")]
)
async def test_a_clock_that_is_off_is_told_with_what_it_says(host: NodePki, off: timedelta, told: str) -> None:
    async with joining_host(host) as port:
        what, text = await doubt(token_for(host, port), now=NOW + off)
    assert what is Doubt.CLOCK
    assert f"but this machine's clock says {NOW + off:%Y-%m-%d %H:%M}: {told}" in text


async def test_every_address_of_the_token_is_tried_and_the_most_telling_doubt_is_raised(host: NodePki, tmp_path: Path) -> None:
    other = host_pki(tmp_path / "other")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        off = taken.getsockname()[1]
        async with joining_host(host) as good, joining_host(other) as wrong:
            found = await find_host(token_for(host, off, wrong, good), now=NOW)
            assert found.endpoint.port == good
            with pytest.raises(Refused, match="another cluster"):
                await find_host(token_for(host, off, wrong), now=NOW)
            with pytest.raises(Unavailable, match="cannot be reached"):
                await find_host(token_for(host, off, off), now=NOW)


def test_an_authority_made_anew_for_the_same_key_is_still_the_one_that_is_pinned(host: NodePki) -> None:
    anew = Authority.create(host.authority.key, name="renewed", now=NOW)
    leaf = anew.issue_server(("127.0.0.1",), now=NOW)
    found = judge(leaf.certificate, anew.pem, pinned=host)
    assert found == Host(endpoint=HostPort("127.0.0.1", 7642), ca=anew.pem)


def test_an_authority_that_is_not_signed_with_its_own_key_is_none(host: NodePki) -> None:
    """Somebody puts the authority's public key into a certificate of their own making."""
    public = x509.load_pem_x509_certificate(host.authority.pem).public_key()
    signer = PrivateKey.generate().load()
    forged = x509.CertificateBuilder(
        name("Keycache CA of host"), name("Keycache CA of host"), public, 7, NOW - timedelta(days=1), NOW + timedelta(days=1)
    ).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    found = judge(host.server.certificate, forged.sign(signer, SHA256()).public_bytes(Encoding.PEM), pinned=host)
    assert isinstance(found, Doubtful)
    assert found.doubt is Doubt.NO_AUTHORITY


def judge(leaf: bytes, *roots: bytes, pinned: NodePki) -> Host | Doubtful:
    chain = [x509.load_pem_x509_certificate(pem) for pem in (leaf, *roots)]
    return judge_chain(chain, endpoint=HostPort("127.0.0.1", 7642), authority=bytes.fromhex(pinned.authority.id), now=NOW)


def test_every_doubt_has_a_hint_of_its_own() -> None:
    endpoint = HostPort("a", 1)
    hints = {Doubtful(endpoint=endpoint, doubt=one, text="").error().hint for one in Doubt}
    assert len(hints) == len(Doubt)
