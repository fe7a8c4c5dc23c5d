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
from keycache.domain.names import Revision
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
    """`hear` is told by the view. `run` in a task, where the log is shared; where it is not, nobody is heard, and nobody spoken to."""

    def __init__(self, *, own: Witness, view: View, clock: Clock) -> None:
        """`own`: this node as it started."""
        self._own = member_key(own.node_id)
        self._witness = witness_key(own.node_id)
        self._started_at = own.at
        self._view = view
        self._clock = clock
        self._heard: dict[str, _Heard] = {}
        self._spoke: Revision = ABSENT
        self._witnessed: float | None = None
        self._double: float | None = None

    async def run(
        self, *, presence: Presence, log: EntryLog, describe: Callable[[], Member], is_following: Callable[[], bool]
    ) -> None:
        """Until cancelled; then it takes its leave. `describe`: this node's word about itself, now. `is_following`: whether it goes
        along with the log. A log that takes no writes is told of by its link, not here."""
        try:
            while True:
                if is_following():
                    with contextlib.suppress(LogUnavailable, ForeignLog):
                        await self._say(describe(), presence, log)
                await self._clock.sleep(SAY_SECONDS)
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WITHDRAW_SECONDS):
                    await presence.withdraw(self._own)

    async def _say(self, word: Member, presence: Presence, log: EntryLog) -> None:
        self._spoke = await presence.announce(self._own, encode_member(word))
        now = self._clock.sample().monotonic
        if self._witnessed is None or now - self._witnessed >= WITNESS_SECONDS:
            witness = Witness(node_id=word.node_id, address=word.address, version=word.version, at=word.clock)
            await log.commit(Transaction(compare={}, puts={self._witness: encode_witness(witness)}))
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
        if ABSENT < self._spoke < said.revision and said.member.started_at != self._started_at:
            self._double = now

    def offsets(self) -> dict[str, timedelta]:
        """The clocks of members that live minus ours, by label."""
        measured = {said.member.label: self.offset_of(key) for key, said in self.others.items()}
        return {label: offset for label, offset in measured.items() if offset is not None}

    def offset_of(self, key: str) -> timedelta | None:
        """One member's clock minus ours. None: not measured."""
        heard = self._heard.get(key)
        return None if heard is None else offset(heard.readings, self._clock.sample())

    @property
    def others(self) -> dict[str, Said]:
        """Members that live, by key, without this node."""
        return {key: said for key, said in self._view.members.items() if key != self._own}

    @property
    def has_double(self) -> bool:
        """Whether another node calls itself by our id: a data directory that was copied."""
        return self._double is not None and self._clock.sample().monotonic - self._double < DOUBLE_SECONDS

    def purger(self, own: Member) -> Member | None:
        """Whose turn it is. `own`: this node's word about itself, now."""
        return choose_purger((said.member for said in self.others.values()), own)

    def silent_for(self, key: str) -> timedelta | None:
        """How long ago a member's last word arrived here. None: it was not heard since this node started."""
        heard = self._heard.get(key)
        return None if heard is None else timedelta(seconds=self._clock.sample().monotonic - heard.readings[-1].monotonic)
