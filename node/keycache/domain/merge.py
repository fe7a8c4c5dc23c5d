"""What becomes of an entry when its key is obtained again, or met by another copy. Values in, a value out.

Nothing here ever loses: addresses join, the later time wins, the earlier first time wins, a revocation stays (DESIGN 2.7).
All merges are commutative and idempotent in what decides serving, so copies that meet in any order end the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from keycache.domain.entry import HISTORY_LIMIT, Change, Defect, Entry, Issuer, Key, Origin, Protocol, Sighting, Trust
from keycache.domain.names import EmailAddress
from keycache.domain.retention import is_expired, needs_refresh
from keycache.domain.settings import Timeouts
from keycache.domain.verdict import Verdict

_TRUST_ORDER = (Trust.HELD, Trust.BOUND, Trust.ANCHORED)
_HELD_VERDICTS = {"UNKNOWN_ISSUER": Verdict.UNTRUSTED_ISSUER, "SELF_SIGNED": Verdict.SELF_SIGNED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """`entry`: what to write, or None when the known entry may stay as it is."""

    verdict: Verdict
    entry: Entry | None


def obtain(known: Entry | None, seen: Key, sighting: Sighting, timeouts: Timeouts) -> Merged:
    """A key was obtained at `sighting.refreshed_at`. `seen` is already merged with the known material, where that differs.

    An entry whose time had run out but which was not purged yet starts anew under CACHED, keeping its history.
    """
    now = sighting.refreshed_at
    if known is None:
        entry = Entry(key=seen, sightings=(sighting,), history=(Change(at=now, what="CACHED", by=_by(sighting)),))
        return Merged(verdict=_kept(seen, Verdict.CACHED), entry=entry)
    key = join_keys(known.key, seen)
    before = known.sighting(sighting.origin)
    changed = not _same(key, known.key)
    was_expired = is_expired(known, timeouts, now)
    if before is not None and not changed and not needs_refresh(before, timeouts, now):
        return Merged(verdict=_kept(known.key, Verdict.ALREADY_FRESH), entry=None)
    what = "CACHED" if was_expired else _what(known, key, sighting.origin)
    entry = replace(
        known,
        key=key,
        sightings=join_sightings(known.sightings, (sighting,)),
        history=(*known.history, Change(at=now, what=what, by=_by(sighting)))[-HISTORY_LIMIT:],
    )
    return Merged(verdict=_kept(key, Verdict.CACHED if was_expired else Verdict.REFRESHED), entry=entry)


def learn(known: Entry, revoked: Key, at: datetime, by: str) -> Merged:
    """A copy with a revocation was met. It teaches, and prolongs nothing: sightings stay. A second copy teaches nothing."""
    if known.key.defect is Defect.REVOKED:
        return Merged(verdict=Verdict.KEY_REVOKED, entry=None)
    key = replace(join_keys(known.key, revoked), addresses=known.key.addresses)
    history = (*known.history, Change(at=at, what="REVOKED", by=by))[-HISTORY_LIMIT:]
    return Merged(verdict=Verdict.REVOCATION_LEARNED, entry=replace(known, key=key, history=history))


def join_entries(ours: Entry, theirs: Entry) -> Entry:
    """Two copies of one entry (import of an export, joining a cluster) become one; no time stamp moves backwards or is lost."""
    history = sorted({*ours.history, *theirs.history}, key=lambda change: (change.at, change.what, change.by))
    return replace(
        ours,
        key=join_keys(ours.key, theirs.key),
        sightings=join_sightings(ours.sightings, theirs.sightings),
        history=tuple(history[-HISTORY_LIMIT:]),
        extra=ours.extra or theirs.extra,
    )


def join_keys(known: Key, seen: Key) -> Key:
    """The facts of one fingerprint from two examinations. The material is the seen one (it was merged before, if it differs).

    Addresses join, but for one case: merging two copies of an OpenPGP key judges anew which user IDs still bind, and one whose
    revocation came with either copy must not come back.
    """
    merged = seen.protocol is Protocol.OPENPGP and seen.material != known.material
    trust = max(known.trust, seen.trust, key=_TRUST_ORDER.index)
    newer = seen if _instant(seen.evidence_at) >= _instant(known.evidence_at) else known
    return replace(
        seen,
        addresses=seen.addresses if merged else join_addresses(known.addresses, seen.addresses),
        names=seen.names if merged else tuple(dict.fromkeys((*known.names, *seen.names))),
        trust=trust,
        held=seen.held if trust is Trust.HELD else None,
        issuer=_join_issuers(known, seen),
        defect=Defect.REVOKED if Defect.REVOKED in (known.defect, seen.defect) else seen.defect,
        evidence_at=newer.evidence_at,
        capabilities=newer.capabilities or known.capabilities or seen.capabilities,
        prefer_encrypt=newer.prefer_encrypt,
        extra=known.extra or seen.extra,
    )


def join_addresses(first: Iterable[EmailAddress], second: Iterable[EmailAddress]) -> tuple[EmailAddress, ...]:
    """Each address once, in a fixed order."""
    return tuple(sorted({*first, *second}, key=lambda address: (address.index, address.text)))


def join_sightings(first: Iterable[Sighting], second: Iterable[Sighting]) -> tuple[Sighting, ...]:
    """Per origin: the earliest `cached_at`, the latest `refreshed_at` with its source."""
    by_origin: dict[Origin, Sighting] = {}
    for sighting in (*first, *second):
        other = by_origin.get(sighting.origin)
        if other is None:
            by_origin[sighting.origin] = sighting
            continue
        later = max(other, sighting, key=lambda one: (one.refreshed_at, one.source))
        by_origin[sighting.origin] = replace(
            later, cached_at=min(other.cached_at, sighting.cached_at), extra=later.extra or other.extra or sighting.extra
        )
    return tuple(by_origin[origin] for origin in Origin if origin in by_origin)


def _join_issuers(first: Key, second: Key) -> Issuer | None:
    """The issuer by whom the key is trusted most. Mails bring more or less of a chain: one whose certificate came along is worth
    more, and two mails in turn must not change the entry in turn."""
    both = [(_TRUST_ORDER.index(key.trust), key.issuer) for key in (first, second) if key.issuer is not None]
    worth = [(trust, bool(one.certificate), one.id, one.name, one.certificate, one.extra, one) for trust, one in both]
    return max(worth, key=lambda row: row[:-1])[-1] if worth else None


def _same(key: Key, known: Key) -> bool:
    """Whether nothing worth a write changed. What comes with every mail alone is not: new evidence, and the preferences of the
    program that wrote it. Two programs of one sender differ in these, and would cost a write a mail."""
    return _lasting_facts(key) == _lasting_facts(known)


def _lasting_facts(key: Key) -> Key:
    return replace(key, evidence_at=None, capabilities=(), prefer_encrypt=False, extra=b"")


def _what(known: Entry, key: Key, origin: Origin) -> str:
    if key.defect is Defect.REVOKED and known.key.defect is not Defect.REVOKED:
        return "REVOKED"
    if known.key.trust is Trust.HELD and key.trust is not Trust.HELD:
        return "RELEASED"
    if {*key.addresses} - {*known.key.addresses}:
        return "ADDRESS_ADDED"
    if known.sighting(origin) is None:
        return "CACHED"
    return "REFRESHED" if _same(key, known.key) else "UPDATED"


def _kept(key: Key, verdict: Verdict) -> Verdict:
    if key.defect is Defect.REVOKED:
        return Verdict.REVOCATION_LEARNED
    return _HELD_VERDICTS[key.held.value] if key.trust is Trust.HELD and key.held else verdict


def _by(sighting: Sighting) -> str:
    return f"{sighting.origin.value} {sighting.source}".strip()


def _instant(moment: datetime | None) -> float:
    return float("-inf") if moment is None else moment.timestamp()
