"""What the pool is asked to do: one job per call, with how to encode it, how to read the answer, and how it may end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from keycache.domain.errors import InvalidInput, Unavailable
from keycache.v1 import sandbox_pb2

T = TypeVar("T")


class Failed(Exception):
    """A task came to no result. `limit`: it took too much; else the parser failed in an unforeseen way."""

    def __init__(self, detail: str, *, limit: bool) -> None:
        super().__init__(detail)
        self.detail = detail
        self.limit = limit


@dataclass(slots=True, kw_only=True)
class Job(Generic[T]):
    """`make`: the encoded task, made when a worker is there for it. None: only have a worker ready. `extra_seconds`: it may take."""

    make: Callable[[], bytes] | None
    read: Callable[[sandbox_pb2.WorkerAnswer], T]
    future: asyncio.Future[T]
    extra_seconds: float = 0.0


class Unable(Exception):
    """The worker lives, but its parser failed; `error` as in the answer."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


def expect(answer: sandbox_pb2.WorkerAnswer, kind: str) -> None:
    """Raises Unable for an error told by the worker, InvalidInput for an answer to something else."""
    told = answer.WhichOneof("answer")
    if told == "error":
        raise Unable(answer.error if answer.error.isidentifier() else "unnamed error")
    if told != kind:
        raise InvalidInput("An answer to another question.")


def settle(job: Job[Any], error: Exception) -> None:
    if job.make is None:
        job.future.cancel()  # nobody waits for it
    elif not job.future.done():
        job.future.set_exception(error)


def stopping() -> Unavailable:
    return Unavailable("This node is stopping.", hint="Ask another node, or try again once it runs.")


def no_workers(reason: str) -> Unavailable:
    return Unavailable(f"No parser worker can be started. {reason}", hint="See the node's log, memory and process limits.")
