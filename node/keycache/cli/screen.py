"""Standard output, standard error and questions: the only place of the command that writes to them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from keycache.cli.plain import document, plain
from keycache.domain.errors import ConfirmationNeeded, Refused

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text


def prepare() -> None:
    """Characters that the terminal cannot show become question marks, not tracebacks; streams that were closed lead nowhere."""
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _open_closed() -> None:
    """Else the next file or socket would get the number of a closed stream, and what is meant for the stream would go there."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


def show_json(value: object) -> None:
    """One document."""
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    sys.stdout.write(f"{document(value, ascii_only=ascii_only)}\n")


def show(*parts: RenderableType) -> None:
    """Rich's tables, trees and texts. Plain strings are shown as they are: no markup is read in them."""
    console = _console(sys.stdout)
    for part in parts:
        console.print(part, markup=False, highlight=False)


def show_lines(lines: Iterable[Text]) -> None:
    """Each as it is, however long."""
    _print_lines(lines, sys.stdout)


def note_lines(lines: Iterable[Text]) -> None:
    """The same to standard error."""
    _print_lines(lines, sys.stderr)


def room() -> int | None:
    """Cells in a line of standard output; None where no terminal shows it and $COLUMNS does not ask for it either."""
    return _room(sys.stdout)


def note_room() -> int | None:
    """The same of standard error."""
    return _room(sys.stderr)


def say(*lines: str) -> None:
    """To standard output, for people."""
    for line in lines:
        sys.stdout.write(f"{plain(line)}\n")


def note(*lines: str) -> None:
    """To standard error, so that it never mixes with a result."""
    for line in lines:
        sys.stderr.write(f"{plain(line)}\n")


def write(chunks: Iterable[str]) -> None:
    sys.stdout.writelines(chunks)


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless `yes` answers. Raises ConfirmationNeeded when nobody can be asked, Refused when the answer is no."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfirmationNeeded(f"{question} Nobody is here to answer, so nothing was done.", hint="Say --yes to go on.")
    sys.stderr.write(f"{plain(question)} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Refused("Nothing was done.")


def stderr_console() -> Console:
    """For progress bars."""
    return _console(sys.stderr)


def hush() -> None:
    """After the reader of our output has gone: send what is still buffered nowhere, instead of complaining at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def _room(stream: Any) -> int | None:
    console = _console(stream)
    return console.width if console.is_terminal or os.environ.get("COLUMNS", "").isdigit() else None


def _print_lines(lines: Iterable[Text], stream: Any) -> None:
    console = _console(stream)
    for line in lines:
        console.print(line, soft_wrap=True)


def _console(stream: Any) -> Console:
    from rich.console import Console

    class Plain(Console):
        """rich ends the process by itself when its reader has gone; ours is told by `guarded`."""

        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 -- called while the error is handled

    # rich itself heeds NO_COLOR and streams that are no terminal, and takes 80 columns for these unless $COLUMNS says otherwise.
    return Plain(file=stream, highlight=False, emoji=False, soft_wrap=False)
