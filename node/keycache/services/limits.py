"""How much mail a node holds in memory at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from keycache.domain.errors import Unavailable


class ByteBudget:
    """Bytes of messages in flight. One message always fits, whatever its size; more only together below the limit.

    Refusing is right where waiting is not: what waits is in memory already, and a mail processor tries again or lets the mail
    pass unharvested, which costs nothing but a later harvest.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Raises Unavailable."""
        if self._used and self._used + size > self._limit:
            raise Unavailable(
                f"The node has {self._used >> 20} MiB of mail in hand and takes no more just now.",
                hint="Try again in a second.",
            )
        self._used += size
        try:
            yield
        finally:
            self._used -= size
