"""The table of foreign errors has no hole: every message etcd knows, every code gRPC knows."""

from __future__ import annotations

import grpc
import pytest

from keycache.domain.errors import (
    Conflict,
    ForeignLog,
    KeycacheError,
    LogCompacted,
    LogFull,
    LogOverloaded,
    LogUnavailable,
    NotFound,
    RecordTooLarge,
    Refused,
)
from keycache.domain.names import Revision
from keycache.etcd.errors import RULES, Outcome, explain, rule_for

CANCELLED, UNKNOWN = grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN
INVALID, LATE = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.DEADLINE_EXCEEDED
MISSING, DENIED = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED
EXHAUSTED, PRECONDITION = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.FAILED_PRECONDITION
RANGE, LOSS = grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.DATA_LOSS
UNAVAILABLE, STRANGER = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED
FINAL, ELSEWHERE, UNCERTAIN = Outcome.FINAL, Outcome.ELSEWHERE, Outcome.UNCERTAIN

# Every message of rpctypes/error.go in etcd 3.4.23, 3.4, 3.5 and 3.6, each with every code it goes out under.
OF_ETCD = [
    (CANCELLED, "request canceled", LogUnavailable, UNCERTAIN),
    (CANCELLED, "watch canceled", LogUnavailable, UNCERTAIN),
    (LOSS, "corrupt cluster", LogUnavailable, FINAL),
    (LATE, "context deadline exceeded", LogUnavailable, UNCERTAIN),
    (PRECONDITION, "Peer URLs already exists", Conflict, FINAL),
    (PRECONDITION, "authentication is not enabled", LogUnavailable, FINAL),
    (PRECONDITION, "bad leader transferee", Refused, FINAL),
    (PRECONDITION, "can only promote a learner member which is in sync with leader", Refused, FINAL),
    (PRECONDITION, "can only promote a learner member", Refused, FINAL),
    (PRECONDITION, "cluster ID mismatch", Refused, FINAL),
    (PRECONDITION, "cluster has a downgrade job in progress", Refused, FINAL),
    (PRECONDITION, "cluster version not found during downgrade", Refused, FINAL),
    (UNAVAILABLE, "cluster version not found during downgrade", Refused, FINAL),
    (PRECONDITION, "lease already exists", Conflict, FINAL),
    (PRECONDITION, "member ID already exist", Conflict, FINAL),
    (PRECONDITION, "no inflight downgrade job", Refused, FINAL),
    (PRECONDITION, "not capable", LogUnavailable, ELSEWHERE),
    (UNAVAILABLE, "not capable", LogUnavailable, ELSEWHERE),
    (PRECONDITION, "not leader", LogUnavailable, ELSEWHERE),
    (PRECONDITION, "permission is not granted to the role", LogUnavailable, FINAL),
    (PRECONDITION, "re-configuration failed due to not enough started members", Refused, FINAL),
    (PRECONDITION, "role is not granted to the user", LogUnavailable, FINAL),
    (PRECONDITION, "role name already exists", LogUnavailable, FINAL),
    (PRECONDITION, "role name not found", LogUnavailable, FINAL),
    (PRECONDITION, "root user does not exist", LogUnavailable, FINAL),
    (PRECONDITION, "root user does not have root role", LogUnavailable, FINAL),
    (PRECONDITION, "rpc not supported for learner", LogUnavailable, ELSEWHERE),
    (UNAVAILABLE, "rpc not supported for learner", LogUnavailable, ELSEWHERE),
    (PRECONDITION, "too many learner members in cluster", Refused, FINAL),
    (PRECONDITION, "user name already exists", LogUnavailable, FINAL),
    (PRECONDITION, "user name not found", LogUnavailable, FINAL),
    (INVALID, "authentication failed, invalid user ID or password", LogUnavailable, FINAL),
    (INVALID, "duplicate key given in txn request", KeycacheError, FINAL),
    (INVALID, "given member URLs are invalid", Refused, FINAL),
    (INVALID, "invalid auth management", LogUnavailable, FINAL),
    (INVALID, "invalid client api version", KeycacheError, FINAL),
    (INVALID, "invalid downgrade target version", Refused, FINAL),
    (INVALID, "invalid sort option", KeycacheError, FINAL),
    (INVALID, "key is not provided", KeycacheError, FINAL),
    (INVALID, "key not found", KeycacheError, FINAL),
    (INVALID, "lease is provided", KeycacheError, FINAL),
    (INVALID, "permission not given", LogUnavailable, FINAL),
    (INVALID, "request is too large", RecordTooLarge, FINAL),
    (INVALID, "revision of auth store is old", LogUnavailable, FINAL),
    (INVALID, "role name is empty", LogUnavailable, FINAL),
    (INVALID, "too many operations in txn request", KeycacheError, FINAL),
    (INVALID, "user name is empty", LogUnavailable, FINAL),
    (INVALID, "value is provided", KeycacheError, FINAL),
    (INVALID, "wrong downgrade target version format", Refused, FINAL),
    (MISSING, "member not found", NotFound, FINAL),
    (MISSING, "requested lease not found", NotFound, FINAL),
    (RANGE, "mvcc: required revision has been compacted", LogCompacted, FINAL),
    (RANGE, "mvcc: required revision is a future revision", ForeignLog, FINAL),
    (RANGE, "too large lease TTL", KeycacheError, FINAL),
    (DENIED, "permission denied", LogUnavailable, FINAL),
    (EXHAUSTED, "mvcc: database space exceeded", LogFull, FINAL),
    (EXHAUSTED, "too many requests", LogOverloaded, FINAL),
    (UNKNOWN, "too many requests", LogOverloaded, FINAL),
    (STRANGER, "invalid auth token", LogUnavailable, FINAL),
    (UNAVAILABLE, "leader changed", LogUnavailable, UNCERTAIN),
    (UNAVAILABLE, "no leader", LogUnavailable, ELSEWHERE),
    (UNAVAILABLE, "request timed out", LogUnavailable, UNCERTAIN),
    (UNAVAILABLE, "request timed out, possibly due to connection lost", LogUnavailable, UNCERTAIN),
    (UNAVAILABLE, "request timed out, possibly due to previous leader failure", LogUnavailable, UNCERTAIN),
    (UNAVAILABLE, "request timed out, waiting for the applied index took too long", LogUnavailable, UNCERTAIN),
    (UNAVAILABLE, "server stopped", LogUnavailable, UNCERTAIN),
    (UNAVAILABLE, "unhealthy cluster", LogUnavailable, FINAL),
]

# As gRPC words them (grpcio 1.85.1), and what etcd passes on from below.
FAILED = "failed to connect to all addresses; last error: "
OF_GRPC = [
    (UNKNOWN, "raft proposal dropped", LogUnavailable, UNCERTAIN),
    (UNKNOWN, "context canceled", LogUnavailable, UNCERTAIN),
    (EXHAUSTED, "grpc: received message larger than max (5700008 vs. 2097152)", RecordTooLarge, FINAL),
    (EXHAUSTED, "Stream removed (CLIENT: Received message larger than max (5000118 vs. 4194304))", RecordTooLarge, FINAL),
    (EXHAUSTED, "Sent message larger than max (5000118 vs. 4194304)", RecordTooLarge, FINAL),
    (
        UNAVAILABLE,
        FAILED + "UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: Connection refused",
        LogUnavailable,
        ELSEWHERE,
    ),
    (UNAVAILABLE, FAILED + "UNKNOWN: ipv4:127.0.0.1:1: No route to host", LogUnavailable, ELSEWHERE),
    (UNAVAILABLE, FAILED + "UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed", LogUnavailable, ELSEWHERE),
    (UNAVAILABLE, FAILED + "UNAVAILABLE: ipv4:127.0.0.1:1: recvmsg:Connection reset by peer", LogUnavailable, ELSEWHERE),
    (UNAVAILABLE, FAILED + "UNAVAILABLE: ipv4:127.0.0.1:1: Unwrap failed (TSI_DATA_CORRUPTED)", LogUnavailable, UNCERTAIN),
    (UNAVAILABLE, FAILED + "UNAVAILABLE: ipv4:127.0.0.1:1: Handshake read failed (Socket closed)", LogUnavailable, UNCERTAIN),
    (
        UNAVAILABLE,
        FAILED + "UNKNOWN: ipv4:127.0.0.1:1: Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL "
        "routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate: OK",
        LogUnavailable,
        UNCERTAIN,
    ),
    (
        UNAVAILABLE,
        FAILED + "UNKNOWN: ipv4:127.0.0.1:1: Tls handshake failed (TSI_PROTOCOL_FAILURE): WRONG_VERSION_NUMBER",
        LogUnavailable,
        UNCERTAIN,
    ),
    (
        UNAVAILABLE,
        FAILED + "error:10000412:SSL routines:OPENSSL_internal:SSLV3_ALERT_BAD_CERTIFICATE",
        LogUnavailable,
        UNCERTAIN,
    ),
    (
        UNAVAILABLE,
        FAILED + "UNKNOWN: Custom verification check failed with error: UNAUTHENTICATED: Hostname Verification Check failed.",
        LogUnavailable,
        UNCERTAIN,
    ),
    (UNAVAILABLE, "errors resolving nowhere.invalid:2379: Domain name not found", LogUnavailable, ELSEWHERE),
    (UNAVAILABLE, "DNS resolution failed: address lookup failed for nowhere.invalid:2379", LogUnavailable, ELSEWHERE),
    (UNAVAILABLE, "Name resolution failure", LogUnavailable, ELSEWHERE),
]

# What a code means whatever is said with it.
BARE = {
    grpc.StatusCode.CANCELLED: (LogUnavailable, UNCERTAIN),
    grpc.StatusCode.UNKNOWN: (LogUnavailable, UNCERTAIN),
    grpc.StatusCode.INVALID_ARGUMENT: (KeycacheError, FINAL),
    grpc.StatusCode.DEADLINE_EXCEEDED: (LogUnavailable, UNCERTAIN),
    grpc.StatusCode.NOT_FOUND: (KeycacheError, FINAL),
    grpc.StatusCode.ALREADY_EXISTS: (KeycacheError, FINAL),
    grpc.StatusCode.PERMISSION_DENIED: (LogUnavailable, FINAL),
    grpc.StatusCode.UNAUTHENTICATED: (LogUnavailable, FINAL),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (LogOverloaded, FINAL),
    grpc.StatusCode.FAILED_PRECONDITION: (KeycacheError, FINAL),
    grpc.StatusCode.ABORTED: (LogUnavailable, UNCERTAIN),
    grpc.StatusCode.OUT_OF_RANGE: (KeycacheError, FINAL),
    grpc.StatusCode.UNIMPLEMENTED: (LogUnavailable, ELSEWHERE),
    grpc.StatusCode.INTERNAL: (LogUnavailable, UNCERTAIN),
    grpc.StatusCode.UNAVAILABLE: (LogUnavailable, UNCERTAIN),
    grpc.StatusCode.DATA_LOSS: (LogUnavailable, FINAL),
}
SAID = [(code, f"etcdserver: {message}") for code, message, _, _ in OF_ETCD] + [
    (code, message) for code, message, _, _ in OF_GRPC
]
URL = "https://etcd-1.example:2379"


@pytest.mark.parametrize(("code", "message", "error", "outcome"), OF_ETCD)
def test_every_message_of_etcd_has_its_error(
    code: grpc.StatusCode, message: str, error: type[KeycacheError], outcome: Outcome
) -> None:
    failure = explain(code, f"etcdserver: {message}", URL)
    assert (type(failure.error), failure.outcome) == (error, outcome)
    assert rule_for(code, f"etcdserver: {message}").message, "by its message, not only by its code"


@pytest.mark.parametrize(("code", "message", "error", "outcome"), OF_GRPC)
def test_every_way_a_connection_fails_has_its_error(
    code: grpc.StatusCode, message: str, error: type[KeycacheError], outcome: Outcome
) -> None:
    failure = explain(code, message, URL)
    assert (type(failure.error), failure.outcome) == (error, outcome)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_code_has_an_error_that_carries_what_was_said(code: grpc.StatusCode) -> None:
    failure = explain(code, "something quite new", URL)
    assert (type(failure.error), failure.outcome) == BARE[code]
    assert "It said: something quite new" in failure.error.text
    assert explain(code, None, URL).outcome is failure.outcome


@pytest.mark.parametrize(("code", "message"), SAID)
def test_every_error_names_the_endpoint_and_says_what_happened(code: grpc.StatusCode, message: str) -> None:
    error = explain(code, message, URL).error
    assert error.text.startswith(f"etcd at {URL} ")
    assert error.text.endswith(".")
    assert isinstance(error, NotFound) or error.hint.endswith(".")


def test_no_line_of_the_table_is_out_of_reach() -> None:
    bare = [(code, "something quite new") for code in BARE]
    assert {rule_for(code, message) for code, message in (*SAID, *bare)} == set(RULES)


def test_a_compacted_revision_is_told_with_the_error() -> None:
    failure = explain(RANGE, "etcdserver: mvcc: required revision has been compacted", URL, asked=Revision(41))
    assert isinstance(failure.error, LogCompacted)
    assert failure.error.compacted == 42


def test_a_full_etcd_comes_with_the_commands_that_make_room() -> None:
    hint = explain(EXHAUSTED, "etcdserver: mvcc: database space exceeded", URL).error.hint
    for word in ("compact", "defrag", "alarm disarm", "--quota-backend-bytes"):
        assert word in hint
