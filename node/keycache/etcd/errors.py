"""What etcd and gRPC say, in our words: ONE table, searched from the top, its last lines taking whatever is left of a code.

Each line also says what became of the request, which decides whether another endpoint may be asked.

etcd's messages are those of `rpctypes/error.go` of 3.4, 3.5 and 3.6. They decide before the code does: etcd gives one message under
different codes (the learner's refusal is UNAVAILABLE in 3.5 and FAILED_PRECONDITION in 3.6; "too many requests", which has a code of
its own, goes out as UNKNOWN).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc

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


class Outcome(Enum):
    """What became of a request that failed."""

    ELSEWHERE = "Nothing was done; another endpoint may do it."
    UNCERTAIN = "It may have been carried out all the same."
    FINAL = "Nothing was done, and no other endpoint will do it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line. `message`: a pattern, searched in what etcd or gRPC said in lower case; `code` None: whatever it is. `text` follows
    the endpoint's name. `passing`: an election or a start, over within seconds."""

    message: str
    error: type[KeycacheError]
    outcome: Outcome
    text: str
    hint: str = ""
    code: grpc.StatusCode | None = None
    passing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One request to one endpoint."""

    error: KeycacheError
    outcome: Outcome
    passing: bool = False


_ALONE = "Start the members of etcd that are down; with a majority of them up it goes on by itself."
_REACH = "Check that etcd runs there, and that no firewall is between."
_CA = "Give the certificate of the authority that signed etcd's certificates (its --trusted-ca-file)."
_OWN = "Give this node a client certificate, with its key, of the authority that etcd trusts (its --trusted-ca-file)."
_ROLE = "Give the user that this node's client certificate names a role that reads and writes the prefix of the cluster."
_FAULT = "This is a fault of Keycache: please report it."
_WAIT = "It goes on by itself; try again."
_FULL = (
    "Make room on etcd: 'etcdctl compact REVISION' with the revision that 'etcdctl endpoint status -w json' shows, then "
    "'etcdctl defrag' on each member, then 'etcdctl alarm disarm'; or raise --quota-backend-bytes first."
)
_SMALLER = "Write less at once. The limit is etcd's --max-request-bytes, 1.5 MiB by default."


def _rules(error: type[KeycacheError], outcome: Outcome, text: str, hint: str, *messages: str, **more: Any) -> tuple[Rule, ...]:
    return tuple(Rule(message=message, error=error, outcome=outcome, text=text, hint=hint, **more) for message in messages)


def _rule(message: str, error: type[KeycacheError], outcome: Outcome, text: str, hint: str = "", **more: Any) -> Rule:
    return Rule(message=message, error=error, outcome=outcome, text=text, hint=hint, **more)


_TABLE_OF_ETCD = (
    _rule(
        "rpc not supported for learner",
        LogUnavailable,
        Outcome.ELSEWHERE,
        "is a learner, and serves nobody until it is promoted.",
        "Wait until it has caught up, or name members that vote.",
    ),
    _rule(
        "no leader", LogUnavailable, Outcome.ELSEWHERE, "has no leader: it reaches no majority of etcd.", _ALONE, passing=True
    ),
    _rule("leader changed", LogUnavailable, Outcome.UNCERTAIN, "has just got another leader.", _WAIT, passing=True),
    _rule(
        "request timed out",
        LogUnavailable,
        Outcome.UNCERTAIN,
        "got no majority of etcd to agree in time.",
        _ALONE,
        passing=True,
    ),
    _rule("server stopped", LogUnavailable, Outcome.UNCERTAIN, "is stopping.", _ALONE),
    _rule("not leader", LogUnavailable, Outcome.ELSEWHERE, "does not lead.", _WAIT, passing=True),
    _rule("not capable", LogUnavailable, Outcome.ELSEWHERE, "is still starting.", _WAIT, passing=True),
    _rule("proposal dropped", LogUnavailable, Outcome.UNCERTAIN, "is changing its leader.", _WAIT, passing=True),
    _rule("unhealthy cluster", LogUnavailable, Outcome.FINAL, "changes no members while not all of them are well.", _ALONE),
    _rule(
        "too many requests",
        LogOverloaded,
        Outcome.FINAL,
        "has more to do than it keeps up with.",
        "Nothing is lost: it is tried again. If it stays so, look at the speed of etcd's disks.",
    ),
    _rule("database space exceeded", LogFull, Outcome.FINAL, "is full: its database has reached its quota.", _FULL),
    _rule("request is too large", RecordTooLarge, Outcome.FINAL, "takes no request of this size.", _SMALLER),
    _rule("message larger than max", RecordTooLarge, Outcome.FINAL, "takes or gives no message of this size.", _SMALLER),
    _rule(
        "has been compacted",
        LogCompacted,
        Outcome.FINAL,
        "no longer holds that revision.",
        "List the log and watch from there.",
    ),
    _rule(
        "is a future revision",
        ForeignLog,
        Outcome.FINAL,
        "has not come to that revision: it was built anew, or restored from an older copy.",
        "Nothing was changed. Run 'keycache cluster check'.",
    ),
    _rule(
        "corrupt cluster",
        LogUnavailable,
        Outcome.FINAL,
        "has found its members' data to differ, and takes no writes (alarm CORRUPT).",
        "Remove the member that differs ('etcdctl endpoint hashkv') and add it again with an empty data directory.",
    ),
    *_rules(
        LogUnavailable,
        Outcome.FINAL,
        "lets this node's user not do that.",
        _ROLE,
        *("permission denied", "permission not given", "user name is empty", "user name not found", "role is not granted"),
        *("permission is not granted", "role name not found", "role name is empty", "invalid auth management"),
    ),
    *_rules(
        LogUnavailable,
        Outcome.FINAL,
        "does not know this node's user.",
        _ROLE,
        *("authentication failed", "invalid auth token", "revision of auth store is old", "authentication is not enabled"),
        *("root user does not", "user name already exists", "role name already exists"),
    ),
    _rule("lease not found", NotFound, Outcome.FINAL, "does not hold that lease any more."),
    _rule("lease already exists", Conflict, Outcome.FINAL, "holds that lease already.", _FAULT),
    _rule("member not found", NotFound, Outcome.FINAL, "knows no such member."),
    *_rules(
        Conflict,
        Outcome.FINAL,
        "has that member already.",
        "See 'etcdctl member list'.",
        "member id already exist",
        "peer urls already",
    ),
    *_rules(
        Refused,
        Outcome.FINAL,
        "does not change its members so.",
        "Wait until those there are well and have caught up, and try again.",
        *("not enough started members", "too many learner members", "only promote a learner", "cluster id mismatch"),
        *("member urls are invalid", "bad leader transferee"),
    ),
    *_rules(Refused, Outcome.FINAL, "is changing its version.", "Wait until that is done.", "downgrade"),
    *_rules(
        KeycacheError,
        Outcome.FINAL,
        "refuses our request as malformed.",
        _FAULT,
        *("key is not provided", "key not found", "value is provided", "lease is provided", "too many operations"),
        *("duplicate key", "invalid client api version", "invalid sort option", "too large lease ttl"),
    ),
    *_rules(
        LogUnavailable,
        Outcome.UNCERTAIN,
        "broke the request off.",
        _WAIT,
        "watch canceled",
        "request canceled",
        "context canceled",
    ),
    _rule("context deadline exceeded", LogUnavailable, Outcome.UNCERTAIN, "did not answer in time.", _ALONE, passing=True),
)

_TABLE_OF_GRPC = (
    # TLS. `Endpoint.connect` knows that nothing was sent; on a connection that stood already, it may have been.
    _rule(
        "certificate_verify_failed",
        LogUnavailable,
        Outcome.UNCERTAIN,
        "shows a certificate that does not come from the authority this node was given, or is not valid now.",
        _CA,
    ),
    _rule(
        "hostname verification",
        LogUnavailable,
        Outcome.UNCERTAIN,
        "shows a certificate for another name or address.",
        "Write the endpoint as the certificate has it, or renew the certificate with this name or address in it.",
    ),
    *_rules(
        LogUnavailable,
        Outcome.UNCERTAIN,
        "does not accept this node's client certificate, or got none.",
        _OWN,
        "unwrap failed",
        "_alert_",
    ),
    _rule(
        "handshake read failed",
        LogUnavailable,
        Outcome.UNCERTAIN,
        "does not speak TLS.",
        "Write the endpoint with http://, or better give etcd a certificate.",
    ),
    _rule(
        "handshake failed",
        LogUnavailable,
        Outcome.UNCERTAIN,
        "and this node do not agree on TLS.",
        "Look at the certificates of both sides, and into the log of etcd.",
    ),
    # None of these has sent anything: the connection never came to be.
    _rule("connection refused", LogUnavailable, Outcome.ELSEWHERE, "refuses connections: nothing listens there.", _REACH),
    *_rules(
        LogUnavailable,
        Outcome.ELSEWHERE,
        "cannot be found: the name does not resolve.",
        "Check the name of the endpoint, and the resolver of this machine.",
        *("errors resolving", "lookup failed", "name resolution"),
    ),
    _rule(
        "failed to connect.* socket closed",
        LogUnavailable,
        Outcome.ELSEWHERE,
        "hangs up at once; it may expect TLS.",
        "Write the endpoint with https:// and give the certificates.",
    ),
    _rule(
        "failed to connect.* unavailable:",
        LogUnavailable,
        Outcome.ELSEWHERE,
        "hangs up at once.",
        "Look at the certificates of both sides, and into the log of etcd.",
    ),
    _rule("failed to connect", LogUnavailable, Outcome.ELSEWHERE, "cannot be reached.", _REACH),
    # From here on the code decides.
    _rule("", LogUnavailable, Outcome.UNCERTAIN, "broke the connection off.", _REACH, code=grpc.StatusCode.UNAVAILABLE),
    _rule(
        "",
        LogUnavailable,
        Outcome.UNCERTAIN,
        "did not answer in time.",
        _ALONE,
        code=grpc.StatusCode.DEADLINE_EXCEEDED,
        passing=True,
    ),
    _rule("", LogUnavailable, Outcome.UNCERTAIN, "broke the request off.", _WAIT, code=grpc.StatusCode.CANCELLED),
    _rule("", LogUnavailable, Outcome.UNCERTAIN, "did not finish the request.", _WAIT, code=grpc.StatusCode.ABORTED),
    _rule("", LogOverloaded, Outcome.FINAL, "has run out of something.", _WAIT, code=grpc.StatusCode.RESOURCE_EXHAUSTED),
    _rule("", LogUnavailable, Outcome.FINAL, "lets this node not do that.", _ROLE, code=grpc.StatusCode.PERMISSION_DENIED),
    _rule("", LogUnavailable, Outcome.FINAL, "does not know this node's user.", _ROLE, code=grpc.StatusCode.UNAUTHENTICATED),
    _rule(
        "",
        LogUnavailable,
        Outcome.FINAL,
        "has lost data.",
        "Look into the log of etcd before anything else.",
        code=grpc.StatusCode.DATA_LOSS,
    ),
    _rule(
        "",
        LogUnavailable,
        Outcome.ELSEWHERE,
        "does not speak etcd's protocol.",
        "Check the port: etcd's --listen-client-urls names it.",
        code=grpc.StatusCode.UNIMPLEMENTED,
    ),
    *(
        _rule("", KeycacheError, Outcome.FINAL, "refuses our request.", _FAULT, code=code)
        for code in (
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.FAILED_PRECONDITION,
            grpc.StatusCode.OUT_OF_RANGE,
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.ALREADY_EXISTS,
        )
    ),
    _rule("", LogUnavailable, Outcome.UNCERTAIN, "failed.", "Look into the log of etcd."),
)

RULES = (*_TABLE_OF_ETCD, *_TABLE_OF_GRPC)


def rule_for(code: grpc.StatusCode, message: str) -> Rule:
    """The first line that fits; the last one always does."""
    said = message.lower()
    return next(rule for rule in RULES if rule.code in (None, code) and re.search(rule.message, said))


def explain(code: grpc.StatusCode, message: str | None, endpoint: str, *, asked: Revision | None = None) -> Failure:
    """`asked`: the revision that was read, of which LogCompacted then tells that it is gone."""
    rule = rule_for(code, message or "")
    text = f"etcd at {endpoint} {rule.text}" + (f" It said: {message}" if rule.message == "" and message else "")
    error: KeycacheError
    if rule.error is LogCompacted:
        error = LogCompacted(text, compacted=0 if asked is None else asked + 1, hint=rule.hint)
    else:
        error = rule.error(text, hint=rule.hint)
    return Failure(error=error, outcome=rule.outcome, passing=rule.passing)


def closed() -> LogUnavailable:
    return LogUnavailable("The entry log is closed.", hint="The node is stopping.")
