"""Bytes that must not be seen: neither `repr` nor `str` nor a log line shows them."""

from __future__ import annotations

import hmac
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Secret:
    """Whoever needs the bytes says `reveal()`. Comparing takes the same time wherever they differ."""

    _bytes: bytes

    def reveal(self) -> bytes:
        return self._bytes

    def __eq__(self, other: object) -> bool:
        return hmac.compare_digest(self._bytes, other._bytes) if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return "Secret(redacted)"

    __str__ = __repr__
