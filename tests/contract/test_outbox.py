"""What every outbox keeps: all of what was put, in order, until just that was delivered."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.harness import OUTBOXES
from keycache.codec import encode_entry
from keycache.domain.entry import Entry, Protocol
from keycache.domain.errors import OutboxFull
from keycache.domain.log import CHAIN
from keycache.domain.lookup import Row
from keycache.domain.outbox import Pending
from keycache.domain.ports import Outbox
from keycache.store import open_store
from keycache.store.memory import MemoryOutbox
from keycache.store.rows import row
from support.entries import T0, entries, facts_of, fingerprint_of, make_entry, make_sighting
from support.properties import bounded

MINUTE = timedelta(minutes=1)
OTHER = make_sighting(source="<another@example.org>")


def named(outbox: Outbox, number: int, protocol: Protocol = Protocol.SMIME) -> Entry | None:
    pending = outbox.pending(protocol, fingerprint_of(number, protocol))
    return None if pending is None else pending.entry


def rows_of(entry: Entry, *addresses: str) -> list[Row]:
    return [row(address, facts_of(entry), 0) for address in addresses]


def size_of(*waiting: Entry, **puts: bytes) -> int:
    return sum(len(encode_entry(entry)) for entry in waiting) + sum(len(key) + len(value) for key, value in puts.items())


def test_an_empty_outbox_holds_nothing(outbox: Outbox) -> None:
    assert (outbox.count, outbox.size, outbox.limit) == (0, 0, 1 << 20)
    assert (named(outbox, 1), outbox.rows(["user1@example.org"]), outbox.rows_of(fingerprint_of(1)), outbox.first(9)) == (
        None,
        {},
        [],
        [],
    )
    assert outbox.clear() == 0
    outbox.remove([])


def test_what_was_put_waits_with_all_of_it_and_is_found_by_name_address_and_fingerprint(outbox: Outbox) -> None:
    entry = make_entry(1, addresses=["Bob@example.org", "x@example.org"])
    outbox.put(entry, {CHAIN + "a": b"ca"}, T0)
    pending = Pending(number=outbox.first(1)[0].number, version=1, entry=entry, puts={CHAIN + "a": b"ca"}, queued_at=T0)
    assert outbox.first(9) == [pending]
    assert outbox.pending(Protocol.SMIME, fingerprint_of(1)) == pending
    assert (outbox.count, outbox.size) == (1, size_of(entry, **{CHAIN + "a": b"ca"}))
    assert outbox.rows(["bob@example.org", "nobody@example.org", ""]) == {"bob@example.org": rows_of(entry, "Bob@example.org")}
    assert outbox.rows_of(fingerprint_of(1)) == rows_of(entry, "")
    assert outbox.pending(Protocol.OPENPGP, fingerprint_of(1)) is None


def test_one_fingerprint_may_wait_for_each_protocol(outbox: Outbox) -> None:
    both = [make_entry(1, protocol=protocol, fingerprint=fingerprint_of(1)) for protocol in Protocol]
    for entry in both:
        outbox.put(entry, {}, T0)
    assert outbox.rows_of(fingerprint_of(1)) == [one for entry in both for one in rows_of(entry, "")]
    assert outbox.rows(["user1@example.org"]) == {
        "user1@example.org": [one for entry in both for one in rows_of(entry, "user1@example.org")]
    }


def test_an_address_spelt_in_two_ways_has_a_row_for_each(outbox: Outbox) -> None:
    entry = make_entry(1, addresses=["BOB@example.org", "bob@example.org"])
    outbox.put(entry, {}, T0)
    assert outbox.rows(["bob@example.org"]) == {"bob@example.org": rows_of(entry, "BOB@example.org", "bob@example.org")}


def test_the_oldest_come_first_and_no_more_than_asked(outbox: Outbox) -> None:
    for number in (3, 1, 2):
        outbox.put(make_entry(number), {}, T0 + number * MINUTE)
    assert [one.entry for one in outbox.first(2)] == [make_entry(3), make_entry(1)]
    assert [one.queued_at for one in outbox.first(9)] == [T0 + 3 * MINUTE, T0 + MINUTE, T0 + 2 * MINUTE]


def test_a_key_put_anew_keeps_its_place_its_time_and_its_further_records(outbox: Outbox) -> None:
    for number in (1, 2):
        outbox.put(make_entry(number), {CHAIN + "a": b"ca"}, T0)
    before = outbox.first(9)
    newer = make_entry(1, OTHER, addresses=["new@example.org"])
    outbox.put(newer, {CHAIN + "b": b"another ca"}, T0 + MINUTE)
    joined = {CHAIN + "a": b"ca", CHAIN + "b": b"another ca"}
    assert outbox.first(9) == [replace(before[0], version=2, entry=newer, puts=joined), before[1]]
    assert outbox.count == 2
    assert outbox.size == size_of(newer, **joined) + size_of(make_entry(2), **{CHAIN + "a": b"ca"})
    assert outbox.rows(["user1@example.org"]) == {}
    assert outbox.rows(["new@example.org"]) == {"new@example.org": rows_of(newer, "new@example.org")}


def test_what_was_delivered_is_gone_and_the_rest_waits(outbox: Outbox) -> None:
    for number in (1, 2, 3):
        outbox.put(make_entry(number), {CHAIN + "a": b"ca"}, T0)
    outbox.remove(outbox.first(2))
    assert [one.entry for one in outbox.first(9)] == [make_entry(3)]
    assert (outbox.count, outbox.size) == (1, size_of(make_entry(3), **{CHAIN + "a": b"ca"}))
    assert (named(outbox, 1), outbox.rows(["user1@example.org"]), outbox.rows_of(fingerprint_of(1))) == (None, {}, [])


def test_what_was_put_anew_while_it_was_delivered_waits_on(outbox: Outbox) -> None:
    outbox.put(make_entry(1), {}, T0)
    delivered = outbox.first(1)
    outbox.put(make_entry(1, OTHER), {}, T0)
    outbox.remove(delivered)
    assert [one.entry for one in outbox.first(9)] == [make_entry(1, OTHER)]
    outbox.remove(outbox.first(1))
    assert (outbox.count, outbox.size) == (0, 0)


def test_removing_twice_takes_nothing_that_came_in_between(outbox: Outbox) -> None:
    """1. Number 7 is delivered. 2. An administrator deletes it. 3. Another key comes. 4. Number 7 is removed."""
    outbox.put(make_entry(1), {}, T0)
    delivered = outbox.first(1)
    outbox.remove(delivered)
    outbox.put(make_entry(2), {}, T0)
    outbox.remove(delivered)
    assert [one.entry for one in outbox.first(9)] == [make_entry(2)]


def test_an_administrator_may_forget_all(outbox: Outbox) -> None:
    for number in (1, 2):
        outbox.put(make_entry(number), {CHAIN + "a": b"ca"}, T0)
    assert outbox.clear() == 2
    assert (outbox.count, outbox.size, outbox.first(9), outbox.rows(["user1@example.org"])) == (0, 0, [], {})


@pytest.mark.parametrize("name", OUTBOXES)
def test_a_full_outbox_refuses_what_makes_it_larger_says_what_to_do_and_keeps_what_it_has(name: str, tmp_path: Path) -> None:
    first, second = make_entry(1, material_size=900), make_entry(2, material_size=900)
    with OUTBOXES[name](tmp_path, size_of(first, second) - 1) as outbox:
        outbox.put(first, {CHAIN + "a": b"ca"}, T0)
        for entry, puts in ((second, {}), (make_entry(1, material_size=2000), {}), (first, {CHAIN + "b": b"x" * 2000})):
            with pytest.raises(OutboxFull, match="1 keys wait") as refused:
                outbox.put(entry, puts, T0)
            assert "etcd" in refused.value.hint
        assert [one.version for one in outbox.first(9)] == [1]
        assert outbox.size == size_of(first, **{CHAIN + "a": b"ca"})
        smaller = make_entry(1, material_size=800)
        outbox.put(smaller, {}, T0)
        assert named(outbox, 1) == smaller
        outbox.remove(outbox.first(1))
        outbox.put(second, {}, T0)
        assert named(outbox, 2) == second


def test_writes_from_several_threads_are_all_kept(outbox: Outbox) -> None:
    def work(first: int) -> None:
        for number in range(first, first + 10):
            outbox.put(make_entry(number), {}, T0)
            if number % 2:
                pending = outbox.pending(Protocol.SMIME, fingerprint_of(number))
                assert pending is not None
                outbox.remove([pending])

    threads = [threading.Thread(target=work, args=(10 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.entry.key.fingerprint for one in outbox.first(99)} == {fingerprint_of(number) for number in range(0, 40, 2)}
    assert (outbox.count, outbox.size) == (20, size_of(*(one.entry for one in outbox.first(99))))


puts = st.dictionaries(st.sampled_from([CHAIN + "a", CHAIN + "b"]), st.binary(max_size=40), max_size=2)
acts = st.lists(
    st.tuples(st.just("put"), entries(numbers=4), puts)
    | st.tuples(st.just("remove"), st.integers(0, 3), st.none())
    | st.tuples(st.just("reopen"), st.none(), st.none())
    | st.tuples(st.sampled_from(["clear"]), st.none(), st.none()),
    max_size=12,
)


def observed(outbox: Outbox) -> tuple[Any, ...]:
    """All but the numbers themselves, which are only compared."""
    waiting = outbox.first(99)
    indexes = sorted({address.index for one in waiting for address in one.entry.key.addresses})
    return (
        outbox.count,
        outbox.size,
        [(one.version, one.entry, one.puts, one.queued_at) for one in waiting],
        {index: sorted(rows) for index, rows in outbox.rows(indexes).items()},
        [outbox.rows_of(one.entry.key.fingerprint) for one in waiting],
        [one == outbox.pending(one.entry.key.protocol, one.entry.key.fingerprint) for one in waiting],
    )


@bounded(60)
@given(done=acts, limit=st.sampled_from([900, 1 << 20]))
def test_the_one_on_disk_is_as_the_one_in_memory_whatever_happens_to_it(done: list[tuple], limit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours, model = open_store(Path(folder), outbox_bytes=limit), MemoryOutbox(limit=limit)
        try:
            for number, (what, first, second) in enumerate(done):
                if what == "put":
                    outcomes = [tried(box, first, second, T0 + number * MINUTE) for box in (ours.outbox, model)]
                    assert outcomes[0] == outcomes[1]
                elif what == "remove":
                    for box in (ours.outbox, model):
                        box.remove(box.first(9)[first : first + 1])
                elif what == "clear":
                    assert ours.outbox.clear() == model.clear()
                else:
                    ours.close()
                    ours = open_store(Path(folder), outbox_bytes=limit)
                assert observed(ours.outbox) == observed(model)
        finally:
            ours.close()


def tried(outbox: Outbox, entry: Entry, further: dict[str, bytes], at: datetime) -> str:
    try:
        outbox.put(entry, further, at)
    except OutboxFull as error:
        return error.text
    return ""


# Kill -9 between any two statements, on disk.
def put_anew(outbox: Outbox) -> None:
    outbox.put(make_entry(1, OTHER, addresses=["new@example.org"]), {CHAIN + "b": b"b"}, T0)


def put_another(outbox: Outbox) -> None:
    outbox.put(make_entry(9), {CHAIN + "a": b"ca", CHAIN + "b": b"b"}, T0)


def deliver_two(outbox: Outbox) -> None:
    outbox.remove(outbox.first(2))


def forget_all(outbox: Outbox) -> None:
    outbox.clear()


def filled(outbox: Outbox) -> Outbox:
    for number in (1, 2, 3):
        outbox.put(make_entry(number), {CHAIN + "a": b"ca"}, T0)
    return outbox


def killed_at(folder: Path, act: Callable[[Outbox], None], statement: int) -> bool:
    """Act in a process of its own that dies before its statement of that number; False if it came to the end."""
    child = os.fork()
    if child == 0:
        try:
            store = open_store(folder)
            remaining = [statement]

            def count(_: str) -> None:
                remaining[0] -= 1
                if remaining[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            store.database._writer.set_trace_callback(count)
            act(store.outbox)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("act", [put_anew, put_another, deliver_two, forget_all])
def test_a_node_killed_between_two_statements_has_done_all_of_an_act_or_nothing(tmp_path: Path, act: Callable) -> None:
    before, after = observed(filled(MemoryOutbox())), filled(MemoryOutbox())
    act(after)
    store = open_store(tmp_path)
    filled(store.outbox)
    store.close()
    for statement in range(100):
        killed = killed_at(tmp_path, act, statement)
        store = open_store(tmp_path)
        state = observed(store.outbox)
        store.close()
        assert state in (before, observed(after))
        if state == observed(after):
            break
        assert killed
    assert statement >= 2, "it was killed in between at all"
