"""Keys that an administrator brings: files of keys, past mail, and our own exports with their time stamps."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from keycache.cache.harvesting import SOURCE_LIMIT, Acquisition, Harvesting
from keycache.cache.journal import Journal
from keycache.cache.results import KeyResult, MessageResult
from keycache.cache.writer import Update, Writer
from keycache.domain.entry import Entry, Key, Origin, Protocol, Trust
from keycache.domain.errors import InvalidInput
from keycache.domain.examination import DirectionPolicy, Envelope
from keycache.domain.merge import join_entries
from keycache.domain.ports import Examiner
from keycache.domain.verdict import Verdict
from keycache.replication.timekeeper import Timekeeper

AHEAD_LIMIT = timedelta(days=1)
"""How far a time stamp in an export may lie in this node's future: time zones and drift, not years that would never expire."""


class Imports:
    def __init__(
        self,
        *,
        harvesting: Harvesting,
        examiner: Examiner,
        writer: Writer,
        timekeeper: Timekeeper,
        journal: Journal,
        policy: DirectionPolicy,
    ) -> None:
        self._harvesting = harvesting
        self._examiner = examiner
        self._writer = writer
        self._timekeeper = timekeeper
        self._journal = journal
        self._policy = policy

    async def material(self, blob: bytes, source: str, actor: str) -> tuple[KeyResult, ...]:
        """A file of keys; each is bound to every address it names itself."""
        findings = await self._examiner.read_material(blob, (), self._timekeeper.now())
        acquisition = Acquisition(origin=Origin.IMPORTED, source=source[:SOURCE_LIMIT], policy=self._policy, vouched=True)
        results, _ = await self._harvesting.take_findings(findings, (), acquisition)
        kept = sum(result.verdict.is_kept for result in results)
        await self._journal.record(actor, "IMPORT", source[:SOURCE_LIMIT], f"{kept} of {len(results)} keys kept")
        return results

    async def message(self, message: bytes, envelope: Envelope, source: str, actor: str) -> MessageResult:
        """A past mail: its keys must prove themselves as in fresh mail, at the present time."""
        result = await self._harvesting.take_message(message, envelope, Origin.IMPORTED, source=source)
        if result.verdict.is_kept:
            await self._journal.tally(actor, "IMPORT", source[:SOURCE_LIMIT], "mails with keys")
        return result

    async def entry(self, entry: Entry, source: str, actor: str) -> KeyResult:
        """An entry of an export: its sightings are taken over to the microsecond; where the key is known the two are joined, and
        no time stamp moves backwards. Trust is judged by this node's own anchors. Raises InvalidInput."""
        self._check_times(entry)
        key = await self._judged(entry.key)

        async def decide(known: Entry | None) -> Update[Verdict]:
            theirs = replace(entry, key=key)
            if known is None:
                return Update(outcome=Verdict.CACHED, entry=theirs, puts={})
            if known.key.protocol is Protocol.OPENPGP and known.key.material != key.material:
                merged = await self._examiner.merge(known.key, key, self._timekeeper.now())
                theirs = replace(theirs, key=merged)
            joined = join_entries(known, theirs)
            if joined == known:
                return Update(outcome=Verdict.ALREADY_FRESH, entry=None, puts={})
            return Update(outcome=Verdict.REFRESHED, entry=joined, puts={})

        verdict = (await self._writer.update_entry(key.protocol, key.fingerprint, decide)).outcome
        if verdict is not Verdict.ALREADY_FRESH:
            await self._journal.tally(actor, "IMPORT", source[:SOURCE_LIMIT], "entries of an export taken over")
        addresses = tuple(address.text for address in key.addresses)
        return KeyResult(
            fingerprint=key.fingerprint.text, protocol=key.protocol, addresses=addresses, verdict=verdict, detail=verdict.advice
        )

    def _check_times(self, entry: Entry) -> None:
        latest = self._timekeeper.stamp() + AHEAD_LIMIT
        for sighting in entry.sightings:
            if sighting.cached_at > sighting.refreshed_at:
                raise InvalidInput("A sighting's cached_at is after its refreshed_at.")
            if sighting.refreshed_at > latest:
                raise InvalidInput(
                    f"A sighting was refreshed at {sighting.refreshed_at:%Y-%m-%d %H:%M} UTC, which is in the future.",
                    hint="Check the clocks of both nodes.",
                )

    async def _judged(self, key: Key) -> Key:
        """The key as this node sees it. One that is unusable now (expired, revoked) keeps its own facts: it may not be served, and
        nothing unexpired is dropped for it."""
        findings = await self._examiner.read_material(key.material, (), self._timekeeper.now())
        seen = [finding for finding in findings if finding.key is not None and finding.key.fingerprint == key.fingerprint]
        if not seen:
            reason = findings[0].detail or findings[0].verdict.advice if findings and findings[0].verdict else ""
            raise InvalidInput(f"The material of {key.fingerprint} is not that key. {reason}".strip())
        judged = seen[0].key
        assert judged is not None
        if judged.protocol is not key.protocol:
            raise InvalidInput(f"The material of {key.fingerprint} is of another protocol.")
        bound = {address.index for address in judged.addresses}
        addresses = tuple(address for address in key.addresses if address.index in bound)
        if not addresses:
            raise InvalidInput(f"The key {key.fingerprint} names none of the addresses it is exported with.")
        return replace(
            key,
            addresses=addresses,
            trust=judged.trust,
            held=judged.held,
            issuer=judged.issuer if judged.trust is Trust.HELD else key.issuer,
            not_before=judged.not_before,
            not_after=judged.not_after,
            defect=judged.defect or key.defect,
        )
