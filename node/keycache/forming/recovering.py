"""A cluster whose etcd lost its majority for good, begun anew from what one of its nodes holds.

Every node has all entries in its replica, newer than any file of etcd. So one of them founds an etcd and a log of a new identity, and
brings everything there as `cluster create` does; the others notice that the log is not theirs any more, keep what they have, and join
anew with it.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

from keycache.cache import KeyCache
from keycache.cluster.own_etcd import host_port
from keycache.domain.errors import KeycacheError, Refused
from keycache.domain.log import IDENTITY
from keycache.domain.names import ClusterIdentity
from keycache.domain.ports import Clock
from keycache.domain.standing import Phase, Standing

SILENT_SECONDS = 10.0
"""The log must be out of reach for so long: it is during an election, too, which takes some seconds."""

_LOOK_SECONDS = 0.5


async def refuse_to_recover(standing: Standing | None, cache: KeyCache, clock: Clock) -> Standing:
    """The standing of now. Raises Refused unless the cluster's log stays out of reach of this node."""
    if standing is None:
        raise Refused("This node works alone.", hint="There is no cluster to begin anew. See 'keycache restore' for a backup.")
    if standing.phase is not Phase.MEMBER:
        raise Refused("This node is on its way.", hint="Wait until it is there: see 'keycache status'.")
    if not standing.etcd_client:
        raise Refused(
            "This node runs no etcd, so it cannot carry a cluster.",
            hint="Do this on a node that has one; or let this node leave ('keycache cluster leave'): it keeps every entry.",
        )
    end = clock.sample().monotonic + SILENT_SECONDS
    while True:
        try:
            survey = await cache.replicator.log.survey((IDENTITY,))
            break
        except KeycacheError:
            if clock.sample().monotonic >= end:
                return standing
        await clock.sleep(_LOOK_SECONDS)
    if survey.identity == standing.identity:
        raise Refused(
            "The cluster's log can be reached, so nothing is lost.",
            hint="Take out nodes that are gone with 'keycache cluster remove', and let others join.",
        )
    raise Refused(
        "There is another log in the place of this cluster's: it was begun anew on another node.",
        hint="Go there with every entry: 'keycache cluster leave', then 'keycache cluster join' with a token of that node.",
    )


def recovered(standing: Standing) -> Standing:
    """What the node is to be: the first of a cluster of the same name and authority, with a log of its own."""
    return replace(
        standing,
        identity=ClusterIdentity(secrets.token_hex(16)),
        phase=Phase.ADOPTING,
        endpoints=(host_port(standing.etcd_client).url,),
        authority="",
        founded=True,
        discard=False,
    )
