from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from keycache.domain.errors import StoreCorrupt, StoreError
from keycache.store.faults import FAULTS, OURS, translate, translated

PATH = Path("/data/keycache.db")
PRIMARY = {
    name: number
    for name, number in vars(sqlite3).items()
    if name.startswith("SQLITE_")
    and name.count("_") == 1
    and isinstance(number, int)
    and name.removeprefix("SQLITE_")
    in (
        *("OK", "ERROR", "INTERNAL", "PERM", "ABORT", "BUSY", "LOCKED", "NOMEM", "READONLY", "INTERRUPT", "IOERR", "CORRUPT"),
        *("NOTFOUND", "FULL", "CANTOPEN", "PROTOCOL", "EMPTY", "SCHEMA", "TOOBIG", "CONSTRAINT", "MISMATCH", "MISUSE", "NOLFS"),
        *("AUTH", "FORMAT", "RANGE", "NOTADB", "NOTICE", "WARNING", "ROW", "DONE"),
    )
}
"""SQLite's primary result codes (https://www.sqlite.org/rescode.html); the module also has names for other things."""


def failing(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode = code
    return error


def test_every_result_code_is_translated_or_known_to_be_a_fault_of_ours() -> None:
    assert len(PRIMARY) == 31
    assert set(PRIMARY.values()) == set(FAULTS) | OURS
    assert not set(FAULTS) & OURS


@pytest.mark.parametrize("code", FAULTS)
def test_each_fault_names_the_file_and_what_to_do(code: int) -> None:
    error = translate(failing(code), PATH)
    assert isinstance(error, StoreError)
    assert str(PATH) in error.text
    assert error.hint
    assert "{" not in str(error)


def test_refined_codes_are_translated_as_what_they_refine() -> None:
    assert type(translate(failing(sqlite3.SQLITE_CORRUPT_INDEX), PATH)) is StoreCorrupt
    assert "disk" in str(translate(failing(sqlite3.SQLITE_IOERR_FSYNC), PATH))


def test_a_fault_of_ours_stays_what_it_is() -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"), translated(PATH):
        sqlite3.connect(":memory:").execute("SELECT * FROM missing")


def test_text_that_is_not_utf8_is_damage() -> None:
    with pytest.raises(StoreCorrupt, match="not UTF-8"), translated(PATH):
        sqlite3.connect(":memory:").execute("SELECT CAST(x'ff' AS TEXT)").fetchone()


def test_the_cause_is_kept() -> None:
    with pytest.raises(StoreCorrupt) as caught, translated(PATH):
        raise failing(sqlite3.SQLITE_NOTADB)
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
