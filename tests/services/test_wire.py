"""Answers put together by hand are byte for byte what the generated classes write."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache import codec
from keycache.domain.entry import Origin
from keycache.domain.lookup import MISS_ADVICE, Answer, Found, MissCode, Row, Served
from keycache.services import wire
from keycache.v1 import cache_pb2 as pb
from support.entries import make_key

INSTANTS = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
"""Microseconds of the years 1 to 9999, a Timestamp's range."""


def written(microseconds: int) -> bytes:
    body = codec.timestamp(codec.from_us(microseconds))
    assert body is not None
    return body.SerializeToString()


def row(number: int, size: int) -> Row:
    key = codec.key_to_wire(make_key(number, material_size=size)).SerializeToString(deterministic=True)
    return Row("a@example.org", 0, "00", 0, *(None,) * 8, 0, 0, 1, key, b"")


FOUND = st.builds(
    Found,
    st.builds(row, st.integers(0, 99), st.sampled_from([1, 100, 20_000])),
    st.sampled_from(Origin),
    INSTANTS,
    INSTANTS,
    INSTANTS,
)
ANSWERS = st.one_of(
    st.sampled_from(MissCode).map(lambda code: Answer((), code)),
    st.lists(FOUND, min_size=1, max_size=4).map(lambda found: Answer(tuple(found), None)),
)
AGES = st.none() | st.integers(0, 10**15).map(lambda us: timedelta(microseconds=us))
REVISIONS = st.integers(0, 2**63)


def generated(address: str, answer: Answer | None) -> pb.LookupResult:
    """The same answer, by the generated classes."""
    result = pb.LookupResult(address=address)
    if answer is None:
        result.miss.CopyFrom(pb.Miss(code=pb.MISS_CODE_BAD_ADDRESS, detail=wire.BAD_ADDRESS))
        return result
    if answer.miss is not None:
        result.miss.CopyFrom(pb.Miss(code=f"MISS_CODE_{answer.miss.value}", detail=MISS_ADVICE[answer.miss]))  # type: ignore[arg-type]
    for found in answer.keys:
        key = result.keys.add(origin=codec.wire_enum(found.origin))  # type: ignore[arg-type]
        key.key.ParseFromString(found.row.key)
        for field, moment in (
            ("cached_at", found.cached_at),
            ("refreshed_at", found.refreshed_at),
            ("expires_at", found.expires_at),
        ):
            getattr(key, field).ParseFromString(written(moment))
    return result


def age_of(message: pb.LookupResponse | pb.BatchLookupResponse, age: timedelta | None) -> None:
    if age is not None:
        message.log_age.CopyFrom(codec.duration(age))


@given(st.text(max_size=30), ANSWERS, REVISIONS, AGES)
def test_an_answer_is_as_protobuf_writes_it(address: str, answer: Answer, revision: int, age: timedelta | None) -> None:
    expected = pb.LookupResponse(result=generated(address, answer), revision=revision)
    age_of(expected, age)
    assert wire.lookup_response(address, answer, revision=revision, log_age=age) == expected.SerializeToString()


@given(st.lists(st.tuples(st.text(max_size=10), st.none() | ANSWERS), max_size=5), REVISIONS, AGES)
def test_a_batch_of_answers_is_as_protobuf_writes_it(
    asked: list[tuple[str, Answer | None]], revision: int, age: timedelta | None
) -> None:
    expected = pb.BatchLookupResponse(results=[generated(address, answer) for address, answer in asked], revision=revision)
    age_of(expected, age)
    addresses, answers = [address for address, _ in asked], [answer for _, answer in asked]
    assert wire.batch_response(addresses, answers, revision=revision, log_age=age) == expected.SerializeToString()


@pytest.mark.parametrize("code", MissCode)
def test_every_reason_for_a_miss_has_its_number_on_the_wire(code: MissCode) -> None:
    parsed = pb.LookupResponse.FromString(wire.lookup_response("", Answer((), code), revision=0, log_age=None))
    assert pb.MissCode.Name(parsed.result.miss.code) == f"MISS_CODE_{code.value}"


def ready(found: Found) -> Served:
    """The same key, served the short way."""
    sighted = pb.FoundKey(origin=codec.wire_enum(found.origin))  # type: ignore[arg-type]
    sighted.cached_at.ParseFromString(written(found.cached_at))
    sighted.refreshed_at.ParseFromString(written(found.refreshed_at))
    return found.row.key, sighted.SerializeToString(), found.expires_at


@given(st.text(min_size=1, max_size=200), FOUND, REVISIONS, AGES)
def test_a_key_served_the_short_way_is_as_protobuf_writes_it(
    address: str, found: Found, revision: int, age: timedelta | None
) -> None:
    one = generated(address, Answer((found,), None))
    expected = pb.LookupResponse(result=one, revision=revision)
    age_of(expected, age)
    assert wire.lookup_response(address, ready(found), revision=revision, log_age=age) == expected.SerializeToString()
    batch = pb.BatchLookupResponse(results=[one, generated("x", None), one], revision=revision)
    age_of(batch, age)
    asked: list[tuple[str, Served | None]] = [(address, ready(found)), ("x", None), (address, ready(found))]
    addresses, answers = [text for text, _ in asked], [answer for _, answer in asked]
    assert wire.batch_response(addresses, answers, revision=revision, log_age=age) == batch.SerializeToString()
