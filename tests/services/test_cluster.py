"""What administrators ask of nodes that share a log."""

from __future__ import annotations

import pytest

from keycache.domain.errors import InvalidInput
from keycache.v1 import admin_pb2, cache_pb2, cluster_pb2
from support.service_node import ServiceNode


async def test_a_node_alone_is_the_only_member_it_knows(node: ServiceNode) -> None:
    async with node.connected() as admin:
        status = await admin.call(admin.admin.GetStatus, admin_pb2.GetStatusRequest())
        answer = await admin.call(admin.cluster.ListMembers, cluster_pb2.ListMembersRequest())
    assert (status.mode, status.HasField("cluster")) == ("standalone", False)
    (member,) = answer.members
    assert (member.node_id, member.version, member.alive, member.is_this_node) == ("test", "0.0", True, True)
    assert (member.purger, member.clock_trusted, member.purge_state, member.lag) == (True, True, "IDLE", 0)
    assert (member.HasField("skew"), member.applied_revision, answer.revision) == (False, 1, 1)


async def test_a_check_tells_what_a_restart_would_keep(node: ServiceNode) -> None:
    async with node.connected() as admin:
        await admin.call(admin.cache.Harvest, cache_pb2.HarvestRequest(message=b"key 1"))
        answer = await admin.call(admin.cluster.Check, cluster_pb2.CheckRequest())
    assert (answer.action, answer.kept, answer.expired, answer.held_back) == ("RESUME", 1, 0, 0)
    assert answer.settings.looked_up_timeout.seconds == 86_400
    assert (answer.replica_identity, answer.replica_revision) == (answer.log_identity, answer.log_revision)
    assert len(answer.warnings) == 1  # of the domains that nobody manages


async def test_a_way_on_must_be_named(node: ServiceNode) -> None:
    async with node.connected() as admin:
        for request in (cluster_pb2.ResolveRequest(), cluster_pb2.ResolveRequest.FromString(b"\x08\x09")):
            with pytest.raises(InvalidInput):
                await admin.call(admin.cluster.Resolve, request)
