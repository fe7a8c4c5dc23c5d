"""A migration happens whole or not at all, whatever interrupts it."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from keycache.domain.errors import KeycacheError
from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.ports import Cursor
from keycache.store import open_store
from keycache.store.schema import MIGRATIONS, Migration, Step
from support.entries import make_entry, put

CURSOR = Cursor(identity=ClusterIdentity("ours"), revision=Revision(1))


def fill_in(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE later SET doubled = revision * 2")


SECOND_STEPS: tuple[Step, ...] = (
    "CREATE TABLE later (entry INTEGER PRIMARY KEY, revision INTEGER NOT NULL, doubled INTEGER) STRICT",
    "INSERT INTO later (entry, revision) SELECT id, mod_revision FROM entry",
    fill_in,
    "DROP INDEX entry_by_cached",
    "ALTER TABLE entry RENAME COLUMN cached TO first_cached",
    "CREATE INDEX entry_by_cached ON entry (first_cached, id)",
    "DELETE FROM document",
)


def with_second(steps: Sequence[Step] = SECOND_STEPS) -> tuple[Migration, ...]:
    return (*MIGRATIONS, Migration(version=len(MIGRATIONS) + 1, title="Later", steps=tuple(steps)))


def begin(folder: Path) -> None:
    store = open_store(folder)
    store.replica.apply([put(make_entry(number), 1) for number in range(5)], CURSOR)
    store.close()


def dump(folder: Path) -> list[str]:
    """Version, schema and rows."""
    with closing(sqlite3.connect(folder / "keycache.db")) as connection:
        version = str(connection.execute("PRAGMA user_version").fetchone())
        return [version, *(line for line in connection.iterdump() if "log_state" not in line)]


def fail(connection: sqlite3.Connection) -> None:
    raise sqlite3.OperationalError("interrupted here")


def test_versions_count_up_from_one() -> None:
    assert [migration.version for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_an_older_database_is_brought_up_to_date_with_its_rows(tmp_path: Path) -> None:
    begin(tmp_path)
    open_store(tmp_path, migrations=with_second()).close()
    with closing(sqlite3.connect(tmp_path / "keycache.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
        assert connection.execute("SELECT entry, revision, doubled FROM later").fetchall() == [(n, 1, 2) for n in range(1, 6)]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    before = dump(tmp_path)
    open_store(tmp_path, migrations=with_second()).close()
    assert dump(tmp_path) == before, "it is done once"


def test_a_new_database_and_a_migrated_one_have_the_same_schema(tmp_path: Path) -> None:
    open_store(tmp_path / "old").close()
    open_store(tmp_path / "old", migrations=with_second()).close()
    open_store(tmp_path / "new", migrations=with_second()).close()
    assert dump(tmp_path / "old") == dump(tmp_path / "new")


@pytest.mark.parametrize("step", range(len(SECOND_STEPS) + 1))
def test_a_migration_that_fails_at_any_step_has_not_happened_and_is_done_at_the_next_start(tmp_path: Path, step: int) -> None:
    begin(tmp_path / "straight")
    begin(tmp_path / "broken")
    open_store(tmp_path / "straight", migrations=with_second()).close()
    before = dump(tmp_path / "broken")
    with pytest.raises(sqlite3.OperationalError, match="interrupted here"):
        open_store(tmp_path / "broken", migrations=with_second((*SECOND_STEPS[:step], fail)))
    assert dump(tmp_path / "broken") == before
    open_store(tmp_path / "broken").close()
    open_store(tmp_path / "broken", migrations=with_second()).close()
    assert dump(tmp_path / "broken") == dump(tmp_path / "straight")


def test_a_first_start_that_fails_at_any_step_leaves_no_database(tmp_path: Path) -> None:
    for step in range(len(MIGRATIONS[0].steps) + 1):
        broken = Migration(version=1, title="Broken", steps=(*MIGRATIONS[0].steps[:step], fail))
        with pytest.raises(sqlite3.OperationalError, match="interrupted here"):
            open_store(tmp_path, migrations=[broken])
        assert not (tmp_path / "keycache.db").exists()
    begin(tmp_path)


def test_a_migration_that_loses_parents_is_undone(tmp_path: Path) -> None:
    begin(tmp_path)
    before = dump(tmp_path)
    with pytest.raises(sqlite3.IntegrityError, match=f"migration {len(MIGRATIONS) + 1} leaves rows without their parents"):
        open_store(tmp_path, migrations=with_second(("DELETE FROM entry WHERE id = 3",)))
    assert dump(tmp_path) == before


@pytest.mark.parametrize("step", [0, 3, len(SECOND_STEPS)])
@pytest.mark.parametrize("spilled", [False, True])
def test_a_process_killed_in_the_middle_of_a_migration_does_no_harm(tmp_path: Path, step: int, spilled: bool) -> None:
    """`spilled`: the half-done migration has already reached the write-ahead log on the disk."""
    begin(tmp_path / "straight")
    begin(tmp_path / "killed")
    open_store(tmp_path / "straight", migrations=with_second()).close()
    with closing(sqlite3.connect(tmp_path / "killed" / "keycache.db")) as connection:
        plain = connection.execute("SELECT count(*) FROM entry").fetchone()
    script = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]!r}
from pathlib import Path
from test_migrations import SECOND_STEPS, with_second
from keycache.store import open_store
def die(connection):
    if {spilled}:
        connection.execute("CREATE TABLE big (x BLOB)")
        for _ in range(40):
            connection.execute("INSERT INTO big (x) VALUES (randomblob(1000000))")
    os.kill(os.getpid(), signal.SIGKILL)
open_store(Path({str(tmp_path / "killed")!r}), migrations=with_second((*SECOND_STEPS[:{step}], die)))
"""
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=60)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    wal = tmp_path / "killed" / "keycache.db-wal"
    assert not spilled or wal.stat().st_size > 10_000_000
    with closing(sqlite3.connect(f"file:{tmp_path}/killed/keycache.db?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert connection.execute("SELECT count(*) FROM entry").fetchone() == plain
    open_store(tmp_path / "killed", migrations=with_second()).close()
    assert dump(tmp_path / "killed") == dump(tmp_path / "straight")


def test_a_full_disk_during_a_migration_is_reported_and_undone(tmp_path: Path) -> None:
    begin(tmp_path)
    before = dump(tmp_path)

    def swell(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 5}")
        connection.execute("CREATE TABLE big (x BLOB)")
        connection.execute("INSERT INTO big (x) VALUES (zeroblob(1000000))")

    with pytest.raises(KeycacheError, match="No room is left"):
        open_store(tmp_path, migrations=with_second((*SECOND_STEPS, swell)))
    assert dump(tmp_path) == before
