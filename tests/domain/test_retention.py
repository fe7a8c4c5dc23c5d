"""When an entry expires, which of its sightings counts, when a refresh is worth a write (DESIGN 1 and 3)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.domain.entry import Origin
from keycache.domain.errors import OutOfRange
from keycache.domain.retention import FAR_FUTURE, entry_expires_at, expires_at, is_expired, lasting, needs_refresh
from keycache.domain.settings import DEFAULT_TIMEOUTS, TIMEOUT_MAX, TIMEOUT_MIN, Settings, Timeouts
from support.entries import T0, entries, instants, make_entry, make_sighting
from support.properties import bounded

US = timedelta(microseconds=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
spans = st.timedeltas(min_value=TIMEOUT_MIN, max_value=TIMEOUT_MAX)
timeouts = st.builds(Timeouts, harvested=spans, looked_up=spans, imported=spans)


def test_the_defaults_are_500_days_harvested_24_hours_looked_up_999_days_imported() -> None:
    assert Timeouts() == Timeouts(harvested=500 * DAY, looked_up=24 * HOUR, imported=999 * DAY)
    assert {origin: Timeouts().of(origin) for origin in Origin} == DEFAULT_TIMEOUTS


@pytest.mark.parametrize("origin", Origin)
def test_an_entry_counts_until_one_microsecond_before_its_timeout_and_not_at_the_instant_of_it(origin: Origin) -> None:
    entry = make_entry(1, make_sighting(origin))
    end = T0 + Timeouts().of(origin)
    assert not is_expired(entry, Timeouts(), end - US)
    assert is_expired(entry, Timeouts(), end)
    assert is_expired(entry, Timeouts(), end + US)


def test_the_age_of_the_first_caching_and_of_the_key_itself_do_not_count() -> None:
    """FACTS 1: the bug compared the key's own date with the default timeout."""
    old = T0 - timedelta(days=5000)
    sighting = make_sighting(cached_at=old, refreshed_at=T0)
    entry = make_entry(1, sighting, not_before=old, evidence_at=old)
    assert entry_expires_at(entry, Timeouts()) == T0 + 500 * DAY


def test_a_key_harvested_for_500_days_is_not_lost_after_24_hours_because_somebody_also_looked_it_up() -> None:
    harvested, looked_up = make_sighting(), make_sighting(Origin.LOOKED_UP, cached_at=T0 + DAY)
    entry = make_entry(1, harvested, looked_up)
    assert lasting(entry.sightings, Timeouts()) == harvested
    assert not is_expired(entry, Timeouts(), T0 + 3 * DAY)
    assert is_expired(entry, Timeouts(), T0 + 500 * DAY)


def test_which_sighting_lasts_longest_depends_on_the_timeouts_in_force() -> None:
    harvested, looked_up = make_sighting(), make_sighting(Origin.LOOKED_UP, cached_at=T0 + HOUR)
    short = Timeouts(harvested=HOUR, looked_up=HOUR)
    assert lasting((harvested, looked_up), Timeouts()) == harvested
    assert lasting((harvested, looked_up), short) == looked_up


def test_an_expiry_beyond_the_calendar_is_the_end_of_the_calendar() -> None:
    sighting = make_sighting(cached_at=datetime(9999, 12, 31, tzinfo=UTC))
    assert expires_at(sighting, Timeouts()) == FAR_FUTURE


@bounded(30)
@given(entry=entries(), timeouts=timeouts, now=instants())
def test_an_entry_is_expired_exactly_when_no_sighting_counts_any_more(entry, timeouts, now) -> None:
    counting = [one for one in entry.sightings if now - one.refreshed_at < timeouts.of(one.origin)]
    assert is_expired(entry, timeouts, now) == (not counting)


@bounded(30)
@given(entry=entries(), timeouts=timeouts, now=instants(), origin=st.sampled_from(Origin), more=st.timedeltas(min_value=US))
def test_raising_a_timeout_never_expires_anything(entry, timeouts, now, origin, more) -> None:
    raised = timeouts.with_timeout(origin, min(TIMEOUT_MAX, timeouts.of(origin) + min(more, TIMEOUT_MAX)))
    assert is_expired(entry, timeouts, now) or not is_expired(entry, raised, now)


@pytest.mark.parametrize(
    ("timeout", "wait"),
    [(HOUR, timedelta(minutes=3)), (24 * HOUR, timedelta(minutes=72)), (20 * DAY, DAY), (500 * DAY, DAY), (999 * DAY, DAY)],
)
def test_a_refresh_is_written_once_the_stored_one_is_as_old_as_the_lesser_of_a_day_and_a_twentieth(timeout, wait) -> None:
    timeouts = Timeouts(harvested=timeout)
    sighting = make_sighting()
    assert not needs_refresh(sighting, timeouts, T0 + wait - US)
    assert needs_refresh(sighting, timeouts, T0 + wait)


@bounded()
@given(timeouts=timeouts, origin=st.sampled_from(Origin))
def test_a_refresh_is_due_well_before_the_sighting_expires(timeouts, origin) -> None:
    sighting = make_sighting(origin)
    assert needs_refresh(sighting, timeouts, T0 + timeouts.of(origin) / 20 + US)


@bounded()
@given(seconds=st.integers(-(10**6), 10**6))
def test_a_refresh_is_never_due_for_a_sighting_of_the_future(seconds) -> None:
    now = T0 + timedelta(seconds=seconds)
    assert seconds > 0 or not needs_refresh(make_sighting(), Timeouts(), now)


@pytest.mark.parametrize("origin", Origin)
@pytest.mark.parametrize("timeout", [TIMEOUT_MIN, HOUR, 999 * DAY, TIMEOUT_MAX])
def test_1_hour_and_999_days_are_accepted(origin: Origin, timeout: timedelta) -> None:
    assert Timeouts().with_timeout(origin, timeout).of(origin) == timeout


@pytest.mark.parametrize("origin", Origin)
@pytest.mark.parametrize("timeout", [HOUR - timedelta(seconds=1), 999 * DAY + timedelta(seconds=1), timedelta(), -DAY])
def test_a_second_outside_the_range_is_refused_and_the_range_is_named(origin: Origin, timeout: timedelta) -> None:
    with pytest.raises(OutOfRange) as refused:
        Timeouts().with_timeout(origin, timeout)
    assert refused.value.hint == "Choose between 1h (1 hour) and 999d (999 days)."
    assert f"for {origin.value.lower()} keys is out of range" in refused.value.text


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("purge_hold_share", (0.0, 0.2, 1.0), (-0.01, 1.01, float("nan"))),
        ("purge_hold_floor", (0, 100, 10**6), (-1,)),
        ("clock_skew_bound", (timedelta(seconds=1), timedelta(minutes=2), DAY), (timedelta(), DAY + US)),
    ],
)
def test_the_bounds_of_the_guards_have_their_ranges(field: str, good: tuple, bad: tuple) -> None:
    for value in good:
        assert getattr(Settings(**{field: value}), field) == value
    for value in bad:
        with pytest.raises(OutOfRange):
            Settings(**{field: value})
