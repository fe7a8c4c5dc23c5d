"""Metrics and health over plain HTTP: /metrics, /healthz (the process lives), /readyz (it answers lookups and writes).

An own handler of a few lines, because prometheus_client's server runs threads without a limit on their number or on how long a
client may take to ask, and cannot await the node's state. This one reads at most HEADER_LIMIT bytes within TIMEOUT seconds, serves
at most CONNECTIONS at once, answers one request a connection and knows GET and HEAD alone (RFC 9110). There is no
authentication, so it listens on the loopback address unless configured otherwise; nothing it shows names a person or a key.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from keycache.domain.errors import ConfigError

HEADER_LIMIT = 8192
TIMEOUT = 5.0
CONNECTIONS = 32
"""A handful of scrapers and load balancers, and room."""

_TEXT = "text/plain; charset=utf-8"
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger(module=__name__)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    kind: str = _TEXT
    allow: bool = False


class HttpServer:
    """`metrics`: the text to show, brought up to date. `not_ready`: why the node is not ready, or nothing."""

    def __init__(
        self, *, metrics: Callable[[], Awaitable[bytes]], not_ready: Callable[[], str], time_limit: float = TIMEOUT
    ) -> None:
        self._metrics = metrics
        self._not_ready = not_ready
        self._time_limit = time_limit
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, on port 0 on any free one; returns the port. Raises ConfigError."""
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=HEADER_LIMIT, start_serving=True)
        except OSError as error:
            raise ConfigError(
                f"Cannot listen on {host}:{port} for metrics: {error.strerror or error}.",
                hint="Choose another address or port for metrics, or stop what uses it.",
            ) from error
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """No new connections, and an end to the open ones: nobody loses anything by asking again."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if len(self._open) <= CONNECTIONS:
                async with asyncio.timeout(self._time_limit):
                    await self._one(reader, writer)
        except (TimeoutError, ConnectionError):
            pass  # a client that is slow or gone gets nothing
        except asyncio.CancelledError:
            pass  # by `stop`: this is the whole of the task, and asyncio's streams log a cancelled one as a failure
        except Exception as error:  # noqa: BLE001 -- the loop that survives it
            _log.error("a request for metrics failed", exc_info=error)
        finally:
            self._open.discard(task)
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = False
        try:
            request = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            answer = _Answer(431, b"The request's header is too large.\n")
        except asyncio.IncompleteReadError:
            return
        else:
            parts = request.split(b"\r\n", 1)[0].split(b" ")
            head = parts[0] == b"HEAD"
            answer = await self._answer(parts)
        writer.write(_encoded(answer, with_body=not head))
        await writer.drain()

    async def _answer(self, parts: list[bytes]) -> _Answer:
        if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):
            return _Answer(400, b"This is not a request of HTTP/1.\n")
        if parts[0] not in (b"GET", b"HEAD"):
            return _Answer(405, b"Only GET and HEAD.\n", allow=True)
        path = parts[1].partition(b"?")[0]
        if path == b"/healthz":
            return _Answer(200, b"alive\n")
        if path == b"/readyz":
            reason = self._not_ready()
            return _Answer(503, f"{reason}\n".encode()) if reason else _Answer(200, b"ready\n")
        if path == b"/metrics":
            return await self._metrics_answer()
        return _Answer(404, b"There are /metrics, /healthz and /readyz.\n")

    async def _metrics_answer(self) -> _Answer:
        try:
            return _Answer(200, await self._metrics(), _METRICS_TYPE)
        except Exception as error:  # noqa: BLE001 -- logged here, once, and the scraper is told
            _log.error("metrics could not be read", exc_info=error)
            return _Answer(500, b"Metrics cannot be read now; see the node's log.\n")


def _encoded(answer: _Answer, *, with_body: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}",
        f"Content-Type: {answer.kind}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if answer.allow:
        lines.append("Allow: GET, HEAD")
    return "\r\n".join([*lines, "", ""]).encode() + (answer.body if with_body else b"")
