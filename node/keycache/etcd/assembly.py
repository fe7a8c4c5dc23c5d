"""From etcd's watch responses to batches of whole revisions. Pure: responses in, batches or errors out.

Rules: a revision is told whole or not at all; nothing is told twice; a change of the identity is noticed BEFORE anything of its
revision is told; the cursor goes past revisions without events of ours only on a word that cannot have overtaken events.
"""

from __future__ import annotations

import re
from typing import Any

import grpc
from aetcd import rpc

from keycache.domain.errors import ForeignLog, LogCompacted
from keycache.domain.log import Batch, Event
from keycache.domain.names import ClusterIdentity, Revision
from keycache.etcd.errors import explain
from keycache.etcd.keys import KeySpace

NOBODY = -1
"""The watch_id of an answer to a progress request: it speaks for the whole stream."""

_ORDERED_SINCE = {(3, 4): 25, (3, 5): 8}


def answers_in_order(version: str) -> bool:
    """Whether the answer to a progress request comes after all events up to its revision. Before 3.4.25 and 3.5.8 it may overtake
    events that wait (etcd#15220); the progress notifications that etcd sends by itself never did."""
    parts = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if parts is None:
        return False
    major, minor, patch = map(int, parts.groups())
    return (major, minor) > (3, 5) or patch >= _ORDERED_SINCE.get((major, minor), patch + 1)


class Assembly:
    """`cursor`: everything up to this revision was told. `is_created`: etcd has set the watch up; an answer asked for before that could
    overtake events whatever the version. In memory is one response, and the newest revision while it is still coming."""

    def __init__(self, *, keys: KeySpace, identity: ClusterIdentity, after: Revision, in_order: bool, endpoint: str) -> None:
        self.cursor = after
        self.is_created = False
        self._keys = keys
        self._identity = identity
        self._in_order = in_order
        self._endpoint = endpoint
        self._pending: list[tuple[Revision, Event | None]] = []

    def take(self, response: Any) -> Batch | None:
        """None: nothing to tell yet. Raises LogCompacted, ForeignLog, LogUnavailable."""
        if response.canceled:
            raise self._end(response)
        if response.created:
            self.is_created = True
            return None
        if not response.events:
            said = Revision(response.header.revision)
            if (response.watch_id != NOBODY or self._in_order) and not self._pending:
                self.cursor = max(self.cursor, said)
            return Batch(revision=self.cursor, events=())
        for event in response.events:
            kv = event.kv
            revision = kv.mod_revision
            if revision <= self.cursor:
                continue  # a member that was sent a snapshot tells some again (etcd#15271)
            key, value = kv.key, None if event.type == rpc.Event.DELETE else kv.value
            if key == self._keys.identity:
                self._check(value)
            name = self._keys.decode(key)
            self._pending.append((revision, None if name is None else Event(key=name, value=value)))
        return self._whole(more_to_come=response.fragment)

    def _whole(self, *, more_to_come: bool) -> Batch | None:
        """What is complete: without the newest revision while fragments are still to come."""
        last = self._pending[-1][0] if self._pending and more_to_come else None
        ready = [one for one in self._pending if one[0] != last]
        if not ready:
            return None
        self._pending = [one for one in self._pending if one[0] == last]
        self.cursor = ready[-1][0]
        events = tuple((revision, event) for revision, event in ready if event is not None)
        return Batch(revision=self.cursor, events=events)

    def _check(self, value: bytes | None) -> None:
        if value != self._identity.text.encode():
            now = "was removed" if value is None else f"became {value.decode(errors='replace')[:64]}"
            raise ForeignLog(
                f"The identity of the log in etcd, {self._identity}, {now} while it was watched.",
                hint="Nothing was changed here. Run 'keycache cluster check'.",
            )

    def _end(self, response: Any) -> Exception:
        if response.compact_revision:
            return LogCompacted(
                f"etcd holds no changes before revision {response.compact_revision}, and {self.cursor} was asked for.",
                compacted=response.compact_revision,
                hint="List it again and watch from there.",
            )
        return explain(grpc.StatusCode.CANCELLED, response.cancel_reason or "watch canceled", self._endpoint).error
