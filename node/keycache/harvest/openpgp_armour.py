"""ASCII armour (RFC 9580 section 6.2): where blocks stand in a text, and what is inside them.

Tolerant where the RFC wants it (a wrong or missing checksum, unknown headers, blanks at line ends), strict in the base64 itself.
Everything here is linear in the input.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

PUBLIC = b"PUBLIC KEY BLOCK"
PRIVATE = b"PRIVATE KEY BLOCK"
SIGNATURE = b"SIGNATURE"

_BEGIN = re.compile(rb"^-----BEGIN PGP ([A-Z0-9 ,/]{1,40})-----[ \t\r]*$", re.MULTILINE)
_NO_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))


_HEADERS_LIMIT = 100
"""Sequoia writes one Comment for each user ID; RFC 9580 section 6.2.2 defines four kinds of header."""


class BadArmour(Exception):
    """The block cannot be decoded. The text says why, for people; it holds none of the block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One armoured block. `kind`: what its header line names. `text`: the whole block, from BEGIN to END (or to the text's end)."""

    kind: bytes
    text: bytes
    is_closed: bool


def blocks(text: bytes) -> Iterator[Block]:
    """The blocks whose BEGIN line starts a line: what somebody quotes ('> -----BEGIN') is not the sender's own."""
    position = 0
    while begin := _BEGIN.search(text, position):
        kind = begin[1]
        end_line = b"-----END PGP " + kind + b"-----"
        end = text.find(b"\n" + end_line, begin.end())
        stop = len(text) if end < 0 else end + 1 + len(end_line)
        yield Block(kind=kind, text=text[begin.start() : stop], is_closed=end >= 0)
        position = stop


def is_armoured(blob: bytes) -> bool:
    """Whether to read `blob` as text. Binary OpenPGP starts with a byte that has its high bit set (RFC 9580 section 4.2)."""
    return not blob[:1] >= b"\x80" and b"-----BEGIN PGP " in blob


def decode(block: Block) -> bytes:
    """The bytes inside. Raises BadArmour.

    The CRC is not looked at: RFC 9580 section 6.1 forbids to refuse a key for it, and the signatures inside say more.
    """
    if not block.is_closed:
        raise BadArmour("the armour has no END line")
    text = block.text[: block.text.rindex(b"\n")]
    data = text[_data_begin(text) :].rstrip()
    last = data.rfind(b"\n") + 1
    if data[last:].lstrip().startswith(b"="):
        data = data[:last]
    data = data.translate(None, b" \t\r\n")
    if not data:
        raise BadArmour("the armour is empty")
    if data.translate(None, _NO_BASE64) != data:
        raise BadArmour("the armour holds characters that are not base64")
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except binascii.Error as error:
        raise BadArmour("the armour's base64 is cut off or damaged") from error


def _data_begin(text: bytes) -> int:
    """Where the base64 begins: after the blank line that ends the headers. Raises BadArmour."""
    end = text.find(b"\n")
    for _ in range(_HEADERS_LIMIT):
        if end < 0:
            return len(text)
        begin, end = end + 1, text.find(b"\n", end + 1)
        line = text[begin:] if end < 0 else text[begin:end]
        if b":" not in line:  # the blank line, or the data itself where that line was lost on its way, which harms nobody
            return begin
    raise BadArmour(f"the armour has more than {_HEADERS_LIMIT} header lines")
