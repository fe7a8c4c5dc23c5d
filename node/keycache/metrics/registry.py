"""All metrics, in one table, on a registry of their own (several nodes may live in one process, as in the tests).

Names follow prometheus.io/docs/practices/naming: prefix, base units, `_total` on counters.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from keycache.domain.capacity import DEFAULT_QUOTA_BYTES, EtcdEndpoint
from keycache.domain.ports import Counts
from keycache.domain.purge import PurgeState
from keycache.domain.verdict import Verdict

METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "keycache_calls_total": ("Calls answered, by remote procedure and gRPC code.", ("rpc", "code")),
    "keycache_call_seconds": ("Time from a call's arrival to its answer; streams are not in it.", ("rpc",)),
    "keycache_messages_total": ("Messages looked at, by verdict.", ("verdict",)),
    "keycache_entries": ("Entries in this node's replica: live, expired (waiting to be purged), held.", ("state",)),
    "keycache_applied_revision": ("The log's revision that this node's replica holds.", ()),
    "keycache_log_age_seconds": ("How long ago this node last heard of the log; 0 if the log is its own.", ()),
    "keycache_purge_state": (
        "1 for the state the purger is in, in a cluster the one whose turn it is, 0 for the others.",
        ("state",),
    ),
    "keycache_purge_waiting": ("Expired entries that this purger holds back.", ()),
    "keycache_purge_removed_total": ("Expired entries that this node's purger removed.", ()),
    "keycache_worker_deaths_total": ("Parser workers that died or were ended for exceeding a limit.", ()),
    "keycache_messages_in_flight": ("Messages that are being examined or wait for a worker.", ()),
    "keycache_link_state": ("1 for how this node stands to the log that it shares, 0 for the others.", ("state",)),
    "keycache_outbox_entries": ("Entries that wait on this node for the log to take writes.", ()),
    "keycache_outbox_bytes": ("Bytes of what waits.", ()),
    "keycache_members": ("Nodes that share the log and live, this one included.", ()),
    "keycache_clock_skew_seconds": ("Of the member whose clock is furthest from this node's: by how much, either way.", ()),
    "keycache_reconcile_repaired": ("What differed from the log when the replica was last compared with all of it.", ()),
    "keycache_etcd_reachable": ("1 if the endpoint of etcd answered when it was last asked, else 0.", ("endpoint",)),
    "keycache_etcd_db_bytes": ("Size of etcd's database.", ("endpoint",)),
    "keycache_etcd_db_in_use_bytes": (
        "Bytes in use of etcd's database; the rest goes back when it is defragmented.",
        ("endpoint",),
    ),
    "keycache_etcd_quota_bytes": ("At this size etcd takes no more writes; its default where nobody tells.", ("endpoint",)),
    "keycache_etcd_alarms": ("Alarms that etcd raised.", ("endpoint",)),
    "keycache_up": ("1 while the node is ready to answer, else 0.", ()),
    "keycache_build_info": ("Always 1; the label tells the version.", ("version",)),
}
"""Name: help, labels."""

LATENCY_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
"""Seconds: from a lookup (a third of a millisecond, FACTS 4) to a message at a worker's time limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A node's state when somebody asks. `log_age` None: the log is its own. `purge`, `purge_waiting`: of the purger whose turn it is.
    `cluster` None: the node works alone."""

    counts: Counts
    applied_revision: int
    log_age: timedelta | None
    purge: str
    purge_waiting: int
    cluster: ClusterSnapshot | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSnapshot:
    """Of a node that shares its log. `link`: one of `links`. `etcd`: the endpoints as configured, so their names are a closed set."""

    link: str
    links: tuple[str, ...]
    outbox_entries: int
    outbox_bytes: int
    members: int
    worst_skew: timedelta
    repaired: int
    etcd: tuple[EtcdEndpoint, ...]


class CallMeter:
    """Counts the calls of one remote procedure.

    Plain numbers, written by the event loop's thread alone and collected when somebody asks: prometheus_client's own counter and
    histogram take 3 microseconds a call, a tenth of a lookup; this takes half of one.
    """

    __slots__ = ("_buckets", "_codes", "_good", "_seconds", "rpc")

    def __init__(self, rpc: str) -> None:
        self.rpc = rpc
        self._good = 0
        self._seconds = 0.0
        self._buckets = [0] * (len(LATENCY_BUCKETS) + 1)
        self._codes: Counter[str] = Counter()

    def good(self, seconds: float) -> None:
        """A call that was answered."""
        self._good += 1
        self._seconds += seconds
        self._buckets[bisect_left(LATENCY_BUCKETS, seconds)] += 1

    def ended(self, code: str) -> None:
        """A stream that ended, or any call that failed; with the name of its gRPC code."""
        self._codes[code] += 1

    def calls(self) -> Counter[str]:
        """By code."""
        return self._codes + Counter(OK=self._good)

    def histogram(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative buckets by upper bound, and the sum of seconds, as the exposition format wants them."""
        bounds = [*(str(bound) for bound in LATENCY_BUCKETS), "+Inf"]
        return list(zip(bounds, accumulate(self._buckets), strict=True)), self._seconds


class _CallCollector(Collector):
    """What the meters counted."""

    def __init__(self) -> None:
        self.meters: list[CallMeter] = []

    def collect(self) -> Iterable[Metric]:
        help_text, labels = METRICS["keycache_calls_total"]
        calls = CounterMetricFamily("keycache_calls_total", help_text, labels=labels)
        help_text, labels = METRICS["keycache_call_seconds"]
        seconds = HistogramMetricFamily("keycache_call_seconds", help_text, labels=labels)
        for meter in self.meters:
            for code, number in sorted(meter.calls().items()):
                calls.add_metric((meter.rpc, code), number)
            buckets, total = meter.histogram()
            seconds.add_metric((meter.rpc,), buckets, total)
        return (calls, seconds)


class Metrics:
    """One node's metrics. Label values come from closed sets only, so that nobody can make them grow."""

    def __init__(self, *, version: str) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._calls = _CallCollector()
        self.registry.register(self._calls)
        self._messages = self._counter("keycache_messages_total")
        self._entries = self._gauge("keycache_entries")
        self._revision = self._gauge("keycache_applied_revision")
        self._log_age = self._gauge("keycache_log_age_seconds")
        self._purge_state = self._gauge("keycache_purge_state")
        self._purge_waiting = self._gauge("keycache_purge_waiting")
        self._purge_removed = self._counter("keycache_purge_removed_total")
        self._worker_deaths = self._counter("keycache_worker_deaths_total")
        self._in_flight = self._gauge("keycache_messages_in_flight")
        self._link = self._gauge("keycache_link_state")
        self._outbox_entries = self._gauge("keycache_outbox_entries")
        self._outbox_bytes = self._gauge("keycache_outbox_bytes")
        self._members = self._gauge("keycache_members")
        self._skew = self._gauge("keycache_clock_skew_seconds")
        self._repaired = self._gauge("keycache_reconcile_repaired")
        self._etcd_reachable = self._gauge("keycache_etcd_reachable")
        self._etcd_db = self._gauge("keycache_etcd_db_bytes")
        self._etcd_in_use = self._gauge("keycache_etcd_db_in_use_bytes")
        self._etcd_quota = self._gauge("keycache_etcd_quota_bytes")
        self._etcd_alarms = self._gauge("keycache_etcd_alarms")
        self._up = self._gauge("keycache_up")
        self._gauge("keycache_build_info").labels(version=version).set(1)
        self._up.set(0)

    def call_meter(self, rpc: str) -> CallMeter:
        """`rpc`: full name, such as /keycache.v1.KeyCache/Lookup."""
        meter = CallMeter(rpc.rpartition("/")[2] if rpc.startswith("/keycache.") else rpc)
        self._calls.meters.append(meter)
        return meter

    def message(self, verdict: Verdict) -> None:
        self._messages.labels(verdict=verdict.value).inc()

    def purged(self, removed: int) -> None:
        self._purge_removed.inc(removed)

    def worker_died(self) -> None:
        self._worker_deaths.inc()

    def in_flight(self, messages: int) -> None:
        self._in_flight.set(messages)

    def ready(self, *, ready: bool) -> None:
        self._up.set(int(ready))

    def show(self, snapshot: Snapshot) -> None:
        """Set what is read when somebody asks."""
        counts = snapshot.counts
        for name, number in (("live", counts.live), ("expired", counts.expired), ("held", counts.held)):
            self._entries.labels(state=name).set(number)
        self._revision.set(snapshot.applied_revision)
        self._log_age.set(0 if snapshot.log_age is None else snapshot.log_age.total_seconds())
        for state in PurgeState:
            self._purge_state.labels(state=state.value).set(int(state.value == snapshot.purge))
        self._purge_waiting.set(snapshot.purge_waiting)
        if snapshot.cluster is not None:
            self._show_cluster(snapshot.cluster)

    def _show_cluster(self, cluster: ClusterSnapshot) -> None:
        for link in cluster.links:
            self._link.labels(state=link).set(int(link == cluster.link))
        self._outbox_entries.set(cluster.outbox_entries)
        self._outbox_bytes.set(cluster.outbox_bytes)
        self._members.set(cluster.members)
        self._skew.set(abs(cluster.worst_skew.total_seconds()))
        self._repaired.set(cluster.repaired)
        for one in cluster.etcd:
            numbers = {
                self._etcd_reachable: int(one.reachable),
                self._etcd_db: one.db_bytes,
                self._etcd_in_use: one.db_bytes_in_use,
                self._etcd_quota: one.quota_bytes or DEFAULT_QUOTA_BYTES,
                self._etcd_alarms: len(one.alarms),
            }
            for gauge, number in numbers.items():
                gauge.labels(endpoint=one.endpoint).set(number)

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self.registry)

    def _counter(self, name: str) -> prometheus_client.Counter:
        help_text, labels = METRICS[name]
        return prometheus_client.Counter(name, help_text, labels, registry=self.registry)

    def _gauge(self, name: str) -> Gauge:
        help_text, labels = METRICS[name]
        return Gauge(name, help_text, labels, registry=self.registry)
