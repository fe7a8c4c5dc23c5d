"""What becomes of an entry when its key is obtained again, or met by another copy: nothing is ever lost (DESIGN 2.7)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.domain.entry import (
    HISTORY_LIMIT,
    Change,
    Defect,
    Entry,
    HeldReason,
    Issuer,
    Key,
    Origin,
    Protocol,
    Sighting,
    Trust,
)
from keycache.domain.merge import Merged, join_addresses, join_entries, join_keys, join_sightings, learn, obtain
from keycache.domain.names import EmailAddress
from keycache.domain.retention import entry_expires_at, is_expired
from keycache.domain.settings import Timeouts
from keycache.domain.verdict import Verdict
from support.entries import T0, make_entry, make_key, make_sighting
from support.properties import bounded

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


MOMENTS = [T0 + n * HOUR for n in (-9000, -30, 0, 1, 24, 9000)]
moments = st.sampled_from(MOMENTS)
addresses = st.sampled_from([EmailAddress.parse(f"{name}@example.org") for name in ("a", "A", "b", "c")])
examinations = st.builds(
    lambda addresses, trust, held, issuer, revoked, evidence, capabilities, prefer: make_key(
        addresses=[address.text for address in addresses],
        trust=trust,
        held=held if trust is Trust.HELD else None,
        issuer=issuer,
        defect=Defect.REVOKED if revoked else None,
        evidence_at=evidence,
        capabilities=capabilities,
        prefer_encrypt=prefer,
    ),
    st.lists(addresses, max_size=2, unique=True),
    st.sampled_from(Trust),
    st.sampled_from(HeldReason),
    st.sampled_from([None, *(Issuer(id=name, name="CN", certificate=der) for name in ("aa", "bb") for der in (b"", b"c"))]),
    st.booleans(),
    st.sampled_from([None, *MOMENTS]),
    st.sampled_from([(), ("1.2.3",)]),
    st.booleans(),
)
"""Examinations of one key: what the material itself says is the same in all, the rest may differ."""


def sightings_of(origin: Origin) -> st.SearchStrategy[Sighting]:
    return st.builds(
        lambda first, last, source: make_sighting(
            origin, cached_at=min(first, last), refreshed_at=max(first, last), source=source
        ),
        moments,
        moments,
        st.sampled_from(["a", "b"]),
    )


entries = st.builds(
    lambda key, chosen: Entry(key=key, sightings=tuple(one for one in chosen if one is not None) or (make_sighting(),)),
    examinations,
    st.tuples(*(st.none() | sightings_of(origin) for origin in Origin)),
)
keys_of_one = st.tuples(examinations, examinations, examinations)
entries_of_one = st.tuples(entries, entries, entries)


def facts(key: Key) -> tuple:
    """What decides whether, when and for whom a key is served."""
    return (
        key.fingerprint,
        frozenset(key.addresses),
        key.trust,
        key.defect,
        key.not_before,
        key.not_after,
        key.evidence_at,
        key.issuer,
    )


def entry_facts(entry: Entry) -> tuple:
    return (*facts(entry.key), entry.sightings)


# join
@bounded()
@given(three=keys_of_one)
def test_joining_keys_is_commutative_associative_and_idempotent_in_what_decides_serving(three) -> None:
    a, b, _ = three
    assert facts(join_keys(a, b)) == facts(join_keys(b, a))
    assert facts(join_keys(a, a)) == facts(replace(a, addresses=join_addresses(a.addresses, ())))
    without_issuer = [replace(key, issuer=None) for key in three]
    x, y, z = without_issuer
    assert facts(join_keys(join_keys(x, y), z)) == facts(join_keys(x, join_keys(y, z)))
    assert facts(join_keys(join_keys(a, b), b)) == facts(join_keys(a, b))


@bounded()
@given(three=keys_of_one)
def test_joining_keys_never_loses_an_address_a_revocation_trust_or_the_newest_evidence(three) -> None:
    a, b, _ = three
    joined = join_keys(a, b)
    assert {*joined.addresses} == {*a.addresses, *b.addresses}
    assert (joined.defect is Defect.REVOKED) == (Defect.REVOKED in (a.defect, b.defect))
    assert joined.evidence_at == max((m for m in (a.evidence_at, b.evidence_at) if m is not None), default=None)
    order = [Trust.HELD, Trust.BOUND, Trust.ANCHORED]
    assert joined.trust is order[max(order.index(a.trust), order.index(b.trust))]
    assert joined.held is None or joined.trust is Trust.HELD


@bounded()
@given(three=entries_of_one)
def test_joining_entries_is_commutative_associative_and_idempotent_in_what_decides_serving(three) -> None:
    a, b, c = (replace(entry, key=replace(entry.key, issuer=None)) for entry in three)
    assert entry_facts(join_entries(a, b)) == entry_facts(join_entries(b, a))
    assert entry_facts(join_entries(join_entries(a, b), c)) == entry_facts(join_entries(a, join_entries(b, c)))
    assert entry_facts(join_entries(join_entries(a, b), b)) == entry_facts(join_entries(a, b))
    assert join_entries(join_entries(a, b), b).history == join_entries(a, b).history


@bounded()
@given(three=entries_of_one)
def test_joining_entries_moves_no_time_stamp_backwards_and_no_first_time_forwards(three) -> None:
    a, b, _ = three
    joined = join_entries(a, b)
    for origin in Origin:
        both = [s for s in (a.sighting(origin), b.sighting(origin)) if s is not None]
        merged = joined.sighting(origin)
        if not both:
            assert merged is None
            continue
        assert merged is not None
        assert merged.cached_at == min(s.cached_at for s in both)
        assert merged.refreshed_at == max(s.refreshed_at for s in both)
        assert merged.source in {s.source for s in both if s.refreshed_at == merged.refreshed_at}
    timeouts = Timeouts()
    assert entry_expires_at(joined, timeouts) == max(entry_expires_at(a, timeouts), entry_expires_at(b, timeouts))


@bounded()
@given(first=st.lists(addresses, max_size=4), second=st.lists(addresses, max_size=4))
def test_addresses_join_in_one_order_each_once(first, second) -> None:
    joined = join_addresses(first, second)
    assert joined == join_addresses(second, first) == join_addresses(joined, joined)
    assert {*joined} == {*first, *second}
    assert len({*joined}) == len(joined)


@bounded()
@given(of_origin=st.sampled_from(Origin).flatmap(lambda o: st.lists(sightings_of(o), min_size=1, max_size=4)), data=st.data())
def test_sightings_of_one_origin_join_alike_in_any_order(of_origin, data) -> None:
    other = data.draw(st.permutations(of_origin))
    assert join_sightings(of_origin, ()) == join_sightings(other, ())
    assert len(join_sightings(of_origin, other)) == 1


def test_history_joins_by_time_and_keeps_the_newest_lines() -> None:
    ours = tuple(Change(at=T0 + n * HOUR, what="REFRESHED", by="a") for n in range(HISTORY_LIMIT))
    theirs = (Change(at=T0 + DAY * 9, what="REVOKED", by="b"), ours[3])
    joined = join_entries(make_entry(1, history=ours), make_entry(1, history=theirs))
    assert joined.history == (*ours[1:], theirs[0])


def test_names_of_one_material_join_and_do_not_flicker_with_the_address_a_mail_came_from() -> None:
    known, seen = make_key(names=("A <a@x.example>", "B <b@x.example>")), make_key(names=("B <b@x.example>",))
    assert join_keys(known, seen).names == known.names
    assert join_keys(seen, known).names == ("B <b@x.example>", "A <a@x.example>")


def test_a_merged_openpgp_key_has_the_addresses_that_its_merged_material_binds() -> None:
    """One copy brought the revocation of a user ID: its address must not come back by joining."""
    known = make_key(protocol=Protocol.OPENPGP, addresses=["a@x.example", "b@x.example"])
    merged = replace(make_key(protocol=Protocol.OPENPGP, addresses=["a@x.example"]), material=b"merged")
    assert [address.text for address in join_keys(known, merged).addresses] == ["a@x.example"]


@pytest.mark.parametrize("flip", [False, True])
def test_the_issuer_whose_certificate_came_along_is_kept_whichever_mail_comes_last(flip: bool) -> None:
    bare, whole = Issuer(id="ff", name="CN=A"), Issuer(id="aa", name="CN=A", certificate=b"der")
    pair = [make_key(trust=Trust.HELD, issuer=issuer) for issuer in (bare, whole)]
    first, second = reversed(pair) if flip else pair
    assert join_keys(first, second).issuer == whole


@pytest.mark.parametrize("flip", [False, True])
def test_the_issuer_by_whom_a_key_is_trusted_most_is_its_issuer(flip: bool) -> None:
    held = make_key(trust=Trust.HELD, issuer=Issuer(id="ff", name="CN=A", certificate=b"der"))
    anchored = make_key(trust=Trust.ANCHORED, issuer=Issuer(id="aa", name="CN=Root"))
    first, second = (anchored, held) if flip else (held, anchored)
    assert join_keys(first, second).issuer == anchored.issuer


# obtain
def seen_at(moment: datetime, origin: Origin = Origin.HARVESTED, source: str = "<2@example.org>"):
    return make_sighting(origin, cached_at=moment, source=source)


def test_a_new_key_is_cached_with_its_first_line_of_history() -> None:
    sighting = seen_at(T0)
    assert obtain(None, make_key(), sighting, Timeouts()) == Merged(
        verdict=Verdict.CACHED,
        entry=Entry(
            key=make_key(), sightings=(sighting,), history=(Change(at=T0, what="CACHED", by="HARVESTED <2@example.org>"),)
        ),
    )


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [(HeldReason.UNKNOWN_ISSUER, Verdict.UNTRUSTED_ISSUER), (HeldReason.SELF_SIGNED, Verdict.SELF_SIGNED)],
)
def test_a_held_key_is_kept_under_the_verdict_of_its_reason_also_when_seen_again(reason, verdict) -> None:
    key = make_key(trust=Trust.HELD, held=reason)
    first = obtain(None, key, seen_at(T0), Timeouts())
    assert first.verdict is verdict
    assert first.entry is not None
    assert obtain(first.entry, key, seen_at(T0 + HOUR), Timeouts()) == Merged(verdict=verdict, entry=None)
    assert obtain(first.entry, key, seen_at(T0 + DAY), Timeouts()).verdict is verdict


def test_a_fresh_known_key_costs_no_write_until_a_refresh_is_due() -> None:
    entry = make_entry()
    for hours in (0, 1, 23):
        assert obtain(entry, make_key(), seen_at(T0 + hours * HOUR), Timeouts()) == Merged(
            verdict=Verdict.ALREADY_FRESH, entry=None
        )
    refreshed = obtain(entry, make_key(), seen_at(T0 + DAY), Timeouts())
    assert refreshed.verdict is Verdict.REFRESHED
    assert refreshed.entry == replace(
        entry,
        sightings=(replace(seen_at(T0 + DAY), cached_at=T0),),
        history=(Change(at=T0 + DAY, what="REFRESHED", by="HARVESTED <2@example.org>"),),
    )


@pytest.mark.parametrize(
    "shown",
    [
        {"evidence_at": T0 + HOUR},
        {"capabilities": ("1.2.3",)},
        {"prefer_encrypt": True},
        {"evidence_at": T0 + HOUR, "capabilities": ("9.9",), "prefer_encrypt": True},
    ],
)
def test_two_mail_programs_of_one_sender_do_not_cost_a_write_a_mail(shown: dict) -> None:
    """DESIGN 3: what differs from program to program is taken over with the next refresh."""
    entry = make_entry(1, capabilities=("1.2.840.113549.3.7",), evidence_at=T0)
    seen = make_key(**{"evidence_at": T0, **shown})
    assert obtain(entry, seen, seen_at(T0 + HOUR), Timeouts()).entry is None
    later = obtain(entry, seen, seen_at(T0 + DAY), Timeouts()).entry
    assert later is not None
    assert later.key == replace(seen, capabilities=seen.capabilities or entry.key.capabilities)


@pytest.mark.parametrize(
    ("known", "seen", "what"),
    [
        ({}, {"addresses": ("other@example.org",)}, "ADDRESS_ADDED"),
        ({"trust": Trust.HELD}, {}, "RELEASED"),
        ({}, {"names": ("CN=New",)}, "UPDATED"),
    ],
)
def test_what_changes_the_key_is_written_at_once_and_named_in_the_history(known: dict, seen: dict, what: str) -> None:
    merged = obtain(make_entry(1, **known), make_key(**seen), seen_at(T0 + HOUR), Timeouts())
    assert merged.verdict is Verdict.REFRESHED
    assert merged.entry is not None
    assert merged.entry.history[-1].what == what
    if what == "ADDRESS_ADDED":
        assert [a.text for a in merged.entry.key.addresses] == ["other@example.org", "user1@example.org"]


def test_a_second_origin_adds_its_own_sighting_and_leaves_the_first_alone() -> None:
    entry = make_entry()
    looked_up = seen_at(T0 + HOUR, Origin.LOOKED_UP, "keys.example.org")
    merged = obtain(entry, make_key(), looked_up, Timeouts())
    assert merged.entry is not None
    assert merged.entry.sightings == (*entry.sightings, looked_up)
    assert merged.entry.history[-1] == Change(at=T0 + HOUR, what="CACHED", by="LOOKED_UP keys.example.org")
    assert obtain(merged.entry, make_key(), seen_at(T0 + 3 * HOUR, Origin.LOOKED_UP), Timeouts()).verdict is Verdict.REFRESHED


def test_an_expired_entry_that_was_not_purged_yet_is_cached_anew_and_remembers_its_first_time() -> None:
    merged = obtain(make_entry(), make_key(), seen_at(T0 + 500 * DAY), Timeouts())
    assert merged.verdict is Verdict.CACHED
    assert merged.entry is not None
    assert merged.entry.sightings == (replace(seen_at(T0 + 500 * DAY), cached_at=T0),)


def test_an_older_copy_without_the_revocation_does_not_undo_it() -> None:
    revoked = make_entry(1, defect=Defect.REVOKED)
    merged = obtain(revoked, make_key(), seen_at(T0 + DAY), Timeouts())
    assert merged.verdict is Verdict.REVOCATION_LEARNED
    assert merged.entry is not None
    assert merged.entry.key.defect is Defect.REVOKED


@bounded()
@given(three=entries_of_one, moment=moments, origin=st.sampled_from(Origin))
def test_obtaining_a_key_never_expires_its_entry_earlier_nor_changes_another_origin(three, moment, origin) -> None:
    entry, other, _ = three
    before = entry.sighting(origin)
    sighting = seen_at(moment, origin)
    merged = obtain(entry, other.key, sighting, Timeouts())
    after = merged.entry or entry
    assert entry_expires_at(after, Timeouts()) >= entry_expires_at(entry, Timeouts())
    assert [s for s in after.sightings if s.origin is not origin] == [s for s in entry.sightings if s.origin is not origin]
    now = after.sighting(origin)
    assert now is not None
    assert now.cached_at == (moment if before is None else min(before.cached_at, moment if merged.entry else before.cached_at))
    assert now.refreshed_at >= (moment if before is None else before.refreshed_at)
    assert not is_expired(after, Timeouts(), moment) or merged.entry is None or now.refreshed_at > moment


@bounded()
@given(moments=st.lists(moments, min_size=1, max_size=50))
def test_history_is_bounded_whatever_happens(moments) -> None:
    entry = None
    for moment in moments:
        entry = obtain(entry, make_key(), seen_at(moment), Timeouts()).entry or entry
    assert entry is not None
    assert len(entry.history) <= HISTORY_LIMIT


# learn
def test_a_revocation_teaches_once_and_prolongs_nothing() -> None:
    entry = make_entry(1, addresses=["a@example.org"])
    revoked = make_key(1, addresses=["b@example.org"], defect=Defect.REVOKED)
    learnt = learn(entry, revoked, T0 + DAY, "HARVESTED <3@example.org>")
    assert learnt.verdict is Verdict.REVOCATION_LEARNED
    assert learnt.entry is not None
    assert learnt.entry.sightings == entry.sightings
    assert learnt.entry.key.defect is Defect.REVOKED
    assert learnt.entry.key.addresses == (EmailAddress.parse("a@example.org"),)
    assert learnt.entry.history == (Change(at=T0 + DAY, what="REVOKED", by="HARVESTED <3@example.org>"),)
    assert learn(learnt.entry, revoked, T0 + 2 * DAY, "x") == Merged(verdict=Verdict.KEY_REVOKED, entry=None)


@bounded()
@given(three=entries_of_one, moment=moments)
def test_learning_a_revocation_keeps_every_sighting_and_address(three, moment) -> None:
    entry, other, _ = three
    learnt = learn(entry, replace(other.key, defect=Defect.REVOKED), moment, "by").entry or entry
    assert (learnt.sightings, learnt.key.addresses, learnt.key.defect) == (
        entry.sightings,
        entry.key.addresses,
        Defect.REVOKED,
    )
