"""Members' records come back from the wire as they were, also those of a later version."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.codec.members import decode_member, decode_witness, encode_member, encode_witness
from keycache.domain.errors import InvalidInput
from keycache.domain.membership import Member, Witness
from keycache.domain.names import NodeId, Revision
from keycache.v1 import record_pb2
from support.entries import T0, texts
from support.properties import bounded

FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
instants = st.integers(0, (LAST - FIRST) // timedelta(microseconds=1)).map(lambda us: FIRST + us * timedelta(microseconds=1))
counts = st.integers(0, 2**64 - 1)
members = st.builds(
    Member,
    node_id=texts().map(NodeId),
    address=texts(),
    version=texts(),
    started_at=instants,
    clock=instants,
    applied=st.integers(0, 2**63).map(Revision),
    purge_state=texts(),
    purge_reason=texts(),
    purge_waiting=counts,
    clock_trusted=st.booleans(),
    outbox=counts,
)
LATER = b"\xca\x3e\x03new"
"""Field 1001, which this version does not know."""


@bounded(60)
@given(member=members)
def test_a_member_comes_back_as_it_was(member: Member) -> None:
    assert decode_member(encode_member(member)) == member
    assert decode_member(encode_member(member) + LATER) == member


@bounded(60)
@given(witness=st.builds(Witness, node_id=texts().map(NodeId), address=texts(), version=texts(), at=instants))
def test_a_witness_comes_back_as_it_was(witness: Witness) -> None:
    assert decode_witness(encode_witness(witness)) == witness
    assert decode_witness(encode_witness(witness) + LATER) == witness


def test_a_member_whose_clock_is_missing_or_not_a_date_is_refused_and_not_read_as_1970() -> None:
    for message in (record_pb2.Member(node_id="a"), record_pb2.Member(clock={"seconds": 10**12})):
        with pytest.raises(InvalidInput):
            decode_member(message.SerializeToString())


@pytest.mark.parametrize("decode", [decode_member, decode_witness])
def test_bytes_that_are_no_record_are_refused(decode) -> None:
    with pytest.raises(InvalidInput):
        decode(b"\xff")


def test_a_member_that_says_little_is_read() -> None:
    said = decode_member(record_pb2.Member(node_id="a", clock={"seconds": int(T0.timestamp())}).SerializeToString())
    assert (said.node_id, said.clock, said.purge_state, said.clock_trusted) == (NodeId("a"), T0, "", False)
