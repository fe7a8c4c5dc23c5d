"""Requests and the meaning of their answers, without etcd."""

from __future__ import annotations

import pytest
from aetcd import rpc

from keycache.domain.errors import ForeignLog
from keycache.domain.log import ABSENT, CommitResult, Committed, Record, Refuted, Transaction
from keycache.domain.names import ClusterIdentity, Revision
from keycache.etcd import transactions
from keycache.etcd.keys import KeySpace

KEYS = KeySpace("test")
OURS = ClusterIdentity("ours")
FIVE, SIX = Revision(5), Revision(6)


def transaction(compare: dict[str, Revision], puts: dict[str, bytes], *deletes: str) -> Transaction:
    return Transaction(compare=compare, puts=puts, deletes=deletes)


def found(*kvs: rpc.KeyValue) -> rpc.ResponseOp:
    return rpc.ResponseOp(response_range=rpc.RangeResponse(kvs=kvs))


def kv(key: str, value: bytes, revision: int) -> rpc.KeyValue:
    return rpc.KeyValue(key=KEYS.encode(key), value=value, mod_revision=revision)


def refutation(*records: tuple[str, bytes, int] | None, identity: bytes = b"ours") -> rpc.TxnResponse:
    return rpc.TxnResponse(
        header=rpc.ResponseHeader(revision=20),
        succeeded=False,
        responses=[found(kv("identity", identity, 1)), *(found() if one is None else found(kv(*one)) for one in records)],
    )


def result(asked: Transaction, answer: rpc.TxnResponse, *, uncertain: bool = True) -> CommitResult:
    return transactions.result_of(KEYS, OURS, asked, answer, uncertain=uncertain)


def test_a_request_compares_the_identity_and_every_revision() -> None:
    request = transactions.request_of(KEYS, OURS, transaction({"a": FIVE, "b": ABSENT}, {"a": b"1"}, "c"))
    assert [(one.key, one.target, one.value, one.mod_revision) for one in request.compare] == [
        (KEYS.identity, rpc.Compare.VALUE, b"ours", 0),
        (KEYS.encode("a"), rpc.Compare.MOD, b"", 5),
        (KEYS.encode("b"), rpc.Compare.MOD, b"", 0),
    ]
    assert {one.result for one in request.compare} == {rpc.Compare.EQUAL}
    assert request.success[0].request_put == rpc.PutRequest(key=KEYS.encode("a"), value=b"1")
    assert request.success[1].request_delete_range == rpc.DeleteRangeRequest(key=KEYS.encode("c"))
    assert [one.request_range.key for one in request.failure] == [KEYS.identity, KEYS.encode("a"), KEYS.encode("b")]


def test_a_request_of_more_than_etcd_takes_is_refused_here() -> None:
    many = {f"k{number}": b"" for number in range(128)}
    transactions.request_of(KEYS, OURS, transaction({}, many))
    transactions.request_of(KEYS, OURS, transaction(dict.fromkeys(list(many)[:127], FIVE), many))
    for beyond in (
        transaction(dict.fromkeys(many, FIVE), {}),
        transaction({}, {**many, "more": b""}),
        transaction({}, many, "more"),
    ):
        with pytest.raises(ValueError, match="etcd takes 128"):
            transactions.request_of(KEYS, OURS, beyond)


@pytest.mark.parametrize("key", ["identity", "barrier"])
def test_no_transaction_touches_the_logs_own_keys(key: str) -> None:
    for meant in (transaction({}, {key: b"1"}), transaction({}, {}, key)):
        with pytest.raises(ValueError, match="the log's own"):
            transactions.request_of(KEYS, OURS, meant)


@pytest.mark.parametrize(
    ("meant", "expected"),
    [
        (transaction({"a": FIVE}, {"a": b"1"}), True),
        (transaction({"a": ABSENT}, {"a": b"1", "audit": b"x"}), True),
        (transaction({"a": FIVE, "settings": SIX}, {}, "a"), True),
        (transaction({}, {"a": b"1"}), False),
        (transaction({"settings": SIX}, {"a": b"1"}), False),
        (transaction({"a": ABSENT}, {}, "a"), False),
    ],
)
def test_only_what_its_own_effect_would_refute_may_be_sent_twice(meant: Transaction, expected: bool) -> None:
    assert transactions.is_repeatable(meant) is expected


def test_a_commit_that_its_own_lost_first_try_refutes_was_carried_out() -> None:
    meant = transaction({"a": FIVE, "b": ABSENT, "settings": SIX}, {"a": b"1", "b": b"2"})
    assert result(meant, refutation(("a", b"1", 7), ("b", b"2", 7), ("settings", b"s", 6))) == Committed(revision=Revision(7))


def test_what_it_put_beside_what_it_compared_is_evidence_too() -> None:
    meant = transaction({"a": FIVE}, {"audit": b"x"}, "a")
    assert result(meant, refutation(None, ("audit", b"x", 7))) == Committed(revision=Revision(7))
    assert result(meant, refutation(None, None)) == Refuted(revision=Revision(20), current={"a": None})


@pytest.mark.parametrize(
    "records",
    [
        (("a", b"1", 7), ("b", b"other", 7)),
        (("a", b"1", 7), ("b", b"2", 8)),
        (("a", b"1", 7), None),
        (("a", b"other", 9), ("b", b"2", 7)),
    ],
)
def test_a_commit_that_somebody_else_refutes_is_refuted(records: tuple[tuple[str, bytes, int] | None, ...]) -> None:
    meant = transaction({"a": FIVE, "b": ABSENT}, {"a": b"1", "b": b"2"})
    current = {
        key: None if one is None else Record(key=key, value=one[1], mod_revision=Revision(one[2]))
        for key, one in zip("ab", records, strict=True)
    }
    assert result(meant, refutation(*records)) == Refuted(revision=Revision(20), current=current)


def test_without_a_lost_try_the_same_values_are_somebody_elses() -> None:
    meant = transaction({"a": FIVE}, {"a": b"1"})
    assert isinstance(result(meant, refutation(("a", b"1", 7)), uncertain=False), Refuted)


def test_another_identity_counts_before_everything() -> None:
    meant = transaction({"a": FIVE}, {"a": b"1"})
    with pytest.raises(ForeignLog):
        result(meant, refutation(("a", b"1", 7), identity=b"theirs"))
    empty = rpc.TxnResponse(header=rpc.ResponseHeader(revision=20), responses=[found(), found()])
    with pytest.raises(ForeignLog):
        result(meant, empty)
