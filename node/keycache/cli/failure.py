"""Errors as exit codes and as text."""

from __future__ import annotations

from keycache.cli.plain import plain
from keycache.domain import errors

DONE = 0
REFUSED = 1
MISUSE = 2
UNREACHABLE = 3
INTERRUPTED = 130
"""128 + SIGINT, as shells do."""
PIPE_CLOSED = 141
"""128 + SIGPIPE."""

_CODES: dict[type[errors.KeycacheError], int] = {
    errors.InvalidInput: MISUSE,
    errors.OutOfRange: REFUSED,
}
"""What is not here is REFUSED. A value out of range is well written, and a rule forbids it."""


class Unreachable(errors.Unavailable):
    """No node answers at the address. The only thing that exits with 3: a node that answers with an error was reached."""


def exit_code(error: errors.KeycacheError) -> int:
    if isinstance(error, Unreachable):
        return UNREACHABLE
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), REFUSED)


def message(error: errors.KeycacheError) -> str:
    """For standard error: what happened, then what to do."""
    lines = [f"keycache: {error.text}", *([f"  {error.hint}"] if error.hint else [])]
    return "\n".join(plain(line) for part in lines for line in part.split("\n"))
