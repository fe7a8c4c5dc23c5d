"""What becomes of etcd's watch responses, without etcd."""

from __future__ import annotations

import pytest
from aetcd import rpc

from keycache.domain.errors import ForeignLog, LogCompacted, LogUnavailable
from keycache.domain.log import Batch, Event
from keycache.domain.names import ClusterIdentity, Revision
from keycache.etcd.assembly import NOBODY, Assembly, answers_in_order
from keycache.etcd.keys import KeySpace

KEYS = KeySpace("test")
OURS = ClusterIdentity("ours")


def assembly(after: int = 10, *, in_order: bool = False) -> Assembly:
    return Assembly(keys=KEYS, identity=OURS, after=Revision(after), in_order=in_order, endpoint="http://etcd:2379")


def put(revision: int, key: str, value: bytes = b"v") -> rpc.Event:
    return rpc.Event(type=rpc.Event.PUT, kv=rpc.KeyValue(key=KEYS.encode(key), value=value, mod_revision=revision))


def deleted(revision: int, key: str) -> rpc.Event:
    return rpc.Event(type=rpc.Event.DELETE, kv=rpc.KeyValue(key=KEYS.encode(key), mod_revision=revision))


def told(*events: rpc.Event, fragment: bool = False, head: int = 99) -> rpc.WatchResponse:
    return rpc.WatchResponse(header=rpc.ResponseHeader(revision=head), events=events, fragment=fragment)


def progress(revision: int, *, watch_id: int = 0) -> rpc.WatchResponse:
    return rpc.WatchResponse(header=rpc.ResponseHeader(revision=revision), watch_id=watch_id)


def batch(revision: int, *events: tuple[int, str, bytes | None]) -> Batch:
    return Batch(
        revision=Revision(revision), events=tuple((Revision(at), Event(key=key, value=value)) for at, key, value in events)
    )


def test_a_response_is_a_batch_up_to_its_newest_event_whatever_its_header_says() -> None:
    one = assembly()
    response = told(put(11, "a"), deleted(11, "b"), put(12, "c"), head=50)
    assert one.take(response) == batch(12, (11, "a", b"v"), (11, "b", None), (12, "c", b"v"))
    assert one.cursor == 12


def test_a_revision_in_fragments_is_told_once_it_is_whole() -> None:
    one = assembly()
    assert one.take(told(put(11, "a"), put(12, "b"), fragment=True)) == batch(11, (11, "a", b"v"))
    assert one.take(told(put(12, "c"), fragment=True)) is None
    assert one.take(told(put(12, "d"), put(13, "e"), fragment=True)) == batch(
        12, (12, "b", b"v"), (12, "c", b"v"), (12, "d", b"v")
    )
    assert one.take(told(put(13, "f"))) == batch(13, (13, "e", b"v"), (13, "f", b"v"))


def test_what_was_told_is_not_told_again() -> None:
    one = assembly()
    one.take(told(put(11, "a"), put(12, "b")))
    assert one.take(told(put(11, "a"), put(12, "b"))) is None
    assert one.take(told(put(12, "b"), put(13, "c"))) == batch(13, (13, "c", b"v"))


def test_what_is_no_record_of_ours_moves_the_cursor_and_is_not_told() -> None:
    one = assembly()
    assert one.take(told(put(11, "identity", b"ours"))) == batch(11)
    assert one.take(told(put(12, "barrier", b""))) == batch(12)


@pytest.mark.parametrize("event", [deleted(12, "identity"), put(12, "identity", b"theirs")])
def test_a_changed_identity_is_noticed_before_anything_of_its_revision_is_told(event: rpc.Event) -> None:
    with pytest.raises(ForeignLog):
        assembly().take(told(deleted(12, "a"), event, deleted(12, "z")))
    one = assembly()
    assert one.take(told(deleted(12, "a"), fragment=True)) is None
    with pytest.raises(ForeignLog):
        one.take(told(event, deleted(12, "z")))


def test_a_notification_that_etcd_sends_by_itself_moves_the_cursor() -> None:
    one = assembly()
    assert one.take(progress(20)) == batch(20)
    assert one.take(progress(15)) == batch(20), "never back"
    assert one.take(told(put(18, "a"), put(21, "b"))) == batch(21, (21, "b", b"v"))


def test_an_answer_that_may_have_overtaken_events_is_a_sign_of_life_and_no_more() -> None:
    one = assembly(in_order=False)
    assert one.take(progress(20, watch_id=NOBODY)) == batch(10)
    assert one.take(told(put(12, "a"))) == batch(12, (12, "a", b"v"))


def test_an_answer_in_order_moves_the_cursor() -> None:
    one = assembly(in_order=True)
    assert one.take(progress(20, watch_id=NOBODY)) == batch(20)


def test_no_word_on_progress_steps_over_a_revision_that_is_still_coming() -> None:
    one = assembly(in_order=True)
    one.take(told(put(12, "a"), fragment=True))
    assert one.take(progress(20, watch_id=NOBODY)) == batch(10)
    assert one.take(told(put(12, "b"))) == batch(12, (12, "a", b"v"), (12, "b", b"v"))


def test_the_word_that_it_was_set_up_says_nothing_of_events() -> None:
    one = assembly()
    assert one.take(rpc.WatchResponse(header=rpc.ResponseHeader(revision=50), created=True)) is None
    assert (one.is_created, one.cursor) == (True, 10)


def test_compaction_ends_it_with_the_revision() -> None:
    with pytest.raises(LogCompacted) as caught:
        assembly().take(rpc.WatchResponse(canceled=True, compact_revision=30))
    assert caught.value.compacted == 30


def test_any_other_end_is_an_error_that_names_the_endpoint() -> None:
    with pytest.raises(LogUnavailable, match="http://etcd:2379 lets this node's user not do that"):
        assembly().take(rpc.WatchResponse(canceled=True, created=True, cancel_reason="etcdserver: permission denied"))
    with pytest.raises(LogUnavailable, match="http://etcd:2379 broke the request off"):
        assembly().take(rpc.WatchResponse(canceled=True))


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("3.4.23", False),
        ("3.4.24", False),
        ("3.4.25", True),
        ("3.4.38", True),
        ("3.5.7", False),
        ("3.5.8", True),
        ("3.6.0", True),
        ("3.6.0-rc.1", True),
        ("4.0.0", True),
        ("3.3.27", False),
        ("", False),
        ("unknown", False),
    ],
)
def test_answers_are_believed_from_the_versions_on_that_keep_them_in_order(version: str, expected: bool) -> None:
    assert answers_in_order(version) is expected
