"""A member's database as a file, and a data directory made of one.

Not the way back after a disaster: a cluster that lost its quorum is built anew from a node's replica, which is newer than any file, and
etcd's --force-new-cluster is used nowhere. A snapshot is what an administrator keeps elsewhere, and moves a cluster with.
A restored etcd has a past revision again: the restart check of each node (`domain.restart`) sees that before it removes anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import grpc.aio
from aetcd import rpc

from keycache.cluster.etcd_binary import find_restorer
from keycache.cluster.etcd_spec import EtcdSpec
from keycache.cluster.leftover import end_leftover
from keycache.cluster.member_endpoint import MemberEndpoint
from keycache.domain.errors import Conflict, LogUnavailable, StoreCorrupt, StoreError
from keycache.etcd.connection import Unconnected
from keycache.etcd.errors import explain

TRAILER = hashlib.sha256().digest_size
"""The stream ends in the SHA-256 of all before it (etcd's rpc.proto, SnapshotResponse), and so does the file: `restore` checks it."""

_BLOCK = 512
"""A database is a whole number of these, which tells whether the trailer is there (etcd's own test for it)."""

_PIECE = 1024 * 1024

STREAM_SECONDS = 600.0
"""8 GiB, the most that etcd advises, at 14 MB/s."""

RESTORE_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """`size`: bytes, with the trailer. `sha256`: of the database, in hexadecimal, as the member gave it."""

    path: Path
    size: int
    sha256: str


async def save(endpoint: MemberEndpoint, path: Path) -> Snapshot:
    """The whole database of one member, consistent as of one revision; `path` appears complete or not at all, mode 0600.

    Raises LogUnavailable, StoreCorrupt (the stream is not what the member sent), StoreError (disk), Conflict (`path` exists).
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with await asyncio.to_thread(_create, unfinished) as file:
            snapshot = await _receive(endpoint, file, path)
            await asyncio.to_thread(_finish, file, unfinished, path)
    except FileExistsError as error:
        raise Conflict(f"{path} exists already.", hint="Choose another name: a snapshot never replaces one.") from error
    except OSError as error:
        what = "No room is left to write" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "Cannot write"
        raise StoreError(f"{what} {path}: {error.strerror}.", hint="Choose another place, or free some space.") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return snapshot


async def restore(snapshot: Path, spec: EtcdSpec) -> None:
    """Make `spec.data_dir`, which must not exist or be empty, of a snapshot: the first start then goes on from there.

    Every key keeps its value and `mod_revision`. The members are new ones: each member of a new cluster is restored from the same
    file, or joins as a learner. Raises Conflict, StoreCorrupt, StoreError, ConfigError (neither etcdutl nor etcdctl is installed).
    """
    if not await asyncio.to_thread(_is_whole, snapshot):
        raise StoreCorrupt(f"{snapshot} is damaged, cut off, or no snapshot of etcd.", hint="Take another one.")
    await end_leftover(spec.data_dir)
    try:
        await asyncio.to_thread(spec.data_dir.rmdir)  # the tools want to make it
    except FileNotFoundError:
        pass
    except OSError as error:
        raise Conflict(
            f"{spec.data_dir} holds data already.", hint="Move it away first: a restore never replaces data."
        ) from error
    words = {
        "data-dir": spec.data_dir,
        "name": spec.name,
        "initial-cluster": ",".join(f"{peer.name}={peer.url}" for peer in spec.initial_cluster),
        "initial-cluster-token": spec.token,
        "initial-advertise-peer-urls": spec.peer.url,
    }
    process = await asyncio.create_subprocess_exec(
        *map(str, find_restorer()), "snapshot", "restore", str(snapshot), *(f"--{flag}={value}" for flag, value in words.items()),
        stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, env={"LANG": "C.UTF-8", "ETCDCTL_API": "3"}, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(RESTORE_SECONDS):
            _, errors = await process.communicate()
    except TimeoutError:
        raise StoreError(f"{snapshot} could not be restored within {RESTORE_SECONDS:g} s.", hint="Check the disk.") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode:
        said = errors.decode("utf-8", "replace").strip().splitlines()
        text = said[-1] if said else f"status {process.returncode}"
        raise StoreError(f"{snapshot} could not be restored: {text}", hint="Check the disk, and remove what is there of it.")
    await asyncio.to_thread(spec.data_dir.chmod, 0o700)


async def _receive(endpoint: MemberEndpoint, file: BinaryIO, path: Path) -> Snapshot:
    """All but the last TRAILER bytes make the digest, and those are it."""
    digest, tail, size = hashlib.sha256(), b"", 0
    async for blob in _stream(endpoint):
        await asyncio.to_thread(file.write, blob)
        size += len(blob)
        tail += blob
        digest.update(tail[:-TRAILER])
        tail = tail[-TRAILER:]
    if size % _BLOCK != TRAILER or digest.digest() != tail:
        raise StoreCorrupt("The snapshot arrived damaged or cut off.", hint="Try again, from another member if it stays so.")
    return Snapshot(path=path, size=size, sha256=digest.hexdigest())


async def _stream(endpoint: MemberEndpoint) -> AsyncIterator[bytes]:
    try:
        await endpoint.connect()
        async for part in endpoint.maintenance.Snapshot(rpc.SnapshotRequest(), timeout=STREAM_SECONDS):
            yield part.blob
    except Unconnected as error:
        raise error.failure.error from error
    except grpc.aio.AioRpcError as error:
        failure = explain(error.code(), error.details(), endpoint.url).error
        raise LogUnavailable(f"The snapshot broke off. {failure.text}", hint=failure.hint) from error


def _is_whole(path: Path) -> bool:
    """Whether the trailer fits. Raises StoreError."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            left = os.fstat(file.fileno()).st_size - TRAILER
            if left <= 0 or left % _BLOCK:
                return False
            while left:
                piece = file.read(min(left, _PIECE))
                digest.update(piece)
                left -= len(piece)
            return file.read() == digest.digest()
    except OSError as error:
        raise StoreError(f"Cannot read {path}: {error.strerror}.", hint="Check the name and the rights.") from error


def _create(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    return os.fdopen(descriptor, "wb")


def _finish(file: BinaryIO, unfinished: Path, path: Path) -> None:
    """Durable under its name, which a link gives only if nobody has it."""
    file.flush()
    os.fsync(file.fileno())
    path.hardlink_to(unfinished)
