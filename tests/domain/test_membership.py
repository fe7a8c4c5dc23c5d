"""What nodes that share a log make of each other: whose turn it is to purge, and how far the clocks are apart."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.domain.membership import (
    READINGS,
    READINGS_APART,
    Member,
    choose_purger,
    cluster_time,
    lag,
    offset,
    with_reading,
)
from keycache.domain.names import NodeId, Revision
from keycache.domain.skew import ClockSample, judge
from support.entries import T0
from support.properties import bounded

S, M, H = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
BOUND = 2 * M


def member(name: str, *, trusted: bool = True, state: str = "IDLE") -> Member:
    return Member(
        node_id=NodeId(name),
        address=f"{name}.example.org:7640",
        version="0.0",
        started_at=T0,
        clock=T0,
        applied=Revision(5),
        purge_state=state,
        purge_reason="",
        purge_waiting=0,
        clock_trusted=trusted,
        outbox=0,
    )


def chosen(own: Member, *others: Member) -> str | None:
    purger = choose_purger(others, own)
    return None if purger is None else purger.node_id.text


# whose turn it is
def test_the_member_with_the_least_id_purges() -> None:
    assert chosen(member("b"), member("c"), member("a")) == "a"
    assert chosen(member("a"), member("c"), member("b")) == "a"


def test_a_node_alone_purges() -> None:
    assert chosen(member("a")) == "a"


@pytest.mark.parametrize("unable", [member("a", trusted=False), member("a", state="HELD_CLOCK")])
def test_a_member_whose_clock_holds_it_leaves_the_turn_to_the_next(unable: Member) -> None:
    assert chosen(unable, member("b"), member("c")) == "b"
    assert chosen(member("c"), unable, member("b")) == "b"


@pytest.mark.parametrize("state", ["IDLE", "SWEEPING", "HELD_MASS_EXPIRY", "HELD_NO_SETTINGS", "OF_A_LATER_VERSION"])
def test_what_would_hold_every_node_alike_moves_the_turn_nowhere(state: str) -> None:
    assert chosen(member("b"), member("a", state=state)) == "a"


def test_while_no_clock_is_trusted_nobody_purges() -> None:
    assert chosen(member("a", trusted=False), member("b", state="HELD_CLOCK")) is None


@bounded()
@given(
    members=st.lists(
        st.builds(member, st.uuids().map(str), trusted=st.booleans(), state=st.sampled_from(["IDLE", "HELD_CLOCK"])),
        min_size=1,
        unique_by=lambda one: one.node_id,
    ),
    data=st.data(),
)
def test_all_members_that_hear_each_other_choose_the_same(members: list[Member], data: st.DataObject) -> None:
    choices = set()
    for own in members:
        others = data.draw(st.permutations([one for one in members if one is not own]))
        choices.add(chosen(own, *others))
    assert len(choices) == 1


# clocks
def arrived(*words: tuple[timedelta, timedelta], off: timedelta = timedelta()) -> tuple[ClockSample, ...]:
    """Readings of a clock that is `off` from ours; each word (said, late by)."""
    readings: tuple[ClockSample, ...] = ()
    for said, late in words:
        readings = with_reading(readings, ClockSample(wall=T0 + said + off, monotonic=(said + late).total_seconds()))
    return readings


def at(elapsed: timedelta) -> ClockSample:
    return ClockSample(wall=T0 + elapsed, monotonic=elapsed.total_seconds())


def test_a_clock_is_not_measured_by_one_word() -> None:
    assert offset((), at(H)) is None
    assert offset(arrived((timedelta(), timedelta())), at(H)) is None


@pytest.mark.parametrize("off", [timedelta(), 3 * M, -3 * M, 400 * 24 * H])
def test_words_that_come_at_once_measure_a_clock_exactly_for_as_long_as_one_likes(off: timedelta) -> None:
    readings = arrived((timedelta(), timedelta()), (5 * S, timedelta()), off=off)
    assert offset(readings, at(5 * S)) == off
    assert offset(readings, at(5 * H)) == off


def test_a_clock_of_ours_that_is_set_shows_at_once_in_the_offsets() -> None:
    readings = arrived((timedelta(), timedelta()), (5 * S, timedelta()))
    now = ClockSample(wall=T0 + 6 * S + H, monotonic=6.0)
    assert offset(readings, now) == -H


@pytest.mark.parametrize("late", [3 * M, H])
@pytest.mark.parametrize("place", range(READINGS))
def test_one_word_that_comes_late_does_not_count_as_skew(late: timedelta, place: int) -> None:
    """After a stall of the member, of the log or of this node."""
    words, elapsed = [], timedelta()
    for number in range(READINGS):
        said, elapsed = elapsed, elapsed + (late if number == place else timedelta())
        words.append((said, late if number == place else timedelta()))
        elapsed += 5 * S
    assert offset(arrived(*words), at(elapsed)) == timedelta()


def test_words_that_come_in_a_burst_count_as_the_newest_of_them() -> None:
    """What was waiting while the link was down: an hour of words, all within a moment."""
    readings: tuple[ClockSample, ...] = ()
    for number in range(720):
        readings = with_reading(readings, ClockSample(wall=T0 + number * 5 * S, monotonic=3600.0 + number / 10_000))
    assert len(readings) == 1
    assert offset(readings, at(H)) is None
    readings = with_reading(readings, ClockSample(wall=T0 + H, monotonic=3600.0 + READINGS_APART + 0.1))
    measured = offset(readings, at(H + 2 * S))
    assert measured is not None
    assert abs(measured) < 10 * S


def test_a_clock_that_was_corrected_counts_as_right_after_a_few_words() -> None:
    wrong = arrived((timedelta(), timedelta()), (5 * S, timedelta()), (10 * S, timedelta()), off=H)
    readings = wrong
    for number in range(3, 3 + READINGS):
        readings = with_reading(readings, at(number * 5 * S))
    assert offset(readings, at(M)) == timedelta()


@bounded()
@given(
    off=st.timedeltas(-24 * H, 24 * H),
    late=st.lists(st.timedeltas(timedelta(), H), min_size=2, max_size=12),
)
def test_lateness_only_ever_makes_a_clock_look_behind(off: timedelta, late: list[timedelta]) -> None:
    readings, monotonic = (), 0.0
    for number, span in enumerate(late):
        said = number * 5 * S
        monotonic = max(monotonic + READINGS_APART, (said + span).total_seconds())
        readings = with_reading(readings, ClockSample(wall=T0 + said + off, monotonic=monotonic))
    now = timedelta(seconds=monotonic)
    measured = offset(readings, ClockSample(wall=T0 + now, monotonic=monotonic))
    assert measured is not None
    assert measured <= off + timedelta(milliseconds=1)


# what all clocks say together
@pytest.mark.parametrize(
    ("offsets", "time"),
    [
        ([], T0),
        ([-H], T0),  # of two the later
        ([H], T0 + H),
        ([24 * H, 24 * H + S], T0 + 24 * H),  # ours is a day behind two that agree
        ([-24 * H, S], T0),  # one other is a day behind
        ([24 * H, -24 * H], T0),
    ],
)
def test_the_cluster_s_time_is_the_upper_median_of_all_clocks(offsets: list[timedelta], time: datetime) -> None:
    assert cluster_time(T0, offsets) == time


@bounded()
@given(
    good=st.lists(st.timedeltas(-S, S), min_size=2, max_size=6),
    bad=st.lists(st.timedeltas(-400 * 24 * H, 400 * 24 * H), max_size=4),
    true=st.timedeltas(-400 * 24 * H, 400 * 24 * H),
)
def test_while_most_clocks_are_right_so_is_the_cluster_s_time_whatever_ours_says(good, bad, true) -> None:
    """`true`: the right time minus ours, which is one of the bad ones; with it they are fewer than the good."""
    offsets = [true + one for one in (*good, *bad[: len(good) - 2])]
    assert abs(cluster_time(T0, offsets) - (T0 + true)) <= S


def test_one_bad_clock_of_three_is_found_and_the_two_good_ones_trust_each_other() -> None:
    clocks = {"a": timedelta(), "b": S, "c": H}
    assert verdicts(clocks) == {"a": True, "b": True, "c": False}


def test_of_two_clocks_that_disagree_both_are_suspect() -> None:
    assert verdicts({"a": timedelta(), "b": H}) == {"a": False, "b": False}


def verdicts(clocks: dict[str, timedelta]) -> dict[str, bool]:
    """What each member makes of its own clock."""
    start = ClockSample(wall=T0, monotonic=0.0)
    return {
        own: judge(
            now=start,
            start=start,
            high_water=None,
            bound=BOUND,
            offsets={name: clock - clocks[own] for name, clock in clocks.items() if name != own},
        ).trusted
        for own in clocks
    }


@bounded()
@given(clocks=st.dictionaries(st.sampled_from("abcdefg"), st.timedeltas(-H, H), min_size=1, max_size=7))
def test_members_that_trust_their_clocks_are_never_in_two_camps(clocks) -> None:
    """Two that are trusted each agree with a majority, so they share one they both agree with."""
    trusted = [clocks[name] for name, good in verdicts(clocks).items() if good]
    assert all(abs(one - other) <= 2 * BOUND for one in trusted for other in trusted)


def test_lag_is_what_was_not_applied_when_the_word_was_written() -> None:
    assert lag(Revision(8), Revision(7)) == 0
    assert lag(Revision(8), Revision(3)) == 4
    assert lag(Revision(0), Revision(3)) == 0


def test_a_label_tells_nodes_at_one_address_apart() -> None:
    one = replace(member("0123456789abcdef"), address="127.0.0.1:7640")
    assert one.label == "127.0.0.1:7640 (01234567)"
