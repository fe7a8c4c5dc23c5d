"""Changes to who belongs to the cluster, beside a join (`cache.tokens`)."""

from __future__ import annotations

from keycache.cache.journal import Journal
from keycache.cache.writer import Writer
from keycache.codec.joining import node_leaving, removal_changes
from keycache.domain.log import node_key
from keycache.domain.names import NodeId
from keycache.domain.ports import Clock, Replica
from keycache.domain.removal import Removal


class Belonging:
    def __init__(self, *, writer: Writer, replica: Replica, clock: Clock, journal: Journal) -> None:
        self._writer = writer
        self._replica = replica
        self._clock = clock
        self._journal = journal

    async def dismiss(self, node: NodeId, actor: str) -> None:
        """It belongs to the cluster no more. Raises LogUnavailable."""
        puts, deletes = removal_changes(Removal(node=node, at=self._clock.now(), actor=actor))
        await self._writer.act(self._journal.entry_of(actor, "NODE_REMOVE", node.text), puts=puts, deletes=deletes)

    async def announce_leaving(self, node: NodeId, *, leaving: bool = True) -> None:
        """That it goes, or stays after all. Raises LogUnavailable, Conflict."""
        key = node_key(node)
        known = self._replica.document(key)
        if known is None:
            return
        act = "NODE_LEAVES" if leaving else "NODE_STAYS"
        line = self._journal.entry_of(f"node {node}", act, node.text)
        await self._writer.act(line, compare={key: known.mod_revision}, puts={key: node_leaving(known.value, leaving=leaving)})
