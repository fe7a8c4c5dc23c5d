"""One event, one line, no content, no secrets; whoever logs."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import structlog

from keycache import logs
from keycache.pki import PrivateKey

NOW = datetime(2026, 3, 1, 12, 0, 0, 5000, tzinfo=UTC)


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    """Logging is the process's: leave it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def written(form: logs.Format = "json", level: logs.Level = "info") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(form=form, level=level, now=lambda: NOW, stream=stream)
    return stream


def only(stream: io.StringIO) -> dict[str, object]:
    (line,) = stream.getvalue().splitlines()
    return dict(json.loads(line))


def test_an_event_is_one_line_of_json_with_the_clocks_time() -> None:
    stream = written()
    logs.get_logger("keycache.x").info("node ready", port=7640, address="127.0.0.1")
    assert only(stream) == {
        "time": "2026-03-01T12:00:00.005Z",
        "level": "info",
        "module": "keycache.x",
        "event": "node ready",
        "port": 7640,
        "address": "127.0.0.1",
    }


def test_a_logger_made_before_the_configuration_obeys_it() -> None:
    logger = logs.get_logger("keycache.x")
    stream = written()
    logger.info("hello")
    assert only(stream)["event"] == "hello"


def test_below_the_level_nothing_is_written() -> None:
    stream = written(level="warning")
    logs.get_logger("keycache.x").info("hello")
    logging.getLogger("other").info("hello")
    assert stream.getvalue() == ""


def test_what_other_libraries_log_comes_out_the_same_way() -> None:
    stream = written()
    logging.getLogger("asyncio").warning("slow %s", "callback")
    assert only(stream) == {
        "time": "2026-03-01T12:00:00.005Z",
        "level": "warning",
        "logger": "asyncio",
        "event": "slow callback",
    }


def test_configuring_twice_writes_once() -> None:
    written()
    stream = written()
    logging.getLogger("asyncio").warning("once")
    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize("form", ["json", "console"])
def test_neither_bytes_nor_keys_nor_secrets_are_written(form: logs.Format) -> None:
    stream = written(form)
    key = PrivateKey.generate()
    secret = key.pem.splitlines()[1].decode()
    logs.get_logger("keycache.x").info(
        "odd",
        blob=b"From: alice",
        message="Dear Bob",
        nested={"password": "hunter2", "deep": [b"Dear Bob", key]},
        identity=key,
        pem=key.pem.decode(),
    )
    logging.getLogger("other").warning("loading %s", key.pem.decode())
    told = stream.getvalue()
    assert [word for word in ("alice", "Bob", "hunter2", secret, "PRIVATE KEY") if word in told] == []
    assert "(11 bytes)" in told


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_break_in_a_value_begins_no_new_line(form: logs.Format) -> None:
    stream = written(form)
    logs.get_logger("keycache.x").info("odd", sender="a\nlevel=error event=forged\r\x1b[31m\u2028x")
    told = stream.getvalue()
    assert len(told.splitlines()) == 1
    assert "\x1b[31m" not in told


def test_a_long_value_is_cut() -> None:
    stream = written()
    logs.get_logger("keycache.x").info("odd", detail="x" * 5_000)
    assert only(stream)["detail"] == "x" * 2_000 + "... (5000 characters)"


def test_a_traceback_stands_in_the_same_line() -> None:
    stream = written()
    try:
        int("broken")
    except ValueError as error:
        logs.get_logger("keycache.x").error("failed", exc_info=error)
    event = only(stream)
    assert "Traceback" in str(event["exception"])
    assert "ValueError: invalid literal" in str(event["exception"])


def test_what_fails_again_and_again_is_told_once_until_it_is_over_or_another_problem() -> None:
    stream = written()
    trouble = logs.Recurring(logs.get_logger("keycache.x"), "not there yet", level=logging.ERROR)
    for problem in ("down", "down", "full", "down"):
        trouble.tell(OSError(problem), waiting=1)
    trouble.over()
    trouble.tell(OSError("down"))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["problem"] for line in lines] == ["down", "full", "down", "down"]
    assert {(line["event"], line["level"]) for line in lines} == {("not there yet", "error")}
