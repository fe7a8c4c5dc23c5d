"""Settings and blocks: small records that an administrator changes, each change with its line in history and audit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

from keycache.cache.journal import Journal, newest_first
from keycache.cache.results import SettingsResult
from keycache.cache.writer import Writer, timed_name
from keycache.codec import block_to_wire, decode, encode_settings, setting_change_from_wire, setting_change_to_wire
from keycache.domain.administration import Block, BlockKind
from keycache.domain.errors import InvalidInput, NotFound
from keycache.domain.log import BLOCKS, SETTINGS, SETTINGS_HISTORY
from keycache.domain.names import EmailAddress, Fingerprint, Revision
from keycache.domain.ports import Replica
from keycache.domain.retention import expires_at, lasting
from keycache.domain.settings import SettingChange, Settings, Timeouts
from keycache.domain.spans import format_span
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import View
from keycache.v1 import record_pb2


class SettingsDesk:
    def __init__(self, *, writer: Writer, replica: Replica, view: View, timekeeper: Timekeeper, journal: Journal) -> None:
        self._writer = writer
        self._replica = replica
        self._view = view
        self._timekeeper = timekeeper
        self._journal = journal

    def current(self) -> tuple[Settings, Revision]:
        """Raises Unavailable while they are unknown."""
        return self._view.require_settings(), self._view.settings_revision

    async def change(
        self,
        *,
        harvested: timedelta | None = None,
        looked_up: timedelta | None = None,
        imported: timedelta | None = None,
        purge_hold_share: float | None = None,
        purge_hold_floor: int | None = None,
        clock_skew_bound: timedelta | None = None,
        dry_run: bool = False,
        actor: str,
        reason: str = "",
    ) -> SettingsResult:
        """Change what is given. Raises OutOfRange, Conflict, LogUnavailable."""
        old, revision = self.current()
        timeouts = Timeouts(
            harvested=old.timeouts.harvested if harvested is None else harvested,
            looked_up=old.timeouts.looked_up if looked_up is None else looked_up,
            imported=old.timeouts.imported if imported is None else imported,
        )
        new = replace(
            old,
            timeouts=timeouts,
            purge_hold_share=old.purge_hold_share if purge_hold_share is None else purge_hold_share,
            purge_hold_floor=old.purge_hold_floor if purge_hold_floor is None else purge_hold_floor,
            clock_skew_bound=old.clock_skew_bound if clock_skew_bound is None else clock_skew_bound,
        )
        return await self._put(old, revision, new, dry_run=dry_run, actor=actor, reason=reason)

    async def take(self, new: Settings, *, dry_run: bool, actor: str, reason: str = "") -> SettingsResult:
        """Change to these as a whole. As `change`."""
        old, revision = self.current()
        return await self._put(old, revision, new, dry_run=dry_run, actor=actor, reason=reason)

    async def _put(
        self, old: Settings, revision: Revision, new: Settings, *, dry_run: bool, actor: str, reason: str
    ) -> SettingsResult:
        now = self._timekeeper.now()
        changes = _changes(old, new, now, actor)
        would_expire = await asyncio.to_thread(self._would_expire, old.timeouts, new.timeouts, now)
        if not dry_run and changes:
            history = {
                SETTINGS_HISTORY + timed_name(now): setting_change_to_wire(change).SerializeToString(deterministic=True)
                for change in changes
            }
            told = "; ".join(f"{change.name}: {change.old} to {change.new}" for change in changes)
            revision = await self._writer.act(
                self._journal.entry_of(actor, "SETTINGS", "settings", f"{told}{' (' + reason + ')' if reason else ''}"),
                compare={SETTINGS: revision},
                puts={SETTINGS: encode_settings(new), **history},
            )
        return SettingsResult(settings=new, would_expire=would_expire, changes=changes, revision=revision)

    async def history(self) -> tuple[SettingChange, ...]:
        """Newest first."""
        return tuple(
            setting_change_from_wire(decode(record_pb2.SettingChange, record.value))
            for record in newest_first(self._replica.documents(SETTINGS_HISTORY))
        )

    def _would_expire(self, old: Timeouts, new: Timeouts, now: datetime) -> int:
        expired = self._replica.expired(now=now, timeouts=new)
        return sum(1 for candidate in expired if expires_at(lasting(candidate.sightings, old), old) > now)


class Blocks:
    def __init__(self, *, writer: Writer, view: View, timekeeper: Timekeeper, journal: Journal) -> None:
        self._writer = writer
        self._view = view
        self._timekeeper = timekeeper
        self._journal = journal

    def all(self) -> tuple[Block, ...]:
        """Also those that have ended, until they are removed."""
        return self._view.blocks.blocks

    async def block(
        self, *, fingerprint: str = "", address: str = "", until: datetime | None, reason: str, actor: str
    ) -> Block:
        """From now on, and after re-harvesting too. Raises InvalidInput unless exactly one of the two names is given."""
        kind, value = _named(fingerprint, address)
        now = self._timekeeper.now()
        if until is not None and until <= now:
            raise InvalidInput(f"The block would end at {until:%Y-%m-%d %H:%M} UTC, which is past.")
        block = Block(kind=kind, value=value, until=until, reason=reason[:500], by=actor, at=now)
        ending = "for good" if until is None else f"until {until:%Y-%m-%d %H:%M} UTC"
        await self._writer.act(
            self._journal.entry_of(actor, "BLOCK", value, f"{ending} {reason}".strip()),
            puts={_block_key(kind, value): block_to_wire(block).SerializeToString(deterministic=True)},
        )
        return block

    async def unblock(self, *, fingerprint: str = "", address: str = "", actor: str) -> None:
        """Raises InvalidInput, NotFound."""
        kind, value = _named(fingerprint, address)
        if not any((block.kind, block.value) == (kind, value) for block in self.all()):
            raise NotFound(f"{value} is not blocked.", hint="See 'keycache block list'.")
        record = self._journal.entry_of(actor, "UNBLOCK", value)
        await self._writer.act(record, deletes=(_block_key(kind, value),))


def _named(fingerprint: str, address: str) -> tuple[BlockKind, str]:
    if bool(fingerprint) == bool(address):
        raise InvalidInput("A block names one fingerprint or one address.")
    if fingerprint:
        return BlockKind.FINGERPRINT, Fingerprint.parse(fingerprint).text
    return BlockKind.ADDRESS, EmailAddress.parse(address).index


def _block_key(kind: BlockKind, value: str) -> str:
    return f"{BLOCKS}{kind.value.lower()}/{value}"


def _changes(old: Settings, new: Settings, at: datetime, actor: str) -> tuple[SettingChange, ...]:
    before, after = _shown(old), _shown(new)
    return tuple(
        SettingChange(at=at, actor=actor, name=name, old=before[name], new=after[name])
        for name in before
        if before[name] != after[name]
    )


def _shown(settings: Settings) -> dict[str, str]:
    """Settings by the names that commands and documents use, in the spelling that `settings set` takes."""
    return {
        "harvested": format_span(settings.timeouts.harvested),
        "looked_up": format_span(settings.timeouts.looked_up),
        "imported": format_span(settings.timeouts.imported),
        "purge_hold_share": f"{settings.purge_hold_share:g}",
        "purge_hold_floor": str(settings.purge_hold_floor),
        "clock_skew_bound": format_span(settings.clock_skew_bound),
    }
