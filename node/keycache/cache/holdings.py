"""What this node holds of a key: what waits in its outbox, before what its replica says.

ORDER: the outbox is read BEFORE the replica, for
1. a lookup reads the replica, which does not hold the key yet;
2. the key is delivered, the replica applies it, and it leaves the outbox;
3. the lookup reads the outbox.
would find it in neither. The other way round it is found in the one or the other, since it leaves the outbox only once the replica
shows it (`delivery`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keycache.domain.entry import Entry, Protocol
from keycache.domain.lookup import Row
from keycache.domain.names import Fingerprint
from keycache.domain.outbox import REVOKED, overlaid
from keycache.domain.ports import Outbox, Replica

NOTHING: Mapping[str, Sequence[Row]] = {}


class Holdings:
    def __init__(self, *, replica: Replica, outbox: Outbox) -> None:
        self._replica = replica
        self._outbox = outbox

    def pending(self, protocol: Protocol, fingerprint: Fingerprint) -> Entry | None:
        """What waits of it."""
        pending = self._outbox.pending(protocol, fingerprint) if self._outbox.count else None
        return None if pending is None else pending.entry

    def entry(self, protocol: Protocol, fingerprint: Fingerprint) -> Entry | None:
        pending = self.pending(protocol, fingerprint)
        if pending is not None:
            return pending
        stored = self._replica.entry(protocol, fingerprint)
        return None if stored is None else stored.entry

    def waiting(self, addresses: Sequence[str]) -> Mapping[str, Sequence[Row]]:
        """By indexed address, what waits; addresses of which nothing waits are left out."""
        return self._outbox.rows(addresses) if self._outbox.count else NOTHING

    def lookup(self, addresses: Sequence[str]) -> Mapping[str, Sequence[Row]]:
        """As `Replica.lookup`, with what waits."""
        waiting = self.waiting(addresses)
        known = self._replica.lookup(addresses)
        if not waiting:
            return known
        return {**known, **{index: self._overlaid(known.get(index, ()), rows) for index, rows in waiting.items()}}

    def lookup_fingerprint(self, fingerprint: Fingerprint) -> Sequence[Row]:
        """As `Replica.lookup_fingerprint`, with what waits."""
        waiting = self._outbox.rows_of(fingerprint) if self._outbox.count else ()
        known = self._replica.lookup_fingerprint(fingerprint)
        return self._overlaid(known, waiting) if waiting else known

    def _overlaid(self, known: Sequence[Row], waiting: Sequence[Row]) -> Sequence[Row]:
        """The replica is asked for each key by its fingerprint: what waits may bind it to an address that the replica's does not."""
        rows = (row for one in waiting for row in self._replica.lookup_fingerprint(Fingerprint(one.fingerprint)))
        return overlaid(known, waiting, {(row.protocol, row.fingerprint) for row in rows if row.defect == REVOKED})
