"""What the flows need from the world, named by role. Adapters implement these and never import each other.

Fakes that ship: `store.memory` (log and replica), `clock.ManualClock`. Each passes the same contract suite as the real thing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol as Port

from keycache.domain.entry import Entry, Key, Origin, Protocol, Trust
from keycache.domain.examination import DirectionPolicy, Envelope, Examination, Finding, TrustBase
from keycache.domain.log import Batch, CommitResult, Page, Record, Transaction
from keycache.domain.lookup import ReadyRow, Row
from keycache.domain.names import ClusterIdentity, EmailAddress, Fingerprint, Revision
from keycache.domain.purge import Candidate
from keycache.domain.settings import Timeouts
from keycache.domain.skew import ClockSample


class Clock(Port):
    def now(self) -> datetime:
        """Wall time, aware, UTC."""
        ...

    def sample(self) -> ClockSample:
        """Wall and monotonic clock read together."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class EntryLog(Port):
    """Where writes go, in order. Raises LogUnavailable from any method while the log cannot be reached."""

    @property
    def identity(self) -> ClusterIdentity: ...

    async def head(self) -> Revision:
        """The newest revision."""
        ...

    def list(self, *, page_size: int = 1000) -> AsyncGenerator[Page, None]:
        """Every record at one revision, in the order of keys. An empty log yields one empty page."""
        ...

    def watch(self, *, after: Revision) -> AsyncGenerator[Batch, None]:
        """Everything after that revision, then whatever comes, until closed. Raises LogCompacted if that is no longer held."""
        ...

    async def commit(self, transaction: Transaction) -> CommitResult:
        """Durable when it returns. Raises ForeignLog if the log has become another one."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """What the replica holds: everything of the log `identity` up to and with `revision`."""

    identity: ClusterIdentity
    revision: Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryChange:
    """The reducer's word to the replica: this entry is now so. `entry` None: gone. `value`: the record's bytes as in the log."""

    protocol: Protocol
    fingerprint: Fingerprint
    revision: Revision
    entry: Entry | None
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
