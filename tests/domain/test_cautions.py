"""What will need a person soon is told in a sentence with the next step, and nothing that will not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from keycache.domain.cautions import of_certificate, of_clocks, of_nodes, of_settings
from keycache.domain.names import NodeId
from keycache.domain.nodes import ClusterNode
from keycache.domain.settings import Settings, Timeouts

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(("left", "told"), [(31, ""), (30, ""), (29, "ends on 2026-12-25"), (-1, "ended on 2026-11-25")])
def test_a_certificate_is_told_of_when_less_than_a_third_of_its_life_is_left(left: int, told: str) -> None:
    end = NOW + left * DAY
    cautions = of_certificate("The certificate for etcd", end - 90 * DAY, end, NOW, how="Replace it.")
    assert len(cautions) == bool(told)
    assert all(told in one and one.endswith("Replace it.") for one in cautions)


def test_a_clock_is_told_of_before_it_holds_anything() -> None:
    bound = timedelta(minutes=2)
    offsets = {"a": timedelta(seconds=60), "b": timedelta(seconds=-61), "c": timedelta(seconds=90)}
    told = of_clocks(offsets, bound)
    assert [one.split(", and")[0] for one in told] == [
        "The clock of b is 1m1s behind this node's",
        "The clock of c is 1m30s ahead of this node's",
    ]


def test_a_node_that_belongs_and_does_not_live_is_told_of_with_both_ways_on() -> None:
    nodes = [ClusterNode(node=NodeId(name * 8), address=f"{name}:7640", joined_at=NOW) for name in "abc"]
    told = of_nodes(nodes, {NodeId("a" * 8)}, {NodeId("b" * 8): NOW - DAY})
    assert [one.split(":")[0] + one.split("cluster remove")[1] for one in told] == ["Node b bbbbbbbb'.", "Node c cccccccc'."]
    assert "was last seen at 2026-11-25 12:00 UTC: start it" in told[0]
    assert "was never seen: start it" in told[1]


def test_other_timeouts_in_the_log_are_told_of_with_what_they_would_expire() -> None:
    known = Settings()
    assert of_settings(known, known, 0) == ()
    assert of_settings(None, known, 0) == of_settings(known, None, 0) == ()
    other = replace(known, timeouts=replace(Timeouts(), harvested=DAY))
    (told,) = of_settings(known, other, 7)
    assert "harvested 1d instead of 500d. 7 keys here would be expired" in told.replace("24h", "1d")
    assert "looked_up" not in told
