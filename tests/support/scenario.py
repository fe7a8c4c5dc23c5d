"""Real nodes for scenarios: started under any clock, killed, started again, and asked over gRPC.

A clock is an environment for libfaketime that sets the wall clock alone: the monotonic clock stays the machine's, as it does when
a person, or a machine without a battery, sets the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from keycache.cli.entry_line import read_line, write_line
from keycache.client import Connection, connect
from keycache.clock import SystemClock
from keycache.codec import encode_entry, entry_from_wire, entry_to_wire
from keycache.store.rows import digest_text, record_hash
from keycache.v1 import admin_pb2, cache_pb2, cluster_pb2
from support.command import NO_CHANGES, Node, start, stop
from support.network import Host

T = TypeVar("T")

PATIENCE = 45.0
"""Seconds to wait for what must come: for a machine that is busy with other tests, too. A failure, never a pace."""


def present() -> datetime:
    """To the second, so that differences are exact."""
    return SystemClock().now().replace(microsecond=0)


# Clocks


@cache
def _library() -> str:
    """As the command `faketime` would preload it, wherever this machine keeps it."""
    command = ["faketime", "-m", "-f", "+0", "sh", "-c", 'echo "$LD_PRELOAD"']
    # It names its shared memory by its process id, and fails where one that was killed left the same name behind.
    for _ in range(5):
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if told.returncode == 0:
            return told.stdout.strip()
    raise AssertionError(told.stderr)


def _faked(**more: str) -> dict[str, str]:
    # Two names of one switch: of libfaketime before and since 0.9.10.
    kept = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
    return {"LD_PRELOAD": _library(), "TZ": "UTC", "FAKETIME_DONT_RESET": "1", **kept, **more}


def clock_off_by(span: timedelta) -> Mapping[str, str]:
    """The wall clock goes, but is wrong by `span`."""
    return _faked(FAKETIME=f"{span.total_seconds():+.0f}")


class ClockFile:
    """A wall clock that is set while the node runs, and stands still when it is set to a moment.

    `exact`: the node sees it at once, and is slow, since each question for the time reads the file. Else within a second.
    """

    def __init__(self, path: Path, *, exact: bool = False) -> None:
        self._path = path
        self._exact = exact
        self.go()

    @property
    def environ(self) -> Mapping[str, str]:
        how = {"FAKETIME_NO_CACHE": "1"} if self._exact else {"FAKETIME_CACHE_DURATION": "1"}
        return _faked(FAKETIME_TIMESTAMP_FILE=str(self._path), **how)

    def go(self, off_by: timedelta = timedelta(0)) -> None:
        self._write(f"{off_by.total_seconds():+.0f}")

    def stand_at(self, moment: datetime) -> None:
        self._write(f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}")

    def _write(self, text: str) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(f"{text}\n")
        new.replace(self._path)  # libfaketime never reads half a line


# Nodes


@dataclass(frozen=True)
class Running:
    """One node that runs, and an administrator's connection to it. Methods raise KeycacheError."""

    node: Node
    connection: Connection

    @property
    def pid(self) -> int:
        return self.node.process.pid

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        self.node.process.kill()
        self.node.process.wait()

    async def status(self) -> admin_pb2.Status:
        return await self.connection.call(self.connection.admin.GetStatus, admin_pb2.GetStatusRequest())

    async def harvest(self, mail: bytes) -> cache_pb2.HarvestResponse:
        request = cache_pb2.HarvestRequest(
            message=mail, envelope=cache_pb2.Envelope(direction=cache_pb2.Direction.DIRECTION_INBOUND)
        )
        return await self.connection.call(self.connection.cache.Harvest, request)

    async def put(self, material: bytes, address: str) -> cache_pb2.PutResponse:
        request = cache_pb2.PutRequest(material=material, address=address, source="ldap://keys.example.net")
        return await self.connection.call(self.connection.cache.Put, request)

    async def lookup(self, address: str, *, revision: int = 0) -> cache_pb2.LookupResult:
        """`revision`: not before the node has applied it."""
        request = cache_pb2.LookupRequest(address=address, min_revision=revision)
        return (await self.connection.call(self.connection.cache.Lookup, request)).result

    async def find(self, fingerprint: str) -> cache_pb2.LookupResult:
        answer = await self.connection.call(self.connection.cache.Lookup, cache_pb2.LookupRequest(fingerprint=fingerprint))
        return answer.result

    async def outcome(self, address: str, *, revision: int = 0) -> str:
        """`served`, or why not: the name of the miss."""
        result = await self.lookup(address, revision=revision)
        return cache_pb2.MissCode.Name(result.miss.code).removeprefix("MISS_CODE_") if result.HasField("miss") else "served"

    async def served(self, addresses: Iterable[str]) -> set[str]:
        """Those of the addresses for which a key is served."""
        wanted = list(addresses)
        answers: list[cache_pb2.LookupResult] = []
        for first in range(0, len(wanted), 1000):
            request = cache_pb2.BatchLookupRequest(addresses=wanted[first : first + 1000])
            answers += (await self.connection.call(self.connection.cache.BatchLookup, request)).results
        return {answer.address for answer in answers if answer.keys}

    async def delete(self, fingerprint: str) -> admin_pb2.DeleteEntryResponse:
        request = admin_pb2.DeleteEntryRequest(fingerprint=fingerprint)
        return await self.connection.call(self.connection.admin.DeleteEntry, request)

    async def purge(self, **fields: Any) -> admin_pb2.PurgeResponse:
        return await self.connection.call(self.connection.admin.Purge, admin_pb2.PurgeRequest(**fields))

    async def settle(self, **timeouts: timedelta) -> admin_pb2.SetSettingsResponse:
        """Set timeouts; names as `harvested`."""
        request = admin_pb2.SetSettingsRequest()
        for name, span in timeouts.items():
            getattr(request, f"{name}_timeout").FromTimedelta(span)
        return await self.connection.call(self.connection.admin.SetSettings, request)

    async def timeouts(self) -> dict[str, timedelta]:
        answer = await self.connection.call(self.connection.admin.GetSettings, admin_pb2.GetSettingsRequest())
        names = ("harvested", "looked_up", "imported")
        return {name: getattr(answer.settings, f"{name}_timeout").ToTimedelta() for name in names}

    async def export(self) -> dict[str, str]:
        """By fingerprint, the lines that `keycache export` writes."""
        lines = {}
        async for item in self.connection.stream(self.connection.admin.Export, admin_pb2.ExportRequest()):
            if item.HasField("entry"):
                lines[item.entry.key.fingerprint] = write_line(entry_from_wire(item.entry))
        return lines

    async def import_lines(self, lines: Iterable[str]) -> list[str]:
        """The verdicts, in order."""

        async def items() -> AsyncIterator[admin_pb2.ImportItem]:
            for line in lines:
                yield admin_pb2.ImportItem(entry=entry_to_wire(read_line(line).entry), source="scenario.jsonl")

        return [answer.verdict async for answer in self.connection.exchange(self.connection.admin.Import, items())]

    # a node that shares its log
    async def block(self, **fields: Any) -> admin_pb2.Block:
        return (await self.connection.call(self.connection.admin.Block, admin_pb2.BlockRequest(**fields))).block

    async def audit(self) -> list[str]:
        """Newest first: who did what to what."""
        answer = await self.connection.call(self.connection.admin.ListAudit, admin_pb2.ListAuditRequest(limit=1000))
        return [f"{record.action} {record.subject}" for record in answer.records]

    async def members(self) -> dict[str, cluster_pb2.ListedMember]:
        """By node id."""
        answer = await self.connection.call(self.connection.cluster.ListMembers, cluster_pb2.ListMembersRequest())
        return {member.node_id: member for member in answer.members}

    async def check(self) -> cluster_pb2.CheckResponse:
        return await self.connection.call(self.connection.cluster.Check, cluster_pb2.CheckRequest())

    async def resolve(self, way: str, *, dry_run: bool = False) -> cluster_pb2.ResolveResponse:
        """`way`: MERGE or DISCARD."""
        request = cluster_pb2.ResolveRequest(way=cluster_pb2.ResolveRequest.Way.Value(way), dry_run=dry_run)
        return await self.connection.call(self.connection.cluster.Resolve, request)

    async def until(self, wanted: Callable[[admin_pb2.Status], bool]) -> admin_pb2.Status:
        """The first status of which that is true."""

        async def look() -> admin_pb2.Status | None:
            status = await self.status()
            return status if wanted(status) else None

        return await eventually(look)


async def eventually(look: Callable[[], Awaitable[T | None]]) -> T:
    """What `look` finds, once it finds something. Fails when that takes beyond all reason."""
    deadline = time.monotonic() + PATIENCE
    while (found := await look()) is None:
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.05)
    return found


@asynccontextmanager
async def running(
    data_dir: Path,
    *,
    environ: Mapping[str, str] = NO_CHANGES,
    log_file: Path | None = None,
    host: Host | None = None,
    options: Sequence[object] = (),
    **settings: str,
) -> AsyncIterator[Running]:
    """A node until the end of the block. Then it is stopped, if it still runs, and must end well; either way it must not have
    logged a mistake of its own. `options`, `settings`: as for `command.start`. `host`: where it runs, if not here."""
    log = log_file or data_dir / "log"
    before = log.stat().st_size if log.exists() else 0
    inside = () if host is None else host.inside
    node = await asyncio.to_thread(
        start, data_dir, environ=environ, log_file=log_file, inside=inside, options=options, **settings
    )
    try:
        async with connected(node, host) as connection:
            yield Running(node, connection)
        if node.process.poll() is None:
            assert await asyncio.to_thread(stop, node) == 0
    finally:
        node.process.kill()
        node.process.wait()
    assert "Traceback" not in log.read_bytes()[before:].decode("utf-8", "replace")


@asynccontextmanager
async def connected(node: Node, host: Host | None) -> AsyncIterator[Connection]:
    """As its administrator; to a node on another host through its own loopback, so that no cut stands between."""
    pki = node.data_dir / "pki"
    async with contextlib.AsyncExitStack() as ways:
        target = node.run_file["grpc"]
        if host is not None:
            target = await ways.enter_async_context(host.doorway(target))
        yield await ways.enter_async_context(
            connect(target, ca=pki / "ca.pem", certificate=pki / "admin.pem", key=pki / "admin.key")
        )


def children(pid: int) -> set[int]:
    """Process ids of its parser workers."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name in brackets: state, parent (proc(5)). A zombie does no more work.
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid and state != "Z":
            found.add(int(status.parent.name))
    return found


async def all_gone(pids: Iterable[int]) -> bool:
    """Once none of these processes does anything any more."""

    async def look() -> bool | None:
        return True if not any(_lives(pid) for pid in pids) else None

    return await eventually(look)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def digest_of(lines: Iterable[str]) -> str:
    """What a node with just these entries must tell as its digest."""
    total = 0
    for line in lines:
        entry = read_line(line).entry
        total += int.from_bytes(record_hash(entry.key.protocol, entry.key.fingerprint, encode_entry(entry)), "big")
    return digest_text(total)
