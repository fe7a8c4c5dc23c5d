"""Whether a node may go on with the log it finds (DESIGN 4, the restart check). Values in, a value out.

It runs at every start, and whenever the log comes back, BEFORE anything of the log is believed and before anything may be removed.

The questions, in their order, each with its reason:
1. Can the log be read? If not: SERVE_ONLY. What cannot be read says nothing, neither that it is ours nor that it is not.
2. Is it the log that this replica was filled from, and did it only go forward since? Its identity is random and lives in it, so a log
   that was wiped and built up anew has another one, or none (revisions and etcd's own cluster id are no proof, FACTS 3). One that
   was restored from an older state keeps its identity, and shows by any of:
   - its head is before our cursor;
   - a record we hold (settings, what any node wrote while it was well, the newest entries) is there in an OLDER revision, which
     shows even after the head has passed us again;
   - a record we hold was not there, or only in an older revision, when the log was at our cursor (where it still knows its past);
   - what this node itself wrote is not there, and nobody else removes that;
   - a comparison of the whole (`replication.reconciler`) missed unexpired entries that nobody has removed.
   If it is ours and went forward: RESUME, or RELIST where it does not hold all changes since our cursor any more.
3. Is there anything here that must not be lost? Every entry but those that the purger might remove this very moment by
   `domain.purge.plan`: so an entry that is expired by a suspect clock alone, or by time nobody saw pass, or with too many others at
   once, or whose timeout is unknown, counts as unexpired. And what administrators decided (blocks, issuers).
   If there is: REFUSE, since to take this log is to drop it.
4. Else there is nothing to lose: RELIST, or FOUND where nobody has founded the log yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from keycache.domain.log import ABSENT, SETTINGS, Survey
from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.ports import Cursor
from keycache.domain.purge import Candidate, plan
from keycache.domain.settings import Settings
from keycache.domain.skew import ClockVerdict, unwitnessed


class Action(Enum):
    """RESUME: watch from the cursor. RELIST: list anew, then watch. FOUND: nobody uses this log and nothing is here: begin it.
    SERVE_ONLY: the log cannot be read; answer from the replica. REFUSE: it is another log, or went back in time, while unexpired
    entries are here: answer from the replica, and wait for an administrator."""

    RESUME = "RESUME"
    RELIST = "RELIST"
    FOUND = "FOUND"
    SERVE_ONLY = "SERVE_ONLY"
    REFUSE = "REFUSE"


class Way(Enum):
    """On from REFUSE. MERGE: bring what this node has into the log. DISCARD: forget it, and take what is in the log."""

    MERGE = "MERGE"
    DISCARD = "DISCARD"


HINT = (
    "Lookups are answered from what this node holds; it writes and removes nothing. If this is the wrong log, put the right one back: "
    "the node looks again by itself. Else run 'keycache cluster resolve --merge', which brings every unexpired key of this node into "
    "the log, joined with what is there and with its time stamps, or 'keycache cluster resolve --discard', which forgets what this "
    "node holds and takes what is in the log."
)
"""To a refusal: the two ways on."""


UNFOUNDED = "The log of the cluster that this node joins is gone: etcd was emptied on the way, or is another one."
UNFOUNDED_HINT = (
    "Put etcd's data back, and the node goes on by itself; or give the join up: 'keycache cluster leave'. It keeps every key."
)
"""Only who begins a cluster founds its log: one that a joiner began would hold the joiner's keys alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a node holds, read BEFORE the survey, so that nothing in it may be newer than what the survey finds.

    `settings`: that it last knew (None: unknown). `total`: entries, also those that this version cannot read. `expired`: those expired
    under `settings`. `decisions`: blocks and issuers decided on. `tips`: mod_revisions here of the records the survey asks for.
    `witness`: key of what this node itself writes. `missing`: entries that a comparison of the whole did not find in the log.
    """

    cursor: Cursor | None
    settings: Settings | None
    total: int
    expired: tuple[Candidate, ...]
    decisions: int
    tips: Mapping[str, Revision]
    witness: str
    missing: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartReport:
    """`kept`: unexpired entries here, also those with trust HELD. `expired`: all others; `held_back`: those of them that may not be
    removed now, with the reason. `settings`: under which that was counted (None: unknown, then nothing counts as expired)."""

    action: Action
    reason: str
    hint: str
    kept: int
    expired: int
    held_back: int
    held_reason: str
    settings: Settings | None
    replica_identity: ClusterIdentity | None
    replica_revision: Revision
    log_identity: ClusterIdentity | None
    log_revision: Revision


def check(
    *, known: Known, survey: Survey | None, problem: str, clock: ClockVerdict, now: datetime, witnessed: datetime
) -> RestartReport:
    """`survey` None: the log cannot be read, and `problem` says why. `clock`, `witnessed`: as `domain.purge.plan` takes them."""
    purge = plan(
        candidates=known.expired,
        total=known.total,
        settings=known.settings,
        settings_revision=known.tips.get(SETTINGS, ABSENT),
        clock=clock,
        now=now,
        witnessed=witnessed,
    )
    held_back = purge.expired - len(purge.remove)
    action, reason = _decide(known, survey, problem, precious=known.total - len(purge.remove))
    return RestartReport(
        action=action,
        reason=reason,
        hint=HINT if action is Action.REFUSE else "",
        kept=known.total - purge.expired,
        expired=purge.expired,
        held_back=held_back,
        held_reason=(purge.reason or unwitnessed(now, witnessed)) if held_back else "",
        settings=known.settings,
        replica_identity=None if known.cursor is None else known.cursor.identity,
        replica_revision=ABSENT if known.cursor is None else known.cursor.revision,
        log_identity=None if survey is None else survey.identity,
        log_revision=ABSENT if survey is None else survey.head,
    )


def _decide(known: Known, survey: Survey | None, problem: str, *, precious: int) -> tuple[Action, str]:
    """`precious`: entries that must not be lost."""
    if survey is None:
        return Action.SERVE_ONLY, problem
    ours = known.cursor is not None and known.cursor.identity == survey.identity
    doubt = _went_back(known, survey) if ours else _other(known, survey)
    if ours and not doubt:
        if survey.compacted:
            return Action.RELIST, "The log no longer holds all changes since this node last heard it."
        return Action.RESUME, ""
    if precious or known.decisions:
        here = (
            f"{precious} keys and {known.decisions} decisions on issuers and blocks" if known.decisions else f"{precious} keys"
        )
        return Action.REFUSE, f"{doubt} This node holds {here} that would be lost."
    if survey.identity is None:
        return Action.FOUND, "Nobody uses this log yet."
    return Action.RELIST, "This node holds nothing that could be lost."


def _other(known: Known, survey: Survey) -> str:
    before = "another one" if known.cursor is None else str(known.cursor.identity)
    now = "nobody's yet" if survey.identity is None else f"log {survey.identity}"
    return f"This node was filled from log {before}, and what it finds is {now}."


def _went_back(known: Known, survey: Survey) -> str:
    """How it shows that the log lost what this node has seen of it; empty if it does not."""
    assert known.cursor is not None
    if survey.head < known.cursor.revision:
        return f"The log went back in time: it is at revision {survey.head}, and this node has seen {known.cursor.revision}."
    for key, revision in sorted(known.tips.items()):
        record = survey.records.get(key)
        if record is not None and record.mod_revision < revision:
            older = f"its record {key} is of revision {record.mod_revision}, and this node has seen {revision}"
            return f"The log went back in time: {older}."
        if survey.then is not None and revision <= known.cursor.revision:
            past = survey.then.get(key)
            if past is None or past.mod_revision < revision:
                at = known.cursor.revision
                return f"The log went back in time: at revision {at} it did not hold {key} as this node has seen it."
    if known.witness in known.tips and survey.records.get(known.witness) is None:
        return "The log went back in time: what this node wrote there is missing."
    if known.missing:
        return f"The log went back in time: it lacks {known.missing} unexpired keys of this node that nobody has removed."
    return ""
