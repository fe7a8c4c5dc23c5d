"""Who else has an etcd on our data: found by its pid file, verified by the kernel, and never fought with.

An etcd of ours dies with its node (`guard`), so this is for what should not be: a node killed in the very moment of starting it, a
data directory that two nodes were given, an etcd that a person started on it by hand.

1. A pid alone proves nothing, since pids come again. It is ours if it was started when the file says, in this boot of the machine, on
   this data directory; and it is signalled through a descriptor that cannot come to mean another process (pidfd_open(2)).
2. Ours and orphaned: it is asked to end, and waited for. Its node lives: refused. Anybody else's lock on the data: refused, and told
   whose.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from keycache.domain.errors import ConfigError, Refused
from keycache.pki.files import read, write_private

END_SECONDS = 10.0
"""For an orphan to end in order: as long as for our own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """A process that cannot be mistaken for another: `ticks` since boot when it began, `boot` the kernel's id of that boot."""

    pid: int
    ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Birth | None:
        """None if there is no such process (a zombie is none)."""
        try:
            # The second field is the program's name in brackets, which may hold anything: count from the last one (proc(5)).
            state, *rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        return None if state in {"Z", "X"} else cls(pid=pid, ticks=int(rest[18]), boot=boot)


def pid_file(data_dir: Path) -> Path:
    """Beside the data, not in it: what is not etcd's own it warns of."""
    return data_dir.with_name(f"{data_dir.name}.pid")


def remember(data_dir: Path, pid: int) -> None:
    """Write down that `pid`, our child, works on `data_dir`. Raises ConfigError."""
    births = {"etcd": Birth.of(pid), "node": Birth.of(os.getpid())}
    content = {name: asdict(birth) for name, birth in births.items() if birth is not None}
    write_private(pid_file(data_dir), json.dumps(content).encode() + b"\n")


def forget(data_dir: Path) -> None:
    with contextlib.suppress(OSError):
        pid_file(data_dir).unlink(missing_ok=True)


async def end_leftover(data_dir: Path) -> int | None:
    """The pid of an orphan that was ended, or None. Raises Refused when the data is somebody's who lives."""
    etcd, node = _remembered(data_dir)
    ended = None
    if etcd is not None:
        with _opened(etcd.pid) as descriptor:
            if descriptor is not None and Birth.of(etcd.pid) == etcd and works_on(etcd.pid, data_dir):
                if node is not None and node.pid != os.getpid() and Birth.of(node.pid) == node:
                    raise Refused(
                        f"Another node (process {node.pid}) runs an etcd on {data_dir}.",
                        hint="Stop that node, or give this one its own data directory.",
                    )
                await _end(descriptor)
                ended = etcd.pid
    forget(data_dir)
    holder = await asyncio.to_thread(_holder, data_dir)
    if holder is not None:
        raise Refused(
            f"The data of etcd in {data_dir} is in use by {holder}.",
            hint="Stop that one first; two on the same data would damage it.",
        )
    return ended


def works_on(pid: int, data_dir: Path) -> bool:
    """Whether the process was started with this data directory."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(f"--data-dir={data_dir}") in words


def _remembered(data_dir: Path) -> tuple[Birth | None, Birth | None]:
    """As the pid file has it; what cannot be read there is not there."""
    try:
        content = json.loads(read(pid_file(data_dir)) or b"{}")
        return tuple(Birth(**content[name]) if name in content else None for name in ("etcd", "node"))  # type: ignore[return-value]
    except (ConfigError, ValueError, TypeError):
        return None, None


@contextlib.contextmanager
def _opened(pid: int) -> Iterator[int | None]:
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _end(descriptor: int) -> None:
    """SIGTERM, some time, SIGKILL; gone when this returns."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(descriptor, gone.set)  # readable once the process has ended
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await gone.wait()
                    return
    finally:
        loop.remove_reader(descriptor)


def _holder(data_dir: Path) -> str | None:
    """Who has etcd's database locked (bbolt takes flock(2) on it), or None."""
    database = data_dir / "member" / "snap" / "db"
    try:
        with database.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return _locker(inode)
    except OSError:
        return None
    return None


def _locker(inode: int) -> str:
    """By proc_locks(5): `1: FLOCK ADVISORY WRITE 4711 08:01:123456 0 EOF`."""
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    pids = [words[4] for words in map(str.split, lines) if len(words) > 5 and words[5].endswith(f":{inode}")]
    return f"process {pids[0]}" if pids else "another process"
