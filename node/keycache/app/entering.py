"""The way of a node into a cluster, or out of it, once its ports are open."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from keycache import logs
from keycache.app.parts import NODE_ID_FILE, Node, cluster_log
from keycache.clock import SystemClock
from keycache.cluster.own_etcd import put_away
from keycache.config import Config
from keycache.domain.errors import ConfigError, KeycacheError, Unavailable
from keycache.domain.log import removed_key
from keycache.domain.nodes import ClusterNode
from keycache.domain.standing import Phase, Standing
from keycache.forming.adopting import adopt, take_out, work_alone
from keycache.forming.comparing import compare
from keycache.pki.files import read
from keycache.pki.joining import return_to_own
from keycache.replication.link import LinkState

_log = logs.get_logger(__name__)


RETRY_SECONDS = 5.0
"""Machines of a cluster are started in any order."""


async def enter(config: Config, node: Node, clock: SystemClock, join_token_file: Path | None) -> None:
    """On the way into a cluster, or out of it: until the node is there. One that joins is healthy only then; others are all the time.
    Raises KeycacheError when the cluster of `join_token_file` does not take a node that works alone."""
    standing = node.standing.now
    if standing is None and join_token_file is not None:
        await _join(node, join_token_file, clock)
        return
    if standing is not None and standing.phase is Phase.LEAVING:
        node.server.ready()
        await _leave(config, node, standing, clock)
        return
    if standing is not None and standing.phase is Phase.ADOPTING:
        if standing.founded:
            node.server.ready()
        own = ClusterNode(
            node=node.place().node,
            address=node.cache.cluster.address,
            joined_at=clock.now(),
            etcd_client_url=standing.etcd_client and f"https://{standing.etcd_client}",
            etcd_peer_url=standing.etcd_peer and f"https://{standing.etcd_peer}",
        )

        def settled(new: Standing) -> None:
            if node.standing.now is standing:  # else an administrator has said something else meanwhile
                node.standing.write(new)

        await adopt(
            standing,
            cache=node.cache,
            clock=clock,
            own=own,
            write=settled,
            compare=lambda: compare(node.cache, node.pki.now, clock),
        )
    node.server.ready()


async def obey_removal(node: Node) -> None:
    """Somebody took this node out of the cluster while it was away: it works alone from now on, with every entry.

    Its own word is missing in the log then, so the restart check has REFUSED that: the log itself is asked.
    """
    standing, key = node.standing.now, removed_key(node.cache.node_id)
    refused = node.cache.replicator.state is LinkState.REFUSED
    if standing is None or standing.phase is not Phase.MEMBER or node.shared is None or not refused:
        return
    try:
        survey = await node.shared.log.survey((key,))
        if survey.identity != standing.identity or survey.records[key] is None:
            return
        node.standing.write(replace(standing, phase=Phase.LEAVING, founded=False, authority=node.pki.now.authority.id))
    except KeycacheError as error:  # it is tried again
        _log.warning("it is not known whether this node was removed from its cluster", problem=str(error))
        return
    _log.warning(
        "this node was removed from its cluster", cluster=standing.cluster, hint="It works alone now, with every entry."
    )
    node.turning.set()


async def _join(node: Node, file: Path, clock: SystemClock) -> None:
    """Until the node goes over. What passes by itself is waited for; what does not ends the node, with its sentence."""
    token, trouble = await asyncio.to_thread(read, file), logs.Recurring(_log, "not joined yet")
    if token is None:
        raise ConfigError(f"There is no token in {file}.", hint="Write there what 'keycache cluster token' prints on a node.")
    while True:
        try:
            await node.desk.join(token.decode("utf-8", "replace"), dry_run=False, skip=frozenset(), discard=False)
        except Unavailable as error:
            trouble.tell(error)
            node.cache.cluster.forming = f"This node is to join a cluster. It waits: {error}"
            await clock.sleep(RETRY_SECONDS)
        else:
            return


def note_identity(node: Node) -> None:
    """An administrator brought this node along into another lifetime of its log (`cluster resolve`): that is its cluster's from now on,
    for those that join, too."""
    standing, replicator = node.standing.now, node.cache.replicator
    if standing is None or standing.phase is not Phase.MEMBER or replicator.state is not LinkState.FOLLOWING:
        return
    try:
        if replicator.log.identity != standing.identity:
            node.standing.write(replace(standing, identity=replicator.log.identity))
    except KeycacheError as error:  # it is tried again
        _log.warning("the identity of the log cannot be written down", problem=str(error))


async def _leave(config: Config, node: Node, standing: Standing, clock: SystemClock) -> None:
    """ORDER: the node's own log has everything BEFORE the node gives up anything of the cluster, and the standing goes LAST: whatever
    cuts this off, it is begun again, and done again does no harm."""
    await work_alone(cache=node.cache, clock=clock, own=node.own_log)
    if not standing.founded:
        if node.pki.now.authority.id == standing.authority:  # else it has gone back to its own before it was cut off
            await take_out(standing, log=cluster_log(standing, node.pki.now).log, node=node.place().node, now=clock.now())
            await asyncio.to_thread(return_to_own, config.data_dir / "pki")
        (config.data_dir / NODE_ID_FILE).unlink(missing_ok=True)  # an id that was removed stays removed
    try:
        await asyncio.to_thread(put_away, config.data_dir)
    except ConfigError as error:
        _log.warning("etcd's data stays where it is", problem=str(error))
    node.standing.forget()
    _log.info("out of the cluster", cluster=standing.cluster)
    node.turning.set()
