"""Every value comes back from the wire as it was, times to the microsecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from keycache import codec
from keycache.codec.facts import read_facts
from keycache.domain.administration import AuditRecord, Block, BlockKind, Deletion, IssuerDecision, IssuerState
from keycache.domain.entry import Defect, Entry, HeldReason, Origin, Protocol, Trust
from keycache.domain.errors import InvalidInput
from keycache.domain.settings import TIMEOUT_MAX, TIMEOUT_MIN, SettingChange, Settings, Timeouts
from keycache.v1 import entry_pb2, record_pb2
from support.entries import T0, entries, make_entry, make_key, make_sighting, texts
from support.properties import bounded

FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
US = timedelta(microseconds=1)
all_time = st.integers(0, (LAST - FIRST) // US).map(lambda offset: FIRST + offset * US) | st.sampled_from(
    [FIRST, LAST, codec.EPOCH, codec.EPOCH - US, codec.EPOCH + US, datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]
)
spans = st.timedeltas(min_value=TIMEOUT_MIN, max_value=TIMEOUT_MAX)
settings = st.builds(
    Settings,
    timeouts=st.builds(Timeouts, harvested=spans, looked_up=spans, imported=spans),
    purge_hold_share=st.floats(0, 1),
    purge_hold_floor=st.integers(0, 2**32 - 1),
    clock_skew_bound=st.timedeltas(timedelta(seconds=1), timedelta(days=1)),
)


# times
@bounded(200)
@given(moment=all_time)
def test_an_instant_comes_back_to_the_microsecond_also_before_1970_and_in_the_year_9999(moment: datetime) -> None:
    assert codec.from_us(codec.to_us(moment)) == moment
    stamp = codec.timestamp(moment)
    assert stamp is not None
    assert codec.moment(stamp) == moment
    assert 0 <= stamp.nanos < 10**9


def test_no_instant_is_no_timestamp() -> None:
    assert codec.timestamp(None) is None


@bounded(100)
@given(span=st.timedeltas())
def test_a_span_comes_back_to_the_microsecond(span: timedelta) -> None:
    assert codec.span(codec.duration(span)) == span


def test_a_span_back_has_both_parts_below_zero() -> None:
    assert codec.duration(timedelta(seconds=-1.5)) == Duration(seconds=-1, nanos=-500_000_000)


@pytest.mark.parametrize("seconds", [10**12, -(10**12), 2**62, -(2**62)])
def test_times_beyond_the_calendar_are_refused_and_do_not_crash(seconds: int) -> None:
    with pytest.raises(InvalidInput, match="is not a date"):
        codec.moment(Timestamp(seconds=seconds))
    with pytest.raises(InvalidInput, match="usable span"):
        codec.span(Duration(seconds=seconds * 100 if abs(seconds) < 10**15 else seconds))


# entries
@bounded(25)
@given(entry=entries())
def test_an_entry_comes_back_as_it_was_and_equal_entries_give_equal_bytes(entry: Entry) -> None:
    value = codec.encode_entry(entry)
    assert codec.decode_entry(value) == entry
    assert codec.encode_entry(codec.decode_entry(value)) == value


@bounded(40)
@given(first=all_time, last=all_time, bound=all_time)
def test_the_times_of_an_entry_are_exact_over_the_whole_calendar(first, last, bound) -> None:
    entry = make_entry(
        1, make_sighting(cached_at=first, refreshed_at=last), not_before=bound, not_after=bound, evidence_at=bound
    )
    assert codec.decode_entry(codec.encode_entry(entry)) == entry


@bounded(25)
@given(entry=entries())
def test_the_two_halves_of_a_record_are_the_whole(entry: Entry) -> None:
    value = codec.encode_entry(entry)
    key, rest = codec.halves(codec.decode(entry_pb2.Entry, value))
    assert codec.entry_of_halves(key, rest) == entry
    assert entry_pb2.Key.FromString(key) == codec.key_to_wire(entry.key)
    # Concatenated messages merge: field 1 and the rest, in any order, are the record.
    framed = entry_pb2.Entry(key=entry_pb2.Key.FromString(key)).SerializeToString(deterministic=True)
    assert framed + rest == value
    assert codec.decode_entry(rest + framed) == entry


@pytest.mark.parametrize("field", ["cached_at", "refreshed_at"])
def test_a_sighting_without_its_times_is_refused_and_not_read_as_1970(field: str) -> None:
    message = codec.entry_to_wire(make_entry())
    message.sightings[0].ClearField(field)
    with pytest.raises(InvalidInput, match="lacks cached_at or refreshed_at"):
        codec.entry_from_wire(message)


def test_sightings_are_put_in_order_and_two_of_one_origin_or_none_are_refused() -> None:
    message = codec.entry_to_wire(make_entry(1, make_sighting(), make_sighting(Origin.IMPORTED)))
    message.sightings.reverse()
    assert [one.origin for one in codec.entry_from_wire(message).sightings] == [Origin.HARVESTED, Origin.IMPORTED]
    message.sightings.add().CopyFrom(message.sightings[0])
    with pytest.raises(InvalidInput, match="one sighting per origin"):
        codec.entry_from_wire(message)
    message.ClearField("sightings")
    with pytest.raises(InvalidInput, match="at least one"):
        codec.entry_from_wire(message)


@pytest.mark.parametrize("field", ["protocol", "trust", "held", "defect"])
def test_a_key_with_a_value_of_a_later_version_is_refused_and_never_misread(field: str) -> None:
    """A defect that this version does not know must not pass for none: the key would be served."""
    message = codec.key_to_wire(make_key())
    setattr(message, field, 77)
    with pytest.raises(InvalidInput) as refused:
        codec.key_from_wire(message)
    assert "77 is not a known" in refused.value.text
    assert "later version" in refused.value.hint


@pytest.mark.parametrize("broken", [b"\xff", b"\x0a\x05abc", b"not a message at all"])
def test_bytes_that_are_no_message_are_refused(broken: bytes) -> None:
    for decode in (codec.decode_entry, codec.decode_settings, read_facts):
        with pytest.raises(InvalidInput):
            decode(broken)


@bounded(100)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_an_entry_or_refused(data: bytes) -> None:
    try:
        entry = codec.decode_entry(data)
    except InvalidInput:
        return
    assert codec.decode_entry(codec.encode_entry(entry)) == entry


# records
@bounded(60)
@given(settings=settings)
def test_settings_come_back_as_they_were(settings: Settings) -> None:
    assert codec.decode_settings(codec.encode_settings(settings)) == settings


@pytest.mark.parametrize("field", ["harvested_timeout", "looked_up_timeout", "imported_timeout", "clock_skew_bound"])
def test_settings_that_lack_a_field_are_refused_and_nothing_is_assumed_in_its_place(field: str) -> None:
    message = codec.settings_to_wire(Settings())
    message.ClearField(field)
    with pytest.raises(InvalidInput, match=f"lack {field}"):
        codec.settings_from_wire(message)


def test_settings_out_of_range_are_refused() -> None:
    message = codec.settings_to_wire(Settings())
    message.harvested_timeout.seconds = 1
    with pytest.raises(InvalidInput, match="out of range"):
        codec.decode_settings(message.SerializeToString())
    with pytest.raises(InvalidInput):
        codec.decode_settings(b"")


@bounded(40)
@given(
    at=all_time, until=st.none() | all_time, text=texts(), kind=st.sampled_from(BlockKind), state=st.sampled_from(IssuerState)
)
def test_the_records_of_administrators_come_back_as_they_were(at, until, text, kind, state) -> None:
    block = Block(kind=kind, value=text, until=until, reason=text, by=text, at=at)
    assert codec.block_from_wire(_over_the_wire(codec.block_to_wire(block))) == block
    decision = IssuerDecision(id=text, name=text, state=state, certificate=text.encode(), by=text, at=at)
    assert codec.issuer_from_wire(_over_the_wire(codec.issuer_to_wire(decision))) == decision
    record = AuditRecord(at=at, actor=text, action=text, subject=text, detail=text)
    assert codec.audit_from_wire(_over_the_wire(codec.audit_to_wire(record))) == record
    deletion = Deletion(at=at, actor=text)
    assert codec.deletion_from_wire(_over_the_wire(codec.deletion_to_wire(deletion))) == deletion
    change = SettingChange(at=at, actor=text, name=text, old=text, new=text)
    assert codec.setting_change_from_wire(_over_the_wire(codec.setting_change_to_wire(change))) == change


def _over_the_wire(message):
    return type(message).FromString(message.SerializeToString())


@pytest.mark.parametrize(
    ("message", "decode"),
    [(record_pb2.Block(kind=9), codec.block_from_wire), (record_pb2.IssuerDecision(state=9), codec.issuer_from_wire)],
)
def test_a_block_or_decision_of_a_later_version_is_refused(message, decode) -> None:
    with pytest.raises(InvalidInput, match="9 is not a known"):
        decode(message)


# enums
@pytest.mark.parametrize(
    ("enum", "wire"),
    [
        (Protocol, entry_pb2.Protocol),
        (Origin, entry_pb2.Origin),
        (Trust, entry_pb2.Trust),
        (HeldReason, entry_pb2.HeldReason),
        (Defect, entry_pb2.Defect),
        (BlockKind, record_pb2.BlockKind),
        (IssuerState, record_pb2.IssuerState),
    ],
)
def test_every_member_has_its_number_on_the_wire_under_its_own_name(enum, wire) -> None:
    prefix = wire.Name(0).removesuffix("UNSPECIFIED")
    assert [wire.Name(number).removeprefix(prefix) for number in sorted(wire.values())[1:]] == [one.name for one in enum]
    for member in enum:
        assert wire.Name(codec.wire_enum(member)) == prefix + member.name
        assert codec.enum_member(enum, codec.wire_enum(member)) is member
    assert codec.wire_enum(None) == 0
    assert [codec.enum_member(enum, number) for number in (0, len(enum) + 1, -1)] == [None, None, None]


def test_the_present_is_written_like_any_time() -> None:
    assert codec.timestamp(T0) == Timestamp(seconds=int(T0.timestamp()))
