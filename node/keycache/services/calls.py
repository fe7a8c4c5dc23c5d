"""From a method of ours to a gRPC handler: authorise, decode, call, encode, count, and tell errors.

No interceptors: on the hot path each costs a tenth of a call. What every call needs is wrapped around the method once, when the
server is built.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from time import perf_counter
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from keycache.domain.errors import InvalidInput, Unavailable
from keycache.domain.removal import FindRemoval, none_removed
from keycache.metrics import CallMeter, Metrics
from keycache.services.auth import ALLOWED, Caller, Context, authorize
from keycache.services.errors import failure
from keycache.services.former import FormerClients

AHEAD = 4
"""Items of one Import that are worked on at once: enough to keep two parser workers busy, at most six messages in memory."""

Request = TypeVar("Request", bound=Message)
Item = TypeVar("Item")

_STOPPING = "The node is stopping."


class Calls:
    """Makes handlers, and ends the calls that would never end by themselves when the node stops."""

    def __init__(self, metrics: Metrics, removed: FindRemoval = none_removed) -> None:
        self._metrics = metrics
        self._removed = removed
        self.former = FormerClients()
        self._endless: set[asyncio.Task[Any]] = set()
        self._stopping = False

    def unary(
        self, rpc: str, kind: type[Request], method: Callable[[Request, Caller], Awaitable[Message | bytes]]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """One request, one answer; a method on the hot path answers bytes. `rpc`: /package.Service/Method."""
        allowed, meter = ALLOWED[rpc], self._metrics.call_meter(rpc)

        async def handle(raw: bytes, context: Context) -> bytes:
            started = perf_counter()
            try:
                caller = authorize(rpc, allowed, context, self._removed)
                if self.former.watched is not None and caller.role is not None:
                    self.former.see(context)
                answer = await method(_decoded(kind, raw), caller)
                if not isinstance(answer, bytes):
                    answer = answer.SerializeToString()
            except asyncio.CancelledError:
                meter.ended(grpc.StatusCode.CANCELLED.name)
                raise
            except Exception as error:  # noqa: BLE001 -- the border: told to the caller, and logged if it is our mistake
                await _tell(context, meter, error, rpc)
            meter.good(perf_counter() - started)
            return answer

        return grpc.unary_unary_rpc_method_handler(handle)

    def stream(
        self,
        rpc: str,
        kind: type[Request],
        method: Callable[[Request, Caller], AsyncGenerator[Message, None]],
        *,
        endless: bool = False,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """One request, many answers, no faster than the client takes them. `endless`: ended by us when the node stops."""

        async def talk(raw: bytes, context: Context, caller: Caller) -> None:
            async with aclosing(method(_decoded(kind, raw), caller)) as each:
                async for answer in each:
                    await context.write(answer.SerializeToString())

        return grpc.unary_stream_rpc_method_handler(self._streaming(rpc, talk, endless=endless))

    def exchange(
        self, rpc: str, kind: type[Request], method: Callable[[Request, Caller], Awaitable[Message]]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Many requests, one answer to each, in order; some are worked on at once."""

        async def talk(raws: AsyncIterator[bytes], context: Context, caller: Caller) -> None:
            async def work(raw: bytes) -> bytes:
                return (await method(_decoded(kind, raw), caller)).SerializeToString()

            await in_order(raws, work, context.write, ahead=AHEAD)

        return grpc.stream_stream_rpc_method_handler(self._streaming(rpc, talk, endless=False))

    def stop(self) -> None:
        """End the endless calls, now and from now on."""
        self._stopping = True
        for task in self._endless:
            task.cancel()

    def _streaming(
        self, rpc: str, talk: Callable[[Any, Context, Caller], Awaitable[None]], *, endless: bool
    ) -> Callable[[Any, Context], Awaitable[None]]:
        allowed, meter = ALLOWED[rpc], self._metrics.call_meter(rpc)

        async def handle(incoming: Any, context: Context) -> None:
            task = asyncio.current_task()
            assert task is not None
            try:
                caller = authorize(rpc, allowed, context, self._removed)
                if self.former.watched is not None and caller.role is not None:
                    self.former.see(context)
                if endless:
                    self._enter(task)
                await talk(incoming, context, caller)
            except asyncio.CancelledError:
                if endless and self._stopping and not context.cancelled():
                    task.uncancel()
                    await _tell(context, meter, Unavailable(_STOPPING, hint="Connect again."), rpc)
                meter.ended(grpc.StatusCode.CANCELLED.name)
                raise
            except Exception as error:  # noqa: BLE001 -- as above
                await _tell(context, meter, error, rpc)
            finally:
                self._endless.discard(task)
            meter.ended(grpc.StatusCode.OK.name)

        return handle

    def _enter(self, task: asyncio.Task[Any]) -> None:
        if self._stopping:
            raise Unavailable(_STOPPING, hint="Connect again.")
        self._endless.add(task)


async def in_order(
    items: AsyncIterator[bytes],
    work: Callable[[bytes], Awaitable[bytes]],
    write: Callable[[bytes], Awaitable[None]],
    *,
    ahead: int,
) -> None:
    """Work on up to `ahead` items at once, and some two more in hand; write the answers in the order of the items.

    An answer is written as soon as it and all before it are there, so a client may also wait for each before it sends the next.
    """
    pending: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(ahead)

    async def read(group: asyncio.TaskGroup) -> None:
        async for item in items:
            await pending.put(group.create_task(_run(work, item)))
        await pending.put(None)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(read(group))
            while (task := await pending.get()) is not None:
                await write(await task)
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


@asynccontextmanager
async def closing(items: AsyncIterator[Item]) -> AsyncIterator[AsyncIterator[Item]]:
    """As `aclosing`, for iterators that may be generators: what they hold is given back now, not when the memory is."""
    try:
        yield items
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()


async def _run(work: Callable[[bytes], Awaitable[bytes]], item: bytes) -> bytes:
    return await work(item)


def _decoded(kind: type[Request], raw: bytes) -> Request:
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise InvalidInput(f"The request is not a {kind.__name__} that can be read.") from error


async def _tell(context: Context, meter: CallMeter, error: Exception, rpc: str) -> NoReturn:
    """End the call with what `error` means to its caller. Raises gRPC's AbortError."""
    told = failure(error, rpc)
    meter.ended(told.code.name)
    await context.abort(told.code, told.text, told.metadata)
