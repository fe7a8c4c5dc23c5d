"""What a sweep may remove: every guard of the plan, each alone and all together (DESIGN 2.1 to 2.4)."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from keycache.domain.entry import Origin, Protocol
from keycache.domain.log import ABSENT
from keycache.domain.names import Revision
from keycache.domain.purge import Candidate, PurgePlan, PurgeState, plan
from keycache.domain.settings import Settings, Timeouts
from keycache.domain.skew import TRUSTED, ClockVerdict, unwitnessed
from support.entries import T0, fingerprint_of, make_sighting

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SUSPECT = ClockVerdict(trusted=False, reason="The clock was set.")
NOW = T0 + 600 * DAY
REVISION = Revision(7)


def candidate(number: int, *, age: timedelta = 600 * DAY, origins: tuple[Origin, ...] = (Origin.HARVESTED,)) -> Candidate:
    """Last refreshed `age` before NOW."""
    sightings = tuple(make_sighting(origin, cached_at=NOW - age) for origin in origins)
    return Candidate(
        protocol=Protocol.SMIME, fingerprint=fingerprint_of(number), mod_revision=Revision(number), sightings=sightings
    )


def planned(candidates: tuple[Candidate, ...], **changes) -> PurgePlan:
    arguments = {
        "candidates": candidates,
        "total": 1000,
        "settings": Settings(),
        "settings_revision": REVISION,
        "clock": TRUSTED,
        "now": NOW,
        "witnessed": NOW,
        "confirmed": False,
    }
    return plan(**{**arguments, **changes})


def test_what_is_expired_is_removed_under_the_settings_by_which_it_was_found_expired() -> None:
    gone = (candidate(1), candidate(2))
    assert planned(gone) == PurgePlan(state=PurgeState.SWEEPING, reason="", remove=gone, expired=2, settings_revision=REVISION)


def test_nothing_expired_is_idle() -> None:
    assert planned(()) == PurgePlan(state=PurgeState.IDLE, reason="")


def test_a_candidate_that_is_not_expired_is_never_removed_whoever_named_it() -> None:
    """The plan judges anew: a replica that errs in its query must not cost an entry."""
    both = candidate(2, age=2 * DAY, origins=(Origin.HARVESTED, Origin.LOOKED_UP))
    assert planned((candidate(1, age=500 * DAY - timedelta(microseconds=1)), both)) == PurgePlan(
        state=PurgeState.IDLE, reason=""
    )
    assert planned((candidate(1, age=500 * DAY), both)).remove == (candidate(1, age=500 * DAY),)


def test_without_settings_nothing_is_removed() -> None:
    decided = planned((candidate(1),), settings=None, settings_revision=ABSENT, confirmed=True)
    assert decided == PurgePlan(
        state=PurgeState.HELD_NO_SETTINGS, reason="The settings cannot be read; nothing is removed without them."
    )


def test_under_a_suspect_clock_nothing_is_removed_even_if_confirmed() -> None:
    decided = planned((candidate(1),), clock=SUSPECT, confirmed=True)
    assert decided == PurgePlan(state=PurgeState.HELD_CLOCK, reason="The clock was set.", expired=1)


@pytest.mark.parametrize(
    ("count", "total", "share", "floor", "held"),
    [
        (100, 100, 0.2, 100, False),  # not over the floor
        (101, 101, 0.2, 100, True),
        (101, 505, 0.2, 100, False),  # exactly the share
        (101, 504, 0.2, 100, True),
        (200, 1000, 0.2, 100, False),
        (201, 1000, 0.2, 100, True),
        (1, 1, 0.0, 0, True),
        (5, 5, 1.0, 0, False),  # a share of 1 never holds
        (1, 1000, 0.0, 1, False),
        (2, 1000, 0.0, 1, True),
    ],
)
def test_a_sweep_over_both_share_and_floor_waits_for_an_administrator(count, total, share, floor, held) -> None:
    settings = Settings(purge_hold_share=share, purge_hold_floor=floor)
    many = tuple(candidate(number) for number in range(count))
    decided = planned(many, total=total, settings=settings)
    if not held:
        assert decided.remove == many
        return
    assert (decided.state, decided.remove, decided.expired) == (PurgeState.HELD_MASS_EXPIRY, (), count)
    assert decided.reason.startswith(f"{count} of {total} entries expired at once, more than {share:.0%}.")
    assert "keycache purge --confirm-held" in decided.reason
    assert planned(many, total=total, settings=settings, confirmed=True).remove == many


def test_what_expired_only_by_time_that_nobody_saw_pass_waits() -> None:
    """The node was down for 30 days, or its clock was set forward by them: nobody can tell."""
    witnessed = NOW - 30 * DAY
    long_gone, just_now = candidate(1, age=530 * DAY), candidate(2, age=529 * DAY)
    assert planned((long_gone, just_now), witnessed=witnessed) == PurgePlan(
        state=PurgeState.SWEEPING, reason="", remove=(long_gone,), expired=2, settings_revision=REVISION
    )
    assert planned((just_now,), witnessed=witnessed) == PurgePlan(
        state=PurgeState.HELD_CLOCK, reason=unwitnessed(NOW, witnessed), expired=1
    )
    assert planned((just_now,), witnessed=witnessed, confirmed=True).remove == (just_now,)


@pytest.mark.parametrize(
    ("stop", "state"), [(5 * HOUR, PurgeState.IDLE), (DAY, PurgeState.IDLE), (DAY + HOUR, PurgeState.HELD_CLOCK)]
)
def test_an_administrator_is_told_of_a_long_stop_and_not_troubled_by_a_short_one(stop: timedelta, state: PurgeState) -> None:
    one = candidate(1, age=500 * DAY)
    assert planned((one,), witnessed=NOW - stop) == PurgePlan(state=state, reason=unwitnessed(NOW, NOW - stop), expired=1)


def test_a_stop_within_the_bound_for_clocks_delays_nothing() -> None:
    one = candidate(1, age=500 * DAY)
    bound = Settings().clock_skew_bound
    assert planned((one,), witnessed=NOW - bound).remove == (one,)
    assert planned((one,), witnessed=NOW - bound - timedelta(microseconds=1)).remove == ()


def test_every_combination_of_guards_removes_something_only_when_all_of_them_allow_it() -> None:
    small, big = (candidate(1),), tuple(candidate(number) for number in range(300))
    choices = itertools.product(
        (None, Settings(), Settings(timeouts=Timeouts(harvested=999 * DAY))),
        (TRUSTED, SUSPECT),
        ((), small, big),
        (NOW, NOW - 200 * DAY),
        (False, True),
    )
    seen = set()
    for settings, clock, candidates, witnessed, confirmed in choices:
        decided = planned(candidates, settings=settings, clock=clock, witnessed=witnessed, confirmed=confirmed)
        allowed = (
            settings == Settings()
            and clock.trusted
            and bool(candidates)
            and (confirmed or (len(candidates) < 200 and witnessed == NOW))
        )
        assert decided.remove == (candidates if allowed else ())
        assert (decided.state is PurgeState.SWEEPING) == allowed
        assert decided.settings_revision == (REVISION if allowed else ABSENT)
        seen.add(decided.state)
    assert seen == set(PurgeState)
