"""Page tokens: the place in a sorted listing after which the next page begins.

A token names sort value, fingerprint and protocol of the last entry shown. It holds no row numbers, so it stays good when entries
come and go, after a new listing, and on another node.
"""

from __future__ import annotations

import base64
import json
from typing import NamedTuple

from keycache.domain.errors import InvalidInput
from keycache.domain.ports import EntryQuery, SortBy


class Place(NamedTuple):
    """`value` is a text for ADDRESS and FINGERPRINT, microseconds since the epoch for CACHED and REFRESHED."""

    value: str | int
    fingerprint: str
    protocol: int


def token(query: EntryQuery, place: Place) -> str:
    plain = json.dumps([query.sort.value, query.descending, *place], separators=(",", ":"))
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def place_of(query: EntryQuery) -> Place | None:
    """Where `query.after` says to begin; None at the start. Raises InvalidInput for what is no token of such a listing."""
    if not query.after:
        return None
    number = SortBy.CACHED, SortBy.REFRESHED
    try:
        padded = query.after.encode("ascii") + b"=" * (-len(query.after) % 4)
        sort, descending, value, fingerprint, protocol = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        f"{value}{fingerprint}".encode()  # JSON can spell what UTF-8 cannot
    except (ValueError, TypeError, RecursionError):  # also binascii.Error and the errors of Unicode
        raise _foreign() from None
    fits = type(value) is (int if query.sort in number else str) and type(fingerprint) is str and type(protocol) is int
    if not fits or sort != query.sort.value or descending is not query.descending or abs(protocol) > 9:
        raise _foreign()
    if type(value) is int and not -(1 << 63) <= value < 1 << 63:
        raise _foreign()
    return Place(value, fingerprint, protocol)


def _foreign() -> InvalidInput:
    return InvalidInput(
        "This page token does not belong to this listing.",
        hint="Ask for the first page again, and keep order and direction the same from page to page.",
    )
