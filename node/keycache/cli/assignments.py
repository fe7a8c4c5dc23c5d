"""What `settings set` is told: names and values, in any of the customary spellings. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from keycache.domain.errors import InvalidInput
from keycache.domain.settings import Settings, Timeouts
from keycache.domain.spans import parse_span

NAMES = ("harvested", "looked-up", "imported", "purge-hold-share", "purge-hold-floor", "clock-skew-bound")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignments:
    """Values to set; None: leave as it is."""

    harvested: timedelta | None = None
    looked_up: timedelta | None = None
    imported: timedelta | None = None
    purge_hold_share: float | None = None
    purge_hold_floor: int | None = None
    clock_skew_bound: timedelta | None = None

    def check(self) -> None:
        """Raises OutOfRange, naming the range, before the node is asked at all."""
        timeouts = {name: getattr(self, name) for name in ("harvested", "looked_up", "imported")}
        others = {name: getattr(self, name) for name in ("purge_hold_share", "purge_hold_floor", "clock_skew_bound")}
        Timeouts(**_given(timeouts))
        Settings(**_given(others))


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def read_assignments(words: Sequence[str], options: Mapping[str, str | None]) -> Assignments:
    """`words`: each NAME=VALUE, or NAME and VALUE as two words. `options`: values by name. Raises InvalidInput."""
    told: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not equals:
            if not rest:
                raise InvalidInput(f"{word!r} has no value.", hint="Write it as harvested=500d.")
            value = rest.pop(0)
        _tell(told, _name(name), value)
    for name, option in options.items():
        if option is not None:
            _tell(told, name, option)
    if not told:
        raise InvalidInput("Nothing to set.", hint=f"Write it as harvested=500d; there are {', '.join(NAMES)}.")
    values: dict[str, Any] = {name.replace("-", "_"): _value(name, value) for name, value in told.items()}
    return Assignments(**values)


def _tell(told: dict[str, str], name: str, value: str) -> None:
    if told.setdefault(name, value) != value:
        raise InvalidInput(f"{name} is given twice, as {told[name]} and as {value}.")


def _name(text: str) -> str:
    """`looked_up`, `timeouts.looked_up` and `looked-up-timeout` are all `looked-up`."""
    name = text.strip().lower().replace("_", "-").removeprefix("timeouts.").removesuffix("-timeout")
    if name in NAMES:
        return name
    close = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"There are {', '.join(NAMES)}."
    raise InvalidInput(f"{text[:40]!r} is not a setting.", hint=hint)


def _value(name: str, text: str) -> timedelta | float | int:
    if name == "purge-hold-share":
        return _share(text)
    if name == "purge-hold-floor":
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            raise InvalidInput(f"{text[:40]!r} is not a number of entries.", hint="Write it as 100.")
        return int(text)
    return parse_span(text)


def _share(text: str) -> float:
    try:
        return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError as error:
        raise InvalidInput(f"{text[:40]!r} is not a share.", hint="Write it as 0.2 or 20%.") from error
