"""Watches the log in etcd: keeps the stream honest, and brings the cursor to every revision that the log has named.

The log names revisions of the whole store (`head`, a commit that changed nothing): somebody else's keys move them, and no event of
ours ever brings a watch there. Three things do:
- etcd tells a watch by itself up to where it has told everything (`progress_notify`), every ten minutes or as often as
  --experimental-watch-progress-notify-interval says;
- it tells when asked, which may be believed from 3.4.25 and 3.5.8 on (`assembly.answers_in_order`);
- before that we write a small record of our own under our prefix, and the watch comes to that. Only while a named revision was not
  reached within BARRIER_AFTER_SECONDS.

Without all this a quiet log would look behind forever on an etcd that others use, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
from aetcd import rpc

from keycache.domain.errors import LogUnavailable
from keycache.domain.log import Batch
from keycache.domain.names import ClusterIdentity, Revision
from keycache.etcd.assembly import Assembly, answers_in_order
from keycache.etcd.connection import REQUIRE_LEADER, Endpoint
from keycache.etcd.errors import closed, explain
from keycache.etcd.keys import KeySpace

LIFE_SECONDS = 2.0
"""Quiet for so long, the stream is asked for a sign of life."""

SILENCE_SECONDS = 6.0
"""Three unanswered questions: what a member that is stopped or cut off costs."""

WORKING_SECONDS = 60.0
"""As above, while the member answers otherwise: etcd reads all changes since the cursor before it tells the first, and leaves
questions unanswered until then. A million changes take some seconds; a minute allows for a slow disk."""

REACH_SECONDS = 0.2
"""A watch that is behind is served by etcd every 0.1 s (its watchResyncPeriod); what is still missing after twice that is asked for."""

BARRIER_AFTER_SECONDS = 0.6
"""Behind for so long with nothing coming, a record is written to be seen: a loaded etcd shall not be written to for being slow. No
second one before the first was seen."""

BARRIER_SECONDS = 2.0
"""After a failure, not again before that."""

Barrier = Callable[[], Awaitable[Revision]]
"""Writes the record to be seen; its revision."""


class Horizon:
    """The newest revision that the log has named to anybody, and those who watch and must come to it."""

    def __init__(self) -> None:
        self.revision = Revision(0)
        self.is_closed = False
        self._wakes: set[asyncio.Event] = set()

    def name(self, revision: Revision) -> Revision:
        """Tell a revision to somebody."""
        if revision > self.revision:
            self.revision = revision
            self._wake()
        return revision

    def close(self) -> None:
        self.is_closed = True
        self._wake()

    @contextlib.contextmanager
    def waking(self, wake: asyncio.Event) -> Iterator[None]:
        self._wakes.add(wake)
        try:
            yield
        finally:
            self._wakes.discard(wake)

    def _wake(self) -> None:
        for wake in self._wakes:
            wake.set()


async def follow(
    *, endpoint: Endpoint, keys: KeySpace, identity: ClusterIdentity, after: Revision, horizon: Horizon, barrier: Barrier
) -> AsyncGenerator[Batch, None]:
    """Ends when the horizon is closed or the endpoint retired. Raises what `Assembly.take` raises, and LogUnavailable when the stream
    breaks or falls silent."""
    try:
        status = await endpoint.status()
    except grpc.aio.AioRpcError as error:
        raise explain(error.code(), error.details(), endpoint.url).error from error
    in_order = answers_in_order(status.version)
    assembly = Assembly(keys=keys, identity=identity, after=after, in_order=in_order, endpoint=endpoint.url)
    clock = asyncio.get_running_loop().time
    wake = asyncio.Event()
    stream = _Stream(endpoint, wake)
    try:
        with horizon.waking(wake):
            await stream.open(keys, Revision(after + 1))
            heard = asked = moved = clock()
            sought = after
            while not horizon.is_closed and not endpoint.is_retired:
                is_behind = horizon.revision > assembly.cursor
                response = await stream.next(REACH_SECONDS if is_behind else max(0.0, asked + LIFE_SECONDS - clock()))
                if response is not None:
                    batch = assembly.take(response)
                    if batch is not None:
                        yield batch
                    heard = asked = moved = clock()  # what the reader took to apply it was not etcd's silence
                    continue
                now = clock()
                moved = moved if is_behind else now
                if now - heard > SILENCE_SECONDS:
                    await _expect_life(endpoint, now - heard)
                if now - asked >= LIFE_SECONDS or (is_behind and in_order):
                    asked = now
                    if assembly.is_created:
                        await stream.ask()
                if not in_order and now - moved >= BARRIER_AFTER_SECONDS and assembly.cursor >= sought:
                    moved = now + BARRIER_SECONDS
                    with contextlib.suppress(LogUnavailable):  # full, or without a leader: there will be another occasion
                        sought = await barrier()
    finally:
        await stream.close()


async def _expect_life(endpoint: Endpoint, silent_seconds: float) -> None:
    """Raises LogUnavailable unless the member answers, on the same connection, and may still be reading."""
    if silent_seconds < WORKING_SECONDS:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await endpoint.status()
            return
    raise LogUnavailable(
        f"The watch on etcd at {endpoint.url} has been silent for {silent_seconds:.0f} s.",
        hint="The member may be stopped, or cut off from this node. Another one is tried.",
    )


class _Stream:
    """One watch call. A read that was begun goes on until it has an answer: to cancel it would cancel the call."""

    def __init__(self, endpoint: Endpoint, wake: asyncio.Event) -> None:
        self._endpoint = endpoint
        self._wake = wake
        self._call: Any = None
        self._reading: asyncio.Task[Any] | None = None

    async def open(self, keys: KeySpace, start: Revision) -> None:
        self._call = self._endpoint.watches.Watch(metadata=REQUIRE_LEADER)
        create = rpc.WatchCreateRequest(
            key=keys.first, range_end=keys.end, start_revision=start, progress_notify=True, fragment=True
        )
        await self._write(rpc.WatchRequest(create_request=create))

    async def ask(self) -> None:
        """For a word on how far it has come."""
        await self._write(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()))

    async def next(self, seconds: float) -> Any:
        """The next response; None after that time, or when woken. Raises LogUnavailable when the stream is over."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._call.read())
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({self._reading, waking}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()
        self._wake.clear()
        if not self._reading.done():
            return None
        reading, self._reading = self._reading, None
        if reading.cancelled():
            raise closed()
        try:
            response = reading.result()
        except grpc.aio.AioRpcError as error:
            raise explain(error.code(), error.details(), self._endpoint.url).error from error
        if response is grpc.aio.EOF:  # type: ignore[attr-defined]  # missing in grpc-stubs
            raise explain(await self._call.code(), await self._call.details(), self._endpoint.url).error
        return response

    async def close(self) -> None:
        if self._call is not None:
            self._call.cancel()
        if self._reading is not None:
            await asyncio.wait({self._reading})
            if not self._reading.cancelled():
                self._reading.exception()  # looked at, so that nobody reports it as never retrieved

    async def _write(self, request: Any) -> None:
        """A write that fails has its reason in the next read."""
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.write(request)
