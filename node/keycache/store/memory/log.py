"""A log of plain dictionaries."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace

from keycache.domain.errors import ForeignLog, LogCompacted, LogUnavailable
from keycache.domain.log import (
    ABSENT,
    IDENTITY,
    Batch,
    CommitResult,
    Committed,
    Event,
    Page,
    Record,
    Refuted,
    Survey,
    Transaction,
)
from keycache.domain.names import ClusterIdentity, Revision


class MemoryLog:
    """The `EntryLog` and `Presence` ports. Keeps tombstones until told to `compact`. `interrupt` makes it unavailable, as a log without
    quorum is; `expire` ends a lease.

    `shared`: as etcd, founded by nobody yet unless an identity is given, and to be bound before use.
    """

    def __init__(self, identity: str = "", *, shared: bool = False) -> None:
        own = identity or ("" if shared else secrets.token_hex(16))
        self._identity = ClusterIdentity(own) if own else None
        self._bound = None if shared else self._identity
        self._shared = shared
        self._head = Revision(0)
        self._compacted = Revision(0)
        self._records: dict[str, tuple[Revision, bytes | None]] = {}
        self._watchers: set[asyncio.Event] = set()
        self._interrupted = False
        self._closed = False

    @property
    def is_shared(self) -> bool:
        return self._shared

    @property
    def identity(self) -> ClusterIdentity:
        if self._bound is None:
            raise LogUnavailable("The entry log was not looked at yet.", hint="Wait a moment.")
        return self._bound

    async def survey(self, keys: Sequence[str] = (), *, since: Revision = ABSENT) -> Survey:
        self._check_reachable()
        records = {key: self._record(key) for key in keys}
        return Survey(identity=self._identity, head=self._head, compacted=since < self._compacted, records=records)

    def bind(self, identity: ClusterIdentity) -> None:
        if not self._shared and identity != self._identity:
            raise ForeignLog(f"The node's own entry log is {self._identity}, not {identity}.")
        self._bound = identity

    async def found(
        self, identity: ClusterIdentity, puts: Mapping[str, bytes], *, instead_of: ClusterIdentity | None = None
    ) -> CommitResult:
        self._check_reachable()
        if instead_of != self._identity:
            assert self._identity is not None
            known = Record(key=IDENTITY, value=self._identity.text.encode(), mod_revision=ABSENT)
            return Refuted(revision=self._head, current={IDENTITY: known})
        self._identity = identity
        if not self._shared:
            self._bound = identity
        self._head = Revision(self._head + 1)
        self._records.update({key: (self._head, value) for key, value in puts.items()})
        self._wake()
        return Committed(revision=self._head)

    async def head(self) -> Revision:
        self._check_available()
        return self._head

    async def list(self, *, page_size: int = 1000, keys_only: bool = False) -> AsyncGenerator[Page, None]:
        self._check_available()
        head = self._head
        keys = sorted(key for key, (_, value) in self._records.items() if value is not None)
        records = [self._record(key) for key in keys]
        present = [record for record in records if record is not None]
        for start in range(0, len(present) or 1, page_size):
            self._check_available()
            page = present[start : start + page_size]
            yield Page(
                revision=head, records=tuple(replace(record, value=b"") for record in page) if keys_only else tuple(page)
            )

    async def watch(self, *, after: Revision) -> AsyncGenerator[Batch, None]:
        """Ends when the log is closed. Batches are never empty."""
        wake = asyncio.Event()
        self._watchers.add(wake)
        try:
            self._check_available()
            while not self._closed:
                wake.clear()
                self._check_available()
                if after < self._compacted:
                    raise LogCompacted(
                        f"The entry log holds no changes before revision {self._compacted}, and {after} was asked for.",
                        compacted=self._compacted,
                        hint="List it again and watch from there.",
                    )
                changed = sorted((revision, key, value) for key, (revision, value) in self._records.items() if revision > after)
                if not changed:
                    await wake.wait()
                    continue
                after = self._head
                events = tuple((revision, Event(key=key, value=value)) for revision, key, value in changed)
                yield Batch(revision=after, events=events)
        finally:
            self._watchers.discard(wake)

    async def commit(self, transaction: Transaction) -> CommitResult:
        self._check_available()
        if set(transaction.deletes) & set(transaction.puts):
            raise ValueError("a transaction puts and deletes the same key")
        current = {key: self._record(key) for key in transaction.compare}
        for key, expected in transaction.compare.items():
            record = current[key]
            if (ABSENT if record is None else record.mod_revision) != expected:
                return Refuted(revision=self._head, current=current)
        deletes = {key for key in transaction.deletes if self._record(key) is not None}
        if transaction.puts or deletes:
            self._head = Revision(self._head + 1)
            self._records.update({key: (self._head, value) for key, value in transaction.puts.items()})
            self._records.update(dict.fromkeys(deletes, (self._head, None)))
            self._wake()
        return Committed(revision=self._head)

    async def announce(self, key: str, value: bytes) -> Revision:
        result = await self.commit(Transaction(compare={}, puts={key: value}))
        return result.revision

    async def withdraw(self, key: str) -> None:
        with contextlib.suppress(LogUnavailable, ForeignLog):
            await self.commit(Transaction(compare={}, puts={}, deletes=(key,)))

    async def close(self) -> None:
        self._closed = True
        self._wake()

    def expire(self, key: str) -> None:
        """The lease of a node that said nothing more."""
        if self._record(key) is not None:
            self._head = Revision(self._head + 1)
            self._records[key] = (self._head, None)
            self._wake()

    def wipe(self, identity: str = "") -> None:
        """Somebody built it anew: another identity or none, nothing in it, revisions from the start."""
        self._identity = ClusterIdentity(identity) if identity else None
        self._records, self._head, self._compacted = {}, Revision(0), Revision(0)
        self._wake()

    def interrupt(self) -> None:
        """From now on every method, and every watch, raises LogUnavailable."""
        self._interrupted = True
        self._wake()

    def resume(self) -> None:
        self._interrupted = False

    def compact(self) -> None:
        """Forget all tombstones, and with them every watch from before now."""
        self._records = {key: record for key, record in self._records.items() if record[1] is not None}
        self._compacted = self._head

    def _check_available(self) -> None:
        self._check_reachable()
        if self.identity != self._identity:
            raise ForeignLog(f"The log was {self._bound}, and is now {self._identity}.", hint="Run 'keycache cluster check'.")

    def _check_reachable(self) -> None:
        if self._closed:
            raise LogUnavailable("The entry log is closed.", hint="The node is stopping.")
        if self._interrupted:
            raise LogUnavailable("The entry log does not answer.", hint="Wait until it is back.")

    def _record(self, key: str) -> Record | None:
        revision, value = self._records.get(key, (ABSENT, None))
        return None if value is None else Record(key=key, value=value, mod_revision=revision)

    def _wake(self) -> None:
        for wake in self._watchers:
            wake.set()
