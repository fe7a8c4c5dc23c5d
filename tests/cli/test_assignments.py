"""What `settings set` takes."""

from datetime import timedelta

import pytest

from keycache.cli.assignments import Assignments, read_assignments
from keycache.domain.errors import InvalidInput, OutOfRange


@pytest.mark.parametrize(
    "words",
    [
        ["looked-up=48h"],
        ["looked_up", "2d"],
        ["timeouts.looked_up=48h"],
        ["Looked-Up-Timeout", "48h"],
        ["looked_up_timeout=48h"],
    ],
)
def test_names_may_be_spelt_as_they_are_anywhere(words: list[str]) -> None:
    assert read_assignments(words, {}) == Assignments(looked_up=timedelta(hours=48))


def test_words_and_options_add_up() -> None:
    options = {"imported": "900d", "purge-hold-share": "5%", "purge-hold-floor": "7", "harvested": None}
    assert read_assignments(["harvested=1h", "clock-skew-bound", "90s"], options) == Assignments(
        harvested=timedelta(hours=1),
        imported=timedelta(days=900),
        purge_hold_share=0.05,
        purge_hold_floor=7,
        clock_skew_bound=timedelta(seconds=90),
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Nothing to set"),
        (["harvested"], "'harvested' has no value"),
        (["harvest=1d"], "Did you mean harvested?"),
        (["zzz=1d"], "There are harvested, looked-up"),
        (["harvested=1d", "harvested=2d"], "given twice, as 1d and as 2d"),
        (["purge-hold-share=much"], "Write it as 0.2 or 20%"),
        (["purge-hold-floor=-1"], "not a number of entries"),
        (["harvested=500"], "not a span of time"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_assignments(words, {})
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "word", ["harvested=59m", "looked-up=1000d", "imported=999d1s", "purge-hold-share=101%", "clock-skew-bound=2d"]
)
def test_what_is_out_of_range_is_told_with_the_range_before_any_node_is_asked(word: str) -> None:
    with pytest.raises(OutOfRange, match=r"between|0 to 1"):
        read_assignments([word], {}).check()


def test_the_ends_of_the_range_are_in_it() -> None:
    read_assignments(["harvested=1h", "looked-up=999d"], {}).check()
