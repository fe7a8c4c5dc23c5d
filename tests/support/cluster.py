"""Three nodes on three members of etcd, all of them real processes that can be killed, paused, restarted and cut off.

`cluster` makes one, on loopback or on a network of its own. Nodes keep data directory, log file and clock over their restarts; a
block ends only when nobody logged a mistake of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

from keycache.clock import SystemClock
from keycache.domain.errors import KeycacheError
from keycache.v1 import admin_pb2
from support.command import NO_CHANGES
from support.etcd import EtcdCluster, TlsFiles
from support.network import Host, Network, network
from support.scenario import ClockFile, Running, eventually, running

NAME = "test"
"""Of the cluster, and so the key space is /keycache/test/ (DESIGN 6)."""

SWING = timedelta(seconds=3)
"""How long after a clock was set it may be read as before: libfaketime looks at its file once a second, and a machine is busy."""

SETTINGS = {"PURGE__INTERVAL": "1s"}


class NotRunning(AssertionError):
    pass


class ClusterNode:
    """One node: what outlives its processes. `running` is the process that runs now."""

    def __init__(
        self,
        name: str,
        folder: Path,
        etcd: EtcdCluster,
        *,
        host: Host | None,
        clock: bool,
        environ: Mapping[str, str],
        settings: Mapping[str, str],
    ) -> None:
        self.name = name
        self.data_dir = folder / name
        self.log_file = folder / f"{name}.log"
        self.host = host
        self.environ = dict(environ)
        self.settings = {
            "CLUSTER__ENDPOINTS": ",".join(etcd.endpoints),
            "CLUSTER__NAME": NAME,
            **_tls(etcd.tls),
            **SETTINGS,
            **settings,
        }
        self._clock = ClockFile(folder / f"{name}.clock") if clock else None
        self._offsets = [(SystemClock().now() - SWING, timedelta())]
        self._stack: AsyncExitStack | None = None
        self._running: Running | None = None

    @property
    def running(self) -> Running:
        if self._running is None:
            raise NotRunning(f"{self.name} does not run")
        return self._running

    @property
    def is_up(self) -> bool:
        return self._running is not None

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")

    async def start(self, **settings: str) -> Running:
        """Until it answers. `settings`: for this start, beside its own."""
        assert self._running is None
        environ = {**self.environ, **(NO_CHANGES if self._clock is None else self._clock.environ)}
        stack = AsyncExitStack()
        self._running = await stack.enter_async_context(
            running(self.data_dir, environ=environ, log_file=self.log_file, host=self.host, **{**self.settings, **settings})
        )
        self._stack = stack
        return self._running

    async def stop(self) -> None:
        """SIGTERM; it must end well, whatever happens to etcd."""
        await self._end()

    async def kill(self) -> None:
        """SIGKILL, as a power cut."""
        self.running.kill()
        await self._end()

    async def restart(self, **settings: str) -> Running:
        await self.stop()
        return await self.start(**settings)

    def pause(self) -> None:
        """SIGSTOP: its connections stay open, and nothing answers."""
        self.running.node.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.running.node.process.send_signal(signal.SIGCONT)

    async def _end(self) -> None:
        stack, self._stack, self._running = self._stack, None, None
        if stack is not None:
            await stack.aclose()

    # its clock
    def set_clock(self, off_by: timedelta) -> None:
        """Needs a cluster with clocks."""
        assert self._clock is not None
        self._offsets.append((SystemClock().now(), off_by))
        self._clock.go(off_by)

    @property
    def clock_is_right(self) -> bool:
        """Also for the last few seconds."""
        since = SystemClock().now() - SWING
        before = [off_by for at, off_by in self._offsets if at < since]
        return not any((*before[-1:], *(off_by for at, off_by in self._offsets if at >= since)))

    def clock_error(self, moment: datetime) -> timedelta:
        """The lowest offset that it may have had at that moment."""
        since = moment - SWING
        valid = [off_by for at, off_by in self._offsets if at >= since]
        before = [off_by for at, off_by in self._offsets if at < since]
        return min((*before[-1:], *valid))

    def clock_at_least(self, moment: datetime) -> datetime:
        """What its clock said at that true moment, or something earlier."""
        return moment + self.clock_error(moment)


def _tls(tls: TlsFiles | None) -> dict[str, str]:
    if tls is None:
        return {}
    return {"CLUSTER__CA": str(tls.ca), "CLUSTER__CERTIFICATE": str(tls.client), "CLUSTER__KEY": str(tls.client_key)}


class Cluster:
    """`network` None: all on loopback."""

    def __init__(self, etcd: EtcdCluster, nodes: Sequence[ClusterNode], net: Network | None) -> None:
        self.etcd = etcd
        self.nodes = list(nodes)
        self._network = net

    @property
    def network(self) -> Network:
        assert self._network is not None, "a cluster without a network of its own"
        return self._network

    @property
    def up(self) -> list[ClusterNode]:
        return [node for node in self.nodes if node.is_up]

    def node(self, number: int) -> Running:
        return self.nodes[number].running

    async def start(self) -> None:
        """All nodes that do not run. The first alone: it founds the log, and who comes second finds it."""
        down = [node for node in self.nodes if not node.is_up]
        for group in (down[:1], down[1:]):
            await asyncio.gather(*(node.start() for node in group))

    async def heal(self) -> None:
        """Everything runs, is connected and has the right time again."""
        if self._network is not None:
            await asyncio.to_thread(self._network.heal)
        await asyncio.to_thread(self.etcd.recover)
        wrong = [node for node in self.nodes if not node.clock_is_right]
        for node in wrong:
            node.set_clock(timedelta())
        for node in self.up:
            node.resume()
        await self.start()
        if wrong:
            await asyncio.sleep(SWING.total_seconds())

    async def settled(self, nodes: Sequence[ClusterNode] = ()) -> list[admin_pb2.Status]:
        """Until these nodes, or all that run, have applied everything written by now and delivered all they had; their status then.

        Words of members and audit lines move the revision on for ever, but not the entries: what must be equal is the digest.
        """
        chosen = nodes or self.up

        async def look() -> list[admin_pb2.Status] | None:
            head = await asyncio.to_thread(self.etcd.revision)
            found = []
            for node in chosen:
                try:
                    found.append(await node.running.status())
                except KeycacheError:
                    return None
            if any(one.cluster.link != "FOLLOWING" or one.cluster.outbox_entries for one in found):
                return None
            if any(one.applied_revision < head for one in found) or len({one.digest for one in found}) > 1:
                return None
            return found

        try:
            return await eventually(look)
        except AssertionError:
            raise AssertionError(f"it did not settle:\n{await self.portrait()}") from None

    async def portrait(self) -> str:
        """For a person who must find out why."""
        lines = []
        for node in self.nodes:
            if not node.is_up:
                lines.append(f"{node.name}: down")
                continue
            try:
                one = await node.running.status()
            except KeycacheError as error:
                lines.append(f"{node.name}: {error}")
                continue
            lines.append(
                f"{node.name}: revision {one.applied_revision}, digest {one.digest}, entries {one.entries}, purge {one.purge}, "
                f"cluster {one.cluster}, warnings {list(one.warnings)}"
            )
        return "\n".join(lines)


@asynccontextmanager
async def cluster(
    folder: Path,
    *,
    nodes: int = 3,
    members: int = 3,
    partitions: bool = False,
    clocks: bool = False,
    flags: Sequence[str] = (),
    tls: TlsFiles | None = None,
    environ: Mapping[str, str] = NO_CHANGES,
    started: bool = True,
    **settings: str,
) -> AsyncIterator[Cluster]:
    """Nodes n0, n1, ... on members m0, m1, ..., until the end of the block. `partitions`: on a network of its own, where each is a
    host of its name. `clocks`: each node has a clock that can be set. `environ`, `settings`: of every node. `flags`: of etcd."""
    names = [f"n{number}" for number in range(nodes)]
    async with AsyncExitStack() as parts:
        net: Network | None = None
        if partitions:
            net = parts.enter_context(network(*names, *(f"m{number}" for number in range(members))))
        etcd = await asyncio.to_thread(
            parts.enter_context, EtcdCluster.run(folder / "etcd", size=members, flags=flags, network=net, tls=tls)
        )
        made = Cluster(
            etcd,
            [
                ClusterNode(
                    name,
                    folder,
                    etcd,
                    host=net.hosts[name] if net else None,
                    clock=clocks,
                    environ=environ,
                    settings=settings,
                )
                for name in names
            ],
            net,
        )
        try:
            if started:
                await made.start()
            yield made
        except BaseException:
            for node in made.up:  # what went wrong is told, not what follows from it
                with contextlib.suppress(AssertionError, KeycacheError):
                    node.resume()
                    await node.kill()
            raise
        await asyncio.gather(*(node.stop() for node in made.up))
