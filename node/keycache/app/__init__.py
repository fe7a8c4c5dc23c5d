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
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import uvloop

from keycache import logs
from keycache.anchors import load_certificates, load_crls
from keycache.app.certificates import certificate_cautions, keep_certificates, tell_of_certificates
from keycache.app.entering import enter, note_identity, obey_removal
from keycache.app.manager import READY, STOPPING, tell_manager
from keycache.app.parts import Node, Shared, cluster_log, configured_log, node_id_of
from keycache.app.places import certificate_names, place_of, reached_at
from keycache.app.scrape import Scrape
from keycache.cache import NodeFacts, Ports, build
from keycache.clock import SystemClock
from keycache.cluster.etcd_members import EtcdMembers
from keycache.cluster.own_etcd import OwnEtcd, tls_of
from keycache.cluster.standing import StandingFile
from keycache.config import Config, Endpoint
from keycache.domain.capacity import advise
from keycache.domain.errors import KeycacheError
from keycache.domain.names import NodeId
from keycache.domain.standing import Phase, Standing
from keycache.forming.authority import AuthorityKeeper
from keycache.forming.desk import FormingDesk, Place
from keycache.forming.hosting import Hosting
from keycache.forming.seating import SeatKeeper
from keycache.harvest.budget import Budget
from keycache.metrics import HttpServer, Metrics
from keycache.pki import LivePki, NodePki, open_pki, write_private
from keycache.pki.joining import take_admission
from keycache.replication.link import LinkState
from keycache.replication.waiting import unless
from keycache.sandbox.limits import MIB, SandboxLimits
from keycache.sandbox.pool import WorkerPool
from keycache.services.server import Server, ServerOptions
from keycache.store import open_store

RUN_FILE = "run.json"
"""Tells commands on this machine where the running node listens; gone after a clean stop."""

GRACE_SECONDS = 20.0
"""For calls in flight at a stop. Below the 30 s that Kubernetes, and the 90 s that systemd, wait by default before they kill."""

GARBAGE_THRESHOLD = 50_000
"""New objects between two searches for cycles. A page of a listing is thousands of objects without any: looked through every 700, as
by default, they took a tenth of a first sync, measured."""

_M_MMAP_THRESHOLD = -3
"""Of mallopt(3)."""

WATCH_SECONDS = 10.0
"""Between two looks at etcd's members: each costs them a status call, and nobody reacts faster to a quota."""

_log = logs.get_logger(__name__)


def run(config: Config, *, join_token_file: Path | None = None) -> int:
    """Run a node until SIGTERM or SIGINT; the exit code. Raises KeycacheError when it cannot start or go on.

    `join_token_file`: a node that works alone joins the cluster of the token in it, before it is healthy; one in a cluster needs none.
    """
    settle_process()
    clock = SystemClock()
    logs.configure(form="json" if config.log.format == "json" else "console", level=config.log.level, now=clock.now)
    try:
        uvloop.run(_serve(config, clock, join_token_file))
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


async def _serve(config: Config, clock: SystemClock, join_token_file: Path | None) -> None:
    """One life after the other: a node that enters a cluster is built anew, on another log, in the same process. The token is for the
    first one: who leaves a cluster later does not come back by it."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    while not stopping.is_set():
        config = await _live(config, clock, stopping, join_token_file)
        join_token_file = None
    _log.info("node stopped")


async def _live(config: Config, clock: SystemClock, stopping: asyncio.Event, join_token_file: Path | None) -> Config:
    """Until the node is to stop, or its standing has changed. The configuration, with the ports that it really got: the next life keeps
    them."""
    async with _node(config, clock, joins=join_token_file is not None) as node, asyncio.TaskGroup() as group:
        ready = asyncio.Event()
        flows = group.create_task(node.cache.run(ready), name="flows")
        watching = group.create_task(_watch(node, config.cluster.quota, clock), name="watching")
        await unless(stopping, ready.wait())
        if not stopping.is_set():
            try:
                config = await _open(config, node)
                tasks = [
                    group.create_task(keep_certificates(config.cluster, node, clock), name="certificates"),
                    group.create_task(enter(config, node, clock, join_token_file), name="entering"),
                    group.create_task(node.authorities.run(), name="authority"),
                ]
                if node.keeper is not None:
                    tasks.append(group.create_task(node.keeper.run(), name="seats"))
                await unless(stopping, node.turning.wait())
                _log.info("node stopping" if stopping.is_set() else "node goes over", grace_seconds=GRACE_SECONDS)
                if stopping.is_set():
                    tell_manager(STOPPING)
            finally:  # also when a port is taken or a flow fails: gRPC's server must not outlive the loop
                await _shut(config, node.server, node.http)
            for task in tasks:
                task.cancel()
        watching.cancel()
        flows.cancel()
    return config


@contextlib.asynccontextmanager
async def _node(config: Config, clock: SystemClock, *, joins: bool) -> AsyncIterator[Node]:
    number = version("keycache")
    store = await asyncio.to_thread(open_store, config.data_dir)
    shared: Shared | None = None
    etcd: OwnEtcd | None = None
    members: EtcdMembers | None = None
    try:
        kept, node_id = StandingFile(config.data_dir), node_id_of(config.data_dir)
        standing = kept.now
        pki = LivePki(_pki(config, standing, node_id, clock))
        alone = standing is None or standing.phase is Phase.LEAVING
        if standing is not None and not alone and standing.etcd_client:
            etcd = await _own_etcd(config, standing, node_id, pki.now)
            pki.tell(etcd.trust)
        cursor = store.replica.cursor()
        if standing is not None and alone and (cursor is None or cursor.identity != store.log.identity):
            store.log.begin_anew()  # what it holds is from before the cluster
        shared = configured_log(config.cluster) if standing is None else None if alone else cluster_log(standing, pki.now)
        anchors, crls = load_certificates(config.trust.anchor_paths), load_crls(config.trust.crls)
        for warning in (*pki.now.warnings, *anchors.warnings, *crls.warnings):
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
                    may_found=standing is None or standing.founded or standing.phase is not Phase.ADOPTING,
                    address=str(config.cluster.address or reached_at(config.listen.grpc)),
                ),
                on_removed=metrics.purged,
            )
            cache.journal.on_verdict = metrics.message
            if standing is not None and standing.phase is not Phase.MEMBER:
                cache.cluster.forming = f"This node is on its way {'out of' if alone else 'into'} cluster {standing.cluster}."
            elif standing is None and joins:
                cache.cluster.forming = "This node is to join a cluster."
            keeper: SeatKeeper | None = None
            if shared is not None and standing is not None and not standing.external:
                members = EtcdMembers(standing.endpoints, tls_of(pki.now))
                tell_of_certificates(pki, shared.client, members)
                keeper = SeatKeeper(
                    node=node_id,
                    cache=cache,
                    own=etcd,
                    members=members,
                    client=shared.client,
                    standing=kept,
                    clock=clock,
                    quota=config.cluster.quota,
                )
            turning = asyncio.Event()
            opened: list[Server] = []

            def place() -> Place:
                return place_of(config, node_id, number, opened[0])

            join = None if standing is None or config.listen.join is None else str(config.listen.join)

            def former_clients() -> frozenset[str]:
                return opened[0].former_clients.names()

            authorities = AuthorityKeeper(
                node=node_id,
                name=pki.now.names[-1] if standing is None else standing.cluster,
                cache=cache,
                pki=pki,
                own=etcd,
                standing=kept,
                clock=clock,
                former_clients=former_clients,
            )
            desk = FormingDesk(place=place, standing=kept, cache=cache, pki=pki, clock=clock, turn=turning.set, seats=keeper)
            server = Server(
                cache=cache,
                authorities=authorities,
                signer=pki,
                identity=pki.now.server,
                clock=clock,
                metrics=metrics,
                options=ServerOptions(listen=(str(config.listen.grpc),), join=join, message_limit=config.mail.message_limit),
                admitter=None
                if standing is None
                else Hosting(cache=cache, pki=pki, standing=kept, version=number, clock=clock),
                forming=desk,
                removed=cache.find_removal,
            )
            opened.append(server)
            pki.tell(lambda now: server.certificates.replace(now.server))
            cache.foresight.outside.append(lambda: certificate_cautions(config.cluster, pki.now, standing, clock.now()))
            cache.foresight.outside.append(authorities.cautions)
            pki.tell(lambda now: server.former_clients.watch(now.former))
            server.former_clients.watch(pki.now.former)
            joining = joins if standing is None else standing.phase is Phase.ADOPTING and not standing.founded

            def not_ready() -> str:
                return cache.not_ready() or (cache.cluster.forming if joining else "")

            http = HttpServer(metrics=Scrape(cache, pool, metrics, not_ready), not_ready=not_ready)
            yield Node(
                cache=cache,
                server=server,
                http=http,
                pki=pki,
                shared=shared,
                keeper=keeper,
                authorities=authorities,
                desk=desk,
                standing=kept,
                own_log=store.log.identity,
                place=place,
                turning=turning,
            )
    finally:
        if shared is not None:
            await shared.log.close()
        if members is not None:
            await members.close()
        if etcd is not None:
            await etcd.stop()
        await asyncio.to_thread(store.close)


async def _own_etcd(config: Config, standing: Standing, node: NodeId, pki: NodePki) -> OwnEtcd:
    """Started if it has data, or is to be founded; else once the others have added it (`forming.seating`)."""
    own = OwnEtcd(
        token=f"{standing.cluster}-{standing.identity.text}",
        client=standing.etcd_client,
        peer=standing.etcd_peer,
        data_dir=config.data_dir,
        node=node,
        pki=pki,
        quota=config.cluster.quota,
    )
    founds = standing.founded and standing.phase is Phase.ADOPTING
    if own.has_data or founds:
        try:
            await own.start(found=founds)
        except KeycacheError as error:  # what is here is served all the same
            _log.error("etcd not running", problem=str(error))
    return own


def _pki(config: Config, standing: Standing | None, node: NodeId, clock: SystemClock) -> NodePki:
    directory = config.data_dir / "pki"
    if standing is not None and standing.authority and standing.phase is Phase.ADOPTING:
        take_admission(directory, authority=bytes.fromhex(standing.authority))
    return open_pki(
        directory,
        names=certificate_names(config),
        now=clock.now(),
        node=None if standing is None else node,
    )


async def _watch(node: Node, quota: int, clock: SystemClock) -> None:
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
        await obey_removal(node)
        note_identity(node)
        await clock.sleep(WATCH_SECONDS)


async def _open(config: Config, node: Node) -> Config:
    """The configuration with the ports that it really got."""
    server, http = node.server, node.http
    await server.start()
    if config.cluster.address is None:
        node.cache.cluster.address = str(reached_at(Endpoint(config.listen.grpc.host, server.ports[0])))
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
    tell_manager(READY)
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


def _first(group: BaseExceptionGroup[KeycacheError]) -> KeycacheError:
    """What ended the node: the first of the errors, however deep the groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, KeycacheError)
    return error
