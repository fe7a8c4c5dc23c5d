"""Where a cluster's records stand in etcd: `/keycache/<cluster name>/` and the record's own key, in UTF-8 (DESIGN 6).

Two keys are the log's own, and no records of it: IDENTITY says whose log it is, BARRIER is written to be seen (see `watch`).
"""

from __future__ import annotations

import re

from keycache.domain.errors import InvalidInput
from keycache.domain.log import IDENTITY

BARRIER = "barrier"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""As a host's label (RFC 1123 section 2.1), and dots and underscores: nothing that a shell or a path would take for its own."""


class KeySpace:
    """The keys of one cluster. Bytewise order of the encoded keys is the order of the keys as text: UTF-8 keeps it."""

    def __init__(self, cluster_name: str) -> None:
        """Raises InvalidInput."""
        if not _NAME.fullmatch(cluster_name):
            raise InvalidInput(
                f"{cluster_name[:80]!r} cannot be a cluster's name.",
                hint="Take up to 63 letters, digits, dots, hyphens and underscores, the first a letter or a digit.",
            )
        self.first = f"/keycache/{cluster_name}/".encode()
        self.end = self.first[:-1] + b"0"  # the first key behind all that begin with the prefix
        self.identity = self.encode(IDENTITY)
        self.barrier = self.encode(BARRIER)

    def encode(self, key: str) -> bytes:
        return self.first + key.encode()

    def decode(self, key: bytes) -> str | None:
        """None: the log's own, or put there by somebody else, since none of ours is without a name or not UTF-8."""
        try:
            name = key.removeprefix(self.first).decode()
        except UnicodeDecodeError:
            return None
        return None if name in {"", IDENTITY, BARRIER} else name
