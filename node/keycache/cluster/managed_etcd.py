"""An etcd that the node runs for itself: started, looked after, ended with the node.

1. It never outlives its node (`guard`), and never works beside another one on the same data (`leftover`).
2. When it ends by itself it is started again, after a pause that doubles; each end is one line in the log, with its cause if it is
   known. The node goes on meanwhile: a replica needs no etcd to be read.
3. What no restart mends (the member was removed) is not tried again: UNUSABLE, and the flows decide.
4. One that hangs is left alone: a disk that stalls is no reason to kill, and the log's client asks elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
import socket
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from signal import Signals

from keycache.cluster import leftover
from keycache.cluster.etcd_binary import EtcdBinary
from keycache.cluster.etcd_output import LastWords, read_line
from keycache.cluster.etcd_process import EtcdProcess
from keycache.cluster.etcd_spec import EtcdSpec, HostPort, command_line
from keycache.cluster.member_endpoint import MemberEndpoint
from keycache.domain.errors import ConfigError, KeycacheError, LogUnavailable, Refused, StoreError
from keycache.etcd.connection import EtcdTls
from keycache.logs import get_logger
from keycache.pki.files import private_directory

_log = get_logger(__name__)

START_BYTES = 200 * 1024 * 1024
"""Free space without which a first start is not tried: two write-ahead files of 64 MB, made in advance, and a database to grow."""

_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """Seconds. `first` doubles with every end up to `most` (a minute: Kubernetes goes to five), and begins anew after `settled` in
    which it ran."""

    first: float = 0.5
    most: float = 60.0
    settled: float = 60.0


class EtcdState(Enum):
    """As administrators are told."""

    STOPPED = "not started, or stopped in order"
    RUNNING = "the process runs"
    WAITING = "it ended and will be started again"
    UNUSABLE = "it ended, and starting it again would not help"


class ManagedEtcd:
    """Belongs to one event loop. `run` is a task of its owner's; the rest may be called meanwhile."""

    def __init__(self, spec: EtcdSpec, binary: EtcdBinary, tls: EtcdTls, *, pauses: Pauses | None = None) -> None:
        """`tls`: what a client of this etcd needs."""
        self.spec = spec
        self.state = EtcdState.STOPPED
        self.problem: KeycacheError | None = None
        """Why it is not running; None while it is."""
        self._binary = binary
        self._tls = tls
        self._pauses = pauses or Pauses()
        self._process: EtcdProcess | None = None
        self._words = LastWords()
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopped.set()
        self._was_healthy = False

    def trust(self, tls: EtcdTls) -> None:
        """What a client of this etcd needs from now on."""
        self._tls = tls

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.state is EtcdState.RUNNING else None

    async def run(self) -> None:
        """Keep it running until `stop` or until cancelled, then end it in order. Raises nothing of its own: see `problem`."""
        assert self._stopped.is_set(), "it runs already"
        self._stopping.clear()
        self._stopped.clear()
        self._was_healthy = False
        pause = self._pauses.first
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                await self._live()
                if self._stopping.is_set():
                    break
                pause = self._pauses.first if time.monotonic() - began >= self._pauses.settled else pause
                lasting = self.state is EtcdState.UNUSABLE
                _log.error("etcd not running", problem=str(self.problem), again_in_seconds=None if lasting else pause)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if lasting else pause):
                        await self._stopping.wait()
                pause = min(2 * pause, self._pauses.most)
        finally:
            self.state, self.problem = EtcdState.STOPPED, None
            self._stopped.set()

    async def stop(self) -> None:
        """Ended in order, and `run` is over. Harmless if it was not running."""
        self._stopping.set()
        await self._stopped.wait()

    async def wait_until_healthy(self, seconds: float) -> None:
        """Until it takes part in a quorum (a learner: has a leader).

        Raises `problem` at once if it has not come up even once, or cannot any more; LogUnavailable when the time is over.
        """
        end = time.monotonic() + seconds
        endpoint = MemberEndpoint(self.spec.client.url, self._tls)
        try:
            while True:
                trouble = await endpoint.trouble() if self.state is EtcdState.RUNNING else self.problem
                if self.state is EtcdState.RUNNING and trouble is None:
                    break
                if self.problem is not None and (self.state is EtcdState.UNUSABLE or not self._was_healthy):
                    raise self.problem
                if time.monotonic() >= end:
                    raise LogUnavailable(
                        f"The node's etcd did not become healthy within {seconds:g} s. {trouble.text if trouble else ''}".strip(),
                        hint=trouble.hint if trouble else "See its lines in the log.",
                    )
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            await endpoint.close()
        self._was_healthy = True

    async def clear(self) -> None:
        """Remove the data of a member that etcd no longer knows, so that the node may join again. Raises Refused while it runs."""
        if not self._stopped.is_set():
            raise Refused("The data of a running etcd is not removed.", hint="Stop it first.")
        await leftover.end_leftover(self.spec.data_dir)
        await asyncio.to_thread(_remove, self.spec.data_dir)

    async def _live(self) -> None:
        """One life of the process; `state` and `problem` tell how it ended."""
        try:
            self._process = await self._launch()
        except KeycacheError as error:
            self.state, self.problem = EtcdState.WAITING, error
            return
        self.state, self.problem = EtcdState.RUNNING, None
        _log.info("etcd started", pid=self._process.pid, member=self.spec.name, client=str(self.spec.client))
        ended = asyncio.ensure_future(self._process.wait())
        asked = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((ended, asked), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                self._explain(ended.result())
        finally:
            asked.cancel()
            if not ended.done():
                await self._process.stop()
                _log.info("etcd stopped", pid=self._process.pid)
            self._process = None

    async def _launch(self) -> EtcdProcess:
        orphan = await leftover.end_leftover(self.spec.data_dir)
        if orphan is not None:
            _log.warning("etcd of an earlier life ended", pid=orphan)
        warning = await asyncio.to_thread(_prepare, self.spec.data_dir)
        if warning:
            _log.warning(warning)
        for where in (self.spec.client, self.spec.peer):
            check_free(self.spec.listening(where))
        self._words = LastWords()
        return await EtcdProcess.start(
            self._binary.path, command_line(self.spec), data_dir=self.spec.data_dir, on_line=self._on_line
        )

    def _on_line(self, raw: bytes) -> None:
        self._words.add(raw)
        line = read_line(raw)
        write = {"debug": _log.debug, "warning": _log.warning, "error": _log.error}[line.level]
        write("etcd", text=line.text, details=line.details)

    def _explain(self, status: int) -> None:
        """What it ended with: its last words count unless it was ended from outside."""
        cause = self._words.cause() if status >= 0 else None
        if cause is not None:
            self.state = EtcdState.UNUSABLE if cause.lasting else EtcdState.WAITING
            self.problem = cause.error(f"{cause.text} ({self.spec.data_dir})", hint=cause.hint)
            return
        how = f"was ended by {_signal_name(-status)}" if status < 0 else f"ended by itself with status {status}"
        self.state = EtcdState.WAITING
        self.problem = LogUnavailable(
            f"The node's etcd {how}.", hint="It is started again. See its lines in the log for the cause."
        )


def _prepare(data_dir: Path) -> str:
    """A private directory on a disk with some room. Returns a warning, or nothing. Raises ConfigError and StoreError."""
    warning = private_directory(data_dir)
    free = shutil.disk_usage(data_dir).free
    if free < START_BYTES and not (data_dir / "member").exists():
        raise StoreError(
            f"Only {free // 2**20} MB are free on the disk of {data_dir}; etcd needs {START_BYTES // 2**20} MB to start.",
            hint="Free some space there; etcd is then started by itself.",
        )
    return warning


def check_free(where: HostPort, who: str = "etcd") -> None:
    """Raises ConfigError if nobody could listen there. Somebody may still come in between: etcd then says so itself."""
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Go does: an old connection in TIME_WAIT is no obstacle
        try:
            probe.bind((where.host, where.port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"{who} cannot listen on {where}: another program does.",
                    hint=f"See who: ss -ltnp 'sport = {where.port}'. End it, or choose another port.",
                ) from error
            raise ConfigError(
                f"{who} cannot listen on {where}: {error.strerror}.",
                hint="Name an IP address of this machine, or 0.0.0.0, and a port above 1023.",
            ) from error


def _remove(data_dir: Path) -> None:
    """Out of the way by one rename first, so that no half of it is ever taken for a whole."""
    gone = data_dir.with_name(f"{data_dir.name}.removed")
    try:
        if gone.exists():
            shutil.rmtree(gone)
        if data_dir.exists():
            data_dir.rename(gone)
            shutil.rmtree(gone)
    except OSError as error:
        raise ConfigError(f"Cannot remove {data_dir}: {error.strerror}.", hint="Remove it by hand.") from error


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"
