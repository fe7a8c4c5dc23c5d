"""The members of a shared log: says that this node lives, hears the others, and knows from both whose turn it is to purge and how far
the clocks are apart.

1. A node speaks only while it follows the log. One that waits for an administrator must not write into a log that it does not
   believe: its witness would tell the others that all is well.
2. A member's clock is read only from a word that arrives while this node listens. What a listing or the replica holds was said at a
   time that nobody knows, and would make every clock look as far behind as the word is old.
3. The witness is an ordinary record, written once a minute with a comparison of nothing: it outlives the node, and a log in which it
   is older than a node remembers has gone back in time (`domain.restart`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from keycache.codec.members import encode_member, encode_witness
from keycache.domain.errors import ForeignLog, LogUnavailable
from keycache.domain.log import ABSENT, Transaction, member_key, witness_key
from keycache.domain.membership import Member, Witness, choose_purger, offset, with_reading
from keycache.domain.names import NodeId, Revision
from keycache.domain.ports import PRESENCE_SECONDS, Clock, EntryLog, Presence
from keycache.domain.skew import ClockSample
from keycache.replication.view import Said, View

SAY_SECONDS = PRESENCE_SECONDS / 3

WITNESS_SECONDS = 60.0
"""What a log may lose by going back before it is noticed. As often as the time is written down (timekeeper.HEARTBEAT)."""

WITHDRAW_SECONDS = 2.0
"""At a stop. After it the record goes with its lease, some seconds later."""

DOUBLE_SECONDS = 60.0
"""How long a double is told of: its words and ours take turns in one record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """Of one member since it started. `readings`: its clock, as `membership` has them."""

    started_at: datetime
    readings: tuple[ClockSample, ...]


class Roster:
    """`run` in a task. `describe`: this node's word about itself, now. `is_following`: whether it goes along with the log."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        presence: Presence,
        log: EntryLog,
        view: View,
        clock: Clock,
        describe: Callable[[], Member],
        is_following: Callable[[], bool],
    ) -> None:
        self._own = member_key(node_id)
        self._witness = witness_key(node_id)
        self._presence = presence
        self._log = log
        self._view = view
        self._clock = clock
        self._describe = describe
        self._is_following = is_following
        self._heard: dict[str, _Heard] = {}
        self._spoke: Revision = ABSENT
        self._witnessed: float | None = None
        self._double: float | None = None

    async def run(self) -> None:
        """Until cancelled; then it takes its leave. A log that takes no writes is told by its link, not here."""
        try:
            while True:
                if self._is_following():
                    with contextlib.suppress(LogUnavailable, ForeignLog):
                        await self._say()
                await self._clock.sleep(SAY_SECONDS)
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WITHDRAW_SECONDS):
                    await self._presence.withdraw(self._own)

    async def _say(self) -> None:
        word = self._describe()
        self._spoke = await self._presence.announce(self._own, encode_member(word))
        now = self._clock.sample().monotonic
        if self._witnessed is None or now - self._witnessed >= WITNESS_SECONDS:
            witness = Witness(node_id=word.node_id, address=word.address, version=word.version, at=word.clock)
            await self._log.commit(Transaction(compare={}, puts={self._witness: encode_witness(witness)}))
            self._witnessed = now

    def hear(self, keys: frozenset[str]) -> None:
        """These members spoke, or went, just now."""
        now = self._clock.sample().monotonic
        for key in keys:
            said = self._view.members.get(key)
            if said is None:
                self._heard.pop(key, None)
            elif key == self._own:
                self._hear_own(said, now)
            else:
                before = self._heard.get(key)
                if before is not None and before.started_at != said.member.started_at:
                    before = None  # its machine may have another clock now
                readings = with_reading(
                    () if before is None else before.readings, ClockSample(wall=said.member.clock, monotonic=now)
                )
                self._heard[key] = _Heard(started_at=said.member.started_at, readings=readings)

    def _hear_own(self, said: Said, now: float) -> None:
        """What this node said before it last started is older than its first word since."""
        if ABSENT < self._spoke < said.revision and said.member.started_at != self._describe().started_at:
            self._double = now

    def offsets(self) -> dict[str, timedelta]:
        """The clocks of members that live minus ours, by label."""
        now = self._clock.sample()
        found = {}
        for key, said in self.others.items():
            heard = self._heard.get(key)
            measured = None if heard is None else offset(heard.readings, now)
            if measured is not None:
                found[said.member.label] = measured
        return found

    @property
    def others(self) -> dict[str, Said]:
        """Members that live, by key, without this node."""
        return {key: said for key, said in self._view.members.items() if key != self._own}

    @property
    def has_double(self) -> bool:
        """Whether another node calls itself by our id: a data directory that was copied."""
        return self._double is not None and self._clock.sample().monotonic - self._double < DOUBLE_SECONDS

    def purger(self) -> Member | None:
        """Whose turn it is."""
        return choose_purger((said.member for said in self.others.values()), self._describe())

    def is_purger(self) -> bool:
        chosen = self.purger()
        return chosen is not None and member_key(chosen.node_id) == self._own

    def silent_for(self, key: str) -> timedelta | None:
        """How long ago a member's last word arrived here. None: it was not heard since this node started."""
        heard = self._heard.get(key)
        return None if heard is None else timedelta(seconds=self._clock.sample().monotonic - heard.readings[-1].monotonic)
