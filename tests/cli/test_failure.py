"""Errors as exit codes and text."""

from __future__ import annotations

import errno

import pytest

from keycache.cli import failure
from keycache.cli.call import guarded
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
    "LOG_FULL": 1,
    "LOG_OVERLOADED": 1,
    "LOG_COMPACTED": 1,
    "OUTBOX_FULL": 1,
    "RECORD_TOO_LARGE": 1,
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


def _raise(error: BaseException) -> int:
    raise error


def test_what_a_task_group_wraps_is_told_as_if_it_came_alone(capfd: pytest.CaptureFixture[str]) -> None:
    group = ExceptionGroup("", [ValueError("what followed"), ExceptionGroup("", [Unreachable("No node.", hint="Start it.")])])
    assert guarded(lambda: _raise(group)) == 3
    assert capfd.readouterr() == ("", "keycache: No node.\n  Start it.\n")


def test_each_of_several_errors_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    group = ExceptionGroup("", [OutOfRange("Too much."), InvalidInput("Not a number."), OutOfRange("Too much.")])
    assert guarded(lambda: _raise(group)) == 1
    assert capfd.readouterr().err == "keycache: Too much.\nkeycache: Not a number.\n"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt(), 130, ""),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "keycache: No space left on device.\n"),
        (OSError(errno.ENOENT, "No such file or directory", b"/a"), 1, "keycache: /a: No such file or directory.\n"),
    ],
)
def test_interrupts_and_the_machine_s_errors_are_found_in_groups_too(
    error: BaseException, code: int, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for one in (error, BaseExceptionGroup("", [ValueError("what followed"), error])):
        assert guarded(lambda one=one: _raise(one)) == code  # type: ignore[misc]
        assert capfd.readouterr() == ("", told)


def test_a_mistake_of_ours_is_told_without_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: _raise(ExceptionGroup("", [ValueError("x"), TypeError("y")]))) == 1
    assert "ValueError: x" in capfd.readouterr().err


def test_an_argument_that_is_no_text_is_misuse(capfd: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: len("caf\udce9".encode())) == 2
    assert "'caf\\udce9' is not UTF-8 text." in capfd.readouterr().err
