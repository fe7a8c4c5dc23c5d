"""The way of a node into its cluster's log, from whatever point it was cut off at.

The replica was filled from another log and holds entries, so the restart check REFUSES this one: nothing is taken, lookups are answered,
and what mail brings waits in the outbox. The administrator's word that is needed then (`cluster create`, `cluster join`) stands in the
standing: MERGE, or DISCARD. So there is one way in which entries ever get into a log that they were not in (`cache.resolving`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from keycache.cache import KeyCache
from keycache.codec.joining import encode_node, encode_removal
from keycache.domain.errors import KeycacheError
from keycache.domain.log import ABSENT, Transaction, member_key, node_key, removed_key, witness_key
from keycache.domain.names import ClusterIdentity, NodeId
from keycache.domain.nodes import ClusterNode
from keycache.domain.ports import Clock, EntryLog
from keycache.domain.removal import Removal
from keycache.domain.restart import Way
from keycache.domain.standing import Phase, Standing
from keycache.logs import get_logger
from keycache.replication.link import LinkState

_log = get_logger(__name__)

LOOK_SECONDS, AGAIN_SECONDS = 0.1, 5.0


async def adopt(
    standing: Standing, *, cache: KeyCache, clock: Clock, own: ClusterNode, write: Callable[[Standing], None]
) -> None:
    """Until the node is a MEMBER. Survives everything that may pass; `cache.cluster.forming` tells what it waits for."""
    if standing.phase is Phase.MEMBER:
        return
    doing = f"This node is becoming a part of cluster {standing.cluster}."
    cache.cluster.forming = doing
    actor = "cluster create" if standing.founded else "cluster join"
    while True:
        try:
            if await _arrived(standing, cache, actor):
                await cache.replicator.log.commit(
                    Transaction(compare={node_key(own.node): ABSENT}, puts={node_key(own.node): encode_node(own)})
                )
                write(replace(standing, phase=Phase.MEMBER))
                break
        except KeycacheError as error:
            cache.cluster.forming = f"{doing} It waits: {error}"
            _log.warning("not yet in the cluster", cluster=standing.cluster, problem=str(error))
            await clock.sleep(AGAIN_SECONDS)
        await clock.sleep(LOOK_SECONDS)
    cache.cluster.forming = ""
    _log.info("in the cluster", cluster=standing.cluster, identity=standing.identity.text)


async def work_alone(standing: Standing, *, cache: KeyCache, clock: Clock, own: ClusterIdentity) -> None:
    """Until the node follows its own log, of the identity `own`, with all that it has."""
    leaving = replace(standing, identity=own, discard=False)
    while True:
        try:
            if await _arrived(leaving, cache, "cluster leave"):
                return
        except KeycacheError as error:
            _log.warning("not yet out of the cluster", cluster=standing.cluster, problem=str(error))
            await clock.sleep(AGAIN_SECONDS)
        await clock.sleep(LOOK_SECONDS)


async def take_out(standing: Standing, *, log: EntryLog, node: NodeId, now: datetime) -> None:
    """Write into the cluster's log that this node is gone. Closes it. One that cannot be reached is told: nothing here depends on it."""
    removal = Removal(node=node, at=now, actor="cluster leave")
    try:
        log.bind(standing.identity)
        gone = Transaction(
            compare={},
            puts={removed_key(node): encode_removal(removal)},
            deletes=(node_key(node), witness_key(node), member_key(node)),
        )
        await log.commit(gone)
    except KeycacheError as error:
        _log.warning(
            "the cluster does not know that this node left", problem=str(error), hint="keycache cluster remove, on another node"
        )
    finally:
        await log.close()


async def _arrived(standing: Standing, cache: KeyCache, actor: str) -> bool:
    """Whether this node follows its cluster's log. Raises KeycacheError: nothing is lost, try again."""
    replicator = cache.replicator
    if replicator.state is LinkState.FOLLOWING:
        return True
    report = replicator.report
    if replicator.state is LinkState.REFUSED and report is not None and report.log_identity in {None, standing.identity}:
        await cache.resolving.resolve(Way.DISCARD if standing.discard else Way.MERGE, actor)
        return True
    with contextlib.suppress(KeycacheError):
        cache.cluster.forming = f"This node is becoming a part of cluster {standing.cluster}. {replicator.reason}".strip()
    return False
