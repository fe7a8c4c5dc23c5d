"""The metrics' table, their text, and the HTTP server that shows them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from keycache.domain.capacity import EtcdEndpoint
from keycache.domain.errors import ConfigError
from keycache.domain.ports import Counts
from keycache.domain.purge import PurgeState
from keycache.domain.verdict import Verdict
from keycache.metrics import METRICS, ClusterSnapshot, HttpServer, Metrics, Snapshot
from keycache.metrics.http import CONNECTIONS, HEADER_LIMIT

SNAPSHOT = Snapshot(
    counts=Counts(live=5, expired=2, held=1),
    applied_revision=77,
    log_age=timedelta(seconds=1.5),
    purge="HELD_CLOCK",
    purge_waiting=2,
    cluster=ClusterSnapshot(
        link="SERVE_ONLY",
        links=("FOLLOWING", "SERVE_ONLY"),
        outbox_entries=3,
        outbox_bytes=3000,
        members=2,
        worst_skew=timedelta(seconds=-90),
        repaired=1,
        etcd=(
            EtcdEndpoint(
                endpoint="http://a:1",
                reachable=True,
                version="3.5",
                leader=True,
                learner=False,
                db_bytes=30,
                db_bytes_in_use=20,
                quota_bytes=40,
                alarms=("NOSPACE", "CORRUPT"),
                problem="",
            ),
        ),
    ),
)
ETCD = {"reachable": 1.0, "db_bytes": 30.0, "db_in_use_bytes": 20.0, "quota_bytes": 40.0, "alarms": 2.0}


def full() -> Metrics:
    """Everything counted once."""
    metrics = Metrics(version="1.2")
    lookup = metrics.call_meter("/keycache.v1.KeyCache/Lookup")
    lookup.good(0.0003)
    lookup.good(99.0)
    lookup.ended("INVALID_ARGUMENT")
    metrics.call_meter("/grpc.health.v1.Health/Check").good(0.1)
    metrics.message(Verdict.CACHED)
    metrics.purged(3)
    metrics.worker_died()
    metrics.in_flight(4)
    metrics.ready(ready=True)
    metrics.show(SNAPSHOT)
    return metrics


def samples(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_what_is_shown_is_what_the_table_says_and_nothing_else() -> None:
    shown = {}
    for family in text_string_to_metric_families(full().text().decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if not name.endswith("_created"):
            shown[name] = family.documentation
    assert shown == {name: help_text for name, (help_text, _) in METRICS.items()}


def test_every_name_has_the_prefix_and_every_metric_a_sentence() -> None:
    assert [name for name in METRICS if not name.startswith("keycache_")] == []
    assert [name for name, (help_text, _) in METRICS.items() if not help_text.endswith(".")] == []


def test_counts_come_out_as_they_went_in() -> None:
    shown = samples(full())
    assert shown["keycache_calls_total"] == {
        ("OK", "Lookup"): 2.0,
        ("INVALID_ARGUMENT", "Lookup"): 1.0,
        ("OK", "/grpc.health.v1.Health/Check"): 1.0,
    }
    assert shown["keycache_call_seconds_count"] == {("Lookup",): 2.0, ("/grpc.health.v1.Health/Check",): 1.0}
    buckets = {tuple(sorted(labels)): value for labels, value in shown["keycache_call_seconds_bucket"].items()}
    asked = [buckets[tuple(sorted(("Lookup", bound)))] for bound in ("0.0002", "0.0005", "30.0", "+Inf")]
    assert asked == [0.0, 1.0, 1.0, 2.0]
    assert shown["keycache_call_seconds_sum"]["Lookup",] == pytest.approx(99.0003)
    assert shown["keycache_messages_total"] == {("CACHED",): 1.0}
    assert shown["keycache_entries"] == {("live",): 5.0, ("expired",): 2.0, ("held",): 1.0}
    assert shown["keycache_purge_state"] == {(state.value,): float(state is PurgeState.HELD_CLOCK) for state in PurgeState}
    assert shown["keycache_link_state"] == {("FOLLOWING",): 0.0, ("SERVE_ONLY",): 1.0}
    assert {name: shown[f"keycache_etcd_{name}"]["http://a:1",] for name in ETCD} == ETCD
    single = {name: values[()] for name, values in shown.items() if () in values}
    assert single == {
        "keycache_applied_revision": 77.0,
        "keycache_log_age_seconds": 1.5,
        "keycache_purge_waiting": 2.0,
        "keycache_purge_removed_total": 3.0,
        "keycache_worker_deaths_total": 1.0,
        "keycache_messages_in_flight": 4.0,
        "keycache_outbox_entries": 3.0,
        "keycache_outbox_bytes": 3000.0,
        "keycache_members": 2.0,
        "keycache_clock_skew_seconds": 90.0,
        "keycache_reconcile_repaired": 1.0,
        "keycache_up": 1.0,
    }


def test_a_node_alone_shows_no_states_of_a_cluster() -> None:
    metrics = Metrics(version="1.2")
    metrics.show(replace(SNAPSHOT, cluster=None))
    assert [name for name in samples(metrics) if name.startswith(("keycache_link", "keycache_etcd"))] == []


def test_a_state_of_a_later_version_is_none_that_is_known() -> None:
    metrics = Metrics(version="1.2")
    metrics.show(replace(SNAPSHOT, purge="HELD_BY_THE_MOON"))
    assert set(samples(metrics)["keycache_purge_state"].values()) == {0.0}


def test_two_nodes_in_one_process_count_apart() -> None:
    one, other = full(), Metrics(version="1.2")
    assert samples(one)["keycache_purge_removed_total"] != samples(other)["keycache_purge_removed_total"]


async def text() -> bytes:
    return b"keycache_up 1.0\n"


@asynccontextmanager
async def serving(
    metrics: Callable[[], Awaitable[bytes]] = text, reason: str = "", time_limit: float = 30.0
) -> AsyncIterator[int]:
    server = HttpServer(metrics=metrics, not_ready=lambda: reason, time_limit=time_limit)
    port = await server.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        await server.stop()


async def asked(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, header fields and body; status 0 when the server says nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    with contextlib.suppress(ConnectionError):
        writer.write(request)
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    if not answer:
        return 0, {}, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    return int(first.split()[1]), dict(field.split(": ", 1) for field in fields), body


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def test_metrics_are_shown_as_text() -> None:
    async with serving() as port:
        status, fields, body = await asked(port, get("/metrics?x=1"))
    assert (status, body, fields["Content-Length"]) == (200, b"keycache_up 1.0\n", "16")
    assert fields["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert fields["Connection"] == "close"


async def test_a_node_that_is_not_ready_says_why_and_is_still_alive() -> None:
    async with serving(reason="The settings cannot be read.") as port:
        assert (await asked(port, get("/readyz")))[::2] == (503, b"The settings cannot be read.\n")
        assert (await asked(port, get("/healthz")))[::2] == (200, b"alive\n")
    async with serving() as port:
        assert (await asked(port, get("/readyz")))[::2] == (200, b"ready\n")


async def test_head_answers_without_a_body() -> None:
    async with serving() as port:
        status, fields, body = await asked(port, get("/metrics", "HEAD"))
    assert (status, fields["Content-Length"], body) == (200, "16", b"")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/"), 404),
        (get("/../etc/passwd"), 404),
        (get("/metrics", "POST"), 405),
        (b"hello\r\n\r\n", 400),
        (b"GET /metrics HTTP/2.0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 2 * HEADER_LIMIT + b"\r\n\r\n", 431),
        (b"a" * 10 * HEADER_LIMIT, 431),
    ],
    ids=["root", "climbing", "post", "rubbish", "http2", "tls", "long field", "endless line"],
)
async def test_anything_else_is_refused(request_: bytes, status: int) -> None:
    async with serving() as port:
        assert (await asked(port, request_))[0] in (status, 0)  # 0: the refusal was lost with bytes we did not read
        assert (await asked(port, get("/healthz")))[0] == 200


async def test_a_state_that_cannot_be_read_gives_500_and_the_server_goes_on() -> None:
    async def broken() -> bytes:
        raise OSError("disk")

    async with serving(metrics=broken) as port:
        status, _, body = await asked(port, get("/metrics"))
        assert (status, b"disk" in body) == (500, False)
        assert (await asked(port, get("/healthz")))[0] == 200


async def test_more_connections_than_the_limit_are_closed_and_those_below_it_served() -> None:
    async with serving() as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
        held[-1][1].write(get("/healthz")[:-2])  # all the server's tasks have begun once it reads this one
        await held[-1][1].drain()
        assert (await asked(port, get("/healthz")))[0] == 0
        held[0][1].write(get("/healthz"))
        assert (await asyncio.wait_for(held[0][0].readline(), 10)).startswith(b"HTTP/1.1 200")
        for _, writer in held:
            writer.close()


async def test_a_client_that_takes_too_long_is_left() -> None:
    async with serving(time_limit=0.05) as port:
        assert await asked(port, b"GET /metrics HTTP/1.1\r\n") == (0, {}, b"")


async def test_a_port_that_is_taken_is_told() -> None:
    async with serving() as port:
        with pytest.raises(ConfigError, match=f"Cannot listen on 127.0.0.1:{port}"):
            await HttpServer(metrics=text, not_ready=lambda: "").start("127.0.0.1", port)
