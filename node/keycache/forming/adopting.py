"""The way of a node into its cluster's log, from whatever point it was cut off at.

The replica was filled from another log and holds entries, so the restart check REFUSES this one: nothing is taken, lookups are answered,
and what mail brings waits in the outbox. The administrator's word that is needed then (`cluster create`, `cluster join`) stands in the
standing: MERGE, or DISCARD. So there is one way in which entries ever get into a log that they were not in (`cache.resolving`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from keycache.cache import KeyCache
from keycache.codec.joining import encode_node, removal_changes
from keycache.domain.errors import ForeignLog, KeycacheError, LogUnavailable, Refused, Unavailable
from keycache.domain.forming import Comparison
from keycache.domain.log import ABSENT, Committed, Transaction, node_key, removed_key
from keycache.domain.names import ClusterIdentity, NodeId
from keycache.domain.nodes import ClusterNode
from keycache.domain.ports import Clock, EntryLog
from keycache.domain.removal import Removal
from keycache.domain.restart import UNFOUNDED, UNFOUNDED_HINT, Way
from keycache.domain.standing import Phase, Standing
from keycache.logs import Recurring, get_logger
from keycache.replication.link import LinkState

_log = get_logger(__name__)

LOOK_SECONDS, AGAIN_SECONDS = 0.1, 5.0

DIFFERENT_HINT = (
    "This node made its copy anew from etcd and compares again. If that does not end it, the other one's copy is wrong: it is compared "
    "with etcd every ten minutes and mended then, or when its node starts with an empty data directory."
)


async def adopt(
    standing: Standing,
    *,
    cache: KeyCache,
    clock: Clock,
    own: ClusterNode,
    write: Callable[[Standing], None],
    compare: Callable[[], Awaitable[Comparison]],
) -> None:
    """Until the node is a MEMBER. `compare`: this node with another one, which is done by one that joins."""

    async def settle() -> None:
        key = node_key(own.node)
        log, removed = cache.replicator.log, removed_key(own.node)
        written = await log.commit(Transaction(compare={key: ABSENT, removed: ABSENT}, puts={key: encode_node(own)}))
        if not isinstance(written, Committed) and (await log.survey((removed,))).records[removed] is not None:
            raise Refused("This node was removed from the cluster on its way into it.", hint="Say 'keycache cluster leave'.")
        if not standing.founded:
            found = cache.cluster.comparison = await compare()
            if found.address and not found.is_equal:
                cache.replicator.list_anew()  # if it is this node's copy that is wrong
                raise Unavailable(found.sentence, hint=DIFFERENT_HINT)
        write(replace(standing, phase=Phase.MEMBER))
        cache.resolving.settle()

    way = Way.DISCARD if standing.discard else Way.MERGE
    actor = "cluster create" if standing.founded else "cluster join"
    await _go_over(standing.identity, way, actor, cache=cache, clock=clock, settle=settle, may_found=standing.founded)
    cache.cluster.forming = ""
    _log.info("in the cluster", cluster=standing.cluster, identity=standing.identity.text)


async def work_alone(*, cache: KeyCache, clock: Clock, own: ClusterIdentity) -> None:
    """Until the node follows its own log, of the identity `own`, with all that it has."""

    async def settle() -> None:
        return

    await _go_over(own, Way.MERGE, "cluster leave", cache=cache, clock=clock, settle=settle)


async def take_out(standing: Standing, *, log: EntryLog, node: NodeId, now: datetime) -> None:
    """Write into the cluster's log that this node is gone. Closes it. One that cannot be reached is told: nothing here depends on it."""
    removal = Removal(node=node, at=now, actor="cluster leave")
    try:
        log.bind(standing.identity)
        puts, deletes = removal_changes(removal)
        await log.commit(Transaction(compare={}, puts=puts, deletes=deletes))
    except KeycacheError as error:
        _log.warning(
            "the cluster does not know that this node left", problem=str(error), hint="keycache cluster remove, on another node"
        )
    finally:
        await log.close()


async def _go_over(
    identity: ClusterIdentity,
    way: Way,
    actor: str,
    *,
    cache: KeyCache,
    clock: Clock,
    settle: Callable[[], Awaitable[None]],
    may_found: bool = True,
) -> None:
    """Until the node follows the log of that identity, and `settle` is done. Survives everything that may pass;
    `cache.cluster.forming` tells what it waits for."""
    doing, trouble = cache.cluster.forming, Recurring(_log, "not there yet")
    while True:
        try:
            if await _arrived(identity, way, cache, actor, may_found=may_found):
                await settle()
                return
            waits = cache.replicator.reason
            pause = LOOK_SECONDS
        except KeycacheError as error:  # nothing is lost
            waits = f"It waits: {error}"
            pause = AGAIN_SECONDS
            trouble.tell(error, doing=doing)
        cache.cluster.forming = f"{doing} {waits}".strip()
        await clock.sleep(pause)


async def _arrived(identity: ClusterIdentity, way: Way, cache: KeyCache, actor: str, *, may_found: bool) -> bool:
    """Whether this node follows its log. Raises KeycacheError."""
    replicator = cache.replicator
    if replicator.state is LinkState.FOLLOWING:
        if replicator.log.identity != identity:
            raise ForeignLog(
                f"etcd holds log {replicator.log.identity}, and this node is to follow {identity}.", hint=UNFOUNDED_HINT
            )
        return True
    report = replicator.report
    if replicator.state is not LinkState.REFUSED or report is None:
        return False
    if report.log_identity is None and not may_found:
        raise LogUnavailable(UNFOUNDED, hint=UNFOUNDED_HINT)
    if report.log_identity in {None, identity}:
        await cache.resolving.resolve(way, actor)
        return True
    return False
