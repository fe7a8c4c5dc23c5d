"""Pieces of messages laid down directly in the Protocol Buffers encoding (protobuf.dev/programming-guides/encoding), where building the
generated classes would cost more than all around it. Byte for byte what those write; a test holds the two together."""

from __future__ import annotations

# Tag bytes: field number * 8 + wire type 0.
_VARINT_1 = b"\x08"
_VARINT_2 = b"\x10"


def _small(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_SMALL = tuple(_small(number) for number in range(1 << 14))
_MORE = tuple(bytes([number & 0x7F | 0x80, number >> 7 | 0x80]) for number in range(1 << 14))
"""Of 14 bits: the encoding if they are the last ones, and the one if more follow. Two megabytes for a third of the time."""


_STAMP_LENGTH = tuple(bytes([size, 8]) for size in range(16))
"""Length of a Timestamp's body, and the tag of its first field."""


def varint(number: int) -> bytes:
    """A number from 0 to 2**64 - 1."""
    if number < 0x4000:
        return _SMALL[number]
    if number < 0x10000000:
        return _MORE[number & 0x3FFF] + _SMALL[number >> 14]
    return _MORE[number & 0x3FFF] + _MORE[number >> 14 & 0x3FFF] + varint(number >> 28)


def stamp(microseconds: int) -> bytes:
    """A google.protobuf.Timestamp with its length before it."""
    seconds, fraction = divmod(microseconds, 1_000_000)
    if 0x10000000 <= seconds < 0x800000000:  # five bytes: 1978 to 3058
        five = _MORE[seconds & 0x3FFF] + _MORE[seconds >> 14 & 0x3FFF] + _SMALL[seconds >> 28]
        if not fraction:
            return b"\x06\x08" + five
        nanos = fraction * 1000
        rest = (
            varint(nanos) if nanos < 0x10000000 else _MORE[nanos & 0x3FFF] + _MORE[nanos >> 14 & 0x3FFF] + _SMALL[nanos >> 28]
        )
        return _STAMP_LENGTH[7 + len(rest)] + five + _VARINT_2 + rest
    body = b""
    if seconds:
        body = _VARINT_1 + varint(seconds & 0xFFFFFFFFFFFFFFFF)  # before 1970: two's complement of 64 bits
    if fraction:
        body += _VARINT_2 + varint(fraction * 1000)
    return _SMALL[len(body)] + body
