"""Finding the node and talking to it."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from keycache.cli.call import Call
from keycache.domain.errors import ConfigError, InvalidInput, Refused

if TYPE_CHECKING:
    from keycache.client import Connection
    from keycache.config import Config

T = TypeVar("T")

RUN_FILE = "run.json"
"""Written by a running node: {"pid", "grpc": "host:port", "metrics"}; the port it really got, when it was told to take any."""

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 -- compared, not listened on

_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>\d{1,5})")
PORT_MAX = 65535


def talk(call: Call, conversation: Callable[[Connection], Awaitable[T]]) -> T:
    """Connect to the node that the common options name, hold the conversation, close.

    Raises Unreachable, telling the address and how to start the node, and whatever else of KeycacheError the node answers.
    """
    import asyncio

    # gRPC's own library would write its view of a failed connection to standard error, before ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return asyncio.run(_talk(call, conversation))


@contextmanager
def interruptible() -> Iterator[None]:
    """While a file that may be slow is read: asyncio only takes note of a first Ctrl-C, and the read would go on."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


async def _talk(call: Call, conversation: Callable[[Connection], Awaitable[T]]) -> T:
    from keycache.client import Unreachable, connect

    absent = call.server is None and not call.ca and _absent(call)
    target = address(call)
    pki = call.data_dir / "pki"
    ca, certificate, key = call.ca or pki / "trusted.pem", call.cert or pki / "admin.pem", call.key or pki / "admin.key"
    start = f"keycache serve --data-dir {call.data_dir}"
    if absent:
        raise Unreachable(
            f"No node at {target}: {call.data_dir} holds none yet.",
            hint=f"Start it with: {start}. If it lives elsewhere, say --data-dir, or --server with --ca, --cert and --key.",
        )
    try:
        async with connect(target, ca=ca, certificate=certificate, key=key) as connection:
            return await conversation(connection)
    except Unreachable as error:
        if call.server is None and not (call.data_dir / RUN_FILE).exists():
            anywhere = target.endswith(":0")  # a port of its own choice, which only a running node knows
            text = f"The node of {call.data_dir} does not run." if anywhere else error.text
            raise Unreachable(text, hint=f"Start it with: {start}") from error
        raise Unreachable(
            error.text, hint=f"{error.hint} To start it: {start}" if call.server is None else error.hint
        ) from error


def _absent(call: Call) -> bool:
    """Whether no node was ever started in the data directory. Raises InvalidInput, and Refused where we may not look into it."""
    try:
        (call.data_dir / "pki" / "ca.pem").stat()
    except FileNotFoundError:
        return True
    except NotADirectoryError as error:
        raise InvalidInput(f"{call.data_dir} is not a folder.", hint="Name the node's data directory.") from error
    except OSError as error:
        raise Refused(
            f"{call.data_dir} may not be read: {error.strerror or error}.", hint="Run this as root or as the node's own user."
        ) from error
    return False


def read_token(file: Path) -> str:
    """What stands in it; -: in standard input. Raises OSError."""
    return (sys.stdin.read() if str(file) == "-" else file.read_text("utf-8", "replace")).strip()


def address(call: Call) -> str:
    """host:port of the node: as told, as the running node wrote it down, or as configured. Raises InvalidInput, ConfigError."""
    if call.server is not None:
        named = _HOST_AND_PORT.fullmatch(call.server)
        if named is None or not 1 <= int(named["port"]) <= PORT_MAX:
            raise InvalidInput(f"--server {call.server[:80]!r} is not host:port.", hint="Write it as mail.example.org:7640.")
        return call.server
    try:
        written = json.loads((call.data_dir / RUN_FILE).read_bytes())["grpc"]
        if isinstance(written, str) and written:
            return _reachable(written)
    except OSError:
        pass  # not running, or not ours to read: the configuration knows
    except (ValueError, KeyError, TypeError) as error:
        path = call.data_dir / RUN_FILE
        raise ConfigError(f"{path} is damaged.", hint="Restart the node, which writes it anew, or say --server.") from error
    return _reachable(str(configuration(call).listen.grpc))


def configuration(call: Call) -> Config:
    """As `serve` would read it here."""
    from keycache import config

    return config.load(data_dir=call.data_dir, file=None, environ=os.environ)


def message_limit(call: Call) -> int:
    """Bytes of the largest message worth sending. A node elsewhere has its own limit, and tells: here, the most that any takes."""
    from keycache import config

    return config.MESSAGE_LIMIT_MAX if call.server is not None else configuration(call).mail.message_limit


def _reachable(target: str) -> str:
    """An address to listen on as one to connect to."""
    host, colon, port = target.rpartition(":")
    return f"{_EVERYWHERE.get(host, host)}{colon}{port}"
