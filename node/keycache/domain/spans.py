"""Spans of time as people write them: `500d`, `24h`, `90m`, `3600s`, `1d12h`."""

from __future__ import annotations

import re
from datetime import timedelta

from keycache.domain.errors import InvalidInput

_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_NAMES = {"second": "s", "sec": "s", "minute": "m", "min": "m", "hour": "h", "day": "d", "week": "w"}
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([a-z]+)\s*")

HINT = "Write a number with a unit: 500d, 24h, 90m or 3600s."


def parse_span(text: str) -> timedelta:
    """From what a person typed. A number without a unit is refused: days, hours and minutes are all customary here, and a guess
    would be wrong by a factor of 1,440. Raises InvalidInput."""
    plain = text.strip().lower()
    total = timedelta()
    position = 0
    while position < len(plain):
        part = _PART.match(plain, position)
        unit = part and _unit(part[2])
        if part is None or unit is None:
            raise InvalidInput(f"{text[:80]!r} is not a span of time.", hint=HINT)
        try:
            total += float(part[1]) * unit if "." in part[1] else int(part[1]) * unit
        except OverflowError as error:
            raise InvalidInput(f"{text[:80]!r} is longer than a calendar holds.", hint=HINT) from error
        position = part.end()
    if not plain:
        raise InvalidInput("A span of time is empty.", hint=HINT)
    return total


def _unit(word: str) -> timedelta | None:
    name = word if word in _UNITS else _NAMES.get(word.removesuffix("s"), "")
    return _UNITS.get(name)


def format_span(span: timedelta) -> str:
    """The shortest exact spelling, which `parse_span` takes back: `500d`, `24h`, `1h30m`, `0.5s`. Days only from two on, because
    `24h` is how this field speaks of one."""
    microseconds = span // timedelta(microseconds=1)
    if microseconds < 0:
        return f"-{format_span(-span)}"
    for name in "dhm":
        if span >= (timedelta(days=2) if name == "d" else _UNITS[name]) and not span % _UNITS[name]:
            return f"{span // _UNITS[name]}{name}"
    rest, parts = span, []
    for name in "dhm":
        count, rest = divmod(rest, _UNITS[name])
        if count:
            parts.append(f"{count}{name}")
    if rest or not parts:
        parts.append(f"{rest.total_seconds():.6f}".rstrip("0").rstrip(".") + "s")
    return "".join(parts)
