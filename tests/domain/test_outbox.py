"""What becomes of an entry that waited, and which rows a lookup judges."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given

from keycache.domain.entry import Defect, Entry, Origin
from keycache.domain.lookup import Row
from keycache.domain.outbox import REVOKED, Decision, Fate, delivery, newest_sighting, overlaid
from keycache.store.rows import row
from support.entries import T0, entries, facts_of, make_entry, make_sighting
from support.properties import bounded

US, DAY = timedelta(microseconds=1), timedelta(days=1)


def settled(waiting: Entry, known: Entry | None, removed_at=None) -> Decision:
    return delivery(waiting, known, waiting.key, removed_at)


def test_an_unknown_entry_is_written_as_it_is() -> None:
    assert settled(make_entry(1), None) == Decision(fate=Fate.WRITE, entry=make_entry(1))


def test_what_is_there_already_is_not_written_again() -> None:
    assert settled(make_entry(1), make_entry(1)) == Decision(fate=Fate.THERE)
    newer = make_entry(1, make_sighting(refreshed_at=T0 + DAY), addresses=["user1@example.org", "x@example.org"])
    assert settled(make_entry(1), newer) == Decision(fate=Fate.THERE)


def test_what_differs_is_joined() -> None:
    waiting = make_entry(1, make_sighting(Origin.LOOKED_UP, cached_at=T0 + DAY), addresses=["a@x.example"])
    known = make_entry(1, addresses=["b@x.example"])
    both = (make_sighting(), make_sighting(Origin.LOOKED_UP, cached_at=T0 + DAY))
    assert settled(waiting, known) == Decision(
        fate=Fate.WRITE, entry=make_entry(1, *both, addresses=["a@x.example", "b@x.example"])
    )


def test_a_removal_holds_from_the_newest_sighting_on() -> None:
    waiting = make_entry(1, make_sighting(refreshed_at=T0 + DAY), make_sighting(Origin.IMPORTED, cached_at=T0 - DAY))
    assert newest_sighting(waiting) == T0 + DAY
    for known in (None, make_entry(1)):
        assert settled(waiting, known, T0 + DAY) == Decision(fate=Fate.REMOVED)
        assert settled(waiting, known, T0 + DAY - US).fate is not Fate.REMOVED


def test_a_removed_entry_that_is_back_learns_of_a_revocation_alone() -> None:
    waiting = make_entry(1, make_sighting(cached_at=T0 - DAY), defect=Defect.REVOKED, addresses=["old@x.example"])
    back = make_entry(1, make_sighting(cached_at=T0 + DAY))
    expected = replace(back, key=replace(back.key, defect=Defect.REVOKED))
    assert settled(waiting, back, T0) == Decision(fate=Fate.WRITE, entry=expected)
    assert settled(waiting, expected, T0) == Decision(fate=Fate.REMOVED)


@bounded(40)
@given(first=entries(numbers=1), second=entries(numbers=1), third=entries(numbers=1))
def test_whoever_delivers_first_what_decides_serving_ends_the_same_and_nothing_moves_back(
    first: Entry, second: Entry, third: Entry
) -> None:
    copies = [
        replace(one, key=replace(one.key, fingerprint=third.key.fingerprint, protocol=third.key.protocol, material=b"x"))
        for one in (first, second, third)
    ]
    known, *waiting = copies

    def delivered(order: list[Entry]) -> Entry:
        now = known
        for one in order:
            decided = settled(one, now)
            now = now if decided.entry is None else decided.entry
            assert settled(one, now).fate is Fate.THERE, "a second delivery writes nothing"
        return now

    ends = [delivered(waiting), delivered(waiting[::-1])]
    for end in ends:
        for copy in copies:
            assert set(copy.key.addresses) <= set(end.key.addresses)
            for sighting in copy.sightings:
                after = end.sighting(sighting.origin)
                assert after is not None
                assert after.cached_at <= sighting.cached_at
                assert after.refreshed_at >= sighting.refreshed_at
        assert (end.key.defect is Defect.REVOKED) == any(copy.key.defect is Defect.REVOKED for copy in copies)
    assert ends[0].sightings == ends[1].sightings
    assert ends[0].key.addresses == ends[1].key.addresses
    assert ends[0].key.trust == ends[1].key.trust


def rows(*made: Entry) -> list[Row]:
    return [row("a@x.example", facts_of(entry), 1) for entry in made]


def test_what_waits_stands_in_the_place_of_the_same_key_and_beside_others() -> None:
    known, waiting = (
        rows(make_entry(1), make_entry(2)),
        rows(make_entry(2, make_sighting(refreshed_at=T0 + DAY)), make_entry(3)),
    )
    assert overlaid(known, waiting, set()) == [known[0], *waiting]
    assert overlaid(known, [], set()) == known
    assert overlaid([], waiting, set()) == waiting


def test_a_revocation_holds_whoever_learned_of_it() -> None:
    good, revoked = rows(make_entry(1)), rows(make_entry(1, defect=Defect.REVOKED))
    assert revoked[0].defect == REVOKED
    name = (good[0].protocol, good[0].fingerprint)
    assert overlaid(good, revoked, set()) == revoked
    assert overlaid(revoked, good, {name}) == revoked
    assert overlaid([], good, {name}) == []


@pytest.mark.parametrize("defect", [None, Defect.NO_ENCRYPTION_KEY])
def test_other_defects_are_no_revocation(defect: Defect | None) -> None:
    assert rows(make_entry(1, defect=defect))[0].defect != REVOKED
