"""What the flows need from the world, named by role. Adapters implement these and never import each other.

Fakes that ship: `store.memory` (log, replica and outbox), `clock.ManualClock`. Each passes the same contract suite as the real thing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple
from typing import Protocol as Port

from keycache.domain.entry import Entry, Key, Origin, Protocol, Trust
from keycache.domain.examination import DirectionPolicy, Envelope, Examination, Finding, TrustBase
from keycache.domain.log import ABSENT, Batch, CommitResult, Page, Record, Survey, Transaction
from keycache.domain.lookup import EntryFacts, ReadyRow, Row
from keycache.domain.names import ClusterIdentity, EmailAddress, Fingerprint, Revision
from keycache.domain.outbox import Pending
from keycache.domain.purge import Candidate
from keycache.domain.settings import Timeouts
from keycache.domain.skew import ClockSample

Offload = Callable[..., Awaitable[Any]]
"""Runs `fn(*args)` in a thread of its own: the store's writer thread, or `asyncio.to_thread` for the fake."""

PRESENCE_SECONDS = 15
"""A lease outlives three missed words of a node that says one every PRESENCE_SECONDS / 3."""


class Clock(Port):
    def now(self) -> datetime:
        """Wall time, aware, UTC."""
        ...

    def sample(self) -> ClockSample:
        """Wall and monotonic clock read together."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class EntryLog(Port):
    """Where writes go, in order. Raises LogUnavailable from any method while the log cannot be reached.

    ORDER: `survey`, a decision, then `bind` (and before it `found`, where nobody has founded it). Until it is bound a shared log takes
    no writes and tells nothing but its survey; afterwards every method that finds another identity raises ForeignLog.
    """

    @property
    def is_shared(self) -> bool:
        """Whether other nodes write to it. False: it is on this node, and never far."""
        ...

    @property
    def identity(self) -> ClusterIdentity:
        """What it is bound to. Raises LogUnavailable before that."""
        ...

    async def survey(self, keys: Sequence[str] = (), *, since: Revision = ABSENT) -> Survey:
        """What stands in the log now, whosever it is. `since`: from where a watch would go on."""
        ...

    def bind(self, identity: ClusterIdentity) -> None:
        """Take the log for this one from now on."""
        ...

    async def found(
        self, identity: ClusterIdentity, puts: Mapping[str, bytes], *, instead_of: ClusterIdentity | None = None
    ) -> CommitResult:
        """Begin a log's lifetime under this identity, with these records, if it has none yet (`instead_of` None) or still has that
        one. Refuted, with the record of IDENTITY, when somebody else was first."""
        ...

    async def head(self) -> Revision:
        """The newest revision."""
        ...

    def list(self, *, page_size: int = 1000, keys_only: bool = False) -> AsyncGenerator[Page, None]:
        """Every record at one revision, in the order of keys; with `keys_only` its value is empty. An empty log yields one empty
        page. Whether the log is shared or not, the identity is no record of it."""
        ...

    def watch(self, *, after: Revision) -> AsyncGenerator[Batch, None]:
        """Everything after that revision, then whatever comes, until closed. Raises LogCompacted if that is no longer held."""
        ...

    async def commit(self, transaction: Transaction) -> CommitResult:
        """Durable when it returns. Raises ForeignLog if the log has become another one, RecordTooLarge, and LogUnavailable, after
        which it may or may not have been carried out."""
        ...

    async def close(self) -> None: ...


class Presence(Port):
    """A record that lives no longer than the node that keeps saying it."""

    async def announce(self, key: str, value: bytes) -> Revision:
        """Write it; it is gone PRESENCE_SECONDS after the last call. Raises LogUnavailable, ForeignLog."""
        ...

    async def withdraw(self, key: str) -> None:
        """Gone now. Never raises for a log that cannot be reached."""
        ...


class Outbox(Port):
    """What was accepted while the log took no writes, on this node's disk until it is delivered. Reads are synchronous and may be
    called from any thread; writes block and are durable when they return."""

    @property
    def count(self) -> int:
        """How many entries wait. Every lookup asks, so it must cost nothing."""
        ...

    @property
    def size(self) -> int:
        """Bytes of all that waits: records, and names of `puts`."""
        ...

    @property
    def limit(self) -> int:
        """Bytes that may wait."""
        ...

    def pending(self, protocol: Protocol, fingerprint: Fingerprint) -> Pending | None: ...
    def rows(self, addresses: Sequence[str]) -> dict[str, list[Row]]:
        """As `Replica.lookup`, of what waits, oldest first; every `mod_revision` is ABSENT."""
        ...

    def rows_of(self, fingerprint: Fingerprint) -> list[Row]:
        """As `Replica.lookup_fingerprint`, of what waits."""
        ...

    def first(self, limit: int) -> Sequence[Pending]:
        """The oldest that wait, in order."""
        ...

    def put(self, entry: Entry, puts: Mapping[str, bytes], at: datetime) -> None:
        """Add an entry, or take it for the one of the same key that waits, whose place, `queued_at` and `puts` it keeps. `puts`:
        further records to deliver with it. Raises OutboxFull, StoreError; then what waited before still does."""
        ...

    def remove(self, delivered: Iterable[Pending]) -> None:
        """Those that were not put anew meanwhile."""
        ...

    def clear(self) -> int:
        """An administrator's word: forget all; how many there were."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """What the replica holds: everything of the log `identity` up to and with `revision`."""

    identity: ClusterIdentity
    revision: Revision


class EntryChange(NamedTuple):
    """The reducer's word to the replica: this entry is now so. `facts` None: gone. `value`: the record's bytes as in the log, which
    `facts` were read from. The entry itself is not among it: most changes are written down and never looked at. A named tuple, since
    a first sync makes a million."""

    protocol: Protocol
    fingerprint: Fingerprint
    revision: Revision
    facts: EntryFacts | None
    value: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentChange:
    """Any record that is not an entry (settings, blocks, ...). `value` None: gone."""

    key: str
    revision: Revision
    value: bytes | None


ReplicaChange = EntryChange | DocumentChange


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEntry:
    entry: Entry
    mod_revision: Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Entries now: `live` are served or servable, `expired` wait for the purger, `held` are the unexpired ones with trust HELD
    (a part of neither). live + expired + held is everything in the replica."""

    live: int
    expired: int
    held: int

    @property
    def unexpired(self) -> int:
        return self.live + self.held


class SortBy(Enum):
    ADDRESS = "ADDRESS"
    CACHED = "CACHED"
    REFRESHED = "REFRESHED"
    FINGERPRINT = "FINGERPRINT"


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryQuery:
    """Which entries to list; None or empty: any. `text`: part of an address, name or fingerprint, case-insensitive.

    `older_than`: every sighting (of `origin`, if given) was last refreshed before this instant. `expired`: only (or only not)
    those expired at `now` under `timeouts`. `issuer`: id of the issuer of HELD entries.
    `after`: token of the previous page, empty for the first.
    """

    now: datetime
    timeouts: Timeouts
    text: str = ""
    address: str = ""
    domain: str = ""
    protocol: Protocol | None = None
    origin: Origin | None = None
    trust: Trust | None = None
    issuer: str = ""
    older_than: datetime | None = None
    expired: bool | None = None
    sort: SortBy = SortBy.ADDRESS
    descending: bool = False
    limit: int = 100
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPage:
    """`next`: token for the following page, empty at the end."""

    entries: tuple[StoredEntry, ...]
    next: str


class Replica(Port):
    """A node's own full copy. Reads are synchronous and may be called from any thread; ONLY the replicator calls the writes."""

    # reads
    def cursor(self) -> Cursor | None: ...
    def lookup(self, addresses: Sequence[str]) -> dict[str, list[Row]]:
        """Rows by indexed address; addresses without rows are left out."""
        ...

    def lookup_ready(self, addresses: Sequence[str]) -> Sequence[ReadyRow]:
        """As `lookup`, in the form of the short way (`domain.lookup.serve_ready`): every row of every address, by its place."""
        ...

    def lookup_fingerprint(self, fingerprint: Fingerprint) -> list[Row]: ...
    def entry(self, protocol: Protocol, fingerprint: Fingerprint) -> StoredEntry | None: ...
    def query(self, query: EntryQuery) -> EntryPage: ...
    def count(self, query: EntryQuery) -> int:
        """How many entries match, whatever `limit` and `after`."""
        ...

    def counts(self, *, now: datetime, timeouts: Timeouts) -> Counts: ...
    def expired(self, *, now: datetime, timeouts: Timeouts) -> list[Candidate]:
        """Everything expired, oldest first."""
        ...

    def document(self, key: str) -> Record | None: ...
    def documents(self, prefix: str) -> list[Record]: ...
    def digest(self) -> str:
        """Hex; equal on two replicas exactly when they hold the same entries (keys and values), however they got there."""
        ...

    def revisions(self, first: str, last: str) -> dict[str, Revision]:
        """The mod_revision of every record, entry or document, whose key is at least `first` and below `last`."""
        ...

    def newest(self, limit: int) -> list[tuple[str, Revision]]:
        """Keys and mod_revisions of the entries written last."""
        ...

    def high_water(self) -> datetime | None:
        """The newest trusted wall time written down here."""
        ...

    # writes
    def apply(self, changes: Iterable[ReplicaChange], cursor: Cursor) -> None:
        """Rows and cursor in ONE transaction. A change whose revision is not above the row's is skipped: a replay is harmless."""
        ...

    def replace(self, changes: Iterator[Sequence[ReplicaChange]], cursor: Cursor) -> None:
        """A whole listing, chunk by chunk: rows not in it go, the cursor is set, all in ONE transaction."""
        ...

    def raise_high_water(self, moment: datetime, *, force: bool = False) -> None:
        """Remember `moment` if it is later than what is remembered, or whatever it is when forced."""
        ...

    def close(self) -> None: ...


class Examiner(Port):
    """The parsers, in a place where hostile input can do no harm. Never raises for bad input: everything has a verdict."""

    def trust(self, base: TrustBase) -> None:
        """Judge S/MIME paths by this from the next call on."""
        ...

    async def examine(self, message: bytes, envelope: Envelope, policy: DirectionPolicy, now: datetime) -> Examination: ...

    async def read_material(self, blob: bytes, addresses: Sequence[EmailAddress], now: datetime) -> tuple[Finding, ...]:
        """Keys in a file or in a processor's hands: PEM, DER, PKCS#7, armoured or binary OpenPGP keys, keyrings.

        With `addresses`, only keys bound to one of them pass (others: ADDRESS_MISMATCH) and OpenPGP keys are bound to just
        these; without, to every address they name themselves.
        """
        ...

    async def certificates(self, blob: bytes) -> tuple[bytes, ...]:
        """DER of every X.509 certificate in PEM, DER or PKCS#7, unjudged: an administrator vouches for them."""
        ...

    async def merge(self, known: Key, seen: Key, now: datetime) -> Key:
        """Two copies of one OpenPGP key become one, with the facts judged anew; nothing of either is lost."""
        ...
