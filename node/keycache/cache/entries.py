"""What administrators do with entries: list, show, delete, purge, export."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import fields, replace
from datetime import timedelta

from keycache.cache.deletions import BATCH, deletion_puts
from keycache.cache.journal import Journal
from keycache.cache.results import Listed, PurgeResult
from keycache.cache.writer import ATTEMPTS, Writer, audit_put
from keycache.domain.administration import AuditRecord, Deletion
from keycache.domain.entry import Entry, Origin, Protocol, Trust
from keycache.domain.errors import Conflict, InvalidInput, NotFound, Refused
from keycache.domain.log import ABSENT, Committed, Transaction, entry_key
from keycache.domain.names import Domain, EmailAddress, Fingerprint, Revision
from keycache.domain.outbox import newest_sighting
from keycache.domain.ports import EntryQuery, Outbox, Replica, SortBy, StoredEntry
from keycache.domain.purge import PurgeState
from keycache.domain.retention import expires_at, lasting
from keycache.replication.purger import Purger
from keycache.replication.replicator import Offload
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import View

PAGE_LIMIT = 1_000

_CRITERIA = ("text", "address", "domain", "protocol", "origin", "trust", "issuer", "older_than", "expired")
assert {*_CRITERIA} <= {field.name for field in fields(EntryQuery)}


class Entries:
    def __init__(
        self,
        *,
        writer: Writer,
        replica: Replica,
        outbox: Outbox,
        offload: Offload,
        view: View,
        timekeeper: Timekeeper,
        purger: Purger,
        journal: Journal,
    ) -> None:
        self._writer = writer
        self._replica = replica
        self._outbox = outbox
        self._offload = offload
        self._view = view
        self._timekeeper = timekeeper
        self._purger = purger
        self._journal = journal

    def query(
        self,
        *,
        text: str = "",
        address: str = "",
        domain: str = "",
        protocol: Protocol | None = None,
        origin: Origin | None = None,
        trust: Trust | None = None,
        issuer: str = "",
        older_than: timedelta | None = None,
        expired: bool | None = None,
        sort: SortBy = SortBy.ADDRESS,
        descending: bool = False,
        limit: int = 100,
        after: str = "",
    ) -> EntryQuery:
        """A query under the settings in force now. `older_than`: last refreshed at least this long ago. Raises InvalidInput,
        and Unavailable while the settings are unknown."""
        if not 1 <= limit <= PAGE_LIMIT:
            raise InvalidInput(f"A page of {limit} entries.", hint=f"Ask for 1 to {PAGE_LIMIT}.")
        now = self._timekeeper.now()
        return EntryQuery(
            now=now,
            timeouts=self._view.require_settings().timeouts,
            text=text,
            address=EmailAddress.parse(address).index if address else "",
            domain=Domain.parse(domain).text if domain else "",
            protocol=protocol,
            origin=origin,
            trust=trust,
            issuer=issuer,
            older_than=None if older_than is None else now - older_than,
            expired=expired,
            sort=sort,
            descending=descending,
            limit=limit,
            after=after,
        )

    async def page(self, query: EntryQuery) -> tuple[tuple[Listed, ...], str, int]:
        """Entries, the token of the next page (empty at the end), and how many match in all."""
        page = await asyncio.to_thread(self._replica.query, query)
        total = await asyncio.to_thread(self._replica.count, query)
        return tuple(self._listed(stored) for stored in page.entries), page.next, total

    async def get(self, fingerprint: str) -> tuple[tuple[Listed, ...], tuple[AuditRecord, ...]]:
        """Everything known of one fingerprint, and what administrators did with it. Raises NotFound."""
        stored = self._named(fingerprint)
        acts = await self._journal.audit(limit=100, subject=stored[0].entry.key.fingerprint.text)
        return tuple(self._listed(one) for one in stored), acts

    async def delete(self, fingerprint: str, actor: str) -> tuple[int, Revision]:
        """Remove one key, also one that waits in this node's outbox; the next mail may bring it back. Raises NotFound, Conflict,
        LogUnavailable."""
        for _ in range(ATTEMPTS):
            stored = self._named(fingerprint)
            compare = {_key_of(one): one.mod_revision for one in stored}
            addresses = ", ".join(address.text for one in stored for address in one.entry.key.addresses)
            record = self._journal.entry_of(actor, "DELETE", stored[0].entry.key.fingerprint.text, addresses)
            deletion = Deletion(at=self._timekeeper.stamp(), actor=actor)
            result = await self._writer.commit(
                Transaction(
                    compare=compare,
                    puts={**audit_put(record), **deletion_puts(stored, deletion)},
                    deletes=tuple(key for key, revision in compare.items() if revision != ABSENT),
                )
            )
            if isinstance(result, Committed):
                await self._forget(stored, deletion)
                return len(stored), result.revision
            await self._writer.catch_up(result.revision)  # changed meanwhile; the administrator's word still holds
        raise Conflict(f"The entry {fingerprint} kept changing while it was deleted.", hint="Try again.")

    async def purge(self, query: EntryQuery | None, *, everything: bool, dry_run: bool, actor: str) -> PurgeResult:
        """Remove what matches, expired or not: an administrator's explicit act. Raises Refused without any criterion unless
        `everything`; LogUnavailable."""
        if query is None or not criteria(query):
            if not everything:
                raise Refused("A purge without any filter would remove every key.", hint="Name a filter, or say --all.")
            query = self.query()
        matched = await asyncio.to_thread(self._replica.count, query)
        if dry_run or not matched:
            return PurgeResult(matched=matched, removed=0, revision=self._writer.applied)
        described = ", ".join(criteria(query)) or "all"
        # Before the act: what is removed must never lack its line, whatever ends the act half-way.
        await self._journal.record(actor, "PURGE", described, f"{matched} entries")
        removed = await self.remove_where(query, actor)
        return PurgeResult(matched=matched, removed=removed, revision=self._writer.applied)

    async def remove_where(self, query: EntryQuery, actor: str, wanted: Callable[[Entry], bool] = lambda _entry: True) -> int:
        """Remove what matches and is wanted; how many. Visible here when it returns. The caller sees to the audit log."""
        removed = 0
        async for chunk in self._chunks(query, BATCH):
            removed += await self._remove(tuple(stored for stored in chunk if wanted(stored.entry)), actor)
        return removed

    async def confirm_held(self, actor: str, *, dry_run: bool = False) -> PurgeResult:
        """Release a sweep that is held for mass expiry. A suspect clock still holds it: see `trust_clock`. Raises Refused."""
        plan = await self._purger.plan(confirmed=True)
        if plan.state in {PurgeState.HELD_CLOCK, PurgeState.HELD_NO_SETTINGS}:
            raise Refused(f"Expired entries cannot be removed now. {plan.reason}")
        if dry_run:
            return PurgeResult(matched=plan.expired, removed=0, revision=self._writer.applied)
        await self._journal.record(actor, "CONFIRM_HELD", "purge", f"{plan.expired} expired entries released")
        removed = await self._purger.sweep(confirmed=True)
        return PurgeResult(matched=plan.expired, removed=removed, revision=self._writer.applied)

    async def trust_clock(self, actor: str) -> None:
        """The clock of this node is right, whatever it said before."""
        await self._timekeeper.trust_clock()
        await self._journal.record(actor, "TRUST_CLOCK", "clock", f"{self._timekeeper.now():%Y-%m-%d %H:%M:%S} UTC")
        self._purger.wake()

    async def export(self, query: EntryQuery) -> AsyncIterator[tuple[Entry, int]]:
        """Every matching entry in the order of fingerprints, each with how many there are in all."""
        total = await asyncio.to_thread(self._replica.count, query)
        async for chunk in self._chunks(query, PAGE_LIMIT):
            for stored in chunk:
                yield stored.entry, total

    async def _chunks(self, query: EntryQuery, size: int) -> AsyncIterator[tuple[StoredEntry, ...]]:
        """In the order of fingerprints, which no removal upsets."""
        query = replace(query, sort=SortBy.FINGERPRINT, descending=False, limit=size, after="")
        while True:
            page = await asyncio.to_thread(self._replica.query, query)
            if page.entries:
                yield page.entries
            if not page.next:
                return
            query = replace(query, after=page.next)

    async def _remove(self, chunk: tuple[StoredEntry, ...], actor: str) -> int:
        """Those that changed meanwhile stay: they may not match any more."""
        while chunk:
            compare = {_key_of(stored): stored.mod_revision for stored in chunk}
            deletion = Deletion(at=self._timekeeper.stamp(), actor=actor)
            result = await self._writer.commit(
                Transaction(compare=compare, puts=deletion_puts(chunk, deletion), deletes=tuple(compare))
            )
            if isinstance(result, Committed):
                await self._forget(chunk, deletion)
                return len(chunk)
            current = {key: record.mod_revision for key, record in result.current.items() if record is not None}
            unchanged = tuple(stored for stored in chunk if current.get(_key_of(stored)) == stored.mod_revision)
            if len(unchanged) == len(chunk):
                break  # refuted, yet nothing differs: never remove on a doubt
            chunk = unchanged
        return 0

    async def _forget(self, removed: Iterable[StoredEntry], deletion: Deletion) -> None:
        """What waits of removed entries goes with them; else lookups here would find it until the delivery does."""
        if not self._outbox.count:
            return
        waiting = (self._outbox.pending(one.entry.key.protocol, one.entry.key.fingerprint) for one in removed)
        gone = [one for one in waiting if one is not None and newest_sighting(one.entry) <= deletion.at]
        await self._offload(self._outbox.remove, gone)

    def _named(self, fingerprint: str) -> tuple[StoredEntry, ...]:
        """As lookups here see them: what waits, before what the replica says; one that waits alone has the revision ABSENT."""
        parsed = Fingerprint.parse(fingerprint)
        found = []
        for protocol in Protocol:
            pending = self._outbox.pending(protocol, parsed) if self._outbox.count else None
            stored = self._replica.entry(protocol, parsed)
            if pending is not None:
                found.append(StoredEntry(entry=pending.entry, mod_revision=ABSENT if stored is None else stored.mod_revision))
            elif stored is not None:
                found.append(stored)
        if not found:
            raise NotFound(f"No key {parsed} is cached.", hint="Look for it with 'keycache search'.")
        return tuple(found)

    def _listed(self, stored: StoredEntry) -> Listed:
        timeouts = self._view.require_settings().timeouts
        now = self._timekeeper.now()
        longest = lasting(stored.entry.sightings, timeouts)
        ends = expires_at(longest, timeouts)
        blocks = self._view.blocks
        block = blocks.of_fingerprint(stored.entry.key.fingerprint, now)
        if block is None:
            held = (blocks.of_address(address, now) for address in stored.entry.key.addresses)
            block = next((one for one in held if one is not None), None)
        return Listed(
            entry=stored.entry,
            expires_at=ends,
            expired=ends <= now,
            origin=longest.origin,
            block=block,
            mod_revision=stored.mod_revision,
        )


def criteria(query: EntryQuery) -> list[str]:
    """The criteria a query names, as `name=value`, for people."""
    named = []
    for name in _CRITERIA:
        value = getattr(query, name)
        if value is not None and value != "":
            named.append(f"{name}={getattr(value, 'value', value)}")
    return named


def _key_of(stored: StoredEntry) -> str:
    return entry_key(stored.entry.key.protocol, stored.entry.key.fingerprint)
