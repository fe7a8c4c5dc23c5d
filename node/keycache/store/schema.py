"""The tables, as numbered migrations.

A migration is carried out in ONE transaction together with its number (`PRAGMA user_version`), so one that was interrupted has not
happened, and is simply done at the next start. Migrations are never edited once released: the next one gets the next number.

Rules: STRICT; NOT NULL unless NULL means something; columns are named in every statement; instants are microseconds since the
epoch; members of enums are positions in the tuples of `domain.lookup`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keycache.domain.lookup import TRUSTS

APPLICATION_ID = 0x4B657943
"""'KeyC' in ASCII, at offset 68 of the file, so that `file` and we know it for ours."""

Step = str | Callable[[sqlite3.Connection], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """`steps`: single SQL statements, or functions of the connection, that must not end the transaction."""

    version: int
    title: str
    steps: tuple[Step, ...]


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> list[int]:
    """Do what is missing, in order; the versions done. Foreign keys are not enforced meanwhile (a table may be rebuilt), but checked
    before each commit. Raises whatever a step raises, with that migration undone."""
    done: list[int] = []
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute("PRAGMA foreign_keys = OFF")
    for migration in migrations:
        if migration.version <= version:
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            for step in migration.steps:
                if isinstance(step, str):
                    connection.execute(step)
                else:
                    step(connection)
            _check_parents(connection, migration)
            connection.execute(f"PRAGMA user_version = {int(migration.version)}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        done.append(migration.version)
    connection.execute("PRAGMA foreign_keys = ON")
    return done


def _check_parents(connection: sqlite3.Connection, migration: Migration) -> None:
    if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
        raise sqlite3.IntegrityError(f"migration {migration.version} leaves rows without their parents")


_HELD = len(TRUSTS) - 1

_FIRST = Migration(
    version=1,
    title="The local entry log and the replica",
    steps=(
        f"PRAGMA application_id = {APPLICATION_ID}",
        # The local entry log. One row a key; value NULL is a tombstone. A rowid table, since blobs inside a WITHOUT ROWID tree make
        # every seek dearer (FACTS 4).
        """CREATE TABLE log_state (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            identity TEXT NOT NULL,
            head INTEGER NOT NULL,
            compacted INTEGER NOT NULL
        ) STRICT""",
        "CREATE TABLE log_record (key TEXT NOT NULL UNIQUE, mod_revision INTEGER NOT NULL, value BLOB) STRICT",
        "CREATE INDEX log_by_revision ON log_record (mod_revision)",
        "CREATE INDEX log_tombstone ON log_record (mod_revision) WHERE value IS NULL",
        # The replica. `identity` and `revision` are the cursor, NULL before the first listing.
        """CREATE TABLE replica_state (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            identity TEXT,
            revision INTEGER,
            digest BLOB NOT NULL,
            high_water INTEGER
        ) STRICT""",
        # What lists, sorts, counts and searches read: a scan of a million entries reads 0.4 GB of it. `hash` is the record's summand
        # of the digest; `address`, `cached`, `refreshed` are sort values; `issuer` is empty unless the entry is held.
        """CREATE TABLE entry (
            id INTEGER PRIMARY KEY,
            protocol INTEGER NOT NULL,
            fingerprint TEXT NOT NULL,
            trust INTEGER NOT NULL,
            harvested_cached INTEGER,
            harvested_refreshed INTEGER,
            looked_up_cached INTEGER,
            looked_up_refreshed INTEGER,
            imported_cached INTEGER,
            imported_refreshed INTEGER,
            mod_revision INTEGER NOT NULL,
            hash BLOB NOT NULL,
            address TEXT NOT NULL,
            cached INTEGER NOT NULL,
            refreshed INTEGER NOT NULL,
            issuer TEXT NOT NULL,
            search TEXT NOT NULL
        ) STRICT""",
        "CREATE UNIQUE INDEX entry_by_fingerprint ON entry (fingerprint, protocol)",
        # Finds what is expired under any timeouts by three range seeks, and counts it, without touching the table.
        "CREATE INDEX entry_by_age ON entry (harvested_refreshed, looked_up_refreshed, imported_refreshed, trust)",
        "CREATE INDEX entry_by_address ON entry (address)",
        "CREATE INDEX entry_by_cached ON entry (cached)",
        "CREATE INDEX entry_by_refreshed ON entry (refreshed)",
        f"CREATE INDEX entry_held ON entry (issuer) WHERE trust = {_HELD}",
        # What a lookup answers, whole in one row: the columns of `domain.lookup.Row` and ReadyRow. That some stand in `entry` too costs
        # 0.1 KB an entry and saves a fifth of the time of a lookup, measured. What the short way reads comes first, since SQLite
        # walks over all columns before the one it wants; `ready_...` are NULL unless the entry is ready (`ready_origin`).
        """CREATE TABLE answer (
            entry INTEGER PRIMARY KEY REFERENCES entry (id) ON DELETE CASCADE,
            ready_origin INTEGER,
            ready_refreshed INTEGER,
            not_before INTEGER,
            not_after INTEGER,
            ready_sighted BLOB,
            key BLOB NOT NULL,
            protocol INTEGER NOT NULL,
            fingerprint TEXT NOT NULL,
            trust INTEGER NOT NULL,
            harvested_cached INTEGER,
            harvested_refreshed INTEGER,
            looked_up_cached INTEGER,
            looked_up_refreshed INTEGER,
            imported_cached INTEGER,
            imported_refreshed INTEGER,
            defect INTEGER NOT NULL,
            evidence INTEGER NOT NULL,
            mod_revision INTEGER NOT NULL,
            rest BLOB NOT NULL
        ) STRICT""",
        # `indexed` is the lower-case form, `text` as the key spells it.
        """CREATE TABLE address (
            entry INTEGER NOT NULL REFERENCES entry (id) ON DELETE CASCADE,
            indexed TEXT NOT NULL,
            text TEXT NOT NULL,
            domain TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX address_lookup ON address (indexed, entry, text)",
        "CREATE INDEX address_by_entry ON address (entry)",
        "CREATE INDEX address_by_domain ON address (domain, entry)",
        "CREATE TABLE document (key TEXT NOT NULL UNIQUE, mod_revision INTEGER NOT NULL, value BLOB NOT NULL) STRICT",
        "INSERT INTO replica_state (id, identity, revision, digest, high_water) VALUES (1, NULL, NULL, zeroblob(32), NULL)",
    ),
)

_CLUSTER = Migration(
    version=2,
    title="The outbox of a node in a cluster, and its newest entries",
    steps=(
        # What waits for the log (DESIGN 2.6). `number` is the order of acceptance, `version` counts how often the row was put anew.
        """CREATE TABLE outbox (
            number INTEGER PRIMARY KEY,
            protocol INTEGER NOT NULL,
            fingerprint TEXT NOT NULL,
            version INTEGER NOT NULL,
            queued_at INTEGER NOT NULL,
            value BLOB NOT NULL,
            UNIQUE (fingerprint, protocol)
        ) STRICT""",
        """CREATE TABLE outbox_put (
            number INTEGER NOT NULL REFERENCES outbox (number) ON DELETE CASCADE,
            key TEXT NOT NULL,
            value BLOB NOT NULL,
            PRIMARY KEY (number, key)
        ) STRICT""",
        # As `address`, of what waits: half a million addresses held in memory instead would take a third of what a node may use.
        """CREATE TABLE outbox_address (
            number INTEGER NOT NULL REFERENCES outbox (number) ON DELETE CASCADE,
            indexed TEXT NOT NULL,
            text TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX outbox_address_lookup ON outbox_address (indexed, number, text)",
        "CREATE INDEX outbox_address_by_number ON outbox_address (number)",
        # The newest entries, which the restart check looks for in the log.
        "CREATE INDEX entry_by_revision ON entry (mod_revision)",
    ),
)

MIGRATIONS: tuple[Migration, ...] = (_FIRST, _CLUSTER)
