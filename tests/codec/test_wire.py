"""What is laid down by hand is what protobuf writes."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from keycache import codec
from keycache.codec import wire
from keycache.v1 import cache_pb2 as pb

INSTANTS = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
"""Microseconds of the years 1 to 9999, a Timestamp's range."""


@given(st.integers(0, 2**64 - 1))
@example(0)
@example(127)
@example(128)
@example(2**14)
@example(2**28)
@example(2**63)
def test_a_varint_is_as_protobuf_writes_it(number: int) -> None:
    message = pb.LookupRequest(min_revision=number).SerializeToString()
    assert wire.varint(number) == (message[1:] or b"\x00")


@given(INSTANTS)
@example(0)
@example(-1)
@example(1_000_000)
@example(999_999)
@example(2**28 * 1_000_000)
def test_a_time_stamp_is_as_protobuf_writes_it(microseconds: int) -> None:
    message = codec.timestamp(codec.from_us(microseconds))
    assert message is not None
    body = message.SerializeToString()
    assert wire.stamp(microseconds) == bytes([len(body)]) + body
