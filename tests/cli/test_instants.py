"""Instants as RFC 3339."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.cli.instants import for_people, parse_moment, parse_rfc3339, rfc3339
from keycache.domain.errors import InvalidInput


def test_microseconds_show_only_when_there_are_some() -> None:
    assert rfc3339(datetime(2026, 11, 23, 14, 37, tzinfo=UTC)) == "2026-11-23T14:37:00Z"
    assert rfc3339(datetime(2026, 11, 23, 14, 37, 5, 120, tzinfo=UTC)) == "2026-11-23T14:37:05.000120Z"


def test_other_zones_are_shown_in_utc() -> None:
    assert rfc3339(datetime(2026, 11, 23, 1, tzinfo=timezone(timedelta(hours=2)))) == "2026-11-22T23:00:00Z"


@given(st.datetimes(timezones=st.just(UTC)))
def test_what_is_written_is_read_back(moment: datetime) -> None:
    assert parse_rfc3339(rfc3339(moment)) == moment


def test_any_offset_is_read() -> None:
    assert parse_rfc3339("2026-11-23t14:37:00.5+02:00") == datetime(2026, 11, 23, 12, 37, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-23",
        "2026-11-23T14:37:00",
        "2026-13-01T00:00:00Z",
        "2026-W01-1T00:00:00Z",
        "now",
        "0001-01-01T00:00:00+10:00",
    ],
)
def test_a_time_without_offset_or_sense_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_rfc3339(text)


def test_people_may_give_a_day_which_begins_in_utc() -> None:
    assert parse_moment(" 2026-12-31 ") == datetime(2026, 12, 31, tzinfo=UTC)
    assert parse_moment("2026-12-31T10:00:00Z") == datetime(2026, 12, 31, 10, tzinfo=UTC)


def test_tables_show_minutes_and_a_dash_for_never() -> None:
    assert for_people(datetime(2026, 11, 23, 14, 37, 59, tzinfo=UTC)) == "2026-11-23 14:37"
    assert for_people(None) == "-"
