"""What a store does at the door: rights, locks, and files it must not touch."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from keycache.domain.errors import KeycacheError, StoreCorrupt, StoreError, StoreTooNew
from keycache.domain.log import Transaction
from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.ports import Cursor
from keycache.store import files, open_store
from keycache.store.schema import APPLICATION_ID, MIGRATIONS
from support.entries import make_entry, put

CURSOR = Cursor(identity=ClusterIdentity("ours"), revision=Revision(1))
PAGE = 4096


def fill(folder: Path, *, entries: int = 40) -> Path:
    """A store with entries in it, closed; the database's path."""
    store = open_store(folder)
    store.replica.apply([put(make_entry(number, material_size=1500), 1) for number in range(entries)], CURSOR)
    store.close()
    return folder / files.DATABASE_NAME


def fingerprints(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.name != files.LOCK_NAME
    }


def refused(folder: Path, kind: type[KeycacheError]) -> KeycacheError:
    """The error of opening it, having checked that not a byte changed and that the directory is free again."""
    before = fingerprints(folder)
    for _ in range(2):
        with pytest.raises(kind) as caught:
            open_store(folder)
        assert {name: digest for name, digest in fingerprints(folder).items() if name in before} == before
    files.DataLock(folder).release()
    assert type(caught.value) is kind
    return caught.value


def test_a_new_store_belongs_to_its_user_alone(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        store = open_store(tmp_path / "deep" / "data")
    finally:
        os.umask(previous)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "deep" / "data").iterdir()}
    assert set(modes) >= {"keycache.db", "keycache.db-wal", "keycache.lock"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "deep" / "data").stat().st_mode) == 0o700
    store.close()
    assert {path.name for path in (tmp_path / "deep" / "data").iterdir()} == {"keycache.db", "keycache.lock"}


def test_a_new_database_is_marked_as_ours_and_strict_throughout(tmp_path: Path) -> None:
    with closing(sqlite3.connect(fill(tmp_path))) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (MIGRATIONS[-1].version,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT name FROM pragma_table_list WHERE schema = 'main' AND NOT strict").fetchall() == [
            ("sqlite_schema",)
        ]


def test_everything_is_there_again_after_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    entry = make_entry(1)
    store.replica.apply([put(entry, 1)], CURSOR)
    identity, digest = store.log.identity, store.replica.digest()
    store.close()
    store = open_store(tmp_path)
    assert (store.log.identity, store.replica.digest(), store.replica.cursor()) == (identity, digest, CURSOR)
    assert list(store.replica.lookup(["user1@example.org"])) == ["user1@example.org"]
    store.close()
    store.close()


def test_two_stores_have_two_identities(tmp_path: Path) -> None:
    first, second = open_store(tmp_path / "1"), open_store(tmp_path / "2")
    assert first.log.identity != second.log.identity
    first.close()
    second.close()


def test_a_second_node_on_the_same_directory_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(StoreError, match=f"in use by another node \\(process {os.getpid()}\\)") as caught:
        open_store(tmp_path)
    assert "--data-dir" in caught.value.hint
    store.close()
    open_store(tmp_path).close()


def test_the_directory_of_a_node_that_was_killed_is_free_and_its_changes_are_there(tmp_path: Path) -> None:
    script = f"""
import asyncio, sys, time
from pathlib import Path
from keycache.domain.log import Transaction
from keycache.store import open_store
store = open_store(Path({str(tmp_path)!r}))
asyncio.run(store.log.commit(Transaction(compare={{}}, puts={{"a": b"1"}})))
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        with pytest.raises(StoreError, match=f"process {child.pid}"):
            open_store(tmp_path)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert (tmp_path / "keycache.db-wal").stat().st_size > 0, "the change is in the write-ahead log only"
    store = open_store(tmp_path)
    with store.database.reading() as connection:
        assert connection.execute("SELECT key, value FROM log_record").fetchall() == [("a", b"1")]
    store.close()


def test_a_database_of_a_later_version_is_refused_naming_both(tmp_path: Path) -> None:
    path = fill(tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    error = refused(tmp_path, StoreTooNew)
    assert "schema version 99" in error.text
    assert f"up to {MIGRATIONS[-1].version}" in error.text
    assert "later version" in error.hint


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / files.DATABASE_NAME)) as connection:
        connection.execute("CREATE TABLE moz_places (id INTEGER)")
    assert "another program" in refused(tmp_path, StoreError).text


def write_at(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: write_at(path, 0, b"\xff" * 100), id="garbage for a header"),
        pytest.param(lambda path: write_at(path, 16, b"\x00\x07"), id="impossible page size"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(b"SQLite format 3\x00"), id="only the first bytes"),
        pytest.param(lambda path: path.write_bytes(os.urandom(20_000)), id="random"),
        pytest.param(lambda path: path.write_text("-----BEGIN CERTIFICATE-----\n" * 500), id="another file"),
        pytest.param(lambda path: os.truncate(path, path.stat().st_size // 2), id="cut in the middle"),
        pytest.param(lambda path: os.truncate(path, path.stat().st_size - 1), id="cut by a byte"),
        pytest.param(lambda path: write_at(path, 100, b"\xff" * 200), id="schema page flipped"),
        pytest.param(lambda path: write_at(path, PAGE * 20, b"\x5a" * PAGE), id="a page flipped"),
    ],
)
def test_a_damaged_database_is_reported_with_the_way_to_recover_and_never_touched(tmp_path: Path, damage: object) -> None:
    path = fill(tmp_path)
    damage(path)  # type: ignore[operator]
    error = refused(tmp_path, StoreCorrupt)
    assert str(path) in error.text
    for word in ("keycache.db-wal", ".recover", "keycache import", str(tmp_path)):
        assert word in error.hint


def test_every_page_that_is_flipped_is_noticed_at_the_start_or_it_is_not_in_use(tmp_path: Path) -> None:
    path = fill(tmp_path, entries=12)
    whole = path.read_bytes()
    unnoticed = []
    for page in range(len(whole) // PAGE):
        path.write_bytes(whole[: page * PAGE] + b"\xa5" * PAGE + whole[(page + 1) * PAGE :])
        try:
            open_store(tmp_path).close()
        except StoreCorrupt:
            continue
        unnoticed.append(page)
    assert unnoticed == []


def test_a_cut_in_a_file_too_large_for_the_full_check_is_noticed_too(tmp_path: Path) -> None:
    path = fill(tmp_path)
    files.examine(path, newest=MIGRATIONS[-1].version, quick_check_limit=0)
    os.truncate(path, path.stat().st_size - PAGE)
    with pytest.raises(StoreCorrupt):
        files.examine(path, newest=MIGRATIONS[-1].version, quick_check_limit=0)


def test_a_damaged_page_found_while_running_is_reported_and_never_served(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.replica.apply([put(make_entry(number, material_size=1500), 1) for number in range(40)], CURSOR)
    store.database.checkpoint()
    with store.database.reading() as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'address_lookup'").fetchone()
    write_at(tmp_path / files.DATABASE_NAME, (root - 1) * PAGE, b"\xa5" * PAGE)
    with pytest.raises(StoreCorrupt):
        store.replica.lookup(["user1@example.org"])
    with pytest.raises(StoreCorrupt):
        store.replica.lookup(["user1@example.org", "user2@example.org"])
    with pytest.raises(StoreCorrupt):
        store.database.verify()
    assert store.replica.lookup_fingerprint(make_entry(1).key.fingerprint), "what is whole is still served"
    store.close()


def test_an_entry_that_cannot_be_decoded_is_damage(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.replica.apply([put(make_entry(1), 1)], CURSOR)
    with store.database.write(durable=True) as connection:
        connection.execute("UPDATE answer SET rest = x'ffff'")
    with pytest.raises(StoreCorrupt):
        store.replica.entry(make_entry(1).key.protocol, make_entry(1).key.fingerprint)
    store.close()


def test_a_database_that_went_missing_beside_its_newest_changes_is_not_begun_anew(tmp_path: Path) -> None:
    """SQLite would replay the old write-ahead log into the new file."""
    fill(tmp_path).rename(tmp_path / "elsewhere")
    (tmp_path / "keycache.db-wal").write_bytes(b"x" * 5000)
    assert "keycache.db is missing" in refused(tmp_path, StoreCorrupt).text


def test_a_first_start_that_was_interrupted_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "keycache.db.new").write_bytes(b"half")
    (tmp_path / "keycache.db.new-wal").write_bytes(b"half")
    store = open_store(tmp_path)
    assert store.replica.cursor() is None
    store.close()
    assert {path.name for path in tmp_path.iterdir()} == {"keycache.db", "keycache.lock"}


def test_a_directory_that_cannot_be_made_or_written_is_reported_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made") as caught:
        open_store(tmp_path / "file" / "data")
    assert "--data-dir" in caught.value.hint
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / files.LOCK_NAME).mkdir()
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(tmp_path / "data")


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.replica.lookup(["a@example.org"])
    store.close()
    for call in (
        lambda: store.replica.lookup(["a@example.org"]),
        lambda: store.replica.apply([], CURSOR),
        store.replica.digest,
    ):
        with pytest.raises(StoreError, match="is closed"):
            call()
    with pytest.raises(StoreError, match="is closed"):
        await store.database.run(store.replica.apply, [], CURSOR)
    with pytest.raises(KeycacheError, match="is closed"):
        await store.log.commit(Transaction(compare={}, puts={"a": b"1"}))
