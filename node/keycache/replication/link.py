"""How a node stands to its log, and the gate that its writes go through."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from enum import Enum

from keycache.domain.errors import ForeignLog, LogUnavailable
from keycache.domain.log import ABSENT, Batch, CommitResult, Page, Survey, Transaction
from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.ports import EntryLog


class LinkState(Enum):
    """STARTING: the log was not looked at yet. LISTING: the replica is made anew from it. FOLLOWING: the replica follows it.
    SERVE_ONLY: it cannot be reached. REFUSED: it must not be taken, an administrator is asked (`domain.restart`)."""

    STARTING = "STARTING"
    LISTING = "LISTING"
    FOLLOWING = "FOLLOWING"
    SERVE_ONLY = "SERVE_ONLY"
    REFUSED = "REFUSED"


class GatedLog(EntryLog):
    """The log as the flows see it: it takes writes only while the replica FOLLOWS it.

    The race that is guarded, as an interleaving:
    1. The replica holds key K, expired, in revision 5.
    2. The log is restored from an older state, in which K's revision 5 is a fresher K; or it becomes another log.
    3. The purger, which decides by the replica, removes K "unless it is of another revision than 5".
    Revisions compare within one lifetime of one log. So nothing that was decided by the replica is written between the moment in
    which the log was lost from sight and the end of the check that follows.
    """

    def __init__(self, log: EntryLog, *, state: Callable[[], tuple[LinkState, str]], doubt: Callable[[], None]) -> None:
        """`state`: now, with its reason. `doubt`: called when a write finds another log."""
        self._log = log
        self._state = state
        self._doubt = doubt

    async def commit(self, transaction: Transaction) -> CommitResult:
        state, reason = self._state()
        if state is not LinkState.FOLLOWING:
            raise LogUnavailable(f"The log takes no writes of this node now. {reason}".strip(), hint="See 'keycache status'.")
        try:
            return await self._log.commit(transaction)
        except ForeignLog:
            self._doubt()
            raise

    # The rest is the log's own.
    @property
    def is_shared(self) -> bool:
        return self._log.is_shared

    @property
    def identity(self) -> ClusterIdentity:
        return self._log.identity

    async def survey(self, keys: Sequence[str] = (), *, since: Revision = ABSENT) -> Survey:
        return await self._log.survey(keys, since=since)

    def bind(self, identity: ClusterIdentity) -> None:
        self._log.bind(identity)

    async def found(
        self, identity: ClusterIdentity, puts: Mapping[str, bytes], *, instead_of: ClusterIdentity | None = None
    ) -> CommitResult:
        return await self._log.found(identity, puts, instead_of=instead_of)

    async def head(self) -> Revision:
        return await self._log.head()

    def list(self, *, page_size: int = 1000, keys_only: bool = False) -> AsyncGenerator[Page, None]:
        return self._log.list(page_size=page_size, keys_only=keys_only)

    def watch(self, *, after: Revision) -> AsyncGenerator[Batch, None]:
        return self._log.watch(after=after)

    async def close(self) -> None:
        await self._log.close()
