"""Entries hold at most one sighting per origin, in one order, and at least one."""

from __future__ import annotations

import pytest

from keycache.domain.entry import Entry, Origin
from support.entries import make_entry, make_key, make_sighting

H, L, I = (make_sighting(origin) for origin in Origin)  # noqa: E741 -- the initials of the three origins


@pytest.mark.parametrize("sightings", [(), (H, H), (L, H), (I, L), (H, L, L)])
def test_an_entry_without_sightings_or_with_two_of_one_origin_or_out_of_order_cannot_be(sightings: tuple) -> None:
    with pytest.raises(ValueError, match="one sighting per origin"):
        Entry(key=make_key(), sightings=sightings)


def test_a_sighting_is_found_by_its_origin() -> None:
    entry = make_entry(1, H, I)
    assert [entry.sighting(origin) for origin in Origin] == [H, None, I]
