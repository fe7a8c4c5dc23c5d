"""Who belongs to etcd, and changes to that.

Each change is a goal, not a command: it looks first, asks etcd only if the goal is not reached, and looks again. So repeating one
after a lost answer, a crash or a change of the leader does no harm. What etcd refuses for now is asked for again until `seconds` are
over:
- "too many learner members": there is room for one (`domain.voters`, rule 5);
- "unhealthy cluster": a voter is down, or has not been connected for five seconds yet (etcd's HealthInterval);
- "can only promote a learner member which is in sync with leader".
Learners of 3.4 answer none of this: name voters as endpoints.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aetcd import rpc

from keycache.cluster.member_endpoint import CALL_SECONDS, MemberEndpoint, MemberStatus, Method
from keycache.domain.errors import Conflict, KeycacheError, LogUnavailable, NotFound, Refused
from keycache.etcd.connection import EtcdTls, Retired
from keycache.etcd.errors import Failure, Outcome

T = TypeVar("T")

PAUSE_SECONDS = 0.25
"""Between two tries: a learner of a small log catches up within a heartbeat or two (100 ms)."""

PATIENCE_SECONDS = 30.0
"""By default: etcd's five seconds of connection, an election, and what a busy machine adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """As etcd lists it. One that never started has no name and no client URLs."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool

    @property
    def has_started(self) -> bool:
        return bool(self.name)

    def __str__(self) -> str:
        """For people."""
        return self.name or f"the member at {', '.join(self.peer_urls)}, which never started"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberReport:
    """A member and what it said when asked; None: it did not answer, and `problem` says why."""

    member: Member
    status: MemberStatus | None
    problem: str = ""


class EtcdMembers:
    """Belongs to one event loop. `endpoints`: client URLs of voters."""

    def __init__(self, endpoints: Sequence[str], tls: EtcdTls | None) -> None:
        self._urls = tuple(endpoints)
        self._tls = tls
        self._made: dict[str, MemberEndpoint] = {}
        self._retired = Retired()

    def endpoint(self, url: str) -> MemberEndpoint:
        """Its channel stays open until `close`."""
        if url not in self._made:
            self._made[url] = MemberEndpoint(url, self._tls)
        return self._made[url]

    def use(self, endpoints: Sequence[str]) -> None:
        """Ask these from now on, as voters come and go."""
        self._urls = tuple(endpoints)

    def trust(self, tls: EtcdTls) -> None:
        """Show and trust this from now on."""
        self._tls = tls
        retired, self._made = tuple(self._made.values()), {}
        self._retired.add(retired)

    async def close(self) -> None:
        await self._retired.close()
        for endpoint in self._made.values():
            await endpoint.close()

    async def list(self) -> tuple[Member, ...]:
        """By id. Raises LogUnavailable. On 3.4 the answering member's own knowledge, which may be a moment old."""
        answer = await self.call(lambda end: end.cluster.MemberList, rpc.MemberListRequest(linearizable=True))
        members = [_member(member) for member in answer.members]
        return tuple(sorted(members, key=lambda member: member.id))

    async def survey(self) -> tuple[MemberReport, ...]:
        """All members, each asked at its own client URL; those that do not answer within the time of a call are reported so."""
        return tuple(await asyncio.gather(*(self._report(member) for member in await self.list())))

    async def add_learner(self, peer_url: str, *, seconds: float = PATIENCE_SECONDS) -> Member:
        """A member without a vote, not yet started. Once it is listed, start its etcd with all of `list()` as initial cluster.

        Raises Conflict if a member with that URL has started already (remove it first: its data is another's), Refused while another
        learner takes the room, LogUnavailable.
        """

        def there(members: Sequence[Member]) -> Member | None:
            mine = next((member for member in members if peer_url in member.peer_urls), None)
            if mine is not None and (mine.has_started or not mine.is_learner):
                raise Conflict(
                    f"etcd has a member at {peer_url} already: {mine}.",
                    hint="If that was this node before it lost its data, let it leave first, then join again.",
                )
            return mine

        request = rpc.MemberAddRequest(peerURLs=[peer_url], isLearner=True)
        return await self._until(there, lambda: self.call(lambda end: end.cluster.MemberAdd, request), seconds, self._no_room)

    async def promote(self, member_id: int, *, seconds: float = PATIENCE_SECONDS) -> Member:
        """Give a learner its vote, as soon as it has caught up. Raises NotFound, Refused, LogUnavailable."""

        def votes(members: Sequence[Member]) -> Member | None:
            member = _find(members, member_id)
            return None if member.is_learner else member

        def why(members: Sequence[Member], error: KeycacheError) -> KeycacheError:
            return Refused(
                f"{_find(members, member_id)} has not caught up with etcd's leader. {error.text}",
                hint="Check that its etcd runs and reaches the others; it keeps its place, and may be promoted later.",
            )

        request = rpc.MemberPromoteRequest(ID=member_id)
        return await self._until(votes, lambda: self.call(lambda end: end.cluster.MemberPromote, request), seconds, why)

    async def remove(self, member_id: int, *, seconds: float = PATIENCE_SECONDS) -> None:
        """For good: its data is of no more use. Done if it is no member. Raises Refused, LogUnavailable.

        Whether the others stay a quorum is `domain.voters`' to decide; etcd refuses some of what would lose it, not all.
        """

        def gone(members: Sequence[Member]) -> bool | None:
            return None if any(member.id == member_id for member in members) else True

        request = rpc.MemberRemoveRequest(ID=member_id)
        await self._until(gone, lambda: self.call(lambda end: end.cluster.MemberRemove, request), seconds, _as_it_is)

    async def update_peer_urls(self, member_id: int, urls: Sequence[str], *, seconds: float = PATIENCE_SECONDS) -> Member:
        """Before a member moves to another address, while it still runs. Raises NotFound, Conflict, LogUnavailable."""

        def moved(members: Sequence[Member]) -> Member | None:
            member = _find(members, member_id)
            return member if set(member.peer_urls) == set(urls) else None

        request = rpc.MemberUpdateRequest(ID=member_id, peerURLs=list(urls))
        return await self._until(moved, lambda: self.call(lambda end: end.cluster.MemberUpdate, request), seconds, _as_it_is)

    async def move_leader(self, to: int, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Let the voter `to` lead, so that the one that leaves costs no election. Raises NotFound, LogUnavailable."""
        end = time.monotonic() + seconds
        while True:
            _find(await self.list(), to)
            reports = [report for report in await self.survey() if report.status is not None]
            # As the leader has it: the others learn a moment later, and only the leader takes the request.
            leading = next((report for report in reports if report.status is not None and report.status.leads), None)
            if leading is not None and leading.member.id == to:
                return
            problem: KeycacheError = LogUnavailable("etcd has no leader now.", hint="Try again in a moment.")
            if leading is not None:
                request = rpc.MoveLeaderRequest(targetID=to)
                try:
                    await self.endpoint(leading.member.client_urls[0]).ask(lambda one: one.maintenance.MoveLeader, request)
                    continue
                except (Refused, LogUnavailable) as error:
                    problem = error
            if time.monotonic() >= end:
                raise problem
            await asyncio.sleep(PAUSE_SECONDS)

    async def _report(self, member: Member) -> MemberReport:
        problem = "It never started."
        for url in member.client_urls:
            try:
                status = await self.endpoint(url).look()
            except KeycacheError as error:
                problem = error.text
                continue
            if status.member_id == member.id:
                return MemberReport(member=member, status=status)
            problem = f"Another member answers at {url}."
        return MemberReport(member=member, status=None, problem=problem)

    async def _until(
        self,
        reached: Callable[[Sequence[Member]], T | None],
        change: Callable[[], Awaitable[Any]],
        seconds: float,
        why: Callable[[Sequence[Member], KeycacheError], KeycacheError],
    ) -> T:
        """What `reached` finds once it finds something. `why` makes the error of one that was waited for in vain."""
        end = time.monotonic() + seconds
        while True:
            members = await self.list()
            found = reached(members)
            if found is not None:
                return found
            try:
                await change()
            except (
                Refused,
                LogUnavailable,
                Conflict,
                NotFound,
            ) as error:  # the last two: reached meanwhile, or seen by an old list
                if time.monotonic() >= end:
                    raise why(members, error) from error
                await asyncio.sleep(PAUSE_SECONDS)

    def _no_room(self, members: Sequence[Member], error: KeycacheError) -> KeycacheError:
        learners = [str(member) for member in members if member.is_learner]
        if not learners or not isinstance(error, Refused):
            return error
        return Refused(
            f"etcd takes one learner at a time, and has one: {', '.join(learners)}.",
            hint="Wait until that node has joined; if it is gone for good, let it leave. Then try again.",
        )

    async def call(self, method: Method, request: Any, *, seconds: float = CALL_SECONDS) -> Any:
        """Asked at the first endpoint that can say something; the goal is looked at again, so one that may have done it is no harm."""
        failure: Failure | None = None
        for url in self._urls:
            answer = await self.endpoint(url).attempt(method, request, seconds=seconds)
            if not isinstance(answer, Failure):
                return answer
            if failure is None or answer.outcome is not Outcome.ELSEWHERE:
                failure = answer
            if answer.outcome is Outcome.FINAL:
                break
        assert failure is not None, "no endpoint was named"
        raise failure.error


def _member(member: Any) -> Member:
    return Member(
        id=member.ID,
        name=member.name,
        peer_urls=tuple(member.peerURLs),
        client_urls=tuple(member.clientURLs),
        is_learner=member.isLearner,
    )


def _find(members: Sequence[Member], member_id: int) -> Member:
    for member in members:
        if member.id == member_id:
            return member
    raise NotFound(f"etcd has no member {member_id:x}.", hint="It was removed; the node must join again.")


def _as_it_is(_members: Sequence[Member], error: KeycacheError) -> KeycacheError:
    return error
