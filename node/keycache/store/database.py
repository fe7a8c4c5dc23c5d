"""One SQLite file: how it is opened, one writing thread, and connections to read from any thread.

Every write of a process goes through one connection on one thread, so that writers never wait for locks and a burst of commits
shares one fsync. Readers have connections of their own and see, thanks to the write-ahead log, the last committed state without
ever waiting for the writer.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from keycache.domain.errors import StoreError
from keycache.store import files
from keycache.store.faults import damaged, translated
from keycache.store.schema import MIGRATIONS, Migration, migrate

P = ParamSpec("P")
T = TypeVar("T")

IDLE_READERS = 8
"""Connections kept open: the event loop's own and those of a few threads. More may be open at once, and are closed after use."""

# Memory (DESIGN 9: 200 MB of its own at a million entries, of which Python with gRPC and the parsers' parent take some 80):
# 16 MiB for the writer + 8 readers x 2 MiB = 32 MiB at most. File mappings are not counted and belong to the page cache.
_EVERY_CONNECTION = (
    # Reads take pages from the mapping instead of copying them: a third less time per lookup, measured. 2 GiB is SQLite's own limit
    # (SQLITE_MAX_MMAP_SIZE); what lies beyond is read by pread. The price: a disk that fails under a mapping ends the process with
    # SIGBUS instead of an error; the service manager starts it again, and nothing acknowledged is lost.
    "PRAGMA mmap_size = 2147418112",
    # Views and triggers that somebody planted in the file must not run functions.
    "PRAGMA trusted_schema = OFF",
    # Somebody's sqlite3 shell or backup may hold the file for a moment; 5 s as SQLite's own shell script examples.
    "PRAGMA busy_timeout = 5000",
)
_READER = (
    # Only pages of the write-ahead log pass through it, the rest is mapped.
    "PRAGMA cache_size = -2048",
)
_WRITER = (
    # Damage is found on the page where it is, before a write spreads it. Not on readers, who spread nothing: a page taken from the
    # mapping is looked at anew at every visit, and with this check that doubles the time of a lookup, measured.
    "PRAGMA cell_size_check = ON",
    # Readers never wait for the writer, and a commit is one append and one fsync.
    "PRAGMA journal_mode = WAL",
    # What was acknowledged is kept (DESIGN 2.6): the log syncs at every commit. The replica does not, see `write`.
    "PRAGMA synchronous = FULL",
    # Inner pages of all indexes of a million entries (some 2 MiB) and the dirty pages of a chunk of a listing; more spills to the WAL.
    "PRAGMA cache_size = -16384",
    # Rows never lose their parents: addresses and bodies go with their entry.
    "PRAGMA foreign_keys = ON",
    # Public keys: nothing to wipe. Debian builds SQLite with wiping on, which doubles the writes of a purge.
    "PRAGMA secure_delete = OFF",
    # 16 MiB between checkpoints: some 200 harvested keys (20 pages each, measured) share the two fsyncs of one.
    "PRAGMA wal_autocheckpoint = 4000",
    # The first listing of a million entries makes a WAL of gigabytes; it gives the room back at the next checkpoint.
    "PRAGMA journal_size_limit = 67108864",
    # Sorting a million index rows takes 60 MB: into a file, not into our memory.
    "PRAGMA temp_store = FILE",
)


class Database:
    """Opened by `Database.open`, closed by `close`. All methods but `write` and what runs through `run` may be called from any
    thread."""

    def __init__(self, path: Path, writer: sqlite3.Connection) -> None:
        """For `open` alone."""
        self.path = path
        self._writer = writer
        self._write_lock = threading.RLock()
        self._durable = True
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keycache-store")

    @classmethod
    def open(cls, path: Path, *, migrations: Sequence[Migration] = MIGRATIONS) -> Database:
        """Open, or make, the database. The caller holds the `DataLock` of its directory.

        Raises StoreCorrupt, StoreTooNew or StoreError, and then has not changed a byte of an existing file.
        """
        with translated(path):
            try:
                _discard_unfinished(path)
                if path.exists():
                    files.examine(path, newest=migrations[-1].version)
                else:
                    _create(path, migrations)
            except OSError as error:
                raise StoreError(
                    f"{path} cannot be opened: {error.strerror}.",
                    hint=f"Check that the node's user owns {path.parent} and may write there, and that its disk is not full.",
                ) from error
            writer = _connect(str(path), _WRITER)
            try:
                migrate(writer, migrations)
            except BaseException:
                writer.close()
                raise
        return cls(path, writer)

    # reading
    def take(self) -> sqlite3.Connection:
        """A connection to read with, for this thread until given back. Raises StoreError."""
        try:
            return self._idle.pop()
        except IndexError:
            if self._closed:
                raise StoreError(f"The store {self.path} is closed.", hint="The node is stopping.") from None
            with translated(self.path):
                return _connect(files.read_only_uri(self.path), _READER)

    def give(self, connection: sqlite3.Connection) -> None:
        if len(self._idle) >= IDLE_READERS:
            connection.close()
            return
        self._idle.append(connection)
        if self._closed:  # closed while this one was out
            self._close_idle()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """`take` and `give` around a block; errors of SQLite leave translated."""
        connection = self.take()
        try:
            with translated(self.path):
                yield connection
        finally:
            self.give(connection)

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """As `reading`, with everything in the block read from one committed state."""
        with self.reading() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    def verify(self) -> None:
        """Check the whole structure of the file, some seconds a gigabyte. Raises StoreCorrupt."""
        with self.reading() as connection:
            files.check_structure(connection, self.path)

    # writing
    @contextmanager
    def write(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """One transaction on the writer: committed at the end of the block, undone when it raises.

        `durable`: on the disk when the block is left. Otherwise a power cut (not a crash of the process) may undo the last
        transactions, newest first, never one without those after it: right for the replica, whose cursor goes back with its rows.
        """
        with self._write_lock, translated(self.path):
            if self._closed:
                raise StoreError(f"The store {self.path} is closed.", hint="The node is stopping.")
            if durable != self._durable:
                self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:  # a full disk may have ended it already
                    self._writer.execute("ROLLBACK")
                raise

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file and give its room back, as far as readers allow."""
        with self._write_lock, translated(self.path):
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run on the writing thread, after everything submitted before."""
        try:
            return self._thread.submit(function, *args, **kwargs)
        except RuntimeError as error:
            raise StoreError(f"The store {self.path} is closed.", hint="The node is stopping.") from error

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`submit`, awaited. Cancelling the wait does not stop the work."""
        return await asyncio.wrap_future(self.submit(function, *args, **kwargs))

    def close(self) -> None:
        """Finish what was submitted, then close. May be called again."""
        self._thread.shutdown(wait=True)
        with self._write_lock:
            self._closed = True
            self._close_idle()
            self._writer.close()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()


def _connect(target: str, pragmas: Sequence[str]) -> sqlite3.Connection:
    """`isolation_level` None: transactions begin and end where we say. Connections pass between threads, one at a time."""
    connection = sqlite3.connect(
        target, uri=target.startswith("file:"), isolation_level=None, check_same_thread=False, cached_statements=64
    )
    try:
        for pragma in (*_EVERY_CONNECTION, *pragmas):
            connection.execute(pragma).fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


# A database is made under another name and moved into place once it is whole, so that an empty or half-made file under the real
# name is always damage, never an interrupted first start.
def _create(path: Path, migrations: Sequence[Migration]) -> None:
    wal = path.with_name(path.name + "-wal")
    if wal.exists() and wal.stat().st_size > 0:
        raise damaged(path, f"{path.name} is missing, but its newest changes are there in {wal.name}.")
    new = path.with_name(path.name + ".new")
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))  # SQLite gives -wal and -shm the same mode
    connection = _connect(str(new), _WRITER)
    try:
        migrate(connection, migrations)
    finally:
        connection.close()  # moves the write-ahead log into the file
    new.rename(path)
    files.sync_folder(path.parent)


def _discard_unfinished(path: Path) -> None:
    for leftover in path.parent.glob(path.name + ".new*"):
        leftover.unlink()
