"""Spans of time as people write them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.domain.errors import InvalidInput
from keycache.domain.spans import format_span, parse_span


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("500d", timedelta(days=500)),
        ("24h", timedelta(hours=24)),
        ("90m", timedelta(minutes=90)),
        ("3600s", timedelta(hours=1)),
        ("2w", timedelta(days=14)),
        ("1d12h", timedelta(hours=36)),
        ("1 day 2 hours", timedelta(hours=26)),
        ("1.5h", timedelta(minutes=90)),
        (" 10 MINUTES ", timedelta(minutes=10)),
        ("0s", timedelta()),
    ],
)
def test_a_span_is_a_number_with_a_unit(text: str, span: timedelta) -> None:
    assert parse_span(text) == span


@pytest.mark.parametrize("text", ["", " ", "500", "d", "5x", "-5d", "5d-", "1e3d", "5d 3", "٣d", "999999999999w"])
def test_what_is_no_span_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_span(text)
    assert caught.value.hint == "Write a number with a unit: 500d, 24h, 90m or 3600s."


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(days=500), "500d"),
        (timedelta(hours=24), "24h"),
        (timedelta(hours=48), "2d"),
        (timedelta(hours=49), "49h"),
        (timedelta(minutes=90), "90m"),
        (timedelta(seconds=3661), "1h1m1s"),
        (timedelta(days=1, seconds=1), "1d1s"),
        (timedelta(milliseconds=500), "0.5s"),
        (timedelta(), "0s"),
        (-timedelta(hours=5), "-5h"),
    ],
)
def test_a_span_is_spelt_shortly_and_exactly(span: timedelta, text: str) -> None:
    assert format_span(span) == text


@given(st.timedeltas(min_value=timedelta(), max_value=timedelta(days=100_000)))
def test_what_is_spelt_is_read_back(span: timedelta) -> None:
    assert parse_span(format_span(span)) == span
