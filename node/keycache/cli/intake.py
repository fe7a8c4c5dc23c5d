"""From paths to what `import` sends: walks folders, takes mailboxes and exports apart, reads one item at a time.

Rules:
1. Whatever cannot be read or sent is a Problem with its place, and the rest goes on.
2. Memory holds one item, however large the mailbox or the export.
3. Names of files are bytes; as sources they are text, in which what is no text is escaped.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError

from keycache import codec
from keycache.cli.entry_line import read_line
from keycache.cli.kinds import HEAD_SIZE, Kind, kind_of
from keycache.cli.plain import plain
from keycache.domain.errors import InvalidInput
from keycache.domain.verdict import Verdict
from keycache.v1 import admin_pb2, cache_pb2

_MBOX_START = re.compile(rb"From \S.*\d{4}|From - |From \S+\r?\n")
"""The separator as mail programs write it: an address and a date, a dash and a date, or an address alone (RFC 4155)."""
_MBOX_QUOTED = re.compile(rb">+From ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """`size`: bytes of the file that it accounts for. `kind`: what it is. `unknown`: fields of an export that were left aside."""

    wire: admin_pb2.ImportItem
    kind: Kind
    size: int
    unknown: tuple[str, ...] = ()

    def too_large(self) -> Problem:
        """What becomes of it when the node takes nothing of that size."""
        verdict = Verdict.MESSAGE_TOO_LARGE if self.kind is Kind.MESSAGE else Verdict.KEY_TOO_LARGE
        detail = f"Its {self.size} bytes are more than the node takes."
        return Problem(source=self.wire.source, verdict=verdict.value, detail=detail, size=self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that was not sent. `verdict`: of the closed set, or INVALID for what is no mail and no key."""

    source: str
    verdict: str
    detail: str
    size: int = 0


INVALID = "INVALID"


def total_size(paths: Iterable[Path]) -> int:
    """Bytes of all files that `items` will read, for a progress bar."""
    return sum(_size(file) for path in paths for file in _files(path) if isinstance(file, Path))


def items(paths: Iterable[Path], *, envelope: cache_pb2.Envelope, limit: int, stdin: BinaryIO) -> Iterator[Item | Problem]:
    """`limit`: the largest message or file of keys to send, in bytes. The path `-` is `stdin`."""
    for path in paths:
        for file in _files(path):
            if isinstance(file, Problem):
                yield file
                continue
            try:
                if str(file) == "-":
                    yield from _items_of(stdin, "-", envelope, limit)
                else:
                    with file.open("rb") as stream:
                        yield from _items_of(stream, plain(str(file)), envelope, limit)
            except OSError as error:
                yield Problem(source=plain(str(file)), verdict=INVALID, detail=f"It cannot be read: {error.strerror or error}.")


def _files(path: Path) -> Iterator[Path | Problem]:
    """The path itself, or the files below it in a stable order; of a maildir only the delivered mails (maildir(5))."""
    if str(path) == "-" or not path.is_dir():
        yield path
        return
    maildir = (path / "cur").is_dir() and (path / "new").is_dir()
    try:
        children = sorted(path.iterdir())
    except OSError as error:
        yield Problem(source=plain(str(path)), verdict=INVALID, detail=f"It cannot be read: {error.strerror or error}.")
        return
    for child in children:
        hidden = child.name.startswith(".")
        wanted = (child.name in {"cur", "new"} or (hidden and child.is_dir())) if maildir else not hidden
        if wanted and not (child.is_dir() and child.is_symlink()) and (child.is_dir() or child.is_file()):
            yield from _files(child)


def _size(path: Path) -> int:
    try:
        status = path.stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _items_of(stream: BinaryIO, source: str, envelope: cache_pb2.Envelope, limit: int) -> Iterator[Item | Problem]:
    head = stream.read(HEAD_SIZE)
    kind = kind_of(head)
    if kind is Kind.EXPORT:
        yield from _entries(_Lines(head, stream), source, limit)
    elif kind is Kind.MBOX:
        for number, (message, size) in enumerate(_messages(_Lines(head, stream), limit), 1):
            yield _message(message, size, f"{source}#{number}", envelope, limit)
    else:
        data = head + stream.read(max(0, limit + 1 - len(head)))
        if kind is Kind.MESSAGE:
            yield _message(data if len(data) <= limit else None, len(data), source, envelope, limit)
        elif len(data) > limit:
            yield Problem(
                source=source, verdict=Verdict.KEY_TOO_LARGE.value, detail=f"It is over {limit} bytes.", size=len(data)
            )
        elif not data:
            yield Problem(source=source, verdict=INVALID, detail="It is empty.")
        else:
            yield Item(wire=admin_pb2.ImportItem(material=data, source=Path(source).name), kind=kind, size=len(data))


def _message(data: bytes | None, size: int, source: str, envelope: cache_pb2.Envelope, limit: int) -> Item | Problem:
    if data is None:
        detail = f"It is over {limit} bytes."
        return Problem(source=source, verdict=Verdict.MESSAGE_TOO_LARGE.value, detail=detail, size=size)
    request = cache_pb2.HarvestRequest(message=data, envelope=envelope)
    return Item(wire=admin_pb2.ImportItem(message=request, source=source), kind=Kind.MESSAGE, size=size)


class _Lines:
    """Lines of a stream whose head was read already; `size` limits each, so that no line fills the memory."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._rest = head
        self._stream = stream

    def read(self, limit: int) -> bytes:
        """The next line with its end, or its first `limit` bytes; empty at the end of the file."""
        end = self._rest.find(b"\n") + 1
        if end == 0 and len(self._rest) < limit:
            self._rest += self._stream.readline(limit - len(self._rest))
            end = self._rest.find(b"\n") + 1 or len(self._rest)
        end = min(end or limit, limit)
        line, self._rest = self._rest[:end], self._rest[end:]
        return line


def _entries(lines: _Lines, source: str, limit: int) -> Iterator[Item | Problem]:
    number = 0
    while line := lines.read(limit):
        number += 1
        place = f"{source}:{number}"
        if not line.endswith(b"\n") and len(line) == limit:
            size = len(line)
            while (part := lines.read(limit)) and not part.endswith(b"\n"):
                size += len(part)
            yield Problem(source=place, verdict=INVALID, detail=f"The line is over {limit} bytes.", size=size)
        elif line.strip():
            yield _entry(line, place)


def _entry(line: bytes, place: str) -> Item | Problem:
    try:
        read = read_line(line.decode("utf-8-sig"))
        wire = codec.entry_to_wire(read.entry)
    except InvalidInput as error:
        return Problem(source=place, verdict=INVALID, detail=str(error), size=len(line))
    except UnicodeDecodeError:
        return Problem(source=place, verdict=INVALID, detail="The line is not UTF-8.", size=len(line))
    except DecodeError:
        return Problem(source=place, verdict=INVALID, detail="'extra' or 'key_extra' is damaged.", size=len(line))
    return Item(wire=admin_pb2.ImportItem(entry=wire, source=place), kind=Kind.EXPORT, size=len(line), unknown=read.unknown)


def _messages(lines: _Lines, limit: int) -> Iterator[tuple[bytes | None, int]]:
    """Each message of an mbox, None for one that is over the limit, with its size in the file.

    One `>` is taken off quoted From lines (mboxrd); the blank line before the next separator belongs to the mailbox.
    """
    parts: list[bytes] = []
    size, blank, begun = 0, True, False
    while line := lines.read(limit + 1):
        if blank and _MBOX_START.match(line):
            if begun:
                yield _joined(parts, size, limit), size
            parts, size, begun = [], 0, True
        elif size <= limit:
            parts.append(line[1:] if _MBOX_QUOTED.match(line) else line)
            size += len(line)
        else:
            parts.clear()
            size += len(line)
        blank = not line.strip(b"\r\n")
    if begun:
        yield _joined(parts, size, limit), size


def _joined(parts: list[bytes], size: int, limit: int) -> bytes | None:
    if size > limit:
        return None
    if parts and not parts[-1].strip(b"\r\n"):
        parts.pop()
    return b"".join(parts)
