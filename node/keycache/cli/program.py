"""The command put together, and run."""

from __future__ import annotations

import sys

import typer

from keycache.cli import failure, screen
from keycache.cli.call import guarded, new_group
from keycache.cli.commands import (
    authority,
    backing_up,
    blocking,
    clients,
    cluster,
    exporting,
    finding,
    importing,
    insight,
    issuers,
    mail,
    removing,
    running,
    settings,
)

_HELP = "A cache of mail-encryption keys, harvested from inbound mail, looked up by mail gateways."


def build() -> typer.Typer:
    """All commands, in the order that help shows them."""
    app = new_group(_HELP, root=True)
    for group in (
        running,
        insight,
        mail,
        finding,
        importing,
        exporting,
        backing_up,
        removing,
        blocking,
        settings,
        issuers,
        clients,
        cluster,
        authority,
    ):
        group.register(app)
    return app


def run(arguments: list[str] | None = None) -> int:
    """Run the command line given, or the process's own. Returns the exit code."""
    screen.prepare()
    code = guarded(lambda: _dispatched(arguments))
    # What is still buffered goes out here, where a closed pipe is expected, not at the interpreter's end.
    return guarded(lambda: _flushed(code))


def _dispatched(arguments: list[str] | None) -> int:
    try:
        build()(arguments, prog_name="keycache")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else failure.REFUSED if end.code else failure.DONE
    return failure.DONE


def _flushed(code: int) -> int:
    sys.stdout.flush()
    return code
