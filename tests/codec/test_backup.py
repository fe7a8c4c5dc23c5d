"""A backup comes back as it was written, and whatever was done to it is noticed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.codec.backup import LINE_BYTES, BackupWriter, Source, read_backup
from keycache.domain.errors import InvalidInput
from keycache.domain.log import AUDIT, BLOCKS, CHAIN, DELETIONS, ENTRIES, ISSUERS, SETTINGS, SETTINGS_HISTORY
from support.properties import bounded

SOURCE = Source(
    made_at=datetime(2026, 11, 26, 1, 2, 3, 456789, tzinfo=UTC), cluster="mail", identity="ab", revision=7, version="1"
)
prefixes = st.sampled_from([ENTRIES, SETTINGS_HISTORY, BLOCKS, ISSUERS, CHAIN, AUDIT, DELETIONS])
keys = st.builds(str.__add__, prefixes, st.text(st.characters(exclude_categories=["Cs"]))) | st.just(SETTINGS)
records = st.lists(st.tuples(keys, st.binary(max_size=300)), max_size=20)
sources = st.builds(
    Source,
    made_at=st.datetimes(timezones=st.just(UTC)),
    cluster=st.text(max_size=20),
    identity=st.text(max_size=20),
    revision=st.integers(0, 2**63),
    version=st.text(max_size=20),
)


def written(source: Source, rows: list[tuple[str, bytes]]) -> bytes:
    writer = BackupWriter()
    return writer.begin(source) + b"".join(writer.record(*row) for row in rows) + writer.end()


def read(data: bytes) -> list[object]:
    def lines() -> Iterator[bytes]:
        file = io.BytesIO(data)
        yield from iter(lambda: file.readline(LINE_BYTES + 1), b"")

    return list(read_backup(lines()))


@bounded(200)
@given(source=sources, rows=records)
def test_what_was_written_is_read(source: Source, rows: list[tuple[str, bytes]]) -> None:
    data = written(source, rows)
    assert data.isascii()
    assert read(data) == [source, *rows]


@bounded(300)
@given(rows=records, where=st.floats(0, 1, exclude_max=True), what=st.integers(0, 255))
def test_a_changed_byte_is_noticed(rows: list[tuple[str, bytes]], where: float, what: int) -> None:
    data = bytearray(written(SOURCE, rows))
    at = int(where * len(data))
    if data[at] == what:
        return
    data[at] = what
    with pytest.raises(InvalidInput):
        read(bytes(data))


@bounded(200)
@given(rows=records, where=st.floats(0, 1, exclude_max=True))
def test_a_cut_is_noticed(rows: list[tuple[str, bytes]], where: float) -> None:
    data = written(SOURCE, rows)
    with pytest.raises(InvalidInput):
        read(data[: int(where * len(data))])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no backup"),
        (b'{"protocol":"SMIME"}\n', "no backup"),
        (b"keycache backup 2\nwhatever\n", "form 2"),
        (b"keycache backup 1\nwhatever\n", "line 2"),
        (b"keycache backup 1\n", "cut off"),
        (written(SOURCE, [])[:-66], "cut off"),
        (written(SOURCE, [("settings", b"x")]).replace(b"end 1", b"end 0"), "checksum"),
        (written(SOURCE, [("settings", b"x")]).rpartition(b"end ")[0], "cut off"),
        (written(SOURCE, []) + b"more\n", "follows its end"),
        (written(SOURCE, [("removed/some-node", b"")]), "no backup holds"),
        (written(SOURCE, [])[:18] + b"[" * 100_000 + b"\n", "line 2"),
    ],
)
def test_what_is_wrong_is_told(data: bytes, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as caught:
        read(data)
    assert caught.value.hint
