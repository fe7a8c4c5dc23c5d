"""Lookup answers as bytes, put together by hand: the hot path (DESIGN 9).

A found key is passed on as the replica holds it, without being decoded and encoded again, and the few fields around it are laid
down directly in the Protocol Buffers encoding (protobuf.dev/programming-guides/encoding). The result is byte for byte what the
generated classes write for the same message; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from keycache.codec import duration, wire_enum
from keycache.codec.wire import stamp, varint
from keycache.domain.entry import Origin
from keycache.domain.lookup import MISS_ADVICE, Answer, Found, MissCode, Served
from keycache.v1 import cache_pb2

# Tag bytes: field number * 8 + wire type (0 varint, 2 length-delimited).
_FIELD_1 = b"\x0a"
_FIELD_2 = b"\x12"
_FIELD_3 = b"\x1a"
_FIELD_4 = b"\x22"
_FIELD_5 = b"\x2a"
_VARINT_2 = b"\x10"

_ORIGIN = {origin: _VARINT_2 + bytes([wire_enum(origin)]) for origin in Origin}

BAD_ADDRESS = "This is not a mail address; write it as name@example.org."


def _found(found: Found) -> bytes:
    row, origin, cached_at, refreshed_at, expires_at = found
    key = row.key
    refreshed = stamp(refreshed_at)
    cached = refreshed if cached_at == refreshed_at else stamp(cached_at)  # seen once: most keys
    return b"".join(
        (
            _FIELD_1,
            varint(len(key)),
            key,
            _ORIGIN[origin],
            _FIELD_3,
            cached,
            _FIELD_4,
            refreshed,
            _FIELD_5,
            stamp(expires_at),
        )
    )


def _miss(number: cache_pb2.MissCode.ValueType, detail: str) -> bytes:
    return cache_pb2.LookupResult(miss=cache_pb2.Miss(code=number, detail=detail)).SerializeToString()


_MISSES = {code: _miss(cache_pb2.MissCode.Value(f"MISS_CODE_{code.value}"), MISS_ADVICE[code]) for code in MissCode}
_BAD_ADDRESS = _miss(cache_pb2.MISS_CODE_BAD_ADDRESS, BAD_ADDRESS)


def _served(address: str, served: Served) -> tuple[bytes, ...]:
    """Field 1 of either response: the LookupResult of one key, in pieces still to be joined. `address` is not empty."""
    key, sighted, expires_at = served
    asked, expires = address.encode(), stamp(expires_at)
    key_length, asked_length = varint(len(key)), varint(len(asked))
    found_size = 2 + len(key_length) + len(key) + len(sighted) + len(expires)
    found_length = varint(found_size)
    size = 2 + len(asked_length) + len(asked) + len(found_length) + found_size
    return (
        _FIELD_1,
        varint(size),
        _FIELD_1,
        asked_length,
        asked,
        _FIELD_2,
        found_length,
        _FIELD_1,
        key_length,
        key,
        sighted,
        _FIELD_5,
        expires,
    )


def _judged(address: str, answer: Answer | None) -> tuple[bytes, ...]:
    """Field 1 of either response: the LookupResult of any other answer. `answer` None: the string is no address."""
    parts: list[bytes] = []
    if address:
        asked = address.encode()
        parts += (_FIELD_1, varint(len(asked)), asked)
    if answer is None:
        parts.append(_BAD_ADDRESS)
    elif answer.miss is not None:
        parts.append(_MISSES[answer.miss])
    else:
        for found in answer.keys:
            one = _found(found)
            parts += (_FIELD_2, varint(len(one)), one)
    body = b"".join(parts)
    return _FIELD_1, varint(len(body)), body


def _tail(revision: int, log_age: timedelta | None) -> bytes:
    parts = _VARINT_2 + varint(revision) if revision else b""
    if log_age is not None:
        age = duration(log_age).SerializeToString()
        parts += _FIELD_3 + varint(len(age)) + age
    return parts


def lookup_response(address: str, answer: Served | Answer, *, revision: int, log_age: timedelta | None) -> bytes:
    """A LookupResponse."""
    parts = _served(address, answer) if isinstance(answer, tuple) else _judged(address, answer)
    return b"".join((*parts, _tail(revision, log_age)))


def batch_response(
    addresses: Sequence[str], answers: Sequence[Served | Answer | None], *, revision: int, log_age: timedelta | None
) -> bytes:
    """A BatchLookupResponse."""
    parts: list[bytes] = []
    for address, answer in zip(addresses, answers, strict=True):
        parts += _served(address, answer) if isinstance(answer, tuple) else _judged(address, answer)
    parts.append(_tail(revision, log_age))
    return b"".join(parts)
