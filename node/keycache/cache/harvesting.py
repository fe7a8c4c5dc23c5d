"""From a message to kept keys: examine apart, decide per key what becomes of the entry, write only what is worth a write.

A sender who writes a thousand mails a day costs one write a day at most: a known, fresh key yields ALREADY_FRESH (DESIGN 3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from keycache.cache.chains import affordable
from keycache.cache.holdings import Holdings
from keycache.cache.journal import Journal
from keycache.cache.results import KeyResult, MessageResult
from keycache.cache.writer import Update, Writer
from keycache.domain.entry import Defect, Entry, Key, Origin, Protocol, Sighting, Trust
from keycache.domain.errors import Conflict, InvalidInput, RecordTooLarge
from keycache.domain.examination import DirectionPolicy, Envelope, Examination, Finding, Gate
from keycache.domain.log import CHAIN
from keycache.domain.lookup import TRUSTS
from keycache.domain.merge import learn, obtain
from keycache.domain.names import EmailAddress, Revision
from keycache.domain.ports import Examiner
from keycache.domain.verdict import Verdict, best
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import View

KEYS_PER_ADDRESS = 32
"""Keys of one trust kept for one address. Somebody with a new key every month fills it in three years; a flood of self-made keys
would make each lookup of the address slow and its answer large. Keys that a trusted issuer vouches for are not limited."""

SOURCE_LIMIT = 200
"""Characters of a source text that are kept."""

QUEUED = "Kept on this node; the cluster gets it when etcd is back."


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """How keys are obtained in one call. `write` False: only tell what would happen. `vouched`: an administrator brings the very keys,
    and stands for their addresses."""

    origin: Origin
    source: str
    policy: DirectionPolicy
    write: bool = True
    vouched: bool = False


class Harvesting:
    def __init__(
        self,
        *,
        examiner: Examiner,
        writer: Writer,
        holdings: Holdings,
        view: View,
        timekeeper: Timekeeper,
        journal: Journal,
        policy: DirectionPolicy,
    ) -> None:
        self._examiner = examiner
        self._writer = writer
        self._holdings = holdings
        self._view = view
        self._timekeeper = timekeeper
        self._journal = journal
        self._policy = policy

    async def harvest(self, message: bytes, envelope: Envelope) -> MessageResult:
        """Verify a message and keep its sender's keys. Every message gets a verdict. While the cluster's log takes no writes they are
        kept in this node's outbox; raises OutboxFull when that is full, StoreError, Unavailable while the settings are unknown, and
        LogUnavailable where the log is this node's own."""
        result = await self.take_message(message, envelope, Origin.HARVESTED, source="")
        self._journal.note(result, self._timekeeper.now())
        return result

    async def explain(self, message: bytes, envelope: Envelope) -> MessageResult:
        """What `harvest` would say, with every gate; nothing is kept."""
        return await self.take_message(message, envelope, Origin.HARVESTED, source="", write=False)

    async def put(self, material: bytes, address: str, source: str) -> tuple[tuple[KeyResult, ...], int]:
        """Keep a key that a mail processor found for `address` elsewhere. Raises InvalidInput."""
        if not source.strip():
            raise InvalidInput("A key that was looked up needs its source.", hint="Name the key server or directory.")
        wanted = EmailAddress.parse(address)
        if self._policy.manages(wanted):
            verdict = Verdict.OWN_DOMAIN
            result = KeyResult(fingerprint="", protocol=None, addresses=(wanted.text,), verdict=verdict)
            return (result,), self._writer.applied
        findings = await self._examiner.read_material(material, (wanted,), self._timekeeper.now())
        acquisition = Acquisition(origin=Origin.LOOKED_UP, source=source[:SOURCE_LIMIT], policy=self._policy)
        return await self.take_findings(findings, (), acquisition)

    async def take_message(
        self, message: bytes, envelope: Envelope, origin: Origin, *, source: str, write: bool = True
    ) -> MessageResult:
        """Examine and decide. `source` empty: the message's id."""
        examination = await self._examiner.examine(message, envelope, self._policy, self._timekeeper.now())
        keys: tuple[KeyResult, ...] = ()
        revision = self._writer.applied
        if examination.verdict is None:
            named = (source or examination.message_id or "message without id")[:SOURCE_LIMIT]
            acquisition = Acquisition(origin=origin, source=named, policy=self._policy, write=write)
            keys, revision = await self.take_findings(examination.findings, examination.chain, acquisition)
        return _message_result(examination, keys, revision)

    async def take_findings(
        self, findings: Sequence[Finding], chain: Sequence[bytes], acquisition: Acquisition
    ) -> tuple[tuple[KeyResult, ...], Revision]:
        """One result per finding, in order, and the newest revision written. Which key of a message brought which intermediate is not
        known, so one HELD key makes the room small for all: a trusted key in the same mail must not open the door to what nobody
        vouches for."""
        revision = self._writer.applied
        held = any(one.verdict is None and one.key is not None and one.key.trust is Trust.HELD for one in findings)
        new = affordable(self._view.chain, {hashlib.sha256(one).hexdigest(): one for one in chain}, held=held)
        results = []
        for finding in findings:
            result, written = await self._take(finding, new, acquisition)
            revision = max(revision, written)
            results.append(result)
        return tuple(results), revision

    async def _take(self, finding: Finding, chain: Mapping[str, bytes], how: Acquisition) -> tuple[KeyResult, Revision]:
        if finding.key is None:
            assert finding.verdict is not None
            return _result(finding, finding.verdict), self._writer.applied
        key = _without_managed(finding.key, how)
        if finding.verdict is not None and key.defect is not Defect.REVOKED:
            return _result(finding, finding.verdict), self._writer.applied
        if not key.addresses and key.defect is not Defect.REVOKED:
            return _result(finding, Verdict.OWN_DOMAIN), self._writer.applied
        blocked = self._blocked(key)
        known = self._holdings.entry(key.protocol, key.fingerprint)
        if known is None and (finding.verdict is not None or blocked is not None):
            return _result(finding, finding.verdict or Verdict.BLOCKED, blocked), self._writer.applied
        if blocked is not None and key.defect is not Defect.REVOKED:
            return _result(finding, Verdict.BLOCKED, blocked), self._writer.applied
        if known is None and not how.vouched and self._is_crowded(key):
            return _result(finding, Verdict.TOO_MANY_KEYS), self._writer.applied

        async def decide(entry: Entry | None) -> Update[Verdict]:
            return await self._decide(entry, key, chain, how)

        if not how.write:
            update = await decide(known)
            return _result(finding, Verdict.BLOCKED if blocked is not None else update.outcome, blocked), self._writer.applied
        try:
            # An administrator, who waits for the answer, hears that the log is away; a mail must not.
            queue = how.origin is not Origin.IMPORTED
            written = await self._writer.update_entry(key.protocol, key.fingerprint, decide, queue=queue)
        except Conflict:
            # Others write this very key over and over, so it is fresh: the mail is not held up for it.
            return _result(finding, Verdict.ALREADY_FRESH), self._writer.applied
        except RecordTooLarge as error:
            return replace(_result(finding, Verdict.KEY_TOO_LARGE), detail=error.text), self._writer.applied
        verdict = Verdict.BLOCKED if blocked is not None else written.outcome
        result = _result(finding, verdict, blocked)
        if written.queued:
            result = replace(result, queued=True, detail=f"{result.detail} {QUEUED}".strip())
        return result, written.revision

    async def _decide(self, entry: Entry | None, key: Key, chain: Mapping[str, bytes], how: Acquisition) -> Update[Verdict]:
        if entry is not None and key.protocol is Protocol.OPENPGP and entry.key.material != key.material:
            key = await self._examiner.merge(entry.key, key, self._timekeeper.now())
        at = self._timekeeper.stamp()
        if key.defect is Defect.REVOKED:
            if entry is None:
                return Update(outcome=Verdict.KEY_REVOKED, entry=None, puts={})
            merged = learn(entry, key, at, f"{how.origin.value} {how.source}")
        else:
            sighting = Sighting(origin=how.origin, source=how.source, cached_at=at, refreshed_at=at)
            merged = obtain(entry, key, sighting, self._view.require_settings().timeouts)
        puts = {} if merged.entry is None or key.protocol is not Protocol.SMIME else self._new_chain(chain)
        return Update(outcome=merged.verdict, entry=merged.entry, puts=puts)

    def _is_crowded(self, key: Key) -> bool:
        """Whether one of the key's addresses has as many keys of this trust as are kept."""
        if key.trust is Trust.ANCHORED:
            return False
        trust = TRUSTS.index(key.trust)
        rows = self._holdings.lookup([address.index for address in key.addresses])
        return any(sum(row.trust == trust for row in found) >= KEYS_PER_ADDRESS for found in rows.values())

    def _new_chain(self, chain: Mapping[str, bytes]) -> dict[str, bytes]:
        """Records of intermediates that are not kept yet: each once, apart from entries."""
        return {CHAIN + name: der for name, der in chain.items() if name not in self._view.chain}

    def _blocked(self, key: Key) -> str | None:
        """The sentence about the block that holds, if any: of the key, or of every address it is bound to."""
        now = self._timekeeper.now()
        block = self._view.blocks.of_fingerprint(key.fingerprint, now)
        if block is None:
            blocks = [self._view.blocks.of_address(address, now) for address in key.addresses]
            if not blocks or None in blocks:
                return None
            block = blocks[0]
        assert block is not None
        ending = "" if block.until is None else f" until {block.until:%Y-%m-%d %H:%M} UTC"
        return f"Blocked by {block.by}{ending}{': ' + block.reason if block.reason else ''}."


def _without_managed(key: Key, how: Acquisition) -> Key:
    """Nobody's key is cached for a managed domain of ours; an administrator's own word is another matter."""
    if how.vouched:
        return key
    return replace(key, addresses=tuple(a for a in key.addresses if not how.policy.manages(a)))


def _result(finding: Finding, verdict: Verdict, blocked: str | None = None) -> KeyResult:
    key = finding.key
    detail = blocked if verdict is Verdict.BLOCKED and blocked is not None else finding.detail
    gates = finding.gates
    if finding.verdict is None:
        gates = (*gates, Gate(name="administrator's blocks", passed=blocked is None, detail=blocked or ""))
        gates = (*gates, Gate(name="kept", passed=verdict.is_kept, detail=verdict.value))
    return KeyResult(
        fingerprint=finding.label if key is None else key.fingerprint.text,
        protocol=finding.protocol,
        addresses=() if key is None else tuple(address.text for address in key.addresses),
        verdict=verdict,
        detail=detail,
        gates=gates,
    )


def _message_result(examination: Examination, keys: tuple[KeyResult, ...], revision: int) -> MessageResult:
    verdict = examination.verdict or best(key.verdict for key in keys) or Verdict.NO_KEY_MATERIAL
    detail = examination.detail
    if examination.verdict is None:
        detail = next((key.detail for key in keys if key.verdict is verdict and key.detail), detail)
    return MessageResult(
        direction=examination.direction,
        verdict=verdict,
        detail=detail or verdict.advice,
        keys=tuple(_explained(keys)),
        gates=examination.gates,
        revision=revision,
        sender="" if examination.sender is None else examination.sender.text,
        message_id=examination.message_id,
    )


def _explained(keys: Iterable[KeyResult]) -> Iterable[KeyResult]:
    return (key if key.detail else replace(key, detail=key.verdict.advice) for key in keys)
