"""SQLite's result codes as errors of our tree: the one table where they are translated.

Codes that no administrator can cause (wrong SQL, broken constraints, misuse of the API) are faults of this program and stay as they
are. A test fails when a code of SQLite stands in neither list.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from keycache.domain.errors import StoreCorrupt, StoreError


class Fault(NamedTuple):
    """`text` is about {path}; both texts are for administrators."""

    error: type[StoreError]
    text: str
    hint: str


RECOVERY = (
    "Nothing was changed in it. Stop the node and move {name} with {name}-wal and {name}-shm out of {folder}; keep them. Then start "
    "the node with an empty database and bring the keys back with 'keycache import' from your last export, or save what can be read: "
    "sqlite3 MOVED/{name} .recover | sqlite3 {path}, before the start. A node of a cluster fetches everything anew by itself."
)
_DISK = "Free some space on the disk of {folder}; the node goes on by itself. What was acknowledged is kept."
_RIGHTS = "Check that the node's user owns {folder} and may write there, and that the disk is not mounted read-only."

FAULTS: dict[int, Fault] = {
    sqlite3.SQLITE_CORRUPT: Fault(StoreCorrupt, "The database {path} is damaged.", RECOVERY),
    sqlite3.SQLITE_NOTADB: Fault(StoreCorrupt, "{path} is not a database, or its first page is damaged.", RECOVERY),
    sqlite3.SQLITE_FORMAT: Fault(StoreCorrupt, "{path} has a damaged schema.", RECOVERY),
    sqlite3.SQLITE_FULL: Fault(StoreError, "No room is left to write {path}; nothing was changed.", _DISK),
    sqlite3.SQLITE_IOERR: Fault(
        StoreError,
        "The disk failed to read or write {path}; nothing was changed.",
        "See the kernel's log (dmesg) for the disk.",
    ),
    sqlite3.SQLITE_READONLY: Fault(StoreError, "{path} cannot be written.", _RIGHTS),
    sqlite3.SQLITE_CANTOPEN: Fault(StoreError, "{path} cannot be opened.", _RIGHTS),
    sqlite3.SQLITE_PERM: Fault(StoreError, "The system denies access to {path}.", _RIGHTS),
    sqlite3.SQLITE_AUTH: Fault(StoreError, "The system denies access to {path}.", _RIGHTS),
    sqlite3.SQLITE_BUSY: Fault(
        StoreError, "Another program holds {path}.", "End whatever has the database open, such as a sqlite3 shell or a backup."
    ),
    sqlite3.SQLITE_LOCKED: Fault(
        StoreError, "Another program holds {path}.", "End whatever has the database open, such as a sqlite3 shell or a backup."
    ),
    sqlite3.SQLITE_PROTOCOL: Fault(
        StoreError, "The locks on {path} do not work.", "Keep the data directory on a local disk, not on a network file system."
    ),
    sqlite3.SQLITE_NOLFS: Fault(
        StoreError, "The file system cannot hold {path} at this size.", "Move the data directory to another file system."
    ),
    sqlite3.SQLITE_NOMEM: Fault(StoreError, "Memory ran out while working on {path}.", "Give the node more memory."),
    sqlite3.SQLITE_TOOBIG: Fault(StoreError, "A record is too large for {path}.", "Records over 1 GB cannot be kept."),
}

OURS = frozenset(
    {
        sqlite3.SQLITE_OK,
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_INTERNAL,
        sqlite3.SQLITE_ABORT,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_NOTFOUND,
        sqlite3.SQLITE_EMPTY,
        sqlite3.SQLITE_SCHEMA,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_MISUSE,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_NOTICE,
        sqlite3.SQLITE_WARNING,
        sqlite3.SQLITE_ROW,
        sqlite3.SQLITE_DONE,
    }
)


def fault(kind: int, path: Path) -> StoreError:
    """The error of our tree for a primary result code."""
    return described(FAULTS[kind], path)


def described(found: Fault, path: Path) -> StoreError:
    words = {"path": path, "name": path.name, "folder": path.parent}
    return found.error(found.text.format(**words), hint=found.hint.format(**words))


def damaged(path: Path, detail: str) -> StoreError:
    """StoreCorrupt with the way to recover; `detail` is a sentence on what is wrong."""
    return described(Fault(StoreCorrupt, f"The database {{path}} is damaged: {detail}", RECOVERY), path)


def translate(error: sqlite3.Error, path: Path) -> Exception:
    """Ours for one of the table's; the same for a fault of this program."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # Python's own, without a code: of these only text that is not UTF-8 comes from the file.
        undecodable = str(error).startswith("Could not decode to UTF-8")
        return damaged(path, "it holds text that is not UTF-8.") if undecodable else error
    primary = code & 0xFF  # the higher bits refine (https://www.sqlite.org/rescode.html)
    return fault(primary, path) if primary in FAULTS else error


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Errors of SQLite leave as errors of our tree."""
    try:
        yield
    except sqlite3.Error as error:
        ours = translate(error, path)
        if ours is error:
            raise
        raise ours from error
