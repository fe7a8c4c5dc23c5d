"""What callers are told when something fails. One table; a test fails when an error class is missing from it.

An error of our own tree goes out as its gRPC code, its text, and google.rpc details: ErrorInfo (`reason` is the error's code,
`domain` is "keycache") and, if there is a hint, LocalizedMessage with it. Anything else is a mistake of ours: the caller gets a
number, the log gets the traceback under that number, once.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2

from keycache.client.errors import DETAILS_KEY, DOMAIN
from keycache.domain import errors
from keycache.logs import get_logger

_log = get_logger(__name__)

CODES: dict[type[errors.KeycacheError], grpc.StatusCode] = {
    errors.KeycacheError: grpc.StatusCode.INTERNAL,
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.OutOfRange: grpc.StatusCode.INVALID_ARGUMENT,  # gRPC's OUT_OF_RANGE means "read past the end"
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Refused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ConfirmationNeeded: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Conflict: grpc.StatusCode.ABORTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.LogUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.LogFull: grpc.StatusCode.UNAVAILABLE,
    errors.LogOverloaded: grpc.StatusCode.UNAVAILABLE,
    errors.LogCompacted: grpc.StatusCode.UNAVAILABLE,
    errors.OutboxFull: grpc.StatusCode.UNAVAILABLE,
    errors.RecordTooLarge: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ForeignLog: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StoreError: grpc.StatusCode.INTERNAL,
    errors.StoreCorrupt: grpc.StatusCode.DATA_LOSS,
    errors.StoreTooNew: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ConfigError: grpc.StatusCode.FAILED_PRECONDITION,
}

_TEXT_LIMIT = 1000
"""Characters of text and of hint: details travel in headers, of which many peers take 8 KiB in all (gRPC's default)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What ends a call."""

    code: grpc.StatusCode
    text: str
    metadata: tuple[tuple[str, bytes], ...]


def failure(error: Exception, rpc: str) -> Failure:
    """How `error`, raised in a call of `rpc`, is told to the caller. Logs it if it is a mistake of ours."""
    if isinstance(error, errors.KeycacheError):
        return _told(error)
    incident = secrets.token_hex(4)
    _log.error("a call failed by a mistake in Keycache", rpc=rpc, incident=incident, exc_info=error)
    return _told(
        errors.KeycacheError(
            f"The node made a mistake (incident {incident}).",
            hint=f"Look for {incident} in the node's log, and report what stands there.",
        )
    )


def _told(error: errors.KeycacheError) -> Failure:
    code = next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)
    text, hint = error.text[:_TEXT_LIMIT], error.hint[:_TEXT_LIMIT]
    details = [error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN)]
    if hint:
        details.append(error_details_pb2.LocalizedMessage(locale="en", message=hint))
    status = status_pb2.Status(code=code.value[0], message=text)
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return Failure(code=code, text=text, metadata=((DETAILS_KEY, status.SerializeToString()),))
