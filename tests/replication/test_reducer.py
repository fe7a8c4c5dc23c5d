"""From log records to changes of the replica: the same by watching as by listing."""

from __future__ import annotations

import pytest

from keycache.codec import encode_entry, entry_to_wire
from keycache.domain.entry import Protocol
from keycache.domain.log import ENTRIES, SETTINGS, Event, Record, entry_key
from keycache.domain.names import Revision
from keycache.domain.ports import DocumentChange, EntryChange
from keycache.replication.reducer import reduce_events, reduce_records
from support.entries import gone, make_entry, put, record_of

R = Revision(5)


def reduced(key: str, value: bytes | None) -> list:
    changes = list(reduce_events([(R, Event(key=key, value=value))]))
    if value is not None:
        assert list(reduce_records([Record(key=key, value=value, mod_revision=R)])) == changes
    return changes


@pytest.mark.parametrize("protocol", Protocol)
def test_an_entry_is_put_with_its_bytes_as_in_the_log_and_gone_when_deleted(protocol: Protocol) -> None:
    entry = make_entry(1, protocol=protocol)
    key, value = record_of(entry)
    assert reduced(key, value) == [put(entry, R)]
    assert reduced(key, None) == [gone(entry, R)]


def test_any_other_record_is_a_document() -> None:
    assert reduced(SETTINGS, b"x") == [DocumentChange(key=SETTINGS, revision=R, value=b"x")]
    assert reduced(SETTINGS, None) == [DocumentChange(key=SETTINGS, revision=R, value=None)]
    for odd in (ENTRIES, f"{ENTRIES}smime", f"{ENTRIES}smime/xyz", f"{ENTRIES}later/{'a' * 64}", "entries"):
        assert reduced(odd, b"x") == [DocumentChange(key=odd, revision=R, value=b"x")]


def _of_a_later_version() -> bytes:
    message = entry_to_wire(make_entry())
    message.key.trust = 9
    return message.SerializeToString()


@pytest.mark.parametrize("value", [b"\xff", b"", _of_a_later_version(), encode_entry(make_entry(2))])
def test_a_record_that_is_no_entry_of_its_name_is_kept_as_a_document_and_what_it_replaces_is_not_served_on(
    value: bytes,
) -> None:
    """Otherwise a node that watched would serve an older entry than one that listed, under another digest."""
    entry = make_entry(1)
    key = entry_key(entry.key.protocol, entry.key.fingerprint)
    assert reduced(key, value) == [
        EntryChange(protocol=entry.key.protocol, fingerprint=entry.key.fingerprint, revision=R, facts=None),
        DocumentChange(key=key, revision=R, value=value),
    ]


def test_events_keep_their_order_and_revisions() -> None:
    first, second = make_entry(1), make_entry(2)
    events = [
        (Revision(n), Event(key=key, value=value)) for n, (key, value) in enumerate([record_of(first), record_of(second)])
    ]
    assert list(reduce_events(events)) == [put(first, 0), put(second, 1)]
