"""A removed node's certificate is worth nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from keycache.domain.errors import PermissionDenied
from keycache.domain.names import NodeId
from keycache.domain.removal import Removal, none_removed, refuse_removed

GONE = Removal(node=NodeId("b"), at=datetime(2026, 3, 1, 12, 0, tzinfo=UTC), actor="alice")


def find(node: NodeId) -> Removal | None:
    return {GONE.node: GONE}.get(node)


def test_a_removed_node_is_told_when_by_whom_and_how_to_come_back() -> None:
    with pytest.raises(PermissionDenied) as refused:
        refuse_removed(GONE.node, find)
    assert refused.value.text == "Node b was removed from the cluster at 2026-03-01 12:00 UTC by alice."
    assert "keycache cluster join" in refused.value.hint


def test_a_node_that_was_not_removed_passes() -> None:
    refuse_removed(NodeId("a"), find)
    refuse_removed(GONE.node, none_removed)


def test_a_node_that_cannot_be_told_from_another_is_refused() -> None:
    with pytest.raises(PermissionDenied, match="does not say which node"):
        refuse_removed(None, none_removed)
