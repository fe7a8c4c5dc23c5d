"""Python client for a node, for mail processors and for the `keycache` command.

    async with connect("cache.example.org:7640", ca=ca, certificate=certificate, key=key) as node:
        answer = await node.call(node.cache.Lookup, LookupRequest(address="alice@example.org"))

`connect_cluster` does that for several nodes: whichever of them is ready answers.

The stubs are the generated ones of `keycache.v1`, so every field and call of the protocol is there. What this adds: certificates
that change on disk are taken up without a restart, and errors arrive as `KeycacheError` with text and hint.
"""

from keycache.client.connection import Connection, connect
from keycache.client.errors import MessageTooLarge, Unreachable
from keycache.client.nodes import Nodes, connect_cluster

__all__ = ["Connection", "MessageTooLarge", "Nodes", "Unreachable", "connect", "connect_cluster"]
