"""Errors as exit codes and as text."""

from __future__ import annotations

from keycache.cli.plain import plain
from keycache.domain import errors

DONE = 0
REFUSED = 1
MISUSE = 2
UNREACHABLE = 3
WARNED = 4
"""All is well now, and will not stay so without a person."""
INTERRUPTED = 130
"""128 + SIGINT, as shells do."""
PIPE_CLOSED = 141
"""128 + SIGPIPE."""

_CODES = {
    "INVALID_INPUT": MISUSE,
    "MESSAGE_TOO_LARGE": REFUSED,
    "NODE_UNREACHABLE": UNREACHABLE,
}
"""By `KeycacheError.code`; what is not here is REFUSED. A value out of range is too: it is well written, and a rule forbids it.
A node that answers with an error was reached."""


def exit_code(error: errors.KeycacheError) -> int:
    return _CODES.get(error.code, REFUSED)


def message(error: errors.KeycacheError) -> str:
    """For standard error: what happened, then what to do."""
    lines = [f"keycache: {error.text}", *([f"  {error.hint}"] if error.hint else [])]
    return "\n".join(plain(line) for part in lines for line in part.split("\n"))


def causes(error: BaseException) -> list[BaseException]:
    """The errors themselves, where task groups wrapped them."""
    if isinstance(error, BaseExceptionGroup):
        return [cause for one in error.exceptions for cause in causes(one)]
    if isinstance(error, UnicodeEncodeError):
        # Python keeps bytes of the command line that are no text as lone surrogates, and no message can carry these.
        return [errors.InvalidInput(f"'{plain(error.object)[:80]}' is not UTF-8 text.", hint="Check the terminal's encoding.")]
    return [error]
