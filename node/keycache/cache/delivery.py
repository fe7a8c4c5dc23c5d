"""Brings what waits in the outbox into the log, the oldest first, as soon as that takes writes again (DESIGN 2.6).

ORDER, for each entry: the log has acknowledged it; THEN this node's replica shows it; THEN it leaves the outbox. So it is on a disk
and in this node's answers at every moment. A crash between any two steps delivers again, which joins to the same and writes nothing.

The race with administrators that is guarded, as an interleaving:
1. The delivery finds neither entry nor deletion of key K in the log, and decides to put it.
2. Another node puts K, and an administrator deletes it there.
3. The delivery puts K. Nothing is there now either, so to compare the entry would not refute it.
Hence the record of K's deletion is compared as well.

What is expired by now is delivered all the same: to drop it here would be a purge without the purger's guards (DESIGN 2.3, 2.4). The
purger removes it from the log by its own rules; it is served nowhere meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from keycache.cache.chains import affordable
from keycache.cache.deletions import deletion_of
from keycache.cache.writer import ATTEMPTS, VISIBLE_SECONDS, readable
from keycache.codec import encode_entry
from keycache.domain.entry import Protocol, Trust
from keycache.domain.errors import Conflict, KeycacheError, RecordTooLarge, StoreError
from keycache.domain.log import ABSENT, CHAIN, Committed, Record, Refuted, Transaction, deletion_key, entry_key
from keycache.domain.names import Fingerprint, Revision
from keycache.domain.outbox import Decision, Fate, Pending, delivery
from keycache.domain.ports import Clock, EntryLog, Examiner, Outbox, Replica, StoredEntry
from keycache.logs import Recurring, get_logger
from keycache.replication.replicator import RETRY_SECONDS, Offload, Replicator
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import View
from keycache.replication.waiting import unless

BATCH = 60
"""Entries in one transaction, each with two comparisons, and OPERATIONS in all: etcd takes 128 operations a list (FACTS 3), and the log
adds the comparison of its identity."""

OPERATIONS = 120

BATCH_BYTES = 1 << 20
"""Of the 1.5 MiB that etcd takes a request (FACTS 3); a larger record goes alone."""

_log = get_logger(__name__)

LOOK_SECONDS = 60.0
"""How often the outbox is looked at that nobody said anything of: what lies there unseen is served here meanwhile."""


Name = tuple[Protocol, Fingerprint]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Aside:
    """The state of one that waits that the log would not take, and the sentence about it."""

    number: int
    version: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """One that waits, and what was decided about it on what the log held at revision `seen`. `compare`, `puts`: of its write; empty
    unless there is one. `attempt`: how often it was refuted."""

    pending: Pending
    fate: Fate
    seen: Revision
    compare: dict[str, Revision]
    puts: dict[str, bytes]
    attempt: int

    @property
    def size(self) -> int:
        return sum(map(len, self.puts.values()))


class Delivery:
    """`run` in a task; `wake` when something came into the outbox or the log came back."""

    def __init__(
        self,
        *,
        log: EntryLog,
        outbox: Outbox,
        replica: Replica,
        replicator: Replicator,
        view: View,
        examiner: Examiner,
        timekeeper: Timekeeper,
        clock: Clock,
        offload: Offload,
        link_up: Callable[[], bool] = lambda: True,
    ) -> None:
        self._log = log
        self._outbox = outbox
        self._replica = replica
        self._replicator = replicator
        self._view = view
        self._examiner = examiner
        self._timekeeper = timekeeper
        self._clock = clock
        self._offload = offload
        self._link_up = link_up
        self._woken = asyncio.Event()
        self._aside: dict[Name, _Aside] = {}
        self._trouble = Recurring(_log, "the outbox cannot be delivered yet")

    def wake(self) -> None:
        self._woken.set()

    def problems(self) -> tuple[str, ...]:
        """Sentences for the administrator."""
        return tuple(one.problem for one in self._still_aside().values())

    async def run(self) -> None:
        """For ever. A log or disk that fails is waited for."""
        attempt = 0
        while True:
            self._woken.clear()
            delivered = await self._try() if self._link_up() else 0
            if self._outbox.count <= self._aside_count():
                attempt = 0
                # 1. A mail is queued.  2. Its caller gives up while the disk writes.  3. Nobody is left to wake us. Hence: look again.
                await unless(self._woken, self._clock.sleep(LOOK_SECONDS))
            elif delivered:
                attempt = 0
            else:
                await self._clock.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                attempt += 1

    def _aside_count(self) -> int:
        """None, while the disk does not say: then something may be to be done."""
        try:
            return len(self._still_aside())
        except StoreError:
            return -1

    async def _try(self) -> int:
        """As `deliver`; a failure is told in the log once, not at every attempt."""
        try:
            delivered = await self.deliver()
        except KeycacheError as error:
            self._trouble.tell(error, waiting=self._outbox.count)
            return 0
        self._trouble.over()
        return delivered

    async def deliver(self) -> int:
        """The oldest that wait, one batch of them; how many left the outbox. Raises LogUnavailable, ForeignLog, StoreError, and
        Unavailable while the replica lags; whatever was not acknowledged still waits. May run twice at once, to no harm."""
        aside = {(one.number, one.version) for one in self._still_aside().values()}
        waiting = self._outbox.first(BATCH + len(aside)) if self._outbox.count else ()
        chosen = [one for one in waiting if (one.number, one.version) not in aside][:BATCH]
        if not chosen:
            return 0
        # On a replica that lags nearly everything would be refuted, one by one.
        await self._replicator.reach(await self._log.head(), timeout_seconds=VISIBLE_SECONDS)
        delivered, seen = 0, self._replicator.applied
        for batch in _batches([await self._decided_here(pending, seen) for pending in chosen]):
            delivered += await self._send(batch)
        return delivered

    async def _send(self, items: Sequence[_Item]) -> int:
        """All of `items` in one transaction; those that are refuted are decided anew, and sent one by one."""
        writes = [item for item in items if item.fate is Fate.WRITE]
        revision = max(item.seen for item in items)
        if writes:
            compare = {key: at for item in writes for key, at in item.compare.items()}
            puts = {key: value for item in writes for key, value in item.puts.items()}
            try:
                result = await self._log.commit(Transaction(compare=compare, puts=puts))
            except RecordTooLarge as error:
                if len(items) > 1:
                    return sum([await self._send([item]) for item in items])
                self._set_aside(items[0].pending, error)
                return 0
            if not isinstance(result, Committed):
                return await self._send_anew(items, result)
            revision = result.revision
        await self._replicator.reach(revision, timeout_seconds=VISIBLE_SECONDS)
        await self._offload(self._outbox.remove, [item.pending for item in items])
        for item in items:
            if item.fate is Fate.REMOVED:
                key = item.pending.entry.key
                _log.info(
                    "not delivered: an administrator removed it meanwhile",
                    fingerprint=key.fingerprint.text,
                    protocol=key.protocol.value,
                )
        return len(items)

    async def _send_anew(self, items: Sequence[_Item], refuted: Refuted) -> int:
        current = refuted.current
        now = {key: ABSENT if record is None else record.mod_revision for key, record in current.items()}
        changed = [item for item in items if any(now[key] != at for key, at in item.compare.items())]
        if not changed:
            return 0  # refuted, yet nothing differs: the next round looks again
        unchanged = [item for item in items if item not in changed]
        delivered = await self._send(unchanged) if unchanged else 0
        for item in changed:
            if item.attempt >= ATTEMPTS:
                continue  # a storm of writers on this key; the others go on, and it has its turn in the next round
            entry, deletion = (current[key] for key in _names(item.pending))
            try:
                known = None if entry is None else StoredEntry(entry=readable(entry), mod_revision=entry.mod_revision)
            except Conflict as error:
                self._set_aside(item.pending, error)
                continue
            delivered += await self._send(
                [await self._decided(item.pending, known, deletion, refuted.revision, item.attempt + 1)]
            )
        return delivered

    async def _decided_here(self, pending: Pending, seen: Revision) -> _Item:
        key = pending.entry.key
        known, deletion = self._replica.entry(key.protocol, key.fingerprint), self._replica.document(_names(pending)[1])
        return await self._decided(pending, known, deletion, seen, 0)

    async def _decided(
        self, pending: Pending, known: StoredEntry | None, deletion: Record | None, seen: Revision, attempt: int
    ) -> _Item:
        key = pending.entry.key
        if known is not None and key.protocol is Protocol.OPENPGP and known.entry.key.material != key.material:
            key = await self._examiner.merge(known.entry.key, key, self._timekeeper.now())
        decided = delivery(pending.entry, None if known is None else known.entry, key, deletion_of(deletion))
        if decided.fate is Fate.WRITE and self._view.is_rejected(key):
            decided = Decision(fate=Fate.REMOVED)
        compare: dict[str, Revision] = {}
        puts: dict[str, bytes] = {}
        if decided.entry is not None:
            name, removal = _names(pending)
            compare = {
                name: ABSENT if known is None else known.mod_revision,
                removal: ABSENT if deletion is None else deletion.mod_revision,
            }
            puts = {name: encode_entry(decided.entry), **self._further(pending)}
        return _Item(pending=pending, fate=decided.fate, seen=seen, compare=compare, puts=puts, attempt=attempt)

    def _further(self, pending: Pending) -> dict[str, bytes]:
        """What is put with it. Intermediates were found affordable when it was queued; others may have come since."""
        chain = {key.removeprefix(CHAIN): value for key, value in pending.puts.items() if key.startswith(CHAIN)}
        chain = affordable(self._view.chain, chain, held=pending.entry.key.trust is Trust.HELD)
        return {CHAIN + name: value for name, value in chain.items()}

    def _set_aside(self, pending: Pending, error: KeycacheError) -> None:
        """What the log will not take must not keep back what came after it, and must not be dropped either: it was acknowledged. It
        stays in the outbox, is served here, and is tried again at the next start, under whatever version and limits there are then."""
        key = pending.entry.key
        problem = (
            f"The cluster's log does not take the key {key.fingerprint.text}, so it is served on this node alone: {error.text} "
            f"It is tried again at the next start; 'keycache delete {key.fingerprint.text}' gives it up."
        )
        self._aside[(key.protocol, key.fingerprint)] = _Aside(number=pending.number, version=pending.version, problem=problem)
        _log.warning("a key in the outbox cannot be delivered", fingerprint=key.fingerprint.text, problem=str(error))

    def _still_aside(self) -> dict[Name, _Aside]:
        """Without those that were put anew or removed."""
        waiting = {name: self._outbox.pending(*name) for name in self._aside}
        self._aside = {
            name: one
            for name, one in self._aside.items()
            if (now := waiting[name]) is not None and (now.number, now.version) == (one.number, one.version)
        }
        return self._aside


def _names(pending: Pending) -> tuple[str, str]:
    """Of the entry's record, and of the record of its deletion."""
    key = pending.entry.key
    return entry_key(key.protocol, key.fingerprint), deletion_key(key.protocol, key.fingerprint)


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """In order, each small enough for one transaction."""
    batch: list[_Item] = []
    for item in items:
        size, operations = sum(one.size for one in batch), sum(len(one.puts) for one in batch)
        if batch and (size + item.size > BATCH_BYTES or operations + len(item.puts) > OPERATIONS):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
