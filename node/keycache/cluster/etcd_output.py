"""What etcd writes: each line an event of ours, and why it ended. PURE.

etcd's `info` tells of every connection and file: that is our `debug`. Its names of fields are its own and are kept; its time stamp is
left out (the line comes as it is written), and so is the stack trace of a fatal error.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from keycache.domain.errors import ConfigError, KeycacheError, LogUnavailable, Refused, StoreCorrupt, StoreError

LEVELS = {"debug": "debug", "info": "debug", "warn": "warning"}
"""Whatever else (error, panic, fatal, and levels nobody knows) is an error."""

REMEMBERED = 60
"""Lines in which the cause of an end is looked for: a fatal start writes some 10 after it."""

_DROPPED = frozenset({"level", "ts", "msg", "stacktrace"})

_NOISE = (
    "established TCP streaming connection",
    "stopped TCP streaming connection",
    "closed TCP streaming connection",
    "closed existing TCP streaming connection",
    "simple token is not cryptographically signed",
    "server has peer TLS",
)
"""Warnings of 3.4 that tell of nothing wrong: they are our `debug`, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`level`: debug, info, warning or error. `details`: etcd's further fields."""

    level: str
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)


def read_line(raw: bytes) -> Line:
    """One line, in JSON or not: Go's runtime panics in plain text."""
    text = raw.decode("utf-8", "replace").strip()
    try:
        event = json.loads(text)
    except ValueError:
        event = None
    if not isinstance(event, dict) or "msg" not in event:
        return Line(level="warning", text=text)
    level = LEVELS.get(str(event.get("level")), "error")
    message = str(event["msg"])
    if level == "warning" and message.startswith(_NOISE):
        level = "debug"
    # In one place, since a name of theirs (`event`, `key`) could mean something else to our log.
    details = {str(name): value for name, value in event.items() if name not in _DROPPED}
    return Line(level=level, text=message, details=details)


class Cause(NamedTuple):
    """One reason to end. `lasting`: no restart mends it."""

    message: str
    error: type[KeycacheError]
    text: str
    hint: str
    lasting: bool = False


_EMPTY = "Let this node leave and join again, which empties its etcd's directory and copies everything anew; its replica stays."

CAUSES = (
    Cause(
        "permanently removed from the cluster",
        Refused,
        "This node's member was removed from etcd.",
        f"Its data there is of no more use. {_EMPTY}",
        lasting=True,
    ),
    Cause(
        "cluster id mismatch",
        Refused,
        "This node's etcd belongs to another cluster than the members it was told of.",
        f"Check the addresses it was given. {_EMPTY}",
    ),
    Cause(
        "address already in use",
        ConfigError,
        "A port of etcd is taken by another program.",
        "See who has it: ss -ltnp. End that program, or choose another port for etcd.",
    ),
    Cause(
        "cannot assign requested address",
        ConfigError,
        "etcd is to listen on an address that this machine does not have.",
        "Name an address of this machine (ip address), or 0.0.0.0.",
    ),
    Cause(
        "no space left on device",
        StoreError,
        "The disk of etcd is full.",
        "Free some space there, at least 200 MB; etcd then starts again by itself. What was acknowledged is kept.",
    ),
    Cause(
        "disk quota exceeded", StoreError, "The quota of etcd's user on its disk is used up.", "Raise it, or free some space."
    ),
    Cause(
        "read-only file system",
        StoreError,
        "The disk of etcd is mounted read-only.",
        "See the kernel's log (dmesg) for the disk, and mount it for writing.",
    ),
    Cause(
        "permission denied",
        ConfigError,
        "etcd may not read or write one of its files.",
        "Check that the node's user owns the data directory and the certificates.",
    ),
    *(
        Cause(message, StoreCorrupt, "The data of this node's etcd is damaged.", f"Keep a copy of it if you can. {_EMPTY}")
        for message in (
            "crc mismatch",
            "database snapshot file not found",
            "failed to find database snapshot",
            "failed to recover v3 backend",
            "invalid database",
            "freepages:",
            "walpb: crc",
            "file not found when locking",
            "does not match snapshot",
        )
    ),
    Cause(
        "cannot be downgraded",
        ConfigError,
        "The data of etcd was written by a later version than the one that is installed.",
        "Install that version again: etcd does not go back.",
    ),
    *(
        Cause(message, ConfigError, "etcd cannot use its certificate or key.", "See the error in the log, and renew them.")
        for message in ("tls: ", "x509: ", "failed to find any pem data")
    ),
    Cause("no such file or directory", ConfigError, "etcd misses a file.", "See the error in the log."),
    *(
        Cause(
            message,
            LogUnavailable,
            "etcd did not reach the members it was told of, or they know other ones.",
            "Check the addresses and that no firewall is between; then let the node join again.",
        )
        for message in ("member count is unequal", "error validating peerurls", "cannot fetch cluster info from peer urls")
    ),
    Cause("provided but not defined", ConfigError, "This etcd does not know one of our options.", "Install 3.4, 3.5 or 3.6."),
    Cause("out of memory", LogUnavailable, "etcd had no memory left.", "Give the machine more, or less to do."),
)


class LastWords:
    """The newest lines, and what they say of the end."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque(maxlen=REMEMBERED)

    def add(self, raw: bytes) -> None:
        self._lines.append(raw)

    def cause(self) -> Cause | None:
        return cause_of(self._lines)


def cause_of(lines: Iterable[bytes]) -> Cause | None:
    """The first of CAUSES that an error tells of; of a warning (such as one client's bad certificate) only what lasts."""
    errors, warnings = [], []
    for raw in lines:
        text = raw.decode("utf-8", "replace").lower()
        if '"level":"warn"' in text:
            warnings.append(text)
        elif '"level":"info"' not in text and '"level":"debug"' not in text:
            errors.append(text)

    def told(cause: Cause) -> bool:
        return any(cause.message in text for text in (*errors, *(warnings if cause.lasting else ())))

    return next(filter(told, CAUSES), None)
