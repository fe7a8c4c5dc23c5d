"""Where a cluster's records stand in etcd: `/keycache/<cluster name>/` and the record's own key, in UTF-8 (DESIGN 6).

Two keys are the log's own, and no records of it: IDENTITY says whose log it is, BARRIER is written to be seen (see `watch`).
"""

from __future__ import annotations

import re
from itertools import product

from keycache.domain.entry import Protocol
from keycache.domain.errors import InvalidInput
from keycache.domain.log import IDENTITY, entry_prefix

BARRIER = "barrier"

STRETCH = 4_096
"""Keys between two cuts, about: a few pages, of which each makes etcd walk over all that follow in its stretch."""

_DIGITS = "0123456789abcdef"

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

    def cuts(self, count: int) -> list[bytes]:
        """Where to cut a listing of so many keys, in order, so that no stretch between two cuts is much longer than STRETCH: entries
        are named by fingerprints, which are spread evenly. None for few keys.

        Before 3.5 etcd walks over every key up to a range's end for each page of it, however small (`treeIndex.Revisions`), and later
        versions do it to count them: a million keys in pages of a thousand would be walked over five hundred times.
        """
        if count <= 2 * STRETCH:
            return []
        digits = 1
        while count > STRETCH * 16**digits:
            digits += 1
        names = ["".join(one) for one in product(_DIGITS, repeat=digits)]
        prefixes = sorted(entry_prefix(protocol) for protocol in Protocol)
        return [self.encode(prefix + name) for prefix in prefixes for name in names]

    def encode(self, key: str) -> bytes:
        return self.first + key.encode()

    def decode(self, key: bytes) -> str | None:
        """None: the log's own, or put there by somebody else, since none of ours is without a name or not UTF-8."""
        try:
            name = key.removeprefix(self.first).decode()
        except UnicodeDecodeError:
            return None
        return None if name in {"", IDENTITY, BARRIER} else name
