"""Whether a node's clock may be believed enough to remove anything (DESIGN 2.4), and what time has come for certain."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.domain.skew import TRUSTED, ClockSample, judge, stamp, unwitnessed, witnessed
from support.entries import T0, instants
from support.properties import bounded

BOUND = timedelta(minutes=2)
START = ClockSample(wall=T0, monotonic=100.0)
S, M, H = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


def at(elapsed: timedelta, *, stepped: timedelta = timedelta()) -> ClockSample:
    """A sample `elapsed` after START, on a wall clock that was set by `stepped` in between."""
    return ClockSample(wall=T0 + elapsed + stepped, monotonic=100.0 + elapsed.total_seconds())


@pytest.mark.parametrize(
    ("stepped", "trusted"),
    [(timedelta(), True), (BOUND, True), (-BOUND, True), (BOUND + S, False), (-BOUND - S, False), (400 * 24 * H, False)],
)
def test_a_clock_set_while_the_node_runs_is_suspect_beyond_the_bound_either_way(stepped: timedelta, trusted: bool) -> None:
    verdict = judge(now=at(5 * H, stepped=stepped), start=START, high_water=None, bound=BOUND)
    assert verdict.trusted == trusted
    if not trusted:
        assert "was set by" in verdict.reason
        assert "keycache purge --trust-clock" in verdict.reason


def test_a_clock_that_was_set_and_set_back_is_trusted_again() -> None:
    assert judge(now=at(5 * H), start=START, high_water=None, bound=BOUND) == TRUSTED


@pytest.mark.parametrize(
    ("high_water", "trusted"),
    [(None, True), (T0 - H, True), (T0, True), (T0 + BOUND, True), (T0 + BOUND + S, False), (T0 + 24 * H, False)],
)
def test_a_clock_behind_the_newest_time_written_down_is_suspect(high_water: datetime | None, trusted: bool) -> None:
    verdict = judge(now=START, start=START, high_water=high_water, bound=BOUND)
    assert verdict.trusted == trusted
    assert trusted or "behind the newest time this node wrote down" in verdict.reason


@pytest.mark.parametrize(
    ("offsets", "trusted"),
    [
        ({}, True),
        ({"b": M}, True),
        ({"b": 3 * M}, False),  # of two, nobody can tell which is wrong
        ({"b": -3 * M}, False),
        ({"b": 3 * M, "c": S}, True),  # one bad clock of three must not make the two good ones suspect each other
        ({"b": 3 * M, "c": 3 * M}, False),
        ({"b": 3 * M, "c": -3 * M}, False),  # of three that all disagree, nobody can tell either
        ({"b": 3 * M, "c": S, "d": S}, True),
        ({"b": 3 * M, "c": 3 * M, "d": S}, False),
        ({"b": 3 * M, "c": -3 * M, "d": S, "e": S, "f": S}, True),
    ],
)
def test_the_clock_is_suspect_unless_those_that_agree_with_it_are_a_majority_of_all(offsets: dict, trusted: bool) -> None:
    verdict = judge(now=START, start=START, high_water=None, bound=BOUND, offsets=offsets)
    assert verdict.trusted == trusted
    assert trusted or "disagrees by more than 2.0 minutes with b" in verdict.reason


def test_witnessed_time_goes_on_with_the_monotonic_clock_from_the_newest_time_written_down() -> None:
    assert witnessed(now=at(3 * H), start=START, high_water=T0 - 5 * H) == T0 - 2 * H
    assert witnessed(now=at(3 * H, stepped=400 * 24 * H), start=START, high_water=T0 - 5 * H) == T0 - 2 * H


def test_witnessed_time_begins_with_the_wall_clock_on_the_first_start() -> None:
    assert witnessed(now=at(3 * H, stepped=H), start=START, high_water=None) == T0 + 3 * H


def test_a_sighting_is_never_stamped_before_a_time_that_has_come_for_certain() -> None:
    assert stamp(T0, T0 - H, T0) == T0
    assert stamp(datetime(1970, 1, 1, tzinfo=T0.tzinfo), T0, T0 - H) == T0


def test_a_sighting_is_never_stamped_before_the_cluster_s_time() -> None:
    assert stamp(T0 - 24 * H, T0 - 48 * H, T0) == T0


@bounded()
@given(elapsed=st.lists(st.timedeltas(timedelta(), 9 * H), min_size=1, max_size=5), wall=st.data(), base=instants())
def test_witnessed_time_never_runs_faster_than_the_monotonic_clock_whatever_the_wall_clock_does(elapsed, wall, base) -> None:
    """On which rests that a wrong clock removes nothing (see skew.py)."""
    monotonic, before = 0.0, None
    for span in elapsed:
        monotonic += span.total_seconds()
        now = ClockSample(wall=wall.draw(instants()), monotonic=monotonic)
        seen = witnessed(now=now, start=ClockSample(wall=T0, monotonic=0.0), high_water=base)
        if before is not None:
            assert abs((seen - before) - span) < timedelta(microseconds=10)  # the monotonic clock is a float
        before = seen


def test_the_reason_tells_how_much_time_nobody_saw_pass() -> None:
    reason = unwitnessed(T0 + 72 * H, T0)
    assert reason.startswith("The clock went on by 3.0 days that this node did not see pass")
    assert "keycache purge --trust-clock" in reason
