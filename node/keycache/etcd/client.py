"""Asks etcd, at whichever endpoint answers.

A request is sent twice only if that does no harm: whoever calls says so by `repeatable`, and learns from `Answer.uncertain` whether an
earlier try may have been carried out. What surely never left (no connection, a learner's or a leaderless member's refusal) is always
tried elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from keycache.domain.errors import ConfigError, KeycacheError, LogUnavailable
from keycache.domain.names import Revision
from keycache.etcd.connection import RECEIVE_BYTES, REQUIRE_LEADER, Endpoint, EtcdTls, Retired, Unconnected, target_of
from keycache.etcd.errors import Failure, Outcome, closed, explain

ATTEMPT_SECONDS = 1.5
"""One try: longer than an election (etcd's --election-timeout, 1 s) keeps a good member waiting, and a member that was stopped costs
no more than this once."""

TOTAL_SECONDS = 5.0
"""All tries together: as long as the replicator waits for a revision, and as an etcd client does by default (etcdctl's
--command-timeout)."""

PATIENCE_SECONDS = 3.0
"""For how long an election is waited for by asking round and round, after the last answer: three times --election-timeout. Later each
call asks every endpoint once: during an outage a harvested key shall go to the outbox soon."""

PAUSE_SECONDS = 0.2
"""Between two rounds: etcd's --heartbeat-interval, twice."""

Method = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """`uncertain`: an earlier try of the same request may have been carried out, too."""

    value: Any
    endpoint: Endpoint
    uncertain: bool


class EtcdClient:
    """Channels to all endpoints of one etcd. Belongs to the event loop that first awaits `call`."""

    def __init__(self, endpoints: Sequence[str], tls: EtcdTls | None = None, *, receive_bytes: int = RECEIVE_BYTES) -> None:
        """`endpoints`: URLs, the preferred one first. `receive_bytes`: the largest answer taken. Connects to nothing yet. Raises
        ConfigError."""
        if not endpoints:
            raise ConfigError("No endpoint of etcd is named.", hint="Name them as https://HOST:PORT.")
        for url in endpoints:
            target_of(url)
        self._urls = tuple(endpoints)
        self._tls = tls
        self._receive_bytes = receive_bytes
        self._made: dict[str, Endpoint] = {}
        self._retired = Retired()
        self._good = 0
        self._trouble_since: float | None = None
        self.is_closed = False

    @property
    def endpoints(self) -> list[Endpoint]:
        """In the order given."""
        for url in self._urls:
            if url not in self._made:
                self._made[url] = Endpoint(url, self._tls, self._receive_bytes)
        return [self._made[url] for url in self._urls]

    async def call(
        self,
        method: Callable[[Endpoint], Method],
        request: Any,
        *,
        repeatable: bool = True,
        seconds: float = ATTEMPT_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
        asked: Revision | None = None,
    ) -> Answer:
        """Send `request` by the `method` of an endpoint, of one after the other until one answers.

        `seconds`: for one try; one that is not repeatable has all the time there is, since nothing comes after it. `asked`: the
        revision that is read, for the error's sake. Raises what `errors` makes of what etcd says.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + total_seconds
        uncertain = False
        while True:
            failures: list[Failure] = []
            for endpoint in self._in_order():
                left = end - clock()
                if left <= 0:
                    break
                failure = await self._try(endpoint, method, request, min(seconds, left) if repeatable else left, asked)
                if isinstance(failure, Failure):
                    if failure.outcome is Outcome.FINAL:
                        raise failure.error
                    if failure.outcome is Outcome.UNCERTAIN:
                        if not repeatable:
                            raise _perhaps_done(failure.error)
                        uncertain = True
                    failures.append(failure)
                    continue
                self._trouble_since = None
                return Answer(failure, endpoint, uncertain)
            now = clock()
            self._trouble_since = self._trouble_since or now
            over = now + PAUSE_SECONDS >= end or now - self._trouble_since > PATIENCE_SECONDS
            if over or not any(failure.passing for failure in failures):
                raise _nobody(failures)
            await asyncio.sleep(PAUSE_SECONDS)

    def use(self, endpoints: Sequence[str]) -> None:
        """Ask these from now on, the preferred one first, as members come and go. What is under way on others goes on there as long as
        it can: their channels are closed with the client. Raises ConfigError."""
        for url in endpoints:
            target_of(url)
        if not endpoints or tuple(endpoints) == self._urls:
            return
        good, self._urls = self._urls[self._good], tuple(endpoints)
        self._good = self._urls.index(good) if good in self._urls else 0

    def trust(self, tls: EtcdTls) -> None:
        """Show and trust this from now on. What is under way is finished; watches go over by themselves."""
        self._tls = tls
        retired, self._made = tuple(self._made.values()), {}
        self._retired.add(retired)

    async def close(self) -> None:
        """Requests under way end with LogUnavailable."""
        self.is_closed = True
        await self._retired.close()
        for endpoint in self._made.values():
            await endpoint.close()

    def _in_order(self) -> Iterator[Endpoint]:
        """From the last one that answered."""
        endpoints = self.endpoints
        start = self._good
        for number in range(len(endpoints)):
            yield endpoints[(start + number) % len(endpoints)]

    async def _try(
        self, endpoint: Endpoint, method: Callable[[Endpoint], Method], request: Any, seconds: float, asked: Revision | None
    ) -> Any:
        """The answer, or a Failure."""
        if self._was_closed():
            raise closed()
        try:
            await endpoint.connect()
            answer = await method(endpoint)(request, timeout=seconds, metadata=REQUIRE_LEADER)
        except Unconnected as error:
            return error.failure
        except grpc.aio.AioRpcError as error:
            if self._was_closed():
                raise closed() from error
            return explain(error.code(), error.details(), endpoint.url, asked=asked)
        except asyncio.CancelledError:
            if self._was_closed():
                raise closed() from None  # closing a channel cancels its calls, not those who await them
            raise
        except grpc.aio.UsageError as error:
            raise closed() from error
        if endpoint.url in self._urls:
            self._good = self._urls.index(endpoint.url)
        return answer

    def _was_closed(self) -> bool:
        """And the caller not cancelled, which comes first."""
        task = asyncio.current_task()
        return self.is_closed and (task is None or not task.cancelling())


def _perhaps_done(error: KeycacheError) -> KeycacheError:
    return type(error)(error.text, hint=f"It may or may not have been carried out: look before you try again. {error.hint}")


def _nobody(failures: Sequence[Failure]) -> LogUnavailable:
    if not failures:
        return LogUnavailable("No endpoint of etcd answered in time.", hint="Check that etcd runs.")
    texts = dict.fromkeys(failure.error.text for failure in failures)
    return LogUnavailable(" ".join(texts), hint=failures[0].error.hint)
