"""What a scrape of the metrics finds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from keycache.cache import KeyCache
from keycache.cache.results import NodeStatus
from keycache.metrics import ClusterSnapshot, Metrics, Snapshot
from keycache.replication.link import LinkState
from keycache.sandbox.pool import WorkerPool


class Scrape:
    """The metrics' text, brought up to date when somebody asks. `not_ready`: as for /readyz, so that the two never disagree."""

    def __init__(self, cache: KeyCache, pool: WorkerPool, metrics: Metrics, not_ready: Callable[[], str]) -> None:
        self._cache = cache
        self._pool = pool
        self._metrics = metrics
        self._not_ready = not_ready
        self._deaths = 0

    async def __call__(self) -> bytes:
        status = await self._cache.status()
        pool = self._pool.state
        for _ in range(self._deaths, pool.replaced):
            self._metrics.worker_died()
        self._deaths = pool.replaced
        self._metrics.in_flight(pool.busy + pool.waiting)
        self._metrics.ready(ready=not self._not_ready())
        self._metrics.show(_snapshot(status, self._cache.lookups.log_age))
        return self._metrics.text()


def _snapshot(status: NodeStatus, log_age: timedelta | None) -> Snapshot:
    cluster = status.cluster
    return Snapshot(
        counts=status.entries,
        applied_revision=status.applied_revision,
        log_age=log_age,
        purge=status.purge.state.value if cluster is None else cluster.purge_state,
        purge_waiting=status.purge.waiting if cluster is None else cluster.purge_waiting,
        cluster=None
        if cluster is None
        else ClusterSnapshot(
            link=cluster.link,
            links=tuple(link.value for link in LinkState),
            outbox_entries=cluster.outbox_entries,
            outbox_bytes=cluster.outbox_bytes,
            members=cluster.members,
            worst_skew=cluster.worst_skew,
            repaired=cluster.repaired,
            etcd=cluster.etcd,
        ),
    )
