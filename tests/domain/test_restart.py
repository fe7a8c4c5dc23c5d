"""Whether a node may go on with the log it finds: every combination of what it holds and what it finds (DESIGN 4)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.domain.entry import Protocol
from keycache.domain.log import ABSENT, SETTINGS, Record, Survey
from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.ports import Cursor
from keycache.domain.purge import LONG_STOP, Candidate
from keycache.domain.restart import HINT, Action, Known, RestartReport, check
from keycache.domain.settings import Settings
from keycache.domain.skew import TRUSTED, ClockVerdict, unwitnessed
from support.entries import T0, fingerprint_of, make_sighting
from support.properties import bounded

DAY = timedelta(days=1)
OURS, THEIRS = ClusterIdentity("ours"), ClusterIdentity("theirs")
OWN, OTHER, ENTRY = "witnesses/node-1", "witnesses/node-2", "entries/smime/aa"
CURSOR = Cursor(identity=OURS, revision=Revision(50))
SUSPECT = ClockVerdict(trusted=False, reason="The clock was set.")
TIPS = {OWN: Revision(40), OTHER: Revision(41), SETTINGS: Revision(3), ENTRY: Revision(49)}

FREE, TAKES = {Action.FOUND, Action.RELIST}, {Action.FOUND, Action.RELIST, Action.RESUME}


def over(number: int, age: timedelta = 500 * DAY) -> Candidate:
    return Candidate(
        protocol=Protocol.SMIME,
        fingerprint=fingerprint_of(number),
        mod_revision=Revision(1),
        sightings=(make_sighting(cached_at=T0 - age),),
    )


def known(**fields: object) -> Known:
    """Ten entries, none of them expired, of our log at revision 50."""
    whole = {"cursor": CURSOR, "settings": Settings(), "total": 10, "expired": (), "decisions": 0, "tips": TIPS, "witness": OWN}
    return Known(**{**whole, **fields})  # type: ignore[arg-type]


def found(
    revisions: Mapping[str, int] | None = None,
    *,
    identity: ClusterIdentity | None = OURS,
    head: int = 60,
    compacted: bool = False,
) -> Survey:
    """As this node left the log, ten revisions later. `revisions`: of the records asked for; 0: absent."""
    seen = {**TIPS, **(revisions or {})}
    records = {key: Record(key=key, value=b"", mod_revision=Revision(at)) if at else None for key, at in seen.items()}
    return Survey(identity=identity, head=Revision(head), compacted=compacted, records=records)


def judged(node: Known, survey: Survey | None, **fields: object) -> RestartReport:
    return check(
        **{"known": node, "survey": survey, "problem": "no answer", "clock": TRUSTED, "now": T0, "witnessed": T0, **fields}
    )  # type: ignore[arg-type]


def test_a_log_that_cannot_be_read_says_nothing() -> None:
    assert judged(known(), None) == RestartReport(
        action=Action.SERVE_ONLY,
        reason="no answer",
        hint="",
        kept=10,
        expired=0,
        held_back=0,
        held_reason="",
        settings=Settings(),
        replica_identity=OURS,
        replica_revision=Revision(50),
        log_identity=None,
        log_revision=ABSENT,
    )


def test_our_log_that_went_forward_is_followed() -> None:
    report = judged(known(), found({ENTRY: 55, OWN: 58}))
    assert (report.action, report.reason, report.hint) == (Action.RESUME, "", "")
    assert (report.log_identity, report.log_revision) == (OURS, 60)


def test_our_log_that_holds_not_all_changes_any_more_is_listed() -> None:
    assert judged(known(), found(compacted=True)).action is Action.RELIST


WENT_BACK = {
    "the head is before our cursor": (known(), found(head=49), "it is at revision 49, and this node has seen 50"),
    "an entry is older than ours, though the head has passed us": (
        known(),
        found({ENTRY: 20}),
        "its record entries/smime/aa is",
    ),
    "the settings are older than ours": (known(), found({SETTINGS: 2}), "its record settings is of revision 2"),
    "another node's witness is older than ours": (known(), found({OTHER: 40}), "witnesses/node-2"),
    "our own witness is older": (known(), found({OWN: 39}), "witnesses/node-1"),
    "our own witness is gone": (known(), found({OWN: 0}), "what this node wrote there is missing"),
    "a comparison of the whole missed entries": (known(missing=3), found(), "lacks 3 unexpired keys"),
}


@pytest.mark.parametrize(("node", "survey", "reason"), WENT_BACK.values(), ids=WENT_BACK)
@pytest.mark.parametrize("compacted", [False, True])
def test_our_log_that_went_back_in_time_is_refused(node: Known, survey: Survey, reason: str, compacted: bool) -> None:
    report = judged(node, replace(survey, compacted=compacted))
    assert report.action is Action.REFUSE
    assert report.reason.startswith("The log went back in time: ")
    assert reason in report.reason
    assert report.reason.endswith("This node holds 10 keys that would be lost.")


@pytest.mark.parametrize(
    "survey",
    [
        found({ENTRY: 0}),  # deleted or purged
        found({OTHER: 0}),  # its node left the cluster
        found({SETTINGS: 0}),  # damage, but none that a listing makes worse: nothing is purged without settings
        found(head=50),
        found({ENTRY: 60, OWN: 60, OTHER: 60, SETTINGS: 60}),
    ],
)
def test_what_may_change_in_a_log_that_only_goes_forward_is_no_sign_of_the_contrary(survey: Survey) -> None:
    assert judged(known(), survey).action is Action.RESUME


def test_a_witness_that_this_node_never_saw_may_be_absent() -> None:
    tips = {key: revision for key, revision in TIPS.items() if key != OWN}
    assert judged(known(tips=tips), found({OWN: 0})).action is Action.RESUME


def test_another_log_is_refused_with_both_ways_on() -> None:
    report = judged(known(), found(identity=THEIRS))
    assert (report.action, report.hint) == (Action.REFUSE, HINT)
    assert report.reason == (
        "This node was filled from log ours, and what it finds is log theirs. This node holds 10 keys that would be lost."
    )
    assert "'keycache cluster resolve --merge', which brings every unexpired key" in HINT
    assert "'keycache cluster resolve --discard', which forgets" in HINT


def test_an_emptied_log_is_refused() -> None:
    report = judged(known(), found(dict.fromkeys(TIPS, 0), identity=None, head=1))
    assert (report.action, report.log_identity) == (Action.REFUSE, None)
    assert "what it finds is nobody's yet." in report.reason


@pytest.mark.parametrize(("identity", "action"), [(None, Action.FOUND), (THEIRS, Action.RELIST)])
def test_a_node_that_was_never_filled_founds_the_log_or_takes_it(identity: ClusterIdentity | None, action: Action) -> None:
    empty = known(cursor=None, settings=None, total=0, tips={})
    assert judged(empty, found(identity=identity)).action is action


@pytest.mark.parametrize(("identity", "action"), [(None, Action.FOUND), (THEIRS, Action.RELIST)])
def test_a_node_with_nothing_but_what_is_surely_expired_has_nothing_to_lose(
    identity: ClusterIdentity | None, action: Action
) -> None:
    leftovers = known(total=2, expired=(over(1), over(2)))
    report = judged(leftovers, found(identity=identity))
    assert (report.action, report.kept, report.expired, report.held_back) == (action, 0, 2, 0)


def test_decisions_of_administrators_are_not_lost_either() -> None:
    report = judged(known(total=0, decisions=2), found(identity=THEIRS))
    assert report.action is Action.REFUSE
    assert report.reason.endswith("This node holds 0 keys and 2 decisions on issuers and blocks that would be lost.")


HELD = {
    "the settings are unknown": (90, {"settings": None}, {}, 0, ""),
    "the clock is suspect": (90, {}, {"clock": SUSPECT}, 90, "The clock was set."),
    "nobody saw the time pass": (90, {}, {"witnessed": T0 - 2 * LONG_STOP}, 90, unwitnessed(T0, T0 - 2 * LONG_STOP)),
    "too many are expired at once": (150, {"total": 200}, {}, 150, "150 of 200 entries expired at once, more than 20%."),
}


@pytest.mark.parametrize(("number", "node", "circumstance", "held", "reason"), HELD.values(), ids=HELD)
def test_what_the_purger_may_not_remove_now_counts_as_something_to_lose(
    number: int, node: dict[str, object], circumstance: dict[str, object], held: int, reason: str
) -> None:
    """A wrong clock, or settings that cannot be read, must not make a node take its unexpired entries for leftovers."""
    leftovers = known(**{"total": number, "expired": tuple(over(one) for one in range(number)), **node})
    report = judged(leftovers, found(identity=None), **circumstance)
    assert (report.action, report.held_back) == (Action.REFUSE, held)
    assert report.held_reason.startswith(reason)


def test_the_report_counts_by_the_settings_that_were_known() -> None:
    """One of ten is expired, two more only by time that nobody saw pass."""
    leftovers = (over(1, 510 * DAY), over(2), over(3))
    report = judged(known(expired=leftovers), found(), witnessed=T0 - 5 * DAY)
    assert (report.kept, report.expired, report.held_back) == (7, 3, 2)
    assert report.held_reason == unwitnessed(T0, T0 - 5 * DAY)
    assert report.settings == Settings()


# The whole product
IDENTITIES = (None, OURS, THEIRS)
CURSORS = (None, CURSOR)
HOLDINGS = {"nothing": (0, 0), "expired": (0, 3), "unexpired": (3, 0), "both": (3, 3)}
HEADS = (1, 49, 50, 51)
SIGNS: dict[str, dict[str, int]] = {
    "none": {},
    "entry older": {ENTRY: 48},
    "settings older": {SETTINGS: 1},
    "witness gone": {OWN: 0},
    "all absent": dict.fromkeys(TIPS, 0),
    "all newer": dict.fromkeys(TIPS, 51),
}
CIRCUMSTANCES: dict[str, dict[str, object]] = {
    "well": {},
    "suspect": {"clock": SUSPECT},
    "asleep": {"witnessed": T0 - 100 * DAY},
}


def oracle(node: Known, survey: Survey, signs: str, *, loses: bool) -> Action:
    """The rules, written down once more in other words."""
    same = node.cursor is not None and survey.identity == node.cursor.identity
    back = survey.head < 50 or signs in {"entry older", "settings older", "witness gone", "all absent"} or node.missing > 0
    if same and not back:
        return Action.RELIST if survey.compacted else Action.RESUME
    if loses:
        return Action.REFUSE
    return Action.FOUND if survey.identity is None else Action.RELIST


def test_every_combination_is_judged_by_the_rules() -> None:
    seen = set()
    product = itertools.product(
        CURSORS, IDENTITIES, HOLDINGS.values(), (Settings(), None), HEADS, SIGNS, CIRCUMSTANCES, (False, True), (0, 2), (0, 1)
    )
    for cursor, identity, (kept, expired), settings, head, signs, circumstance, compacted, missing, decisions in product:
        candidates = tuple(over(number) for number in range(expired))
        node = known(
            cursor=cursor,
            total=kept + expired,
            expired=candidates if settings else (),
            settings=settings,
            missing=missing,
            decisions=decisions,
        )
        survey = found(SIGNS[signs], identity=identity, head=head, compacted=compacted)
        held = 0 if settings and circumstance == "well" else expired
        loses = bool(kept or held or decisions)
        report = judged(node, survey, **CIRCUMSTANCES[circumstance])
        assert report.action is oracle(node, survey, signs, loses=loses), (node, survey, circumstance)
        assert (report.hint == HINT) == (report.action is Action.REFUSE)
        assert report.kept + report.expired == kept + expired
        assert judged(node, None, **CIRCUMSTANCES[circumstance]).action is Action.SERVE_ONLY
        seen.add(report.action)
    assert seen == {Action.RESUME, Action.RELIST, Action.FOUND, Action.REFUSE}


keys = st.sampled_from([OWN, OTHER, SETTINGS, ENTRY, "entries/smime/bb"])
revisions = st.integers(1, 100).map(Revision)
nodes = st.builds(
    Known,
    cursor=st.none() | st.builds(Cursor, identity=st.sampled_from([OURS, THEIRS]), revision=revisions),
    settings=st.none() | st.just(Settings()),
    total=st.integers(1, 500),
    expired=st.just(()),
    decisions=st.integers(0, 2),
    tips=st.dictionaries(keys, revisions),
    witness=st.just(OWN),
    missing=st.integers(0, 1),
)


@st.composite
def surveys(draw: st.DrawFn) -> Survey:
    present = draw(st.dictionaries(keys, revisions))
    return Survey(
        identity=draw(st.sampled_from(IDENTITIES)),
        head=draw(revisions),
        compacted=draw(st.booleans()),
        records={key: Record(key=key, value=b"", mod_revision=at) for key, at in present.items()},
    )


@bounded(800)
@given(node=nodes, survey=surveys(), clock=st.sampled_from([TRUSTED, SUSPECT]), asleep=st.integers(0, 900))
def test_no_other_log_and_none_that_went_back_is_ever_taken_while_unexpired_entries_are_here(
    node: Known, survey: Survey, clock: ClockVerdict, asleep: int
) -> None:
    action = judged(node, survey, clock=clock, witnessed=T0 - asleep * DAY).action
    cursor = node.cursor
    older = any(
        record.mod_revision < node.tips[key]
        for key, record in survey.records.items()
        if key in node.tips and record is not None
    )
    if cursor is None or survey.identity != cursor.identity or survey.head < cursor.revision or older:
        assert action not in TAKES
    else:
        assert action not in {Action.FOUND, Action.SERVE_ONLY}


@bounded(500)
@given(node=nodes, survey=surveys())
def test_a_log_is_founded_only_where_there_is_none_and_nothing_is_here(node: Known, survey: Survey) -> None:
    for candidate in (node, replace(node, total=0), replace(node, total=0, decisions=0)):
        action = judged(candidate, survey).action
        if action is Action.FOUND:
            assert survey.identity is None
            assert (candidate.total, candidate.decisions) == (0, 0)
