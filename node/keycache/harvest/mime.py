"""Splits a message into its parts over the exact bytes. Pure, iterative, bounded.

Rules:
- Bytes are never changed: a part is offsets into the message, since a signature covers bytes (RFC 1847 section 2.1).
- One pass from front to back with a stack of open multiparts, so cost grows with the size alone, not with size times depth.
- A delimiter line belongs to the innermost open multipart that has its boundary; it ends everything inside
  (RFC 2046 section 5.1.2). The line break before it belongs to the delimiter (section 5.1.1).
- A line ends with LF, with or without CR before it: stored mails come in both forms. A bare CR is data.
- Whatever is malformed is read as leniently as mail programs read it; only the budget refuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from keycache.harvest.budget import Budget, BudgetExceeded
from keycache.harvest.fields import ContentType, content_type, decode_base64, decode_quoted_printable, disposition_name, token

BOUNDARY_LIMIT = 1_000
"""Bytes of a boundary that are compared. RFC 2046 section 5.1.1 allows 70; some senders exceed it; a line of RFC 5322 has 998."""

_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")
_FOLD = re.compile(rb"\r?\n")
_MBOX = re.compile(rb">?From (?![ \t]*:)")
_IDENTITY = ("", "7bit", "8bit", "binary")
_TEXT = ContentType(type="text/plain")
_RFC822 = ContentType(type="message/rfc822")


@dataclass(frozen=True, slots=True)
class Header:
    """`name` in lower case; `value`: the bytes after the colon, unfolded (RFC 5322 section 2.2.3), white space kept."""

    name: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One entity: headers at `start`, content at `body`, both until `end`; offsets into the message. `parent` -1: the message.

    `complete`: a multipart whose closing delimiter was seen. `foreign`: lies inside a forwarded message (message/rfc822).
    """

    index: int
    parent: int
    depth: int
    start: int
    body: int
    end: int
    headers: tuple[Header, ...]
    type: ContentType
    encoding: str
    filename: str
    children: tuple[int, ...]
    complete: bool
    foreign: bool

    def values(self, name: str) -> tuple[bytes, ...]:
        return tuple(header.value for header in self.headers if header.name == name)


@dataclass(frozen=True, slots=True)
class SplitMessage:
    """`parts[0]` is the message itself; the others follow in the order of the bytes."""

    data: bytes = field(repr=False)
    parts: tuple[Part, ...]

    def raw(self, part: Part) -> bytes:
        """The entity's exact bytes, headers and content: what a detached signature covers."""
        return self.data[part.start : part.end]

    def content(self, part: Part) -> bytes:
        """The content with its transfer encoding undone (RFC 2045 section 6); unknown encodings are left as they are."""
        body = self.data[part.body : part.end]
        if part.encoding == "base64":
            return decode_base64(body)
        if part.encoding == "quoted-printable":
            return decode_quoted_printable(body)
        return body


def canonical(data: bytes) -> bytes:
    """Every line break as CRLF, the form that is signed (RFC 8551 section 3.1.1, RFC 3156 section 5). Bare CRs stay."""
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


@dataclass(slots=True)
class _Open:
    """A part under construction. `boundary`: what still delimits it, None once closed or for anything but a multipart."""

    index: int
    parent: int
    depth: int
    start: int
    body: int
    headers: tuple[Header, ...]
    type: ContentType
    encoding: str
    foreign: bool
    boundary: bytes | None = None
    children: list[int] = field(default_factory=list)
    complete: bool = False
    end: int = 0

    def done(self) -> Part:
        return Part(
            index=self.index,
            parent=self.parent,
            depth=self.depth,
            start=self.start,
            body=self.body,
            end=self.end,
            headers=self.headers,
            type=self.type,
            encoding=self.encoding,
            filename=disposition_name(_first(self.headers, "content-disposition"), self.type),
            children=tuple(self.children),
            complete=self.complete,
            foreign=self.foreign,
        )


def read_headers(data: bytes, budget: Budget) -> tuple[Header, ...]:
    """The message's own headers, without looking further. Empty: it does not begin with any. Raises BudgetExceeded."""
    return _Splitter(data, budget).headers(_skip_envelope(data))[0]


def split(data: bytes, budget: Budget) -> SplitMessage:
    """Raises BudgetExceeded."""
    return _Splitter(data, budget).run()


class _Splitter:
    def __init__(self, data: bytes, budget: Budget) -> None:
        self._data = data
        self._budget = budget
        self._parts: list[_Open] = []
        self._stack: list[_Open] = []
        # Boundary to the positions on the stack where it is in force, innermost last.
        self._boundaries: dict[bytes, list[int]] = {}
        self._fields = 0

    def run(self) -> SplitMessage:
        data = self._data
        position = self._open(-1, _skip_envelope(data))
        dashed = 0
        while self._boundaries:
            found = data.find(b"\n--", max(position - 1, 0))
            if found < 0:
                break
            line = found + 1
            after = self._line_end(line)
            match = self._delimiter(line, after)
            if match is None:
                dashed += 1
                if dashed > self._budget.dashed_lines:
                    raise BudgetExceeded(f"More than {self._budget.dashed_lines:,} lines begin like a delimiter and are none.")
                position = after
                continue
            level, closing = match
            self._close_above(level, self._before(line))
            container = self._stack[level]
            if closing:
                self._retire(level)
                container.complete = True
                position = after
            else:
                position = self._open(container.index, min(after + 1, len(data)))
        self._close_above(-1, len(data))
        return SplitMessage(data, tuple(part.done() for part in self._parts))

    def headers(self, start: int) -> tuple[tuple[Header, ...], int]:
        """The fields from `start` on, and where the content begins. A delimiter line ends them, as does a line that is none."""
        data, budget = self._data, self._budget
        headers: list[Header] = []
        position = start
        while position < len(data):
            end = self._line_end(position)
            if end - position <= 1 and data[position:end] in {b"", b"\r"}:
                return tuple(headers), min(end + 1, len(data))
            name = _NAME.match(data, position, end)
            if name is None or (data.startswith(b"--", position) and self._delimiter(position, end)):
                return tuple(headers), position
            while end - start <= budget.entity_header_bytes and data[end + 1 : end + 2] in {b" ", b"\t"}:
                end = self._line_end(end + 1)
            if end - start > budget.entity_header_bytes:
                raise BudgetExceeded(f"The headers of one part exceed {budget.entity_header_bytes:,} bytes.")
            self._fields += 1
            if len(headers) >= budget.entity_headers or self._fields > budget.headers:
                raise BudgetExceeded(f"More than {budget.entity_headers:,} headers in a part or {budget.headers:,} in all.")
            value = _FOLD.sub(b"", data[name.end() : end]).rstrip(b"\r")
            headers.append(Header(name[1].decode("ascii").lower(), value))
            position = end + 1
        return tuple(headers), len(data)

    def _open(self, parent: int, start: int) -> int:
        """Begin a part, and the messages that begin directly within it. Returns where to go on looking for delimiters."""
        while True:
            headers, body = self.headers(start)
            above = self._parts[parent] if parent >= 0 else None
            default = _RFC822 if above is not None and above.type.type == "multipart/digest" else _TEXT
            part = _Open(
                index=len(self._parts),
                parent=parent,
                depth=len(self._stack),
                start=start,
                body=body,
                headers=headers,
                type=content_type(_first(headers, "content-type"), default),
                encoding=token(_first(headers, "content-transfer-encoding")),
                foreign=above is not None and (above.foreign or _is_message(above)),
            )
            if part.index >= self._budget.parts:
                raise BudgetExceeded(f"The mail has more than {self._budget.parts:,} parts.")
            if part.depth >= self._budget.depth:
                raise BudgetExceeded(f"The mail's parts are nested more than {self._budget.depth} deep.")
            if above is not None:
                above.children.append(part.index)
            self._parts.append(part)
            self._stack.append(part)
            if _is_message(part) and part.encoding in _IDENTITY:
                parent, start = part.index, body
                continue
            boundary = part.type.parameters.get("boundary", "").encode("utf-8", "surrogateescape").rstrip()
            if part.type.type.startswith("multipart/") and boundary:
                part.boundary = boundary[:BOUNDARY_LIMIT]
                self._boundaries.setdefault(part.boundary, []).append(part.depth)
            return body

    def _close_above(self, level: int, end: int) -> None:
        """End every open part deeper than `level` before offset `end`."""
        while len(self._stack) > level + 1:
            self._retire(len(self._stack) - 1)
            part = self._stack.pop()
            part.body = max(min(part.body, end), part.start)
            part.end = max(end, part.body)

    def _retire(self, level: int) -> None:
        """The multipart's boundary is in force no longer; what follows its close is an epilogue."""
        part = self._stack[level]
        if part.boundary is None:
            return
        levels = self._boundaries[part.boundary]
        levels.remove(level)
        if not levels:
            del self._boundaries[part.boundary]
        part.boundary = None

    def _delimiter(self, line: int, end: int) -> tuple[int, bool] | None:
        """(position on the stack, whether it closes) if the line from `line` to `end` delimits an open multipart."""
        text = self._data[line + 2 : min(end, line + BOUNDARY_LIMIT + 10)].rstrip(b" \t\r")
        opening = self._boundaries.get(text)
        closing = self._boundaries.get(text[:-2]) if text.endswith(b"--") else None
        if opening and (not closing or opening[-1] >= closing[-1]):
            return opening[-1], False
        return (closing[-1], True) if closing else None

    def _line_end(self, position: int) -> int:
        end = self._data.find(b"\n", position)
        return len(self._data) if end < 0 else end

    def _before(self, line: int) -> int:
        """Where the content before a delimiter line ends: its line break is not part of it."""
        end = line - 1
        return end - 1 if end > 0 and self._data[end - 1] == 0x0D else end


def _is_message(part: _Open) -> bool:
    return part.type.type in {"message/rfc822", "message/global"}


def _first(headers: tuple[Header, ...], name: str) -> bytes:
    return next((header.value for header in headers if header.name == name), b"")


def _skip_envelope(data: bytes) -> int:
    """Past an mbox line, which spools leave in front of the headers."""
    position = 0
    if _MBOX.match(data):
        position = data.find(b"\n") + 1 or len(data)
    return position
