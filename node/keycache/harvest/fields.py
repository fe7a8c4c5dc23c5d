"""Content-Type, Content-Disposition and transfer encodings: the small languages inside a part (RFC 2045, 2183, 2231).

Each reader takes any bytes, never raises, and works in time linear in its input.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

PARAMETER_LIMIT = 100
"""Parameters read of one field. RFC 2231 continuations of a 998-byte file name need some 15."""

_NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})
_TYPE = re.compile(r"\s*([!#$%&'*+.^_`{|}~0-9A-Za-z-]{1,127})\s*/\s*([!#$%&'*+.^_`{|}~0-9A-Za-z-]{1,127})")
_ATTRIBUTE = re.compile(r"[;\s]*([^\s;=\"()]{1,200})\s*=\s*")
_CONTINUED = re.compile(r"([^*]+)\*(?:([0-9]{1,3})(\*?))?")
# Those that name files in practice. Not every codec of Python's: some take quadratic time, some are no charsets.
_CHARSETS = frozenset({"utf-8", "us-ascii", "iso-8859-1", "iso-8859-15", "windows-1252"})
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentType:
    """`type` as `major/minor` in lower case; parameter names in lower case, values as written."""

    type: str
    parameters: Mapping[str, str] = field(default_factory=lambda: _NO_PARAMETERS)


def content_type(value: bytes, default: ContentType) -> ContentType:
    """Of a Content-Type field; `default` when it is absent or no type can be read (RFC 2045 section 5.2)."""
    text = _without_comments(_text(value))
    match = _TYPE.match(text)
    if match is None:
        return default
    return ContentType(type=f"{match[1]}/{match[2]}".lower(), parameters=_parameters(text, match.end()))


def disposition_name(value: bytes, type_: ContentType) -> str:
    """The part's file name: of Content-Disposition, else the type's `name` (RFC 2183 section 2.3). Empty if none."""
    text = _without_comments(_text(value))
    start = text.find(";")
    named = _parameters(text, start).get("filename", "") if start >= 0 else ""
    return named or type_.parameters.get("name", "")


def token(value: bytes) -> str:
    """A field that holds one word, such as Content-Transfer-Encoding, in lower case."""
    return _without_comments(_text(value)).strip().strip('"').lower()


def decode_base64(data: bytes) -> bytes:
    """RFC 2045 section 6.8: characters outside the alphabet are ignored; ends at the first padding; a torn last group is dropped."""
    clean = data.translate(None, _NOT_BASE64)
    clean = clean.partition(b"=")[0]
    torn = len(clean) % 4
    if torn == 1:
        clean = clean[:-1]
    elif torn:
        clean += b"=" * (4 - torn)
    return binascii.a2b_base64(clean)


def decode_quoted_printable(data: bytes) -> bytes:
    """RFC 2045 section 6.7; what is no valid escape is kept as it stands."""
    return binascii.a2b_qp(data)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _without_comments(text: str) -> str:
    """RFC 822 comments, which may nest, become a blank; parentheses inside quotes are text."""
    if "(" not in text:
        return text
    kept: list[str] = []
    depth = 0
    quoted = escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\" and (quoted or depth):
            escaped = True
        elif char == '"' and not depth:
            quoted = not quoted
        elif char == "(" and not quoted:
            depth += 1
        elif char == ")" and depth:
            depth -= 1
            kept.append(" ")
            continue
        if not depth:
            kept.append(char)
    return "".join(kept)


def _parameters(text: str, position: int) -> Mapping[str, str]:
    """name=value pairs; the first of a name counts. RFC 2231: charset and percent escapes, values in several pieces."""
    plain: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[bool, str]]] = {}
    for _ in range(PARAMETER_LIMIT):
        match = _ATTRIBUTE.match(text, position)
        if match is None:
            # Skip what is no parameter, up to the next separator.
            position = text.find(";", position + 1)
            if position < 0:
                break
            continue
        value, position = _value(text, match.end())
        name = match[1].lower()
        continued = _CONTINUED.fullmatch(name)
        if continued is None:
            plain.setdefault(name, value)
        elif continued[2] is None:
            pieces.setdefault(continued[1], {}).setdefault(0, (True, value))
        else:
            pieces.setdefault(continued[1], {}).setdefault(int(continued[2]), (bool(continued[3]), value))
    for name, parts in pieces.items():
        plain[name] = _joined(parts)
    return MappingProxyType(plain)


def _value(text: str, position: int) -> tuple[str, int]:
    """The value at `position`, unquoted, and where it ends. An unclosed quote runs to the end."""
    if not text.startswith('"', position):
        end = text.find(";", position)
        end = len(text) if end < 0 else end
        return text[position:end].strip(), end
    kept: list[str] = []
    position += 1
    while position < len(text) and text[position] != '"':
        if text[position] == "\\" and position + 1 < len(text):
            position += 1
        kept.append(text[position])
        position += 1
    return "".join(kept), position + 1


def _joined(parts: dict[int, tuple[bool, str]]) -> str:
    """RFC 2231 sections 3 and 4: pieces from 0 on without a gap; the first encoded one names the charset."""
    raw = b""
    charset = "utf-8"
    for number in range(len(parts)):
        if number not in parts:
            break
        encoded, value = parts[number]
        if encoded and number == 0 and value.count("'") >= 2:
            charset, _, value = value.split("'", 2)
        data = value.encode("utf-8", "surrogateescape")
        raw += unquote_to_bytes(data) if encoded else data
    return raw.decode(charset.lower() if charset.lower() in _CHARSETS else "utf-8", "replace")
