"""A node's own data on disk: replica, local entry log and outbox in one SQLite file, and the fakes of all three."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keycache.store import files
from keycache.store.database import Database
from keycache.store.local_log import LocalLog
from keycache.store.outbox import OUTBOX_BYTES, SqliteOutbox
from keycache.store.replica import SqliteReplica
from keycache.store.schema import MIGRATIONS, Migration

__all__ = ["Store", "open_store"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """One data directory, opened. Blocking writes of replica and outbox belong on the writing thread: `await store.database.run(
    store.replica.apply, changes, cursor)`."""

    database: Database
    log: LocalLog
    replica: SqliteReplica
    outbox: SqliteOutbox
    lock: files.DataLock

    def close(self) -> None:
        """End the log's watches, finish the writes under way, close the file, release the directory. May be called again."""
        self.log.shut()
        self.database.close()
        self.lock.release()


def open_store(data_dir: Path, *, migrations: Sequence[Migration] = MIGRATIONS, outbox_bytes: int = OUTBOX_BYTES) -> Store:
    """Open what is in `data_dir`, or begin there. Blocks for some 20 ms. `outbox_bytes`: what may wait in the outbox.

    Raises StoreError (in use by another node, or not to be read or written), StoreCorrupt or StoreTooNew; none of them changes the
    database.
    """
    files.prepare_folder(data_dir)
    lock = files.DataLock(data_dir)
    try:
        database = Database.open(data_dir / files.DATABASE_NAME, migrations=migrations)
        try:
            return Store(
                database=database,
                log=LocalLog(database),
                replica=SqliteReplica(database),
                outbox=SqliteOutbox(database, limit=outbox_bytes),
                lock=lock,
            )
        except BaseException:
            database.close()
            raise
    except BaseException:
        lock.release()
        raise
