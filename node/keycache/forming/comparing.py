"""Whether a node that joined holds what the others hold. It is healthy only then.

Two nodes apply the same log at different moments, so their digests are compared at one revision:
1. This node's digest is D at revision A.  2. Another says: T at revision B, and A <= B.  3. This node has applied B, and its digest is
still D. Then D was its digest at B, too. Where entries change in between it is begun anew; writes are rare (README, "How it works").
"""

from __future__ import annotations

from collections.abc import Iterator

from keycache.cache import KeyCache
from keycache.client import connect
from keycache.domain.errors import KeycacheError
from keycache.domain.forming import Comparison
from keycache.domain.ports import Clock
from keycache.pki import NodePki
from keycache.v1.admin_pb2 import GetStatusRequest

ATTEMPTS, PAUSE_SECONDS = 60, 0.25
"""15 s for an answer: as long as the lease of a node that has just gone (PRESENCE_SECONDS)."""
CALL_SECONDS = 5.0


async def compare(cache: KeyCache, pki: NodePki, clock: Clock) -> Comparison:
    """With the first of the living nodes that answers, by this node's certificate."""
    for _ in range(ATTEMPTS):
        for address in _living(cache):
            try:
                found = await _at_one_revision(cache, pki, address)
            except KeycacheError:  # the next one, or this one a little later
                continue
            if found is not None:
                return found
        await clock.sleep(PAUSE_SECONDS)
    return Comparison(address="")


def _living(cache: KeyCache) -> Iterator[str]:
    return (one.address for one in cache.cluster.members() if one.alive and not one.is_this_node)


async def _at_one_revision(cache: KeyCache, pki: NodePki, address: str) -> Comparison | None:
    """None: entries changed meanwhile. Raises KeycacheError."""
    before = await cache.status()
    certificate, key = pki.directory / "server.pem", pki.directory / "server.key"
    async with connect(address, ca=pki.trusted_file, certificate=certificate, key=key) as node:
        theirs = await node.call(node.admin.GetStatus, GetStatusRequest(), timeout=CALL_SECONDS)
    await cache.replicator.reach(theirs.digest_revision)
    after = await cache.status()
    if before.digest_revision > theirs.digest_revision or before.digest != after.digest:
        return None
    return Comparison(
        address=address,
        revision=theirs.digest_revision,
        digest=after.digest,
        their_digest=theirs.digest,
        entries=after.entries.unexpired,
        their_entries=theirs.entries.live + theirs.entries.held,
    )
