"""Instants as text: RFC 3339, in UTC with Z."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from keycache.domain.errors import InvalidInput

HINT = "Write it as 2026-12-31T23:59:00Z."

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def rfc3339(moment: datetime) -> str:
    """Exact to the microsecond, which shows only when it is not zero (RFC 3339 section 5.6)."""
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat()
    return f"{text}Z"


def optional_rfc3339(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def parse_rfc3339(text: str) -> datetime:
    """With its offset, as RFC 3339 demands: a time without one would be another instant on every machine. Raises InvalidInput."""
    if not _RFC3339.fullmatch(text):
        raise InvalidInput(f"{text[:80]!r} is not an RFC 3339 time.", hint=HINT)
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{text[:80]!r} is not an RFC 3339 time.", hint=HINT) from error


def parse_moment(text: str) -> datetime:
    """From what a person typed: RFC 3339, or a date alone, which is its first instant in UTC. Raises InvalidInput."""
    text = text.strip()
    return parse_rfc3339(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)


def for_people(moment: datetime | None) -> str:
    """To the minute, in UTC, for tables."""
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
