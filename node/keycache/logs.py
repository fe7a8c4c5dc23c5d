"""Logs: one event a line, on standard error, as JSON or for people.

1. No line holds mail content or a secret: bytes become their length, private keys and long texts are cut out, whatever the caller
   passed (`_harmless`). This is a net, not a licence.
2. One event is one line, whoever wrote it: line breaks are escaped in JSON, and for people too.
3. Times are UTC in RFC 3339, from the clock that was given, so that a log and the entries it speaks of go by one clock.
4. What other libraries log through `logging` comes out the same way.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from datetime import datetime
from typing import Any, Literal, TextIO

import structlog

TEXT_LIMIT = 2_000
"""Characters of one value: a long error message, not a mail."""
TRACEBACK_LIMIT = 20_000

Format = Literal["json", "console"]
Level = Literal["debug", "info", "warning", "error"]

_PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY[A-Z ]*-----.*?(?:-----END [A-Z ]*PRIVATE KEY[A-Z ]*-----|\Z)", re.DOTALL)
_SECRET_NAMES = frozenset(
    {"key", "private_key", "password", "passphrase", "secret", "token", "csr", "message", "material", "body"}
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger for one module; usable before `configure`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(module=name)
    return logger


def configure(*, form: Format, level: Level, now: Callable[[], datetime], stream: TextIO | None = None) -> None:
    """Send everything to `stream` (standard error). May be called again."""

    def stamp(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["time"] = now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        stamp,
        structlog.processors.format_exc_info,
        _harmless,
    ]
    out = sys.stderr if stream is None else stream
    last: structlog.typing.Processor
    if form == "json":
        last = structlog.processors.JSONRenderer(ensure_ascii=False, default=_unknown)
    else:
        last = structlog.dev.ConsoleRenderer(
            colors=out.isatty(), timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
        )
    number = logging.getLevelName(level.upper())
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(number, logging.INFO))


class Recurring:
    """What fails again and again in a loop is told once: not again before it is over, or is another problem."""

    def __init__(self, log: structlog.typing.FilteringBoundLogger, event: str, *, level: int = logging.WARNING) -> None:
        self._log = log
        self._event = event
        self._level = level
        self._told = ""

    def tell(self, error: Exception, **details: Any) -> None:
        if str(error) != self._told:
            self._log.log(self._level, self._event, **details, problem=str(error))
        self._told = str(error)

    def over(self) -> None:
        self._told = ""


def _harmless(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Rule 1. Names that only ever hold secrets or content lose their value whatever its type."""
    clean: dict[str, Any] = {}
    for name, value in event.items():
        if name.lower() in _SECRET_NAMES:
            clean[name] = "(redacted)"
        elif name == "exception":
            clean[name] = _cut(str(value), TRACEBACK_LIMIT)
        else:
            clean[name] = _clean(value)
    return clean


def _clean(value: Any, depth: int = 0) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"({len(value)} bytes)"
    if isinstance(value, str):
        return _CONTROL.sub(lambda found: repr(found.group())[1:-1], _cut(value, TEXT_LIMIT))
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping) and depth < 3:
        return {
            str(name): "(redacted)" if str(name).lower() in _SECRET_NAMES else _clean(inner, depth + 1)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset) and depth < 3:
        return [_clean(inner, depth + 1) for inner in value]
    return _clean(str(value), depth)


def _cut(text: str, limit: int) -> str:
    text = _PRIVATE.sub("(private key)", text)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def _unknown(value: object) -> str:
    return str(value)
