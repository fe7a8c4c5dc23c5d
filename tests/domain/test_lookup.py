"""Which keys answer a lookup, in which order, and why none does (DESIGN 2.5)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.codec import decode, from_us, to_us
from keycache.domain.entry import Defect, Entry, Origin, Protocol, Sighting, Trust
from keycache.domain.lookup import (
    DEFAULT_FILTER,
    ORIGINS,
    Answer,
    LookupFilter,
    MissCode,
    Row,
    Served,
    choose,
    ready_origin,
    serve_ready,
    timeouts_us,
)
from keycache.domain.names import Revision
from keycache.domain.settings import Timeouts
from keycache.store.rows import ready_row, row
from keycache.v1 import entry_pb2
from support.entries import T0, facts_of, fingerprint_of, make_entry, make_sighting
from support.properties import bounded

US, HOUR, DAY = timedelta(microseconds=1), timedelta(hours=1), timedelta(days=1)
BOB = "bob@example.org"
EVERYTHING = LookupFilter(trusts=frozenset(Trust))


def rows_of(*entries: Entry) -> list[Row]:
    """As a replica answers for each address of the entries."""
    return [row(address.text, facts_of(entry), Revision(1)) for entry in entries for address in entry.key.addresses]


def asked(
    *entries: Entry,
    address: str = BOB,
    accept: LookupFilter = DEFAULT_FILTER,
    timeouts: Timeouts | None = None,
    now: datetime = T0,
    blocked: Sequence[int] = (),
) -> Answer:
    texts = {fingerprint_of(number, protocol).text for number in blocked for protocol in Protocol}
    return choose(
        rows_of(*entries),
        address=address,
        accept=accept,
        timeouts=timeouts_us(timeouts or Timeouts()),
        now=to_us(now),
        blocked=texts.__contains__ if texts else None,
    )


def numbers(answer: Answer) -> list[int]:
    """The keys of the answer by the number they were made from."""
    known = {fingerprint_of(number, protocol).text: number for number in range(20) for protocol in Protocol}
    return [known[found.row.fingerprint] for found in answer.keys]


def bobs(number: int, *sightings: Sighting, **key) -> Entry:
    return make_entry(number, *sightings, addresses=key.pop("addresses", (BOB,)), **key)


# one key
def test_a_key_is_answered_with_the_sighting_that_lasts_longest() -> None:
    harvested = make_sighting(cached_at=T0 - 9 * DAY, refreshed_at=T0 - DAY)
    answer = asked(bobs(1, harvested, make_sighting(Origin.LOOKED_UP)))
    (found,) = answer.keys
    assert answer.miss is None
    assert (found.origin, from_us(found.cached_at), from_us(found.refreshed_at), from_us(found.expires_at)) == (
        Origin.HARVESTED,
        T0 - 9 * DAY,
        T0 - DAY,
        T0 + 499 * DAY,
    )


@pytest.mark.parametrize("origin", Origin)
def test_a_key_is_served_one_microsecond_before_its_timeout_and_not_at_the_instant_of_it(origin: Origin) -> None:
    entry = bobs(1, make_sighting(origin))
    end = T0 + Timeouts().of(origin)
    assert numbers(asked(entry, now=end - US)) == [1]
    assert asked(entry, now=end) == Answer((), MissCode.EXPIRED)


def test_a_timeout_with_a_fraction_of_a_second_counts_to_the_microsecond() -> None:
    timeouts = Timeouts(harvested=HOUR + timedelta(milliseconds=700))
    end = T0 + timeouts.harvested
    assert numbers(asked(bobs(1), timeouts=timeouts, now=end - US)) == [1]
    assert asked(bobs(1), timeouts=timeouts, now=end).miss is MissCode.EXPIRED


def test_a_key_is_served_within_its_own_validity_both_ends_included() -> None:
    entry = bobs(1, not_before=T0, not_after=T0 + DAY)
    assert [asked(entry, now=T0 + span).miss for span in (-US, timedelta(), DAY, DAY + US)] == [
        MissCode.UNUSABLE,
        None,
        None,
        MissCode.UNUSABLE,
    ]


MISSES = {
    "expired": (bobs(1, make_sighting(cached_at=T0 - 500 * DAY)), {}, MissCode.EXPIRED),
    "revoked": (bobs(1, defect=Defect.REVOKED), {}, MissCode.UNUSABLE),
    "without an encryption key": (bobs(1, defect=Defect.NO_ENCRYPTION_KEY), {}, MissCode.UNUSABLE),
    "no longer valid": (bobs(1, not_after=T0 - US), {}, MissCode.UNUSABLE),
    "not yet valid": (bobs(1, not_before=T0 + US), {}, MissCode.UNUSABLE),
    "held": (bobs(1, trust=Trust.HELD), {}, MissCode.HELD),
    "of another protocol": (bobs(1), {"accept": LookupFilter(protocols=frozenset({Protocol.OPENPGP}))}, MissCode.FILTERED),
    "of another origin": (bobs(1), {"accept": LookupFilter(origins=frozenset({Origin.IMPORTED}))}, MissCode.FILTERED),
    "of another trust": (bobs(1), {"accept": LookupFilter(trusts=frozenset({Trust.BOUND}))}, MissCode.FILTERED),
    "blocked": (bobs(1), {"blocked": (1,)}, MissCode.BLOCKED),
}


@pytest.mark.parametrize("why", MISSES)
def test_each_reason_to_withhold_a_key_is_told(why: str) -> None:
    entry, how, code = MISSES[why]
    assert asked(entry, **how) == Answer((), code)


def test_no_rows_are_not_found() -> None:
    assert asked() == Answer((), MissCode.NOT_FOUND)


@pytest.mark.parametrize("why", [why for why in MISSES if not why.startswith("of another")])
@pytest.mark.parametrize("bad_first", [True, False])
def test_a_bad_key_never_hides_a_good_one_of_the_same_address(why: str, bad_first: bool) -> None:
    bad, how, _ = MISSES[why]
    good = bobs(2, make_sighting(cached_at=T0 - 400 * DAY))
    entries = (bad, good) if bad_first else (good, bad)
    answer = asked(*entries, **how)
    assert (numbers(answer), answer.miss) == ([2], None)


@pytest.mark.parametrize(
    ("first", "second"), list(itertools.combinations([why for why, (_, how, _) in MISSES.items() if not how], 2))
)
def test_of_several_reasons_the_most_telling_one_is_told_whatever_the_order(first: str, second: str) -> None:
    (a, _, code_a), (b, _, code_b) = MISSES[first], MISSES[second]
    both = asked(a, b)
    assert both == asked(b, a)
    assert both.miss is max((code_a, code_b), key=list(MissCode).index)


def test_a_held_key_is_served_to_who_accepts_it() -> None:
    assert numbers(asked(bobs(1, trust=Trust.HELD), accept=EVERYTHING)) == [1]


def test_an_origin_counts_by_its_own_sighting() -> None:
    """A key harvested long ago and looked up lately is no looked-up key any more once that sighting has expired."""
    entry = bobs(1, make_sighting(), make_sighting(Origin.LOOKED_UP))
    looked_up = LookupFilter(origins=frozenset({Origin.LOOKED_UP}))
    (found,) = asked(entry, accept=looked_up).keys
    assert (found.origin, from_us(found.expires_at)) == (Origin.LOOKED_UP, T0 + DAY)
    assert asked(entry, accept=looked_up, now=T0 + DAY).miss is MissCode.EXPIRED
    assert numbers(asked(entry, now=T0 + DAY)) == [1]


# order
@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"addresses": [BOB]}, {"addresses": ["BOB@example.org"], "evidence_at": T0}),  # the exact address before the newest
        (
            {"addresses": ["BOB@example.org"], "trust": Trust.ANCHORED},
            {"addresses": [BOB], "trust": Trust.BOUND},
        ),  # trust before it
        ({"trust": Trust.ANCHORED}, {"trust": Trust.BOUND, "evidence_at": T0}),
        ({"trust": Trust.BOUND}, {"trust": Trust.HELD, "evidence_at": T0}),
        ({"evidence_at": T0}, {"evidence_at": T0 - US}),
        ({"evidence_at": T0}, {}),
    ],
)
def test_the_best_key_comes_first(better: dict, worse: dict) -> None:
    assert numbers(asked(bobs(1, **better), bobs(2, **worse), accept=EVERYTHING)) == [1, 2]
    assert numbers(asked(bobs(2, **better), bobs(1, **worse), accept=EVERYTHING)) == [2, 1]


def test_of_equally_shown_keys_the_one_refreshed_last_comes_first() -> None:
    newer, older = make_sighting(cached_at=T0 - HOUR), make_sighting(cached_at=T0 - DAY)
    assert numbers(asked(bobs(1, older), bobs(2, newer))) == [2, 1]


def test_keys_that_are_alike_have_a_fixed_order() -> None:
    entries = [bobs(number) for number in range(6)]
    orders = {tuple(numbers(asked(*order))) for order in itertools.permutations(entries)}
    assert len(orders) == 1


# the whole of it, against a model that is slow and obviously right
def model(
    entries: Sequence[Entry],
    address: str,
    accept: LookupFilter,
    timeouts: Timeouts,
    now: datetime,
    blocked: Callable[[str], bool],
) -> tuple[list[tuple[str, Origin, datetime]], bool]:
    """Fingerprint, origin and expiry of what is served, best first; and whether there was anything to be withheld."""
    served = []
    for entry in entries:
        key = entry.key
        for written in key.addresses:
            counting = [
                one
                for one in entry.sightings
                if one.origin in accept.origins and now - one.refreshed_at < timeouts.of(one.origin)
            ]
            valid = (key.not_before is None or key.not_before <= now) and (key.not_after is None or now <= key.not_after)
            accepted = key.trust in accept.trusts and key.protocol in accept.protocols
            if not (counting and valid and accepted) or key.defect is not None or blocked(key.fingerprint.text):
                continue
            longest = counting[0]
            for one in counting[1:]:
                if one.refreshed_at + timeouts.of(one.origin) > longest.refreshed_at + timeouts.of(longest.origin):
                    longest = one
            evidence = key.evidence_at or datetime(1970, 1, 1, tzinfo=UTC)
            order = (
                [Trust.ANCHORED, Trust.BOUND, Trust.HELD].index(key.trust),
                written.text != address,
                -to_us(evidence),
                -to_us(longest.refreshed_at),
                key.fingerprint.text,
            )
            expires = longest.refreshed_at + timeouts.of(longest.origin)
            served.append((order, (key.fingerprint.text, longest.origin, expires)))
    served.sort(key=lambda one: one[0])
    return [answer for _, answer in served], bool(entries)


ages = st.sampled_from([timedelta(), US, HOUR - US, HOUR, 3 * HOUR, DAY, 30 * DAY, -HOUR])
some_timeouts = st.sampled_from([HOUR, 3 * HOUR, DAY, 999 * DAY])


@st.composite
def some_entries(draw: st.DrawFn) -> list[Entry]:
    made = []
    for number in range(draw(st.integers(0, 5))):
        origins = draw(st.sets(st.sampled_from(Origin), min_size=1))
        made.append(
            bobs(
                number,
                *(make_sighting(origin, cached_at=T0 - draw(ages)) for origin in Origin if origin in origins),
                addresses=[draw(st.sampled_from([BOB, "Bob@example.org"]))],
                trust=draw(st.sampled_from(Trust)),
                protocol=draw(st.sampled_from(Protocol)),
                defect=draw(st.sampled_from([None, None, None, *Defect])),
                not_before=draw(st.sampled_from([None, T0 - DAY, T0, T0 + US])),
                not_after=draw(st.sampled_from([None, T0 + DAY, T0, T0 - US])),
                evidence_at=draw(st.sampled_from([None, T0, T0 - DAY])),
            )
        )
    return made


def subsets(kind: type) -> st.SearchStrategy[frozenset]:
    return st.frozensets(st.sampled_from(kind), min_size=1) | st.just(frozenset(kind))


@bounded(120)
@given(
    entries=some_entries(),
    accept=st.builds(LookupFilter, protocols=subsets(Protocol), origins=subsets(Origin), trusts=subsets(Trust)),
    timeouts=st.builds(Timeouts, harvested=some_timeouts, looked_up=some_timeouts, imported=some_timeouts),
    blocked=st.sets(st.integers(0, 5), max_size=2),
)
def test_the_answer_agrees_with_a_model_that_is_obviously_right(entries, accept, timeouts, blocked) -> None:
    answer = asked(*entries, accept=accept, timeouts=timeouts, blocked=tuple(blocked))
    texts = {fingerprint_of(number, protocol).text for number in blocked for protocol in Protocol}
    served, anything = model(entries, BOB, accept, timeouts, T0, texts.__contains__)
    assert [(found.row.fingerprint, found.origin, from_us(found.expires_at)) for found in answer.keys] == served
    assert (answer.miss is None) == bool(served)
    assert (answer.miss is MissCode.NOT_FOUND) == (not anything)


# the short way
def served(
    *entries: Entry, timeouts: Timeouts | None = None, now: datetime = T0, blocked: Sequence[int] = (), shuffle: int = 1
) -> Served | Answer | None:
    """The answer of the short way, between those to two other addresses."""
    texts = {fingerprint_of(number, protocol).text for number in blocked for protocol in Protocol}
    rows = [ready_row(1, facts_of(entry)) for entry in entries for _ in entry.key.addresses]
    other = make_entry(19)
    before, answer, after = serve_ready(
        [ready_row(0, facts_of(other)), *rows][::shuffle],
        3,
        timeouts=timeouts_us(timeouts or Timeouts()),
        now=to_us(now),
        blocked=(lambda key: decode(entry_pb2.Key, key).fingerprint in texts) if texts else None,
    )
    assert after == Answer((), MissCode.NOT_FOUND), "no row names this one"
    assert before is None or (isinstance(before, tuple) and before[0] == facts_of(other).key)
    return answer


@pytest.mark.parametrize("why", [why for why, (_, how, _) in MISSES.items() if "accept" not in how])
def test_the_short_way_serves_no_key_that_must_be_withheld_and_leaves_the_reason_to_the_judge(why: str) -> None:
    entry, how, _ = MISSES[why]
    assert served(entry, **how) is None


@pytest.mark.parametrize("origin", Origin)
def test_the_short_way_serves_a_key_to_the_last_microsecond_of_its_origins_timeout(origin: Origin) -> None:
    timeouts = Timeouts(harvested=3 * HOUR, looked_up=DAY, imported=30 * DAY)
    entry = bobs(1, make_sighting(origin, cached_at=T0 - HOUR, refreshed_at=T0))
    end = T0 + timeouts.of(origin)
    answer = served(entry, timeouts=timeouts, now=end - US)
    assert isinstance(answer, tuple)
    assert answer[2] == to_us(end)
    assert served(entry, timeouts=timeouts, now=end) is None


def test_the_short_way_serves_a_key_within_its_own_validity_both_ends_included() -> None:
    entry = bobs(1, not_before=T0, not_after=T0 + DAY)
    found = [served(entry, now=T0 + span) for span in (-US, timedelta(), DAY, DAY + US)]
    assert [one is not None for one in found] == [False, True, True, False]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("shuffle", [1, -1])
def test_the_short_way_leaves_several_keys_of_one_address_to_be_ranked(count: int, shuffle: int) -> None:
    assert served(*(bobs(number) for number in range(count)), shuffle=shuffle) is None
    assert served(bobs(1, addresses=[BOB, "Bob@example.org"]), shuffle=shuffle) is None


def test_only_an_entry_with_one_sighting_and_without_defect_or_doubt_is_ready() -> None:
    def ready(*sightings: Sighting, **key: Any) -> Origin | None:
        number = ready_origin(facts_of(bobs(1, *sightings, **key)))
        return None if number is None else ORIGINS[number]

    sighting = make_sighting()
    assert [ready(make_sighting(origin)) for origin in Origin] == list(Origin)
    assert ready(sighting, trust=Trust.BOUND) is Origin.HARVESTED
    assert ready(sighting, trust=Trust.HELD) is None
    assert [ready(sighting, defect=defect) for defect in Defect] == [None] * len(Defect)
    assert ready(sighting, make_sighting(Origin.IMPORTED)) is None


@bounded(200)
@given(
    entries=some_entries(),
    timeouts=st.builds(Timeouts, harvested=some_timeouts, looked_up=some_timeouts, imported=some_timeouts),
    blocked=st.sets(st.integers(0, 5), max_size=2),
)
def test_the_short_way_never_says_anything_but_what_the_judge_says(entries, timeouts, blocked) -> None:
    answer = served(*entries, timeouts=timeouts, blocked=tuple(blocked))
    judged = asked(*entries, timeouts=timeouts, blocked=tuple(blocked))
    if isinstance(answer, tuple):
        (found,) = judged.keys
        assert (answer[0], answer[2]) == (found.row.key, found.expires_at)
    elif answer is not None:
        assert answer == judged
    ready = len(entries) == 1 and ready_origin(facts_of(entries[0])) is not None
    assert isinstance(answer, tuple) == (ready and bool(judged.keys))
