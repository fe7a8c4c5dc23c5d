"""The Python client against a real node over real TLS."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from keycache.client import Connection, MessageTooLarge, Unreachable, connect
from keycache.client.errors import known_errors, translate
from keycache.domain import errors
from keycache.domain.errors import ConfigError, KeycacheError, PermissionDenied, Refused, Unavailable
from keycache.pki import Identity, Role
from keycache.services.errors import failure
from keycache.v1 import admin_pb2, cache_pb2
from support.service_node import ServiceNode, service_node

LOOKUP = cache_pb2.LookupRequest(address="a@example.org")
STATUS = admin_pb2.GetStatusRequest()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[ServiceNode]:
    async with service_node(tmp_path) as running:
        yield running


async def role_of(connection: Connection) -> Role:
    """As the node sees the connection's next call."""
    try:
        await connection.call(connection.admin.GetStatus, STATUS)
    except PermissionDenied:
        return Role.MAIL_PROCESSOR
    return Role.ADMIN


async def test_a_certificate_that_changes_on_disk_is_taken_up_and_calls_begun_before_go_on(node: ServiceNode) -> None:
    files = node.files(node.client(Role.MAIL_PROCESSOR))
    async with connect(node.target, **files, check_seconds=0) as connection:
        watch = connection.stream(connection.cache.Watch, cache_pb2.WatchRequest())
        await anext(watch)
        assert await role_of(connection) is Role.MAIL_PROCESSOR
        node.files(node.client(Role.ADMIN))
        assert await role_of(connection) is Role.ADMIN
        await connection.call(connection.cache.Harvest, cache_pb2.HarvestRequest(message=b"key 1"))
        assert (await anext(watch)).kind == cache_pb2.WatchEvent.UPDATED


async def test_files_may_be_named_by_texts(node: ServiceNode) -> None:
    files = {part: str(path) for part, path in node.files(node.client(Role.ADMIN)).items()}
    async with connect(node.target, **files) as connection:
        assert await role_of(connection) is Role.ADMIN


async def test_a_pair_that_is_half_replaced_waits_for_its_other_half(node: ServiceNode) -> None:
    old, new = node.client(Role.MAIL_PROCESSOR), node.client(Role.ADMIN)
    files = node.files(old)
    async with connect(node.target, **files, check_seconds=0) as connection:
        files["key"].write_bytes(new.key.pem)
        assert await role_of(connection) is Role.MAIL_PROCESSOR
        files["certificate"].unlink()
        assert await role_of(connection) is Role.MAIL_PROCESSOR
        files["certificate"].write_bytes(new.certificate)
        assert await role_of(connection) is Role.ADMIN


async def test_files_are_not_looked_at_more_often_than_asked(node: ServiceNode) -> None:
    files = node.files(node.client(Role.MAIL_PROCESSOR))
    async with connect(node.target, **files, check_seconds=3600) as connection:
        node.files(node.client(Role.ADMIN))
        assert await role_of(connection) is Role.MAIL_PROCESSOR


@pytest.mark.parametrize("part", ["ca", "certificate", "key"])
@pytest.mark.parametrize("damage", ["missing", "rubbish"])
async def test_unusable_files_are_named_before_anything_is_sent(node: ServiceNode, part: str, damage: str) -> None:
    files = node.files(node.client(Role.ADMIN))
    files[part].write_bytes(b"rubbish")
    if damage == "missing":
        files[part].unlink()
    with pytest.raises(ConfigError, match=files[part].name):
        async with connect(node.target, **files):
            pass


async def test_a_key_of_another_certificate_is_told(node: ServiceNode) -> None:
    one, other = node.client(Role.ADMIN), node.client(Role.ADMIN)
    mixed = Identity(certificate=one.certificate, key=other.key, ca=one.ca, not_after=one.not_after)
    with pytest.raises(ConfigError, match="not a CA, a certificate and its private key"):
        async with connect(node.target, **node.files(mixed)):
            pass


async def test_an_encrypted_key_is_refused_without_a_question(node: ServiceNode) -> None:
    identity = node.client(Role.ADMIN)
    files = node.files(identity)
    protected = identity.key.load().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    files["key"].write_bytes(protected)
    with pytest.raises(ConfigError):
        async with connect(node.target, **files):
            pass


async def test_a_port_where_nobody_listens_is_unreachable(node: ServiceNode) -> None:
    with socket.socket() as bound:  # taken, but nobody listens
        bound.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{bound.getsockname()[1]}"
        async with connect(target, **node.files(node.client(Role.ADMIN))) as connection:
            with pytest.raises(Unreachable, match=f"No node answers at {target}") as caught:
                await connection.call(connection.cache.Lookup, LOOKUP)
    assert "keycache serve" in caught.value.hint


async def test_a_name_that_the_nodes_certificate_lacks_is_told(node: ServiceNode) -> None:
    files = node.files(node.client(Role.ADMIN))
    async with connect(f"127.0.0.2:{node.server.ports[0]}", **files) as connection:
        with pytest.raises(Unreachable):
            await connection.call(connection.cache.Lookup, LOOKUP)


async def test_a_node_that_does_not_answer_in_time_is_unavailable_but_not_unreachable(node: ServiceNode) -> None:
    async with node.connected() as connection:
        await connection.call(connection.cache.Lookup, LOOKUP)
        with pytest.raises(Unavailable, match="did not answer in time") as caught:
            await connection.call(connection.cache.Harvest, cache_pb2.HarvestRequest(message=b"wait"), timeout=0.2)
    assert not isinstance(caught.value, Unreachable)


def tree(root: type[KeycacheError] = KeycacheError) -> list[type[KeycacheError]]:
    children = [kind for kind in root.__subclasses__() if kind.__module__ == errors.__name__]
    return [root, *(kind for child in children for kind in tree(child))]


def answered(error: KeycacheError) -> grpc.aio.AioRpcError:
    """What gRPC raises at the client when a call on the node raised `error`."""
    told = failure(error, "/a/b")
    empty, metadata = grpc.aio.Metadata(), grpc.aio.Metadata(*told.metadata)
    return grpc.aio.AioRpcError(told.code, empty, metadata, told.text, None)


@pytest.mark.parametrize("kind", [kind for kind in tree() if kind is not errors.LogCompacted])
def test_an_error_of_the_node_arrives_as_the_same_error(kind: type[KeycacheError]) -> None:
    arrived = translate(answered(kind("What happened.", hint="What to do.")), "host:1")
    assert (type(arrived), arrived.text, arrived.hint) == (kind, "What happened.", "What to do.")


def test_a_compacted_log_is_the_nodes_own_affair() -> None:
    arrived = translate(answered(errors.LogCompacted("What happened.", compacted=3)), "host:1")
    assert (type(arrived), arrived.text) == (Unavailable, "What happened.")


def test_an_error_of_a_later_version_keeps_its_text_and_hint() -> None:
    class Novel(KeycacheError):
        code = "NOVEL"

    error = answered(Novel("What happened.", hint="What to do."))
    del Novel
    arrived = translate(error, "host:1")
    assert isinstance(arrived, KeycacheError)
    assert (arrived.text, arrived.hint) == ("What happened.", "What to do.")


def test_every_code_belongs_to_one_error() -> None:
    assert {code for code in known_errors() if code != "NOVEL"} >= {kind.code for kind in tree()}
    assert known_errors()["UNAVAILABLE"] is Unavailable


def plain(code: grpc.StatusCode, details: str) -> KeycacheError:
    """What an answer of gRPC itself becomes."""
    empty = grpc.aio.Metadata()
    return translate(grpc.aio.AioRpcError(code, empty, empty, details, None), "host:1")


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (5 vs. 4)", MessageTooLarge),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!", Unavailable),
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; Connection refused", Unreachable),
        (grpc.StatusCode.UNAVAILABLE, "Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", Unreachable),
        (grpc.StatusCode.UNAVAILABLE, "Ssl handshake failed: WRONG_VERSION_NUMBER", Unreachable),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", Refused),
        (grpc.StatusCode.CANCELLED, "", Unavailable),
        (grpc.StatusCode.PERMISSION_DENIED, "no", PermissionDenied),
        (grpc.StatusCode.DATA_LOSS, "odd", KeycacheError),
    ],
)
def test_what_grpc_itself_answers_becomes_an_error_of_ours(
    code: grpc.StatusCode, details: str, kind: type[KeycacheError]
) -> None:
    assert type(plain(code, details)) is kind
