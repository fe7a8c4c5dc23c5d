"""One process of etcd, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from keycache.cluster import guard, leftover
from keycache.domain.errors import ConfigError

STOP_SECONDS = 10.0
"""For etcd to hand its leadership over and to close its database; then it is killed. Its own requests take at most 7 s
(etcd's server config, ReqTimeout: 5 s and two elections)."""

_LINE_LIMIT = 64 * 1024
"""Bytes; longer lines are cut in pieces."""

_ENVIRONMENT = {"LANG": "C.UTF-8", "ETCD_UNSUPPORTED_ARCH": "arm64"} if platform.machine() == "aarch64" else {"LANG": "C.UTF-8"}
"""Nothing of the node's own: etcd takes options from ETCD_*. On ARM 3.4 starts only when told so."""


class EtcdProcess(asyncio.SubprocessProtocol):
    """Made by `start`. The process dies with this one (see `guard`), and is on record in its pid file (see `leftover`)."""

    def __init__(self, data_dir: Path, on_line: Callable[[bytes], None]) -> None:
        self._data_dir = data_dir
        self._on_line = on_line
        self._rest = b""
        self._over = asyncio.Event()
        self._transport: asyncio.SubprocessTransport | None = None

    @classmethod
    async def start(
        cls, program: Path, arguments: Sequence[str], *, data_dir: Path, on_line: Callable[[bytes], None]
    ) -> EtcdProcess:
        """`on_line` gets each line it writes, from the event loop. Raises ConfigError.

        Must run in the thread of an event loop that lives as long as the node: its end is the end of the process, too.
        """
        command = (sys.executable, "-I", "-S", "-E", guard.__file__, str(os.getpid()), str(program), *arguments)
        try:
            _, process = await asyncio.get_running_loop().subprocess_exec(
                lambda: cls(data_dir, on_line),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,  # a person's Ctrl-C is for the node, which ends it in order
            )
        except OSError as error:
            raise ConfigError(f"etcd cannot be started: {error.strerror}.", hint="Check the machine's limits.") from error
        try:
            leftover.remember(data_dir, process.pid)
        except ConfigError:
            await process.kill()
            raise
        return process

    @property
    def pid(self) -> int:
        assert self._transport is not None
        return self._transport.get_pid()

    async def wait(self) -> int:
        """Until it has ended and said all it had to say. Its exit status, or minus the signal's number."""
        await self._over.wait()
        assert self._transport is not None
        status = self._transport.get_returncode()
        assert status is not None
        leftover.forget(self._data_dir)
        return status

    async def stop(self) -> None:
        """In order: SIGTERM, then some time, then SIGKILL. Gone when this returns, also when the caller is cancelled meanwhile."""
        ending = asyncio.ensure_future(self._stop())
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending
            raise

    async def kill(self) -> None:
        """At once."""
        self._send(signal.SIGKILL)
        await self.wait()

    async def _stop(self) -> None:
        self._send(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.wait()
        except TimeoutError:
            await self.kill()

    def _send(self, number: signal.Signals) -> None:
        assert self._transport is not None
        with contextlib.suppress(ProcessLookupError):
            self._transport.send_signal(number)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)  # uvloop's is no subclass of it

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002 -- there is one pipe
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_LIMIT:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            if line.strip():
                self._on_line(line)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- the status tells more
        """The process has ended and its pipe is empty."""
        if self._rest.strip():
            self._on_line(self._rest)
            self._rest = b""
        self._over.set()
