"""Several nodes of one cluster as one: the first that is ready answers, and another when it does not.

    async with connect_cluster(["mx1.example.org:7640", "mx2.example.org:7640"], ca=ca, certificate=certificate, key=key) as nodes:
        answer = await nodes.lookup(LookupRequest(address="alice@example.org"))

1. Asked is the first node, in the order given, whose health says SERVING: name the nearest first. A node that starts, stops or is on its
   way into a cluster says NOT_SERVING and is not asked: it would answer NOT_FOUND for keys that the others have, and mail would go out
   unencrypted.
2. A node that is not reached, or has trouble of its own, is passed over for the next; a lookup that is not answered within PATIENCE is
   asked of the next as well, and the first answer counts. All that happens within the one deadline of the call.
3. While none is ready a call waits, up to its deadline. Then it fails: a miss is only ever told by a node that is ready.
4. Only calls that may be repeated are here. Lookups change nothing; a mail or a key handed over twice is kept once (ALREADY_FRESH).

gRPC's own balancing and retries do less: its one target for many addresses wants addresses without names and certificates of one name
(grpc#12569), its retries may pick the same dead node again, and neither knows a node that took the call and hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from keycache.client.connection import CALL_TIMEOUT, FILE_CHECK_SECONDS, Connection, connect
from keycache.client.errors import Unreachable
from keycache.domain.errors import InvalidInput, KeycacheError, StoreError, Unavailable
from keycache.v1 import cache_pb2 as pb

LOOKUP_TIMEOUT = 10.0
"""Seconds. A lookup takes less than a thousandth of one; this outlasts a node that goes over, or starts again."""
PATIENCE = 0.5
"""Seconds until a lookup is asked of another node as well: far beyond what a busy node takes, and no mail notices it."""
AGAIN_SECONDS = 0.2
"""Between two attempts to hear of a node's health, and before nodes are asked anew that all had trouble."""

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class _Peer:
    """One node, and what is known of its health."""

    def __init__(self, connection: Connection, tell: Callable[[], None]) -> None:
        """`tell`: called when `ready` has changed."""
        self.connection = connection
        self.ready = False
        self.problem: KeycacheError | None = None
        self._tell = tell
        self._watching = asyncio.create_task(self._watch())

    def doubt(self) -> None:
        """It did not do as its health said: not to be asked until it says so anew."""
        if self.ready:
            self._say(ready=False)
            self._watching.cancel()
            self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            try:
                async for ready in self.connection.health():
                    self.problem = None
                    self._say(ready=ready)
            except KeycacheError as error:
                self.problem = error
            self._say(ready=False)
            await asyncio.sleep(AGAIN_SECONDS)

    def _say(self, *, ready: bool) -> None:
        if ready is not self.ready:
            self.ready = ready
            self._tell()


class Nodes:
    """Calls to whichever of the nodes is ready. Made by `connect_cluster`; used in one event loop. Calls raise KeycacheError."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._changed = asyncio.Event()
        self._peers = [_Peer(connection, self._tell) for connection in connections]

    @property
    def ready(self) -> tuple[str, ...]:
        """The nodes that can be asked now, in the order in which they are."""
        return tuple(peer.connection.target for peer in self._peers if peer.ready)

    async def lookup(
        self,
        request: pb.LookupRequest,
        *,
        timeout: float = LOOKUP_TIMEOUT,  # noqa: ASYNC109 -- it goes to the nodes as the call's deadline
    ) -> pb.LookupResponse:
        return await self._ask(lambda node: node.cache.Lookup, request, timeout, PATIENCE)

    async def batch_lookup(
        self,
        request: pb.BatchLookupRequest,
        *,
        timeout: float = LOOKUP_TIMEOUT,  # noqa: ASYNC109 -- as above
    ) -> pb.BatchLookupResponse:
        return await self._ask(lambda node: node.cache.BatchLookup, request, timeout, PATIENCE)

    async def harvest(
        self,
        request: pb.HarvestRequest,
        *,
        timeout: float = CALL_TIMEOUT,  # noqa: ASYNC109 -- as above
    ) -> pb.HarvestResponse:
        """A mail that a node had already taken when it was lost has the verdict ALREADY_FRESH on the next."""
        return await self._ask(lambda node: node.cache.Harvest, request, timeout, timeout)

    async def put(
        self,
        request: pb.PutRequest,
        *,
        timeout: float = CALL_TIMEOUT,  # noqa: ASYNC109 -- as above
    ) -> pb.PutResponse:
        return await self._ask(lambda node: node.cache.Put, request, timeout, timeout)

    async def close(self) -> None:
        await asyncio.gather(*(peer.close() for peer in self._peers))

    async def _ask(
        self,
        method: Callable[[Connection], grpc.aio.UnaryUnaryMultiCallable[Request, Response]],
        request: Request,
        timeout: float,  # noqa: ASYNC109 -- as above
        patience: float,
    ) -> Response:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        asked: dict[asyncio.Task[Response], _Peer] = {}
        passed: set[_Peer] = set()  # asked in this round
        hopeless: dict[_Peer, KeycacheError] = {}  # asked again they would say the same
        troubled: dict[_Peer, KeycacheError] = {}
        try:
            while (left := end - loop.time()) > 0:
                peer = next((one for one in self._peers if one.ready and one not in passed), None)
                if peer is not None:
                    passed.add(peer)
                    node = peer.connection
                    asked[asyncio.create_task(node.call(method(node), request, timeout=left))] = peer
                elif not asked:
                    await self._change(min(left, AGAIN_SECONDS))
                    passed = set(hopeless)
                    continue
                done, _ = await asyncio.wait(asked, timeout=min(left, patience), return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    for slow in asked.values():
                        slow.doubt()
                for task in done:
                    peer = asked.pop(task)
                    error = task.exception()
                    if error is None:
                        return task.result()
                    if isinstance(error, Unreachable):
                        peer.doubt()
                    if isinstance(error, Unavailable):
                        troubled[peer] = error
                        continue
                    if isinstance(error, KeycacheError) and _is_its_own(error):
                        hopeless[peer] = error
                        if len(hopeless) < len(self._peers):
                            continue
                    raise error
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise self._nobody(timeout, {**troubled, **hopeless})

    async def _change(self, seconds: float) -> None:
        """Until another node is ready, or one is no more, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _nobody(self, seconds: float, told: Mapping[_Peer, KeycacheError]) -> KeycacheError:
        problems = {peer.connection.target: told.get(peer) or peer.problem for peer in self._peers}
        words = [f"{target}: {'It is not ready.' if one is None else one.text}" for target, one in problems.items()]
        kind = Unreachable if all(isinstance(one, Unreachable) for one in problems.values()) else Unavailable
        hints = [one.hint for one in problems.values() if one is not None and one.hint]
        return kind(f"No node answered within {seconds:g} s. {' '.join(words)}", hint=hints[0] if hints else "Try again.")


def _is_its_own(error: KeycacheError) -> bool:
    """Whether it is the node that has trouble (its database, a mistake), and not the request that is wrong."""
    return isinstance(error, StoreError) or type(error) is KeycacheError


@asynccontextmanager
async def connect_cluster(
    targets: Sequence[str],
    *,
    ca: str | Path,
    certificate: str | Path,
    key: str | Path,
    check_seconds: float = FILE_CHECK_SECONDS,
) -> AsyncIterator[Nodes]:
    """Nodes at `targets` (host:port each), the nearest first, as of a cluster that has one authority. Raises ConfigError for unusable
    files, InvalidInput for no targets. The rest as for `connect`."""
    if not targets:
        raise InvalidInput("A cluster of no nodes cannot be asked.", hint="Name at least one as host:port.")
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(
                connect(target, ca=ca, certificate=certificate, key=key, check_seconds=check_seconds)
            )
            for target in targets
        ]
        nodes = Nodes(connections)
        stack.push_async_callback(nodes.close)
        yield nodes
