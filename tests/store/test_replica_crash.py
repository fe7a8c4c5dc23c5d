"""Kill -9 between any two statements: rows, cursor and digest go together, and the replay that follows ends as if nothing happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from keycache.domain.errors import StoreError
from keycache.domain.names import ClusterIdentity, Revision
from keycache.domain.ports import Cursor, DocumentChange, EntryQuery, Replica, ReplicaChange
from keycache.domain.settings import Timeouts
from keycache.store import Store, open_store
from keycache.store.memory import MemoryReplica
from support.entries import T0, gone, make_entry, make_sighting, put


def cursor(revision: int) -> Cursor:
    return Cursor(identity=ClusterIdentity("ours"), revision=Revision(revision))


def document(key: str, revision: int, value: bytes | None) -> DocumentChange:
    return DocumentChange(key=key, revision=Revision(revision), value=value)


FIRST: list[ReplicaChange] = [*(put(make_entry(number), 1) for number in range(6)), document("settings", 2, b"old")]
SECOND: list[ReplicaChange] = [
    put(make_entry(1, make_sighting(source="again"), addresses=["x@example.org"]), 3),
    gone(make_entry(2), 4),
    put(make_entry(9), 5),
    document("settings", 6, b"new"),
    document("blocks/a", 7, b"a"),
    gone(make_entry(3), 8),
]
LISTING: list[list[ReplicaChange]] = [
    [put(make_entry(1), 1), put(make_entry(9), 5)],
    [document("settings", 6, b"new"), put(make_entry(4, make_sighting(source="other")), 7)],
]

Act = Callable[[Replica], None]


def apply_second(replica: Replica) -> None:
    replica.apply(SECOND, cursor(8))


def list_again(replica: Replica) -> None:
    replica.replace(iter(LISTING), cursor(8))


def seen(replica: Replica) -> tuple[object, ...]:
    everything = EntryQuery(now=T0, timeouts=Timeouts(), limit=1000)
    indexes = sorted({address.index for one in replica.query(everything).entries for address in one.entry.key.addresses})
    return (
        replica.cursor(),
        replica.query(everything).entries,
        {index: sorted(rows) for index, rows in replica.lookup(["x@example.org", *indexes]).items()},
        replica.documents(""),
        replica.digest(),
        replica.counts(now=T0, timeouts=Timeouts()),
    )


def begun(folder: Path, *, filled: bool) -> Store:
    store = open_store(folder)
    if filled:
        store.replica.apply(FIRST, cursor(2))
    return store


def model(*acts: Act, filled: bool = True) -> tuple[object, ...]:
    replica = MemoryReplica()
    if filled:
        replica.apply(FIRST, cursor(2))
    for act in acts:
        act(replica)
    return seen(replica)


def killed_at(folder: Path, act: Act, statement: int) -> bool:
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
            act(store.replica)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize(("act", "filled"), [(apply_second, True), (list_again, True), (list_again, False)])
def test_a_node_killed_between_two_statements_has_all_of_a_batch_or_nothing(tmp_path: Path, act: Act, filled: bool) -> None:
    before, after = model(filled=filled), model(act, filled=filled)
    empty = begun(tmp_path / "model", filled=filled)
    assert seen(empty.replica) == before
    empty.close()
    begun(tmp_path / "node", filled=filled).close()
    outcomes: list[bool] = []
    for statement in range(1000):
        killed = killed_at(tmp_path / "node", act, statement)
        store = open_store(tmp_path / "node")
        state = seen(store.replica)
        assert state in (before, after)
        outcomes.append(state == after)
        store.close()
        if state == after:
            break
        assert killed
    assert outcomes.index(True) > 8, "it was killed in between at all"
    store = open_store(tmp_path / "node")
    act(store.replica)
    assert seen(store.replica) == after, "the replay changes nothing"
    store.close()


def test_a_full_disk_leaves_rows_and_cursor_and_the_replica_goes_on(tmp_path: Path) -> None:
    store = begun(tmp_path, filled=True)
    before = seen(store.replica)
    (pages,) = store.database._writer.execute("PRAGMA page_count").fetchone()
    store.database._writer.execute(f"PRAGMA max_page_count = {pages + 3}")
    large: Sequence[ReplicaChange] = [put(make_entry(number, material_size=9000), 9) for number in range(20, 60)]
    for write in (lambda: store.replica.apply(large, cursor(9)), lambda: store.replica.replace(iter([large]), cursor(9))):
        with pytest.raises(StoreError, match="No room is left"):
            write()
        assert seen(store.replica) == before
    store.database._writer.execute(f"PRAGMA max_page_count = {pages + 1000}")
    apply_second(store.replica)
    assert seen(store.replica) == model(apply_second)
    store.close()
