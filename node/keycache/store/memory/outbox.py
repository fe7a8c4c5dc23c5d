"""An outbox of a plain dictionary."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from keycache.codec import encode_entry
from keycache.codec.facts import read_facts
from keycache.domain.entry import Entry, Protocol
from keycache.domain.log import ABSENT
from keycache.domain.lookup import Row
from keycache.domain.names import Fingerprint
from keycache.domain.outbox import Pending, full
from keycache.store.rows import row

Name = tuple[Protocol, Fingerprint]


class MemoryOutbox:
    """The `Outbox` port. `puts_made` counts what was written, for tests."""

    def __init__(self, *, limit: int = 1 << 30) -> None:
        self.limit = limit
        self.puts_made = 0
        self._lock = threading.RLock()
        self._waiting: dict[Name, Pending] = {}
        self._numbers = 0

    @property
    def count(self) -> int:
        return len(self._waiting)

    @property
    def size(self) -> int:
        with self._lock:
            return sum(_size(one) for one in self._waiting.values())

    def pending(self, protocol: Protocol, fingerprint: Fingerprint) -> Pending | None:
        return self._waiting.get((protocol, fingerprint))

    def rows(self, addresses: Sequence[str]) -> dict[str, list[Row]]:
        answer: dict[str, list[Row]] = {}
        for one in self.first(len(self._waiting)):
            for address in one.entry.key.addresses:
                if address.index in addresses:
                    answer.setdefault(address.index, []).append(_row(address.text, one.entry))
        return answer

    def rows_of(self, fingerprint: Fingerprint) -> list[Row]:
        found = (self.pending(protocol, fingerprint) for protocol in Protocol)
        return [_row("", one.entry) for one in found if one is not None]

    def first(self, limit: int) -> list[Pending]:
        with self._lock:
            return sorted(self._waiting.values(), key=lambda one: one.number)[:limit]

    def put(self, entry: Entry, puts: Mapping[str, bytes], at: datetime) -> None:
        name = (entry.key.protocol, entry.key.fingerprint)
        with self._lock:
            old = self._waiting.get(name)
            if old is None:
                new = Pending(number=self._numbers + 1, version=1, entry=entry, puts=dict(puts), queued_at=at)
            else:
                joined = {**old.puts, **puts}
                new = Pending(number=old.number, version=old.version + 1, entry=entry, puts=joined, queued_at=old.queued_at)
            before = 0 if old is None else _size(old)
            if _size(new) > before and self.size - before + _size(new) > self.limit:
                raise full(self.count, self.limit)
            self._waiting[name] = new
            self._numbers = max(self._numbers, new.number)
            self.puts_made += 1

    def remove(self, delivered: Iterable[Pending]) -> None:
        versions = {(one.number, one.version) for one in delivered}
        with self._lock:
            self._waiting = {name: one for name, one in self._waiting.items() if (one.number, one.version) not in versions}

    def clear(self) -> int:
        with self._lock:
            count = len(self._waiting)
            self._waiting = {}
            return count


def _row(address: str, entry: Entry) -> Row:
    return row(address, read_facts(encode_entry(entry)), ABSENT)


def _size(pending: Pending) -> int:
    return len(encode_entry(pending.entry)) + sum(len(key) + len(value) for key, value in pending.puts.items())
