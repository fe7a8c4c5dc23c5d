"""The entry log of a node that works alone, on tables of its own in the same SQLite file as the replica.

Entries therefore live twice on disk, on purpose: the log is the truth, the replica a view of it that can be thrown away and
rebuilt, exactly as in a cluster, where the log is etcd. Nothing above the ports can tell the two apart.

The log keeps the newest value of each key, not every value there was: a watch tells how to get from an older state to the newest.
A batch that ends at the head is exact; in a batch before it, a record that was written again later is missing and comes with its
later revision. Tombstones are kept for the newest KEEP_TOMBSTONES deletions at least; a watch from before that raises LogCompacted.
"""

from __future__ import annotations

import asyncio
import builtins
import secrets
import sqlite3
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager

from keycache.domain.errors import ForeignLog, LogCompacted, LogUnavailable, StoreCorrupt, StoreError
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
from keycache.store.database import Database

KEEP_TOMBSTONES = 10_000
"""At some 150 bytes a tombstone 1.5 to 3 MB, and enough for every watch but one that slept through a purge of the whole cache."""

GROUP = 256
"""Transactions that share one fsync at most: with 1 to 4 ms for one, a caller in a burst of thousands still waits well below 0.1 s."""

BATCH_EVENTS = 1000
BATCH_BYTES = 4 * 1024 * 1024
"""A batch ends at the first whole revision beyond either: as much as a page of a listing, and at most gRPC's usual message."""


Waiting = tuple[Transaction, asyncio.Future[CommitResult]]
Outcomes = list[CommitResult | Exception]
Results = list[CommitResult]


class LocalLog:
    """The `EntryLog` port. Belongs to one event loop: the one that first awaits it."""

    def __init__(self, database: Database, *, keep_tombstones: int = KEEP_TOMBSTONES) -> None:
        """Blocks for some milliseconds; makes the log's identity if there is none yet. The database stays its owner's to close."""
        self._database = database
        self._keep_tombstones = keep_tombstones
        self._pending: deque[Waiting] = deque()
        self._watchers: set[asyncio.Event] = set()
        self._closed = False
        with database.write(durable=True) as connection:
            connection.execute(
                "INSERT OR IGNORE INTO log_state (id, identity, head, compacted) VALUES (1, ?, 0, 0)", (secrets.token_hex(16),)
            )
            identity, head = connection.execute("SELECT identity, head FROM log_state").fetchone()
            (self._tombstones,) = connection.execute("SELECT count(*) FROM log_record WHERE value IS NULL").fetchone()
        self._identity = ClusterIdentity(identity)
        self._head = Revision(head)

    @property
    def is_shared(self) -> bool:
        return False

    @property
    def identity(self) -> ClusterIdentity:
        return self._identity

    async def survey(self, keys: Sequence[str] = (), *, since: Revision = ABSENT) -> Survey:
        self._check_open()
        with self._unavailable(), self._database.snapshot() as connection:
            identity, compacted, head = connection.execute("SELECT identity, compacted, head FROM log_state").fetchone()
            records = {key: _record(connection, key) for key in keys}
        return Survey(identity=ClusterIdentity(identity), head=Revision(head), compacted=since < compacted, records=records)

    def bind(self, identity: ClusterIdentity) -> None:
        """It is its own, and cannot be taken for another."""
        if identity != self._identity:
            raise ForeignLog(f"The node's own entry log is {self._identity}, not {identity}.")

    async def found(
        self, identity: ClusterIdentity, puts: Mapping[str, bytes], *, instead_of: ClusterIdentity | None = None
    ) -> CommitResult:
        """Its lifetime begins with its making, so only `instead_of` can be true."""
        self._check_open()
        if instead_of != self._identity:
            known = Record(key=IDENTITY, value=self._identity.text.encode(), mod_revision=ABSENT)
            return Refuted(revision=self._head, current={IDENTITY: known})
        with self._unavailable():
            await self._database.run(self._rename, identity)
        return await self.commit(Transaction(compare={}, puts=dict(puts)))

    # On the writing thread.
    def _rename(self, identity: ClusterIdentity) -> None:
        with self._database.write(durable=True) as connection:
            connection.execute("UPDATE log_state SET identity = ? WHERE id = 1", (identity.text,))
        self._identity = identity

    def begin_anew(self) -> None:
        """Forget everything, under a new identity. Blocks; only before anybody reads or watches."""
        identity = ClusterIdentity(secrets.token_hex(16))
        with self._database.write(durable=True) as connection:
            connection.execute("DELETE FROM log_record")
            connection.execute("UPDATE log_state SET identity = ?, head = 0, compacted = 0 WHERE id = 1", (identity.text,))
        self._identity, self._head, self._tombstones = identity, Revision(0), 0

    async def head(self) -> Revision:
        self._check_open()
        return self._head

    async def list(self, *, page_size: int = 1000, keys_only: bool = False) -> AsyncGenerator[Page, None]:
        """All pages come out of one read transaction on a connection of its own, which holds the state of its beginning whatever is
        committed meanwhile; end the iteration early with `aclose`, so that it goes back soon."""
        self._check_open()
        with self._unavailable(), self._database.snapshot() as connection:
            head, records = await asyncio.to_thread(_first_page, connection, page_size, keys_only)
            yield Page(revision=head, records=records)
            while len(records) == page_size:
                records = await asyncio.to_thread(_page, connection, records[-1].key, page_size, keys_only)
                if records:
                    yield Page(revision=head, records=records)

    async def watch(self, *, after: Revision) -> AsyncGenerator[Batch, None]:
        """Ends when the log is closed. Batches are never empty."""
        self._check_open()
        wake = asyncio.Event()
        self._watchers.add(wake)
        try:
            while not self._closed:
                # 1. Nothing new is found.  2. A commit sets `wake`.  3. We clear it and sleep through the commit.  Hence: clear first.
                wake.clear()
                batch = await asyncio.to_thread(self._changes, after)
                if batch is None:
                    await wake.wait()
                    continue
                after = batch.revision
                yield batch
        except LogUnavailable:
            if not self._closed:  # closing takes the connections away from under us
                raise
        finally:
            self._watchers.discard(wake)

    async def commit(self, transaction: Transaction) -> CommitResult:
        """Nothing was changed when it raises LogUnavailable; the next commit may succeed again. Cancelling the wait does not stop
        the commit."""
        self._check_open()
        if set(transaction.deletes) & set(transaction.puts):
            raise ValueError("a transaction puts and deletes the same key")
        future: asyncio.Future[CommitResult] = asyncio.get_running_loop().create_future()
        waiting = (transaction, future)
        self._pending.append(waiting)
        with self._unavailable():
            # One job per commit: the first takes all that wait by then, the others find nothing. So no flag says whether a job is on
            # its way, and no commit can fall between the last look and the lowering of the flag.
            try:
                self._database.submit(self._drain, asyncio.get_running_loop())
            except StoreError:
                if waiting in self._pending:  # else a job from before the end has taken it, and will tell
                    self._pending.remove(waiting)
                    raise
            return await future

    async def close(self) -> None:
        self.shut()

    def shut(self) -> None:
        """Take no more calls and end the watches. What was submitted is still carried out."""
        self._closed = True
        self._wake()

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailable("The entry log is closed.", hint="The node is stopping.")

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        """A store that takes no writes is a log that takes none; a damaged one is reported as such."""
        try:
            yield
        except StoreCorrupt:
            raise
        except StoreError as error:
            raise LogUnavailable(f"The entry log cannot be used now. {error.text}", hint=error.hint) from error

    def _wake(self) -> None:
        for wake in self._watchers:
            wake.set()

    # On the writing thread.
    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        group: builtins.list[Waiting] = []
        while self._pending and len(group) < GROUP:
            group.append(self._pending.popleft())
        if not group:
            return
        outcomes: Outcomes
        try:
            outcomes = [*self._carry_out([transaction for transaction, _ in group])]
        except Exception as error:  # noqa: BLE001 -- whatever it is belongs to those who wait, not to this thread
            outcomes = [error] if len(group) == 1 else [self._alone(transaction) for transaction, _ in group]
        futures = [future for _, future in group]
        try:
            loop.call_soon_threadsafe(self._deliver, futures, outcomes)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    def _alone(self, transaction: Transaction) -> CommitResult | Exception:
        """One transaction of a group that failed: the one that cannot be written must not take the others with it."""
        try:
            return self._carry_out([transaction])[0]
        except Exception as error:  # noqa: BLE001 -- as above
            return error

    def _carry_out(self, transactions: Sequence[Transaction]) -> Results:
        """One SQLite transaction for all; each has its own revision, and sees those before it."""
        head, tombstones = self._head, self._tombstones
        results: Results = []
        with self._database.write(durable=True) as connection:
            for transaction in transactions:
                current = {key: _record(connection, key) for key in transaction.compare}
                if any(_mod_revision(current[key]) != expected for key, expected in transaction.compare.items()):
                    results.append(Refuted(revision=head, current=current))
                    continue
                revision = Revision(head + 1)
                written, buried = _write(connection, transaction, revision)
                tombstones += buried
                head = revision if written else head
                results.append(Committed(revision=head))
            if head != self._head:
                connection.execute("UPDATE log_state SET head = ? WHERE id = 1", (head,))
            # Twice the number before any go, so that compaction costs little per deletion.
            if tombstones > 2 * self._keep_tombstones:
                tombstones -= _compact(connection, self._keep_tombstones)
        self._head, self._tombstones = head, tombstones
        return results

    # On the event loop again.
    def _deliver(self, futures: Sequence[asyncio.Future[CommitResult]], outcomes: Outcomes) -> None:
        for future, outcome in zip(futures, outcomes, strict=True):
            if future.cancelled():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        self._wake()

    # On any thread.
    def _changes(self, after: Revision) -> Batch | None:
        """What a watch tells next; None when there is nothing yet."""
        with self._unavailable(), self._database.snapshot() as connection:
            compacted, head = connection.execute("SELECT compacted, head FROM log_state").fetchone()
            if after < compacted:
                raise LogCompacted(
                    f"The entry log holds no changes before revision {compacted}, and {after} was asked for.",
                    compacted=compacted,
                    hint="List it again and watch from there.",
                )
            events: builtins.list[tuple[Revision, Event]] = []
            size = 0
            rows = connection.execute(
                "SELECT mod_revision, key, value FROM log_record WHERE mod_revision > ? ORDER BY mod_revision, key", (after,)
            )
            for revision, key, value in rows:
                full = len(events) >= BATCH_EVENTS or size >= BATCH_BYTES
                if full and revision != events[-1][0]:
                    rows.close()
                    return Batch(revision=events[-1][0], events=tuple(events))
                events.append((revision, Event(key=key, value=value)))
                size += len(value or b"")
            return Batch(revision=Revision(head), events=tuple(events)) if events else None


def _mod_revision(record: Record | None) -> Revision:
    return ABSENT if record is None else record.mod_revision


def _record(connection: sqlite3.Connection, key: str) -> Record | None:
    row = connection.execute(
        "SELECT value, mod_revision FROM log_record WHERE key = ? AND value IS NOT NULL", (key,)
    ).fetchone()
    return None if row is None else Record(key=key, value=row[0], mod_revision=row[1])


def _write(connection: sqlite3.Connection, transaction: Transaction, revision: Revision) -> tuple[bool, int]:
    """Whether anything was written, and how many tombstones there are more. As in etcd, deleting what is not there changes nothing."""
    buried = 0
    for key, value in transaction.puts.items():
        revived = connection.execute("SELECT 1 FROM log_record WHERE key = ? AND value IS NULL", (key,)).fetchone()
        buried -= 1 if revived else 0
        connection.execute(
            """INSERT INTO log_record (key, mod_revision, value) VALUES (?, ?, ?)
            ON CONFLICT (key) DO UPDATE SET mod_revision = excluded.mod_revision, value = excluded.value""",
            (key, revision, value),
        )
    deleted = 0
    for key in transaction.deletes:
        deleted += connection.execute(
            "UPDATE log_record SET mod_revision = ?, value = NULL WHERE key = ? AND value IS NOT NULL", (revision, key)
        ).rowcount
    return bool(transaction.puts) or deleted > 0, buried + deleted


def _compact(connection: sqlite3.Connection, keep: int) -> int:
    """Forget tombstones older than the `keep` newest, whole revisions only; how many went."""
    (oldest_kept,) = connection.execute(
        "SELECT mod_revision FROM log_record WHERE value IS NULL ORDER BY mod_revision DESC LIMIT 1 OFFSET ?", (keep - 1,)
    ).fetchone()
    older = "FROM log_record WHERE value IS NULL AND mod_revision < ?"
    (edge,) = connection.execute(f"SELECT max(mod_revision) {older}", (oldest_kept,)).fetchone()
    if edge is None:
        return 0
    connection.execute("UPDATE log_state SET compacted = ? WHERE id = 1", (edge,))
    return connection.execute(f"DELETE {older}", (oldest_kept,)).rowcount


def _first_page(connection: sqlite3.Connection, size: int, keys_only: bool) -> tuple[Revision, tuple[Record, ...]]:  # noqa: FBT001 -- for threads
    (head,) = connection.execute("SELECT head FROM log_state").fetchone()
    return Revision(head), _page(connection, "", size, keys_only)


def _page(connection: sqlite3.Connection, after: str, size: int, keys_only: bool) -> tuple[Record, ...]:  # noqa: FBT001 -- as above
    value = "x''" if keys_only else "value"
    rows = connection.execute(
        f"SELECT key, {value}, mod_revision FROM log_record WHERE key > ? AND value IS NOT NULL ORDER BY key LIMIT ?",  # noqa: S608 -- ours
        (after, size),
    )
    return tuple(Record(key=key, value=value, mod_revision=mod_revision) for key, value, mod_revision in rows)
