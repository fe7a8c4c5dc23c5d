"""`serve` and `version`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from keycache.cli import screen
from keycache.cli.call import Call, command


def register(app: typer.Typer) -> None:
    @command(app, "serve", example="keycache serve --data-dir /var/lib/keycache")
    def serve(
        call: Call,
        *,
        config: Annotated[
            Path | None, typer.Option("--config", metavar="FILE", help="Default: $KEYCACHE_CONFIG or DATA_DIR/keycache.toml.")
        ] = None,
        join_token_file: Annotated[
            Path | None,
            typer.Option(
                "--join-token-file", metavar="FILE", help="Join the cluster of this token first, if the node is in none."
            ),
        ] = None,
        check: Annotated[bool, typer.Option("--check", help="Only check the configuration.")] = False,
    ) -> int:
        """Run a node in the foreground until SIGTERM or Ctrl-C; the first start makes everything it needs.

        With --join-token-file a node that works alone enters a cluster before it says that it is healthy: it waits for a host that is
        not there yet, and ends when it is refused. One that is in a cluster just runs, whether the file is still there or not.
        """
        from keycache import config as configuration

        loaded = configuration.load(data_dir=call.data_dir, file=config, environ=os.environ)
        if check:
            screen.say("The configuration is in order.")
            return 0
        # gRPC's own notes are no log lines of ours.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        # Workers are started by fork and exec. gRPC's own fork handlers are for children that go on using gRPC, and now and then
        # abort the child before it gets to exec.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        from keycache.app import run

        return run(loaded, join_token_file=join_token_file)

    @command(app, "version", example="keycache version")
    def version(call: Call) -> None:
        """The version of this command."""
        from importlib.metadata import version as installed

        number = installed("keycache")
        if call.json:
            screen.show_json({"version": number})
        else:
            screen.say(f"keycache {number}")
