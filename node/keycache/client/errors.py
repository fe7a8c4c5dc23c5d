"""What a node or gRPC itself answers, as errors of our own tree. One table each way: the node's is `services.errors`.

Unavailable
+-- Unreachable          no node answers at the address, or it and we do not trust each other
InvalidInput
+-- MessageTooLarge      beyond what the node's transport takes at all
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from keycache.domain.errors import (
    InvalidInput,
    KeycacheError,
    LogCompacted,
    PermissionDenied,
    Refused,
    Unavailable,
)

DOMAIN = "keycache"
DETAILS_KEY = "grpc-status-details-bin"


class Unreachable(Unavailable):
    code = "NODE_UNREACHABLE"


class MessageTooLarge(InvalidInput):
    code = "MESSAGE_TOO_LARGE"


def known_errors(root: type[KeycacheError] = KeycacheError) -> dict[str, type[KeycacheError]]:
    """The tree by code. Where a subclass keeps its parent's code, the parent stands."""
    found = {root.code: root}
    for child in root.__subclasses__():
        found = {**known_errors(child), **found}
    return found


@contextmanager
def translated(target: str) -> Iterator[None]:
    """Turn the gRPC errors of a call to `target` into KeycacheErrors."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise translate(error, target) from error


def translate(error: grpc.aio.AioRpcError, target: str) -> KeycacheError:
    """The node's own error if it is one, else what gRPC's code and words amount to."""
    return _of_the_node(error) or _of_the_transport(error, target)


def _of_the_node(error: grpc.aio.AioRpcError) -> KeycacheError | None:
    info, hint = error_details_pb2.ErrorInfo(), error_details_pb2.LocalizedMessage()
    found = False
    metadata: Any = error.trailing_metadata() or grpc.aio.Metadata()
    for value in metadata.get_all(DETAILS_KEY):
        try:
            details = status_pb2.Status.FromString(value).details
            found = any(detail.Unpack(info) for detail in details) and info.domain == DOMAIN
            _ = any(detail.Unpack(hint) for detail in details)
        except DecodeError:
            continue
    if not found:
        return None
    kind = known_errors().get(info.reason, KeycacheError)
    text = error.details() or info.reason
    if issubclass(kind, LogCompacted):
        return Unavailable(text, hint=hint.message)  # the revision it carries is the node's own affair
    return kind(text, hint=hint.message)


_TRUST = re.compile(r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|self.signed certificate|unknown ca", re.IGNORECASE)
_NAME = re.compile(r"hostname|not verified|Peer name", re.IGNORECASE)
_HANDSHAKE = re.compile(r"handshake|SSL_ERROR|WRONG_VERSION_NUMBER|tlsv1|alert", re.IGNORECASE)
_TOO_LARGE = re.compile(r"message larger than max", re.IGNORECASE)


def _of_the_transport(error: grpc.aio.AioRpcError, target: str) -> KeycacheError:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        return _unreachable(details, target)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE.search(details):
        return MessageTooLarge(
            "The message is larger than the node takes.", hint="Its limit is 'message_limit' in the node's configuration."
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Unavailable(f"The node at {target} has too many calls in flight.", hint="Try again in a moment.")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(f"The node at {target} did not answer in time.", hint="Try again, or look at the node's log.")
    if code is grpc.StatusCode.CANCELLED:
        return Unavailable(f"The call to the node at {target} was cancelled.")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Refused(f"The node at {target} does not know this call.", hint="It runs another version; upgrade the older one.")
    if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
        return PermissionDenied(details or f"The node at {target} refuses.")
    return KeycacheError(f"The node at {target} answered {code.name}: {details}")


def _unreachable(details: str, target: str) -> Unreachable:
    if _TRUST.search(details):
        return Unreachable(
            f"The node at {target} is not the one that the CA certificate vouches for.",
            hint="Use the ca.pem of that very node.",
        )
    if _NAME.search(details) and _HANDSHAKE.search(details):
        return Unreachable(
            f"The node's certificate does not name {target}.",
            hint="Add the name to the node's configuration and restart it, or use a name that it has.",
        )
    if _HANDSHAKE.search(details):
        return Unreachable(
            f"No secure connection to {target} comes about ({details[:200]}).",
            hint="Check that a Keycache node listens there, and that your certificate is in force and of its CA.",
        )
    return Unreachable(
        f"No node answers at {target} ({details[:200]}).",
        hint="Check that it runs ('keycache serve'), that host and port are right, and that your certificate is one of its own.",
    )
