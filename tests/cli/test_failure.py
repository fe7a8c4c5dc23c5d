"""Errors as exit codes and text."""

from __future__ import annotations

import pytest

from keycache.cli import failure
from keycache.client import Unreachable
from keycache.client.errors import known_errors
from keycache.domain.errors import ConfirmationNeeded, InvalidInput, OutOfRange

EXPECTED = {
    "INTERNAL": 1,
    "INVALID_INPUT": 2,
    "OUT_OF_RANGE": 1,
    "MESSAGE_TOO_LARGE": 1,
    "NOT_FOUND": 1,
    "REFUSED": 1,
    "CONFIRMATION_NEEDED": 1,
    "PERMISSION_DENIED": 1,
    "CONFLICT": 1,
    "UNAVAILABLE": 1,
    "LOG_UNAVAILABLE": 1,
    "LOG_COMPACTED": 1,
    "NODE_UNREACHABLE": 3,
    "FOREIGN_LOG": 1,
    "STORE": 1,
    "STORE_CORRUPT": 1,
    "STORE_TOO_NEW": 1,
    "CONFIG": 1,
}


def test_every_error_of_the_tree_has_an_exit_code_that_somebody_thought_of() -> None:
    assert set(known_errors()) <= set(EXPECTED)


@pytest.mark.parametrize(
    ("error", "code"),
    [(InvalidInput("x"), 2), (OutOfRange("x"), 1), (ConfirmationNeeded("x"), 1), (Unreachable("x"), 3)],
)
def test_exit_codes_tell_misuse_refusal_and_a_missing_node_apart(error: InvalidInput, code: int) -> None:
    assert failure.exit_code(error) == code == EXPECTED[error.code]


def test_the_text_tells_what_happened_and_what_to_do_without_control_characters() -> None:
    error = InvalidInput("'a\x1b[31m' is not a mail address.", hint="Write it as name@example.org.")
    assert failure.message(error) == "keycache: 'a\\u001b[31m' is not a mail address.\n  Write it as name@example.org."
