"""The entry log on etcd: what several nodes write to and watch.

Every write compares the identity's VALUE: revisions and etcd's own cluster id do not tell a log built anew from the old one (FACTS 3).
Every reading does the same before it tells anything.

Whatever revision this log names to anybody, its watches come to it (`watch.Horizon`), also when it was moved by somebody else's keys.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any

from aetcd import rpc

from keycache.domain.errors import ForeignLog, LogCompacted, LogUnavailable, NotFound, RecordTooLarge
from keycache.domain.log import ABSENT, IDENTITY, Batch, CommitResult, Committed, Page, Record, Refuted, Survey, Transaction
from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.ports import PRESENCE_SECONDS
from keycache.etcd import transactions, watch
from keycache.etcd.client import ATTEMPT_SECONDS, TOTAL_SECONDS, Answer, EtcdClient
from keycache.etcd.connection import Endpoint
from keycache.etcd.keys import KeySpace

SURVEY_KEYS = 32
"""Keys that one request of a survey reads: with records of etcd's largest size they fill `connection.RECEIVE_BYTES` three quarters."""

PAGE_SECONDS = 6.0
"""For one page of a listing: `connection.RECEIVE_BYTES` over 100 Mbit/s take 5.4 s. Twice that with a second endpoint."""


class EtcdLog:
    """The `EntryLog` and `Presence` ports. Belongs to the event loop that first awaits it."""

    def __init__(self, client: EtcdClient, cluster_name: str, *, presence_seconds: int = PRESENCE_SECONDS) -> None:
        """Takes the client over: `close` closes it. Raises InvalidInput for the name."""
        self._client = client
        self._keys = KeySpace(cluster_name)
        self._presence_seconds = presence_seconds
        self._bound: ClusterIdentity | None = None
        self._horizon = watch.Horizon()
        self._leases: dict[str, int] = {}

    @property
    def is_shared(self) -> bool:
        return True

    @property
    def identity(self) -> ClusterIdentity:
        if self._bound is None:
            raise LogUnavailable("The entry log was not looked at yet.", hint="Wait a moment.")
        return self._bound

    async def survey(self, keys: Sequence[str] = (), *, since: Revision = ABSENT) -> Survey:
        """One read, and one more for each further SURVEY_KEYS keys at its revision, and as many at `since`. Linearizable."""
        first, *more = transactions.chunks(keys, SURVEY_KEYS) or [()]
        own = transactions.get(self._keys.identity)
        answer = await self._read([own, *(transactions.get(self._keys.encode(key)) for key in first)])
        head = Revision(answer.value.header.revision)
        found, *responses = answer.value.responses
        for chunk in more:
            responses += await self._at(head, chunk)
        identity = transactions.records_of(self._keys, found.response_range.kvs)
        then = await self._then(keys, since) if 0 < since <= head else None
        return Survey(
            identity=ClusterIdentity(identity[0].value.decode(errors="replace")) if identity else None,
            head=self._horizon.name(head),
            compacted=then is None and 0 < since <= head,
            records=self._named(keys, responses),
            then=then,
        )

    async def _then(self, keys: Sequence[str], since: Revision) -> dict[str, Record | None] | None:
        """As they were at that revision; None if etcd has let it go."""
        try:
            responses = [
                one
                for chunk in transactions.chunks(keys, SURVEY_KEYS) or [()]
                for one in (await self._at(since, [IDENTITY, *chunk]))[1:]
            ]
        except LogCompacted:
            return None
        return self._named(keys, responses)

    async def _at(self, revision: Revision, keys: Sequence[str]) -> list[Any]:
        ranges = [transactions.get(self._keys.encode(key), revision=revision) for key in keys]
        return list((await self._read(ranges, asked=revision)).value.responses)

    def _named(self, keys: Sequence[str], responses: Sequence[Any]) -> dict[str, Record | None]:
        records = [transactions.records_of(self._keys, one.response_range.kvs) for one in responses]
        return {key: one[0] if one else None for key, one in zip(keys, records, strict=True)}

    def bind(self, identity: ClusterIdentity) -> None:
        if self._bound not in {None, identity}:
            self._horizon.revision = Revision(0)  # another log's revisions are not for this one's watches to reach
        self._bound = identity

    async def found(
        self, identity: ClusterIdentity, puts: Mapping[str, bytes], *, instead_of: ClusterIdentity | None = None
    ) -> CommitResult:
        """At most 127 records. An answer that was lost does no harm: nobody else would choose this identity."""
        if len(puts) + 1 > transactions.MOST_OPERATIONS:
            raise ValueError(f"{len(puts)} records to found a log with: etcd takes {transactions.MOST_OPERATIONS - 1}")
        request = rpc.TxnRequest(
            compare=[transactions.is_identity(self._keys, instead_of)],
            success=[
                transactions.put(self._keys.identity, identity.text.encode()),
                *(transactions.put(self._keys.encode(key), value) for key, value in puts.items()),
            ],
            failure=[rpc.RequestOp(request_range=transactions.get(self._keys.identity))],
        )
        answer = await self._client.call(lambda endpoint: endpoint.kv.Txn, request)
        revision = self._horizon.name(Revision(answer.value.header.revision))
        if answer.value.succeeded:
            return Committed(revision=revision)
        known = transactions.first_of(answer.value, self._keys)
        if answer.uncertain and known is not None and known.value == identity.text.encode():
            return Committed(revision=known.mod_revision)
        return Refuted(revision=revision, current={IDENTITY: known})

    async def head(self) -> Revision:
        """Of the whole store, linearizable."""
        identity = self.identity
        answer = await self._read([transactions.get(self._keys.identity)])
        transactions.check_identity(transactions.first_of(answer.value, self._keys), identity)
        return self._horizon.name(Revision(answer.value.header.revision))

    async def list(self, *, page_size: int = 1000, keys_only: bool = False) -> AsyncGenerator[Page, None]:
        """Pages are asked for by number, and by fewer when they are larger than one answer may be. Raises LogCompacted when etcd forgets
        the revision meanwhile."""
        identity = self.identity
        start, size, head = self._keys.first, page_size, Revision(0)
        end, further = self._keys.end, collections.deque[bytes]()
        while True:
            ranges = [
                transactions.get(self._keys.identity, revision=head),
                rpc.RangeRequest(key=start, range_end=end, limit=size, revision=head, keys_only=keys_only),
            ]
            try:
                answer = await self._read(ranges, seconds=PAGE_SECONDS, total_seconds=2 * PAGE_SECONDS, asked=head)
            except RecordTooLarge:
                if size == 1:
                    raise
                size = max(1, size // 4)
                continue
            is_first = not head
            if is_first:
                head = self._horizon.name(Revision(answer.value.header.revision))
            transactions.check_identity(transactions.first_of(answer.value, self._keys), identity)
            found = answer.value.responses[1].response_range
            records = tuple(self._records(found.kvs))
            if records or is_first:
                yield Page(revision=head, records=records)
            if found.more:
                start = found.kvs[-1].key + b"\0"
                if is_first:
                    further.extend(cut for cut in (*self._keys.cuts(found.count), end) if cut > start)
                    end = further.popleft()
            elif further:
                start, end = end, further.popleft()
            else:
                return

    async def watch(self, *, after: Revision) -> AsyncGenerator[Batch, None]:
        """Batches are empty when there was nothing to tell for some seconds, or only what others wrote. Ends when the log is closed.

        A watch whose channel was retired goes on from the same revision on the one that took its place.
        """
        identity, told = self.identity, after
        try:
            while not self._client.is_closed:
                endpoint = await self._watchable_at(told)
                batches = watch.follow(
                    endpoint=endpoint,
                    keys=self._keys,
                    identity=identity,
                    after=told,
                    horizon=self._horizon,
                    barrier=self._write_barrier,
                )
                async with contextlib.aclosing(batches):
                    async for batch in batches:
                        yield batch
                        told = batch.revision
        except LogUnavailable:
            if not self._client.is_closed:
                raise

    async def _watchable_at(self, after: Revision) -> Endpoint:
        """Where to watch: a member that has come to that revision, holds everything after it, and is of the log we are bound to.

        Compaction at `after + 1` may have taken a deletion of that very revision, which etcd would leave out unsaid (etcd#19179); to
        read at `after` finds it out.
        """
        own = self._keys.identity
        try:
            answer = await self._read(
                [transactions.get(own), transactions.get(own, revision=after, keys_only=True)], asked=after
            )
        except LogCompacted:
            await self.head()  # that it is another log counts more
            raise
        transactions.check_identity(transactions.first_of(answer.value, self._keys), self.identity)
        return answer.endpoint

    async def commit(self, transaction: Transaction) -> CommitResult:
        """Raises ValueError beyond 127 comparisons or 128 puts and deletes: those are etcd's limits, the identity takes one. After a
        failure that leaves it open whether it was carried out, it is sent again only if it can be carried out but once."""
        identity = self.identity
        request = transactions.request_of(self._keys, identity, transaction)
        repeatable = transactions.is_repeatable(transaction)
        answer = await self._client.call(lambda endpoint: endpoint.kv.Txn, request, repeatable=repeatable)
        result = transactions.result_of(self._keys, identity, transaction, answer.value, uncertain=answer.uncertain)
        self._horizon.name(result.revision)
        return result

    async def announce(self, key: str, value: bytes) -> Revision:
        """One lease a key, kept alive; granted anew when etcd has let it go."""
        identity = self.identity
        for known in (self._leases.get(key, 0), 0):
            lease = known if known and await self._is_kept(known) else await self._grant()
            self._leases[key] = lease
            request = rpc.TxnRequest(
                compare=[transactions.is_identity(self._keys, identity)],
                success=[transactions.put(self._keys.encode(key), value, lease=lease)],
                failure=[rpc.RequestOp(request_range=transactions.get(self._keys.identity))],
            )
            try:
                # To say the same twice does no harm.
                answer = await self._client.call(lambda endpoint: endpoint.kv.Txn, request)
            except NotFound:
                continue  # it ended between the two calls
            if not answer.value.succeeded:
                transactions.check_identity(transactions.first_of(answer.value, self._keys), identity)
            return self._horizon.name(Revision(answer.value.header.revision))
        raise LogUnavailable(
            "etcd lets a lease go as soon as it is granted.", hint="Look at the clocks and the load of its members."
        )

    async def withdraw(self, key: str) -> None:
        """The lease ends by itself, with nothing on it."""
        self._leases.pop(key, None)
        with contextlib.suppress(LogUnavailable, ForeignLog):
            await self.commit(Transaction(compare={}, puts={}, deletes=(key,)))

    async def close(self) -> None:
        self._horizon.close()
        await self._client.close()

    async def _read(
        self,
        ranges: Sequence[Any],
        *,
        seconds: float = ATTEMPT_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
        asked: Revision | None = None,
    ) -> Answer:
        return await self._client.call(
            lambda endpoint: endpoint.kv.Txn,
            transactions.read(ranges),
            seconds=seconds,
            total_seconds=total_seconds,
            asked=asked,
        )

    def _records(self, kvs: Sequence[Any]) -> Iterator[Record]:
        for kv in kvs:
            key = self._keys.decode(kv.key)
            if key is not None:
                yield Record(key=key, value=kv.value, mod_revision=Revision(kv.mod_revision))

    async def _write_barrier(self) -> Revision:
        request = rpc.TxnRequest(
            compare=[transactions.is_identity(self._keys, self.identity)], success=[transactions.put(self._keys.barrier, b"")]
        )
        answer = await self._client.call(lambda endpoint: endpoint.kv.Txn, request, total_seconds=ATTEMPT_SECONDS)
        return Revision(answer.value.header.revision)

    async def _grant(self) -> int:
        request = rpc.LeaseGrantRequest(TTL=self._presence_seconds)
        answer = await self._client.call(lambda endpoint: endpoint.leases.LeaseGrant, request)
        return int(answer.value.ID)

    async def _is_kept(self, lease: int) -> bool:
        answer = await self._client.call(lambda endpoint: endpoint.keep_alive, rpc.LeaseKeepAliveRequest(ID=lease))
        return bool(answer.value.TTL > 0)
