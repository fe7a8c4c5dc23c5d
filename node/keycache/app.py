"""The composition root: the only place that knows every part. Parse (config), build, run, close.

ORDER of building: the store first, since it locks the data directory against a second node; then what may fail for reasons of
configuration; the port opens LAST, so that who reaches the node gets answers. Closing goes the other way: no new calls, calls in
flight finished, then flows, workers, store.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import uvloop

from keycache import logs
from keycache.anchors import load_certificates, load_crls
from keycache.cache import KeyCache, NodeFacts, Ports, build
from keycache.cache.results import NodeStatus
from keycache.clock import SystemClock
from keycache.cluster.managed_etcd import ManagedEtcd
from keycache.cluster.own_etcd import own_etcd, tls_of
from keycache.cluster.standing import StandingFile
from keycache.config import Cluster, Config, Endpoint
from keycache.domain.capacity import advise
from keycache.domain.errors import KeycacheError
from keycache.domain.join_token import HostPort
from keycache.domain.names import NodeId
from keycache.domain.nodes import ClusterNode
from keycache.domain.standing import Phase, Standing
from keycache.etcd.client import EtcdClient
from keycache.etcd.connection import EtcdTls
from keycache.etcd.log import EtcdLog
from keycache.etcd.monitor import EtcdMonitor
from keycache.forming.adopting import adopt
from keycache.forming.desk import FormingDesk, Place
from keycache.forming.hosting import Hosting
from keycache.harvest.budget import Budget
from keycache.metrics import ClusterSnapshot, HttpServer, Metrics, Snapshot
from keycache.pki import NodePki, machine_names, open_pki, write_private
from keycache.pki.files import read
from keycache.pki.joining import take_admission
from keycache.replication.link import LinkState
from keycache.sandbox.limits import MIB, SandboxLimits
from keycache.sandbox.pool import WorkerPool
from keycache.services.server import Server, ServerOptions
from keycache.store import open_store

RUN_FILE = "run.json"
"""Tells commands on this machine where the running node listens; gone after a clean stop."""

NODE_ID_FILE = "node-id"

GRACE_SECONDS = 20.0
"""For calls in flight at a stop. Below the 30 s that Kubernetes, and the 90 s that systemd, wait by default before they kill."""

GARBAGE_THRESHOLD = 50_000
"""New objects between two searches for cycles. A page of a listing is thousands of objects without any: looked through every 700, as
by default, they took a tenth of a first sync, measured."""

_M_MMAP_THRESHOLD = -3
"""Of mallopt(3)."""

WATCH_SECONDS = 10.0
"""Between two looks at etcd's members: each costs them a status call, and nobody reacts faster to a quota."""

ETCD_CLIENT_PORT, ETCD_PEER_PORT = 7650, 7651

RENEWAL_SECONDS = 86_400.0
"""Certificates are renewed at a third of their life, so once a day is often enough."""

_log = logs.get_logger(__name__)


def run(config: Config) -> int:
    """Run a node until SIGTERM or SIGINT; the exit code. Raises KeycacheError when it cannot start or go on."""
    settle_process()
    clock = SystemClock()
    logs.configure(form="json" if config.log.format == "json" else "console", level=config.log.level, now=clock.now)
    try:
        uvloop.run(_serve(config, clock))
    except BaseExceptionGroup as group:
        ours = group.subgroup(KeycacheError)
        if ours is None:
            raise
        raise _first(ours) from None
    return 0


def settle_process() -> None:
    """How a node's process uses memory; measurements in another process begin with it, too."""
    gc.set_threshold(GARBAGE_THRESHOLD)
    # Buffers of large mails go back to the system when they are freed. By itself glibc learns from the first of them to keep such
    # sizes: after eight mails of 25 MiB at once a node held 950 MiB for good, with this 310. Other C libraries have no such switch.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, MIB)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """The log that this node shares, and the eye on what carries it."""

    log: EtcdLog
    monitor: EtcdMonitor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """What was built. `shared` None: the node works alone. `turning`: it is to be built anew."""

    cache: KeyCache
    server: Server
    http: HttpServer
    pki: NodePki
    shared: _Shared | None
    standing: StandingFile
    place: Callable[[], Place]
    turning: asyncio.Event


async def _serve(config: Config, clock: SystemClock) -> None:
    """One life after the other: a node that enters a cluster is built anew, on another log, in the same process."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    while not stopping.is_set():
        config = await _live(config, clock, stopping)
    _log.info("node stopped")


async def _live(config: Config, clock: SystemClock, stopping: asyncio.Event) -> Config:
    """Until the node is to stop, or its standing has changed. The configuration, with the ports that it really got: the next life keeps
    them."""
    async with _node(config, clock) as node, asyncio.TaskGroup() as group:
        ready = asyncio.Event()
        flows = group.create_task(node.cache.run(ready), name="flows")
        watching = group.create_task(_watch(node, config.cluster.quota, clock), name="watching")
        await _either(ready, stopping)
        if not stopping.is_set():
            try:
                config = await _open(config, node)
                tasks = [
                    group.create_task(_renew(node.pki, node.server, clock), name="renewal"),
                    group.create_task(_enter(node, clock), name="entering"),
                ]
                await _either(stopping, node.turning)
                _log.info(
                    "node stopping" if stopping.is_set() else "node goes over to its cluster", grace_seconds=GRACE_SECONDS
                )
            finally:  # also when a port is taken or a flow fails: gRPC's server must not outlive the loop
                await _shut(config, node.server, node.http)
            for task in tasks:
                task.cancel()
        watching.cancel()
        flows.cancel()
    return config


async def _enter(node: _Node, clock: SystemClock) -> None:
    """On the way into a cluster: until the node is there. One that joins is healthy only then; one that founds is all it is."""
    standing = node.standing.now
    if standing is not None and standing.phase is Phase.ADOPTING:
        if standing.founded:
            node.server.ready()
        own = ClusterNode(
            node=node.place().node,
            address=node.cache.cluster.address,
            joined_at=clock.now(),
            etcd_client_url=standing.etcd_client and f"https://{standing.etcd_client}",
            etcd_peer_url=standing.etcd_peer and f"https://{standing.etcd_peer}",
        )
        await adopt(standing, cache=node.cache, clock=clock, own=own, write=node.standing.write)
    node.server.ready()


@contextlib.asynccontextmanager
async def _node(config: Config, clock: SystemClock) -> AsyncIterator[_Node]:
    number = version("keycache")
    store = await asyncio.to_thread(open_store, config.data_dir)
    shared: _Shared | None = None
    etcd: ManagedEtcd | None = None
    running: asyncio.Task[None] | None = None
    try:
        kept, node_id = StandingFile(config.data_dir), _node_id(config.data_dir)
        standing = kept.now
        pki = _pki(config, standing, node_id, clock)
        if standing is not None:
            try:
                etcd = await own_etcd(standing, data_dir=config.data_dir, node=node_id, pki=pki, quota=config.cluster.quota)
            except KeycacheError as error:  # what is here is served all the same
                _log.error("etcd not running", problem=str(error))
        if etcd is not None:
            running = asyncio.create_task(etcd.run(), name="etcd")
        shared = _shared(config.cluster, standing, pki)
        anchors, crls = load_certificates(config.trust.anchor_paths), load_crls(config.trust.crls)
        for warning in (*pki.warnings, *anchors.warnings, *crls.warnings):
            _log.warning(warning)
        metrics = Metrics(version=number)
        limits = SandboxLimits(
            workers=config.workers.processes,
            memory_bytes=config.workers.memory_mb * MIB,
            cpu_seconds=max(1, round(config.workers.seconds)),
            wall_seconds=3 * config.workers.seconds,
        )
        async with WorkerPool(limits, Budget(message_bytes=config.mail.message_limit)) as pool:
            cache = build(
                Ports(
                    log=store.log if shared is None else shared.log,
                    replica=store.replica,
                    outbox=store.outbox,
                    examiner=pool,
                    clock=clock,
                    offload=store.database.run,
                    presence=None if shared is None else shared.log,
                ),
                NodeFacts(
                    node_id=node_id,
                    version=number,
                    policy=config.direction_policy,
                    anchors=anchors.der,
                    crls=crls.der,
                    purge_interval=config.purge.interval,
                    cluster_name=config.cluster.name if standing is None else standing.cluster,
                    founding=standing.identity if standing is not None and standing.phase is Phase.ADOPTING else None,
                    address=str(config.cluster.address or _reached_at(config.listen.grpc)),
                ),
                on_removed=metrics.purged,
            )
            cache.journal.on_verdict = metrics.message
            turning = asyncio.Event()
            opened: list[Server] = []

            def place() -> Place:
                return _place(config, node_id, number, opened[0])

            join = None if standing is None or config.listen.join is None else str(config.listen.join)
            server = Server(
                cache=cache,
                signer=pki,
                identity=pki.server,
                clock=clock,
                metrics=metrics,
                options=ServerOptions(listen=(str(config.listen.grpc),), join=join, message_limit=config.mail.message_limit),
                admitter=None
                if standing is None
                else Hosting(cache=cache, pki=pki, standing=kept, version=number, clock=clock),
                forming=FormingDesk(place=place, standing=kept, cache=cache, pki=pki, clock=clock, turn=turning.set),
                removed=cache.find_removal,
            )
            opened.append(server)
            http = HttpServer(metrics=_Scrape(cache, pool, metrics), not_ready=cache.not_ready)
            yield _Node(
                cache=cache,
                server=server,
                http=http,
                pki=pki,
                shared=shared,
                standing=kept,
                place=place,
                turning=turning,
            )
    finally:
        if shared is not None:
            await shared.log.close()
        if etcd is not None and running is not None:
            await etcd.stop()
            await running
        await asyncio.to_thread(store.close)


def _pki(config: Config, standing: Standing | None, node: NodeId, clock: SystemClock) -> NodePki:
    directory = config.data_dir / "pki"
    if standing is not None and standing.authority and standing.phase is Phase.ADOPTING:
        take_admission(directory, authority=bytes.fromhex(standing.authority))
    return open_pki(
        directory,
        names=_names(config),
        now=clock.now(),
        node=None if standing is None else node,
    )


def _names(config: Config) -> tuple[str, ...]:
    """For the node's certificate."""
    client, peer = _etcd_places(config)
    names = (*config.listen.names, config.listen.grpc.host, client.host, peer.host, *machine_names())
    return tuple(name for name in dict.fromkeys(names) if name not in _ANY)


def _etcd_places(config: Config) -> tuple[Endpoint, Endpoint]:
    """Where others reach the etcd that this node runs for a cluster of its own."""
    host = (config.cluster.address or _reached_at(config.listen.grpc)).host
    return (
        config.cluster.etcd_client or Endpoint(host, ETCD_CLIENT_PORT),
        config.cluster.etcd_peer or Endpoint(host, ETCD_PEER_PORT),
    )


def _place(config: Config, node: NodeId, number: str, server: Server) -> Place:
    """Once the server's ports are open."""
    client, peer = _etcd_places(config)
    grpc = config.cluster.address or _reached_at(Endpoint(config.listen.grpc.host, server.ports[0]))
    join = None
    if config.listen.join is not None and server.join_port is not None:
        there = _reached_at(Endpoint(config.listen.join.host, server.join_port))
        join = HostPort(grpc.host if config.listen.join.host in _ANY else there.host, there.port)
    return Place(
        data_dir=config.data_dir,
        node=node,
        version=number,
        names=_names(config),
        grpc=HostPort(grpc.host, grpc.port),
        etcd_client=str(client),
        etcd_peer=str(peer),
        configured=bool(config.cluster.endpoints),
        join=join,
    )


def _shared(cluster: Cluster, standing: Standing | None, pki: NodePki) -> _Shared | None:
    if standing is not None:
        client = EtcdClient(standing.endpoints, tls_of(pki))
        return _Shared(log=EtcdLog(client, standing.cluster), monitor=EtcdMonitor(client))
    if not cluster.endpoints:
        return None
    tls = None
    if cluster.ca is not None:
        files = (cluster.ca, cluster.certificate, cluster.key)
        ca, certificate, key = (b"" if path is None else read(path) or b"" for path in files)
        tls = EtcdTls(ca=ca, certificate=certificate, key=key)
    client = EtcdClient(cluster.endpoints, tls)
    return _Shared(log=EtcdLog(client, cluster.name), monitor=EtcdMonitor(client))


async def _watch(node: _Node, quota: int, clock: SystemClock) -> None:
    """Keep in view what the node depends on, and tell once when that changes. A node alone depends on nothing."""
    if node.shared is None:
        return
    before = None
    while True:
        seen = await node.shared.monitor.endpoints()
        node.cache.cluster.endpoints = tuple(replace(one, quota_bytes=one.quota_bytes or quota) for one in seen)
        keeps_history = False
        with contextlib.suppress(KeycacheError):
            keeps_history = await node.shared.monitor.keeps_history()
        node.cache.cluster.advice = advise(node.cache.cluster.endpoints, keeps_history=keeps_history)
        link = node.cache.replicator.state
        if link not in {before, LinkState.STARTING}:
            tell = _log.warning if link in {LinkState.SERVE_ONLY, LinkState.REFUSED} else _log.info
            tell("link to the log", state=link.value, reason=node.cache.replicator.reason)
            before = link
        await clock.sleep(WATCH_SECONDS)


async def _open(config: Config, node: _Node) -> Config:
    """The configuration with the ports that it really got."""
    server, http = node.server, node.http
    await server.start()
    if config.cluster.address is None:
        node.cache.cluster.address = str(_reached_at(Endpoint(config.listen.grpc.host, server.ports[0])))
    grpc = str(Endpoint(config.listen.grpc.host, server.ports[0]))
    metrics = None
    if config.listen.metrics is not None:
        port = await http.start(config.listen.metrics.host, config.listen.metrics.port)
        metrics = str(Endpoint(config.listen.metrics.host, port))
    # What the start made stays for good; without this every full collection walks through all of it, in the middle of a lookup.
    gc.collect()
    gc.freeze()
    content = json.dumps({"pid": os.getpid(), "grpc": grpc, "metrics": metrics})
    write_private(config.data_dir / RUN_FILE, content.encode() + b"\n")
    _log.info("node ready", grpc=grpc, metrics=metrics, data_dir=str(config.data_dir))
    listen = config.listen.model_copy(
        update={
            "grpc": Endpoint.parse(grpc),
            "metrics": None if metrics is None else Endpoint.parse(metrics),
        }
    )
    return config.model_copy(update={"listen": listen})


async def _shut(config: Config, server: Server, http: HttpServer) -> None:
    (config.data_dir / RUN_FILE).unlink(missing_ok=True)
    await server.linger()
    await server.stop(GRACE_SECONDS)
    await http.stop()


async def _renew(pki: NodePki, server: Server, clock: SystemClock) -> None:
    """Once a day; a failure is told and tried again tomorrow, long before the certificate ends."""
    while True:
        await clock.sleep(RENEWAL_SECONDS)
        try:
            renewed = await asyncio.to_thread(pki.renewed, clock.now())
        except KeycacheError as error:
            _log.error("certificates cannot be renewed", problem=str(error))
        else:
            server.certificates.replace(renewed.server)


class _Scrape:
    """The metrics' text, brought up to date when somebody asks."""

    def __init__(self, cache: KeyCache, pool: WorkerPool, metrics: Metrics) -> None:
        self._cache = cache
        self._pool = pool
        self._metrics = metrics
        self._deaths = 0

    async def __call__(self) -> bytes:
        status = await self._cache.status()
        pool = self._pool.state
        for _ in range(self._deaths, pool.replaced):
            self._metrics.worker_died()
        self._deaths = pool.replaced
        self._metrics.in_flight(pool.busy + pool.waiting)
        self._metrics.ready(ready=not self._cache.not_ready())
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


def _reached_at(listen: Endpoint) -> Endpoint:
    """Where others reach what listens there, as far as one can guess."""
    host = next(iter(machine_names()), listen.host) if listen.host in _ANY else listen.host
    return Endpoint(host, listen.port)


_ANY = frozenset({"0.0.0.0", "::"})  # noqa: S104 -- no names for a certificate


def _node_id(data_dir: Path) -> NodeId:
    """Made at the first start, kept for ever."""
    path = data_dir / NODE_ID_FILE
    known = (read(path) or b"").decode("ascii", "replace").strip()
    if not known:
        known = str(uuid.uuid4())
        write_private(path, known.encode() + b"\n")
    return NodeId(known)


async def _either(first: asyncio.Event, second: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in (first, second)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _first(group: BaseExceptionGroup[KeycacheError]) -> KeycacheError:
    """What ended the node: the first of the errors, however deep the groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, KeycacheError)
    return error
