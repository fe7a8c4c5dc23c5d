"""Whether a node may go on with the log it finds (DESIGN 4, the restart check). Values in, a value out.

It runs at every start, and whenever the log comes back, BEFORE anything of the log is believed and before anything may be removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.settings import Settings


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
