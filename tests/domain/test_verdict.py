"""The verdicts: a closed set in the order of rank, each with a sentence that says what to do."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.domain.lookup import MISS_ADVICE, MissCode
from keycache.domain.verdict import Verdict, best
from support.properties import bounded


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_its_name_and_a_sentence(verdict: Verdict) -> None:
    assert verdict.value == verdict.name
    assert verdict.advice.endswith(".")
    assert len(verdict.advice) > 20
    assert Verdict(verdict.value) is verdict


def test_no_two_verdicts_say_the_same() -> None:
    assert len({verdict.advice for verdict in Verdict}) == len(Verdict)


def test_ranks_follow_the_order_and_kept_comes_before_refused_before_no_key_at_all() -> None:
    assert [verdict.rank for verdict in Verdict] == list(range(len(Verdict)))
    assert [verdict for verdict in Verdict if verdict.is_served] == [
        Verdict.CACHED,
        Verdict.REFRESHED,
        Verdict.ALREADY_FRESH,
    ]
    assert [verdict for verdict in Verdict if verdict.is_kept and not verdict.is_served] == [
        Verdict.UNTRUSTED_ISSUER,
        Verdict.SELF_SIGNED,
    ]
    order = [Verdict.CACHED, Verdict.SELF_SIGNED, Verdict.BLOCKED, Verdict.KEY_EXPIRED, Verdict.ADDRESS_MISMATCH]
    assert all(first.rank < second.rank for first, second in pairwise([*order, Verdict.NO_KEY_MATERIAL]))


@bounded()
@given(verdicts=st.lists(st.sampled_from(Verdict)))
def test_the_best_verdict_is_the_first_in_rank_and_none_of_none(verdicts: list[Verdict]) -> None:
    expected = next((verdict for verdict in Verdict if verdict in verdicts), None)
    assert best(verdicts) is expected


def test_every_reason_for_a_miss_has_its_advice() -> None:
    assert set(MISS_ADVICE) == set(MissCode)
    assert all(advice.endswith(".") for advice in MISS_ADVICE.values())
