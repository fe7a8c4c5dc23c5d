"""What waits on a node for a log that takes no writes (DESIGN 2.6), and what becomes of it on delivery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from keycache.domain.entry import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """One entry that waits. `number`: its place in the order of acceptance. `version`: counts how often it was put anew while it
    waited, so that a delivery of an older state does not remove a newer one. `puts`: records to be delivered with it."""

    number: int
    version: int
    entry: Entry
    puts: Mapping[str, bytes]
    queued_at: datetime
