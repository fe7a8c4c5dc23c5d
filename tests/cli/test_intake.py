"""From paths to what `import` sends."""

import io
import json
from pathlib import Path

import pytest

from keycache import codec
from keycache.cli.entry_line import entry_fields, write_line
from keycache.cli.intake import Item, Problem, items, total_size
from keycache.v1 import admin_pb2, cache_pb2
from support.entries import make_entry

INBOUND = cache_pb2.Envelope(direction=cache_pb2.DIRECTION_INBOUND)
LIMIT = 100_000
MAIL = b"From: alice@example.org\nTo: bob@example.com\n\nhello\n"


def read(*paths: Path, limit: int = LIMIT, stdin: bytes = b"") -> list[Item | Problem]:
    return list(items(paths, envelope=INBOUND, limit=limit, stdin=io.BytesIO(stdin)))


def told(things: list[Item | Problem]) -> list[tuple[str, str]]:
    """Source, and verdict or kind."""
    return [
        (thing.source, thing.verdict) if isinstance(thing, Problem) else (thing.wire.source, thing.kind.value)
        for thing in things
    ]


def messages(things: list[Item | Problem]) -> list[bytes]:
    assert all(isinstance(thing, Item) for thing in things), things
    return [thing.wire.message.message for thing in things if isinstance(thing, Item)]


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_a_mail_is_sent_whole_with_the_stated_direction(tmp_path: Path) -> None:
    path = write(tmp_path / "a.eml", MAIL)
    (item,) = read(path)
    assert isinstance(item, Item)
    assert item.wire == admin_pb2.ImportItem(message=cache_pb2.HarvestRequest(message=MAIL, envelope=INBOUND), source=str(path))
    assert item.size == len(MAIL)


def test_keys_are_sent_as_they_are_under_the_name_of_their_file(tmp_path: Path) -> None:
    data = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ==\n-----END PGP PUBLIC KEY BLOCK-----\n"
    (item,) = read(write(tmp_path / "keys" / "a.asc", data))
    assert isinstance(item, Item)
    assert item.wire == admin_pb2.ImportItem(material=data, source="a.asc")


def test_an_export_is_read_line_by_line_and_a_bad_line_is_named(tmp_path: Path) -> None:
    first, third = make_entry(1), make_entry(3)
    bad = json.dumps({**entry_fields(make_entry(2)), "fingerprint": "x"})
    path = write(tmp_path / "e.jsonl", f"{write_line(first)}\n{bad}\n\n{write_line(third)}".encode())
    things = read(path)
    assert told(things) == [(f"{path}:1", "EXPORT"), (f"{path}:2", "INVALID"), (f"{path}:4", "EXPORT")]
    assert [codec.entry_from_wire(one.wire.entry) for one in things if isinstance(one, Item)] == [first, third]
    assert "'fingerprint'" in next(one.detail for one in things if isinstance(one, Problem))
    assert sum(one.size for one in things) == path.stat().st_size - 1  # the blank line


def test_damaged_lines_of_every_kind_are_skipped(tmp_path: Path) -> None:
    extra = json.dumps({**entry_fields(make_entry(2)), "extra": "/////w=="})
    lines = [b"{}", b'{"\xff": 1}', b"{" + b" " * 3 * LIMIT + b"}", extra.encode(), write_line(make_entry(1)).encode()]
    path = write(tmp_path / "e.jsonl", b"\n".join(lines) + b"\n")
    assert told(read(path)) == [
        *((f"{path}:{number}", "INVALID") for number in range(1, 5)),
        (f"{path}:5", "EXPORT"),
    ]


def test_a_mailbox_is_taken_apart_and_its_quoting_undone(tmp_path: Path) -> None:
    start = b"From alice@example.org Mon Mar  2 10:00:00 2026\n"
    body = b"From: a@example.org\n\n>From the start\n>>From deeper\nFrom afar, no blank line before\n"
    path = write(tmp_path / "mbox", start + body + b"\n" + start + MAIL + b"\n" + start + MAIL)
    unquoted = b"From: a@example.org\n\nFrom the start\n>From deeper\nFrom afar, no blank line before\n"
    things = read(path)
    assert messages(things) == [unquoted, MAIL, MAIL]
    assert [source for source, _ in told(things)] == [f"{path}#1", f"{path}#2", f"{path}#3"]


def test_a_mailbox_with_windows_line_ends_is_taken_apart_too(tmp_path: Path) -> None:
    mail = MAIL.replace(b"\n", b"\r\n")
    start = b"From alice@example.org Mon Mar  2 10:00:00 2026\r\n"
    assert messages(read(write(tmp_path / "mbox", start + mail + b"\r\n" + start + mail))) == [mail, mail]


def test_a_too_large_message_of_a_mailbox_does_not_stop_the_next(tmp_path: Path) -> None:
    start = b"From alice@example.org Mon Mar  2 10:00:00 2026\n"
    long_lines, one_line = MAIL + b"x\n" * LIMIT, MAIL + b"y" * 3 * LIMIT
    path = write(tmp_path / "mbox", b"\n".join(start + mail for mail in (long_lines, one_line + b"\n", MAIL)))
    assert told(read(path)) == [
        (f"{path}#1", "MESSAGE_TOO_LARGE"),
        (f"{path}#2", "MESSAGE_TOO_LARGE"),
        (f"{path}#3", "MESSAGE"),
    ]


def test_of_a_maildir_only_delivered_mails_are_read(tmp_path: Path) -> None:
    inbox = tmp_path / "Maildir"
    for folder in ("cur", "new", "tmp", ".Archive/cur", ".Archive/new", ".Archive/tmp"):
        write(inbox / folder / "1.host:2,S", MAIL)
    write(inbox / "dovecot-uidlist", b"3 V1 N1\n")
    assert [source for source, _ in told(read(inbox))] == [
        str(inbox / folder / "1.host:2,S") for folder in (".Archive/cur", ".Archive/new", "cur", "new")
    ]


def test_a_folder_is_walked_in_order_without_hidden_files_and_links_to_folders(tmp_path: Path) -> None:
    write(tmp_path / "f" / "b.pem", b"-----BEGIN CERTIFICATE-----")
    write(tmp_path / "f" / "a" / "z.eml", MAIL)
    write(tmp_path / "f" / ".hidden", MAIL)
    (tmp_path / "f" / "loop").symlink_to(tmp_path / "f")
    assert told(read(tmp_path / "f")) == [(str(tmp_path / "f" / "a" / "z.eml"), "MESSAGE"), ("b.pem", "MATERIAL")]


def test_missing_empty_and_oversized_files_are_problems_and_the_rest_goes_on(tmp_path: Path) -> None:
    paths = [
        tmp_path / "missing",
        write(tmp_path / "empty", b""),
        write(tmp_path / "big.eml", MAIL + b"x" * LIMIT),
        write(tmp_path / "big.gpg", b"\x99" * (LIMIT + 1)),
        write(tmp_path / "a.eml", MAIL),
    ]
    assert [verdict for _, verdict in told(read(*paths))] == [
        "INVALID",
        "INVALID",
        "MESSAGE_TOO_LARGE",
        "KEY_TOO_LARGE",
        "MESSAGE",
    ]


def test_the_limit_itself_is_within_the_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.eml", MAIL)
    assert [verdict for _, verdict in told(read(path, limit=len(MAIL)))] == ["MESSAGE"]
    assert [verdict for _, verdict in told(read(path, limit=len(MAIL) - 1))] == ["MESSAGE_TOO_LARGE"]


@pytest.mark.parametrize("size", [64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1])
def test_lines_across_the_end_of_the_head_stay_whole(tmp_path: Path, size: int) -> None:
    entry = make_entry(1, names=("x" * size,))
    path = write(tmp_path / "e.jsonl", f"{write_line(entry)}\n{write_line(entry)}\n".encode())
    things = read(path, limit=1_000_000)
    assert [codec.entry_from_wire(one.wire.entry) for one in things if isinstance(one, Item)] == [entry, entry]


def test_the_total_counts_what_will_be_read(tmp_path: Path) -> None:
    write(tmp_path / "f" / "a.eml", MAIL)
    write(tmp_path / "f" / ".hidden", MAIL)
    assert total_size([tmp_path / "f", tmp_path / "missing"]) == len(MAIL)


def test_standard_input_is_a_dash() -> None:
    assert told(read(Path("-"), stdin=MAIL)) == [("-", "MESSAGE")]
