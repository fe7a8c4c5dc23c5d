"""Requests to etcd, and what their answers mean. Pure: messages in, messages or values out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aetcd import rpc

from keycache.domain.errors import ForeignLog
from keycache.domain.log import ABSENT, IDENTITY, CommitResult, Committed, Record, Refuted, Transaction
from keycache.domain.names import ClusterIdentity, Revision
from keycache.etcd.keys import BARRIER, KeySpace

MOST_OPERATIONS = 128
"""In each list of a transaction: etcd's --max-txn-ops."""


def get(key: bytes, *, revision: Revision = ABSENT, keys_only: bool = False) -> Any:
    """One key, now or as of `revision`."""
    return rpc.RangeRequest(key=key, revision=revision, keys_only=keys_only)


def read(ranges: Iterable[Any]) -> Any:
    """All ranges at one revision, linearizable."""
    return rpc.TxnRequest(success=[rpc.RequestOp(request_range=one) for one in ranges])


def is_identity(keys: KeySpace, identity: ClusterIdentity | None) -> Any:
    """Compares the identity; None: there must be none."""
    if identity is None:
        return is_at(keys.identity, ABSENT)
    return rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.VALUE, key=keys.identity, value=identity.text.encode())


def is_at(key: bytes, revision: Revision) -> Any:
    """A key that does not exist compares as one of revision 0."""
    return rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.MOD, key=key, mod_revision=revision)


def put(key: bytes, value: bytes, *, lease: int = 0) -> Any:
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value, lease=lease))


def delete(key: bytes) -> Any:
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))


def request_of(keys: KeySpace, identity: ClusterIdentity, transaction: Transaction) -> Any:
    """Refuted, it answers with the identity and then the records of `asked_again`. Raises ValueError."""
    puts, deletes = transaction.puts, transaction.deletes
    if set(deletes) & set(puts):
        raise ValueError("a transaction puts and deletes the same key")
    if {IDENTITY, BARRIER} & {*puts, *deletes}:
        raise ValueError("a transaction names a key that is the log's own")
    operations = len(puts) + len(deletes)
    # The identity is one more comparison.
    if len(transaction.compare) + 1 > MOST_OPERATIONS or operations > MOST_OPERATIONS:
        raise ValueError(
            f"a transaction of {len(transaction.compare)} comparisons and {operations} operations: etcd takes {MOST_OPERATIONS}"
        )
    return rpc.TxnRequest(
        compare=[
            is_identity(keys, identity),
            *(is_at(keys.encode(key), revision) for key, revision in transaction.compare.items()),
        ],
        success=[
            *(put(keys.encode(key), value) for key, value in puts.items()),
            *(delete(keys.encode(key)) for key in deletes),
        ],
        failure=[rpc.RequestOp(request_range=get(key)) for key in (keys.identity, *map(keys.encode, asked_again(transaction)))],
    )


def asked_again(transaction: Transaction) -> list[str]:
    """The compared keys, and as many of those it puts as there is room for: by these an earlier try is known."""
    further = (key for key in transaction.puts if key not in transaction.compare)
    return [*transaction.compare, *further][: MOST_OPERATIONS - 1]


def is_repeatable(transaction: Transaction) -> bool:
    """Whether a second run of it is refuted by the first: it writes a key that it compares. (Deleting what it compares as absent
    changes nothing.)"""
    compare = transaction.compare
    return any(key in compare for key in transaction.puts) or any(compare.get(key, ABSENT) for key in transaction.deletes)


def result_of(
    keys: KeySpace, identity: ClusterIdentity, transaction: Transaction, response: Any, *, uncertain: bool
) -> CommitResult:
    """`uncertain`: an earlier try may have been carried out. Raises ForeignLog.

    1. We send the transaction to member A. A commits it at revision 7.
    2. A dies before it answers; the connection breaks.
    3. We send it again to B. It is refuted: the key we compared has our own mod_revision 7.
    4. All that we put is there, with our values and one mod_revision: it is our own write that refutes us. Hence: Committed at 7.
    """
    revision = Revision(response.header.revision)
    if response.succeeded:
        return Committed(revision=revision)
    found, *rest = (records_of(keys, one.response_range.kvs) for one in response.responses)
    check_identity(found[0] if found else None, identity)
    now = {key: records[0] if records else None for key, records in zip(asked_again(transaction), rest, strict=True)}
    written = _written_at(transaction.puts, now) if uncertain else None
    if written is not None:
        return Committed(revision=written)
    return Refuted(revision=revision, current={key: now[key] for key in transaction.compare})


def _written_at(puts: Mapping[str, bytes], now: Mapping[str, Record | None]) -> Revision | None:
    """The one revision at which all of `puts` that were asked for were written so; None if they were not."""
    revisions: set[Revision] = set()
    for key, value in puts.items():
        record = now.get(key)
        if key in now and (record is None or record.value != value):
            return None
        if record is not None:
            revisions.add(record.mod_revision)
    return revisions.pop() if len(revisions) == 1 else None


def records_of(keys: KeySpace, kvs: Iterable[Any]) -> list[Record]:
    """With the log's own keys, which only the log asks for."""
    return [
        Record(
            key=kv.key.removeprefix(keys.first).decode(errors="replace"),
            value=kv.value,
            mod_revision=Revision(kv.mod_revision),
        )
        for kv in kvs
    ]


def check_identity(found: Record | None, bound: ClusterIdentity) -> None:
    """Raises ForeignLog if the log is not the one it is taken for."""
    if found is not None and found.value == bound.text.encode():
        return
    now = "has none" if found is None else f"is {found.value.decode(errors='replace')[:64]}"
    raise ForeignLog(
        f"The log in etcd was {bound}, and its identity now {now}: it was emptied, or built anew.",
        hint="Nothing was changed. Run 'keycache cluster check'.",
    )


def first_of(response: Any, keys: KeySpace) -> Record | None:
    """The first range's record in the answer to `read`."""
    records = records_of(keys, response.responses[0].response_range.kvs)
    return records[0] if records else None


def chunks(keys: Sequence[str], size: int) -> list[Sequence[str]]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]
