"""The files of a store: the lock on a data directory, and what is asked of a database before anything may write to it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from keycache.domain.errors import StoreError, StoreTooNew
from keycache.store.faults import damaged, translated
from keycache.store.schema import APPLICATION_ID

DATABASE_NAME = "keycache.db"
LOCK_NAME = "keycache.lock"

QUICK_CHECK_LIMIT = 64 * 1024 * 1024
"""Bytes up to which every start checks the whole structure: some 0.2 s, a fifth of the second that a node has until its first answer
(DESIGN 9). Of a larger file only header, length and schema are checked; SQLite notices any other damaged page when it is read, and
`Database.verify`, which may run beside the service, looks for all of them. There is no mark for an unclean stop: the write-ahead log
makes kill -9 and power cuts harmless, so such a stop is no reason to suspect the file."""


class DataLock:
    """Held by the one node that works on a data directory; goes with the process, however it ends.

    flock, not fcntl: it belongs to the open file, so that closing another descriptor of the file does not drop it. The descriptor is
    not inherited by programs that we start.
    """

    def __init__(self, folder: Path) -> None:
        """Raises StoreError when another process holds it."""
        self._path = folder / LOCK_NAME
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"{self._path} cannot be opened: {error.strerror}.",
                hint=f"Check that the node's user owns {folder} and may write there.",
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise StoreError(
                f"The data directory {folder} is in use by another node (process {holder or 'unknown'}).",
                hint="Stop that node, or give this one a data directory of its own with --data-dir.",
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)  # for the message above, and for people
        self._open = True

    def release(self) -> None:
        if self._open:
            self._open = False
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)


def prepare_folder(folder: Path) -> None:
    """Make it, for its owner alone. Raises StoreError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"The data directory {folder} cannot be made: {error.strerror}.",
            hint="Make it yourself, owned by the node's user, or choose another with --data-dir.",
        ) from error


def read_only_uri(path: Path) -> str:
    return f"file:{quote(str(path))}?mode=ro"


def examine(path: Path, *, newest: int, quick_check_limit: int = QUICK_CHECK_LIMIT) -> None:
    """Refuse what must not be opened for writing: damaged files (StoreCorrupt), those of a later version (StoreTooNew) or of another
    program (StoreError). Reads only: not a byte of the file changes."""
    size = path.stat().st_size
    if size == 0:
        raise damaged(path, "it is empty, and we never leave one empty.")
    with translated(path), closing(sqlite3.connect(read_only_uri(path), uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA cell_size_check = ON")  # damage is found where it is, not where it leads
        connection.execute("PRAGMA trusted_schema = OFF")  # a planted view or trigger must not run functions
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application != APPLICATION_ID:
            raise StoreError(
                f"{path} is a database of another program.", hint=f"Move it out of {path.parent}, or choose another --data-dir."
            )
        if version > newest:
            raise StoreTooNew(
                f"{path} has schema version {version}; this version of Keycache knows up to {newest}.",
                hint="Start the later version of Keycache again; or export there, and import here into a new data directory.",
            )
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        wal = path.with_name(path.name + "-wal")
        if size < pages * page_size and not (wal.exists() and wal.stat().st_size > 0):  # else the rest may stand there
            raise damaged(path, f"it has {size} of {pages * page_size} bytes.")
        if size <= quick_check_limit:
            check_structure(connection, path)


def check_structure(connection: sqlite3.Connection, path: Path) -> None:
    """Walk every page. Raises StoreCorrupt with the first finding."""
    findings = [str(line) for (line,) in connection.execute("PRAGMA quick_check(1)")]
    if findings != ["ok"]:
        raise damaged(path, f"{' '.join(findings[0].split())}.")


def sync_folder(folder: Path) -> None:
    """Make a rename in it durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
