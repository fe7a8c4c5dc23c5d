"""A network of its own for a test: hosts in network namespaces on one bridge, which can be cut off from each other.

1. Bridge, links and addresses lie in namespaces alone: nothing of this machine's network is touched, and nothing leaves it.
2. A cut loses frames without a word, as a broken switch does: connections stay open and hear nothing. It is made in the sender's
   neighbour table: the other host's address gets a hardware address that nobody has.
3. Namespaces bear the process id of the test, and go with it; what a killed test left behind goes at the next start, with the
   processes in it, each by its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

PREFIX = "keycache-test-"
_SUBNET = "10.197.0"
"""Private (RFC 1918), and seen in the namespaces only."""
_NOBODY = "02:00:00:00:de:ad"
"""A hardware address, locally administered, of no host."""
_CLONE_NEWNET = 0x40000000  # sched.h
_numbers = itertools.count()


class NoNamespaces(AssertionError):
    """This machine lets the test have no network namespaces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One machine of the network. `inside` goes before a command that shall run on it; the process id is then the command's own."""

    namespace: str
    address: str

    @property
    def inside(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.namespace)

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection made on it, for this process. Raises OSError."""
        made: list[socket.socket] = []
        problem: list[OSError] = []

        def enter() -> None:  # a thread has a namespace of its own, and a socket keeps that of its maker
            try:
                _enter(self.namespace)
                made.append(socket.create_connection((host, port), timeout=5))
            except OSError as error:
                problem.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if problem:
            raise problem[0]
        made[0].setblocking(False)
        return made[0]

    @asynccontextmanager
    async def doorway(self, target: str) -> AsyncIterator[str]:
        """An address on this machine's loopback that leads to `target` (host:port) as seen from that host."""
        name, _, port = target.rpartition(":")
        pairs: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            pairs.add(task)
            try:
                inner = await asyncio.to_thread(self.connect, name, int(port))
                far_reader, far_writer = await asyncio.open_connection(sock=inner)
                try:
                    await _both(_pass(reader, far_writer), _pass(far_reader, writer))
                finally:
                    far_writer.transport.abort()
            except (OSError, asyncio.CancelledError):
                pass  # who connected sees it: the connection ends
            finally:
                writer.transport.abort()
                pairs.discard(task)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in list(pairs):
                task.cancel()
            await asyncio.gather(*pairs, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def _both(*ways: Coroutine[None, None, None]) -> None:
    """Until one of them ends."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Network:
    """Hosts by name. Make it with `network`."""

    def __init__(self) -> None:
        self._stem = f"{PREFIX}{os.getpid()}-{next(_numbers)}-"
        self._hub = f"{self._stem}hub"
        self.hosts: dict[str, Host] = {}

    @property
    def middle(self) -> Host:
        """Where the bridge is: reaches every host, however they are cut off from each other."""
        return Host(namespace=self._hub, address=f"{_SUBNET}.1")

    def build(self, names: Iterable[str]) -> None:
        _ip("netns", "add", self._hub)
        _ip("-n", self._hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._hub, "addr", "add", f"{_SUBNET}.1/24", "dev", "bridge")
        _ip("-n", self._hub, "link", "set", "bridge", "up")
        _ip("-n", self._hub, "link", "set", "lo", "up")
        for number, name in enumerate(names, start=10):
            host = Host(namespace=f"{self._stem}{name}", address=f"{_SUBNET}.{number}")
            _ip("netns", "add", host.namespace)
            _ip(
                "-n", self._hub, "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", host.namespace
            )
            _ip("-n", self._hub, "link", "set", f"port{number}", "master", "bridge", "up")
            _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.namespace, "link", "set", "lo", "up")
            _ip("-n", host.namespace, "link", "set", "eth0", "up")
            self.hosts[name] = host

    def cut(self, one: str, other: str, *, both_ways: bool = True) -> None:
        """Nothing of `one` reaches `other` any more, nor the other way."""
        self._neighbour(one, other, "replace", "lladdr", _NOBODY, "nud", "permanent")
        if both_ways:
            self._neighbour(other, one, "replace", "lladdr", _NOBODY, "nud", "permanent")

    def isolate(self, name: str, *, of: Iterable[str] = ()) -> None:
        """Cut it off from all, or from these."""
        for other in of or self.hosts:
            if other != name:
                self.cut(name, other)

    def heal(self) -> None:
        """All reach all."""
        for host in self.hosts.values():
            _ip("-n", host.namespace, "neigh", "flush", "nud", "permanent", "dev", "eth0")

    def destroy(self) -> None:
        for namespace in _namespaces():
            if namespace.startswith(self._stem):
                _remove(namespace)

    def _neighbour(self, at: str, of: str, act: str, *how: str) -> None:
        _ip("-n", self.hosts[at].namespace, "neigh", act, self.hosts[of].address, *how, "dev", "eth0")


@contextmanager
def network(*names: str) -> Iterator[Network]:
    """A network with these hosts, gone afterwards. Raises NoNamespaces: a test that needs one must not pass without."""
    made = Network()
    try:
        try:
            _sweep()
            made.build(names)
        except (OSError, subprocess.CalledProcessError) as error:
            told = getattr(error, "stderr", "") or str(error)
            raise NoNamespaces(
                "This test cuts nodes off from each other in network namespaces of its own, and could not make them: "
                f"{told.strip()}. It needs iproute2 and the rights of root (CAP_SYS_ADMIN and CAP_NET_ADMIN)."
            ) from error
        yield made
    finally:
        made.destroy()


def _enter(namespace: str) -> None:
    """This thread goes there, for good."""
    with (Path("/run/netns") / namespace).open("rb") as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns into {namespace}: {os.strerror(ctypes.get_errno())}")


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=60).stdout


def _namespaces() -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(path.name for path in Path("/run/netns").iterdir() if path.name.startswith(PREFIX))
    return []


def _sweep() -> None:
    """What tests left behind that were killed."""
    for namespace in _namespaces():
        maker = namespace.removeprefix(PREFIX).partition("-")[0]
        if maker.isdigit() and not Path(f"/proc/{maker}").exists():
            _remove(namespace)


def _remove(namespace: str) -> None:
    with contextlib.suppress(subprocess.CalledProcessError):  # another test's sweep was faster
        for pid in _ip("netns", "pids", namespace).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _ip("netns", "del", namespace)
