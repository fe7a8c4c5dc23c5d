"""What all commands have in common: their options, and how a command's function becomes a command.

The common options stand before or after the name of the command; after it they win.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from keycache.cli import failure, screen
from keycache.domain.errors import KeycacheError

PANEL = "Common options"
DEFAULT_DATA_DIR = "/var/lib/keycache"

_SHARED: dict[str, Any] = {
    "data_dir": Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            help="Where the node keeps everything. Default: $KEYCACHE_DATA_DIR or /var/lib/keycache.",
            rich_help_panel=PANEL,
        ),
    ],
    "server": Annotated[
        str | None,
        typer.Option("--server", help="Talk to the node at this host:port instead of this machine's.", rich_help_panel=PANEL),
    ],
    "ca": Annotated[
        Path | None,
        typer.Option("--ca", help="That node's CA certificate. Default: DATA_DIR/pki/trusted.pem.", rich_help_panel=PANEL),
    ],
    "cert": Annotated[
        Path | None,
        typer.Option("--cert", help="Your client certificate. Default: DATA_DIR/pki/admin.pem.", rich_help_panel=PANEL),
    ],
    "key": Annotated[
        Path | None,
        typer.Option("--key", help="Its private key. Default: DATA_DIR/pki/admin.key.", rich_help_panel=PANEL),
    ],
    "json": Annotated[bool | None, typer.Option("--json", help="One JSON document instead of text.", rich_help_panel=PANEL)],
    "yes": Annotated[bool | None, typer.Option("--yes", "-y", help="Answer every question with yes.", rich_help_panel=PANEL)],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The common options of one run of the command. None: not given."""

    data_dir: Path
    server: str | None
    ca: Path | None
    cert: Path | None
    key: Path | None
    json: bool
    yes: bool


def new_group(help_text: str, *, root: bool = False) -> typer.Typer:
    """A command that only holds others."""
    group = typer.Typer(
        help=help_text,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=root,
        context_settings={"help_option_names": ["--help", "-h"]},
    )

    def remember(**given: Any) -> None:
        context: typer.Context = given.pop("context")
        context.obj = _merged(context.obj, given)

    _shape(remember, "remember", help_text, [])
    group.callback()(remember)
    return group


def command(group: typer.Typer, name: str, *, example: str) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Make a function `f(call, ...)` the command `name`. It returns its exit code, None for 0; its docstring is the help."""

    def register(function: Callable[..., int | None]) -> Callable[..., int | None]:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        def run(**given: Any) -> None:
            context: typer.Context = given.pop("context")
            shared = _merged(context.obj, {one: given.pop(one) for one in _SHARED})
            code = guarded(lambda: function(_call(shared), **given))
            raise typer.Exit(code)

        _shape(run, function.__name__, inspect.getdoc(function) or "", parameters)
        group.command(name, epilog=f"Example: {example}")(run)
        return function

    return register


def guarded(body: Callable[[], int | None]) -> int:
    """Run a command's body; whatever goes wrong is told in a sentence or two and becomes an exit code."""
    try:
        code = body() or failure.DONE
        sys.stdout.flush()
    except (typer.Exit, typer.Abort, typer.TyperException):
        raise
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        causes = failure.causes(error)
        foreseen = any(isinstance(cause, (KeycacheError, OSError, KeyboardInterrupt)) for cause in causes)
        if os.environ.get("KEYCACHE_TRACEBACK") and not foreseen:
            raise
        return _told(causes)
    return code


def _told(causes: Sequence[BaseException]) -> int:
    """Tell what went wrong; the exit code. Of several causes, those that Keycache knows are told, else the first."""
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
        return failure.INTERRUPTED
    if any(isinstance(cause, BrokenPipeError) for cause in causes):
        screen.hush()
        return failure.PIPE_CLOSED
    known = [cause for cause in causes if isinstance(cause, KeycacheError)]
    for error in {failure.message(error): error for error in known}.values():
        screen.note(*failure.message(error).split("\n"))
    if known:
        return failure.exit_code(known[0])
    cause = next((cause for cause in causes if isinstance(cause, OSError)), causes[0])
    if isinstance(cause, OSError):
        place = f"{os.fsdecode(cause.filename)}: " if isinstance(cause.filename, str | bytes) else ""
        screen.note(f"keycache: {place}{cause.strerror or cause}.")
    else:
        screen.note(
            f"keycache: A mistake in Keycache itself: {type(cause).__name__}: {cause}.",
            "  Please report it, with what KEYCACHE_TRACEBACK=1 prints.",
        )
    return failure.REFUSED


def _merged(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> dict[str, Any]:
    return {**(before or {}), **{name: value for name, value in after.items() if value is not None}}


def _call(shared: Mapping[str, Any]) -> Call:
    data_dir = shared.get("data_dir")
    if data_dir is None:
        data_dir = Path(os.environ.get("KEYCACHE_DATA_DIR") or DEFAULT_DATA_DIR)
    return Call(
        data_dir=data_dir,
        server=shared.get("server"),
        ca=shared.get("ca"),
        cert=shared.get("cert"),
        key=shared.get("key"),
        json=bool(shared.get("json")),
        yes=bool(shared.get("yes")),
    )


def _shape(function: Callable[..., None], name: str, doc: str, parameters: list[inspect.Parameter]) -> None:
    """Give a `**given` function the signature that typer reads: the context, its own parameters, the common options."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    shared = [inspect.Parameter(one, keyword, annotation=kind, default=None) for one, kind in _SHARED.items()]
    context = inspect.Parameter("context", keyword, annotation=typer.Context)
    own = [parameter.replace(kind=keyword) for parameter in parameters]
    function.__signature__ = inspect.Signature([context, *own, *shared])  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in (context, *own, *shared)}
    function.__name__ = name
    function.__doc__ = doc
