"""Issuers that no trusted root vouches for: an administrator approves or rejects each, and all its keys follow at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from keycache.cache.entries import Entries
from keycache.cache.journal import Journal
from keycache.cache.results import IssuerResult, ListedIssuer
from keycache.cache.writer import Update, Writer
from keycache.codec import issuer_to_wire
from keycache.domain.administration import IssuerDecision, IssuerState
from keycache.domain.entry import HISTORY_LIMIT, Change, Entry, HeldReason, Key, Protocol, Trust
from keycache.domain.errors import InvalidInput, NotFound, Refused
from keycache.domain.log import ISSUERS
from keycache.domain.merge import join_keys
from keycache.domain.ports import Examiner, Replica, StoredEntry
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import View

SAMPLES = 3
"""Addresses shown per issuer, so that a person sees whose keys they are. Of a self-signed certificate ALL are shown: to approve it
is to believe every one of them, and its maker, who chose their order, would show the harmless ones."""

PARALLEL = 8
"""Entries judged anew at once: enough to keep every worker busy."""


class Issuers:
    def __init__(
        self,
        *,
        writer: Writer,
        replica: Replica,
        view: View,
        timekeeper: Timekeeper,
        examiner: Examiner,
        entries: Entries,
        journal: Journal,
    ) -> None:
        self._writer = writer
        self._replica = replica
        self._view = view
        self._timekeeper = timekeeper
        self._examiner = examiner
        self._entries = entries
        self._journal = journal

    async def all(self) -> tuple[ListedIssuer, ...]:
        """Issuers of held keys and those decided on, most keys first."""
        listed: dict[str, ListedIssuer] = {
            decision.id: ListedIssuer(
                id=decision.id,
                name=decision.name,
                state=decision.state,
                held=0,
                has_certificate=bool(decision.certificate),
                by=decision.by,
                at=decision.at,
            )
            for decision in self._view.decisions.values()
        }
        async for stored in self._held():
            issuer = stored.entry.key.issuer
            if issuer is None:
                continue
            line = listed.get(issuer.id) or ListedIssuer(
                id=issuer.id, name=issuer.name, state=None, held=0, has_certificate=False
            )
            addresses = line.sample_addresses
            key = stored.entry.key
            if key.held is HeldReason.SELF_SIGNED:
                addresses = tuple(address.text for address in key.addresses)
            elif len(addresses) < SAMPLES and key.addresses:
                addresses = (*addresses, key.addresses[0].text)
            listed[issuer.id] = replace(
                line,
                held=line.held + 1,
                has_certificate=line.has_certificate or bool(issuer.certificate),
                sample_addresses=addresses,
            )
        return tuple(sorted(listed.values(), key=lambda line: (-line.held, line.name, line.id)))

    async def decide(self, id: str, state: IssuerState, certificate: bytes, actor: str) -> IssuerResult:  # noqa: A002 -- its name everywhere
        """Approve: paths may end in the issuer's certificate from now on, and its held keys are judged anew. Reject: its keys are
        dropped, and no mail brings them back. Raises NotFound, Refused (approving needs a certificate), InvalidInput."""
        held = [stored async for stored in self._held(issuer=id)]
        decision = self._view.decisions.get(id)
        if not held and decision is None:
            raise NotFound(f"No issuer {id} is known.", hint="See 'keycache issuers list'.")
        name = decision.name if decision is not None else _name(held[0].entry.key)
        known = certificate or (decision.certificate if decision is not None else b"") or _certificate(held)
        if state is IssuerState.APPROVED:
            if not known:
                raise Refused(
                    f"The certificate of issuer {name} did not come along with any mail.",
                    hint="Get it from the issuer, compare its fingerprint, and add --certificate FILE.",
                )
            known = await self._one_certificate(known)
        decided = IssuerDecision(id=id, name=name, state=state, certificate=known, by=actor, at=self._timekeeper.now())
        act = "APPROVE_ISSUER" if state is IssuerState.APPROVED else "REJECT_ISSUER"
        revision = await self._writer.act(
            self._journal.entry_of(actor, act, id, name),
            puts={ISSUERS + id: issuer_to_wire(decided).SerializeToString(deterministic=True)},
        )
        if state is IssuerState.REJECTED:
            query = self._entries.query(issuer=id)
            gone = await self._entries.purge(query, everything=False, dry_run=False, actor=actor)
            dropped = gone.removed + await self._drop_released(id, actor)
            return IssuerResult(entries=dropped, still_held=0, revision=max(revision, self._writer.applied))
        released = await self._release(held)
        if certificate and held and not released:
            await self._take_back(decision, decided, actor)
            raise Refused(
                f"None of the {len(held)} held keys of issuer {name} can be verified by this certificate; it is not trusted.",
                hint="Is it the certificate of that very issuer? Compare its subject and fingerprint.",
            )
        return IssuerResult(entries=released, still_held=len(held) - released, revision=self._writer.applied)

    async def _take_back(self, before: IssuerDecision | None, decided: IssuerDecision, actor: str) -> None:
        """The decision that stood before stands again."""
        record = self._journal.entry_of(actor, "TAKE_BACK_APPROVAL", decided.id, decided.name)
        if before is None:
            await self._writer.act(record, deletes=(ISSUERS + decided.id,))
        else:
            await self._writer.act(
                record, puts={ISSUERS + before.id: issuer_to_wire(before).SerializeToString(deterministic=True)}
            )

    async def _drop_released(self, id: str, actor: str) -> int:  # noqa: A002
        """Keys that an earlier approval had released: the administrator takes that back."""
        query = self._entries.query(trust=Trust.ANCHORED, protocol=Protocol.SMIME)
        return await self._entries.remove_where(
            query, actor, lambda entry: entry.key.issuer is not None and entry.key.issuer.id == id
        )

    async def _release(self, held: list[StoredEntry]) -> int:
        gate = asyncio.Semaphore(PARALLEL)

        async def one(stored: StoredEntry) -> bool:
            async with gate:
                return await self._judge_anew(stored.entry.key)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(stored)) for stored in held]
        return sum(task.result() for task in tasks)

    async def _judge_anew(self, key: Key) -> bool:
        findings = await self._examiner.read_material(key.material, (), self._timekeeper.now())
        judged = next((f.key for f in findings if f.key is not None and f.key.fingerprint == key.fingerprint), None)
        if judged is None or judged.trust is Trust.HELD:
            return False

        async def decide(entry: Entry | None) -> Update[bool]:
            if entry is None or entry.key.trust is not Trust.HELD:
                return Update(outcome=entry is not None, entry=None, puts={})
            joined = join_keys(entry.key, judged)
            released = replace(joined, issuer=entry.key.issuer, addresses=entry.key.addresses)
            change = Change(at=self._timekeeper.now(), what="RELEASED", by="issuer approved")
            history = (*entry.history, change)[-HISTORY_LIMIT:]
            return Update(outcome=True, entry=replace(entry, key=released, history=history), puts={})

        return (await self._writer.update_entry(key.protocol, key.fingerprint, decide)).outcome

    async def _one_certificate(self, blob: bytes) -> bytes:
        """DER of the single certificate in the blob, whatever becomes of it as a mail certificate."""
        certificates = await self._examiner.certificates(blob)
        if len(certificates) != 1:
            raise InvalidInput(
                f"The file holds {len(certificates)} certificates.", hint="Give the issuer's certificate alone, PEM or DER."
            )
        return certificates[0]

    async def _held(self, issuer: str = "") -> AsyncIterator[StoredEntry]:
        query = self._entries.query(trust=Trust.HELD, issuer=issuer, limit=1000)
        while True:
            page = await asyncio.to_thread(self._replica.query, query)
            for stored in page.entries:
                yield stored
            if not page.next:
                return
            query = replace(query, after=page.next)


def _name(key: Key) -> str:
    return key.issuer.name if key.issuer is not None else "unknown"


def _certificate(held: list[StoredEntry]) -> bytes:
    """The issuer's certificate as it came along with one of the mails; a self-signed certificate is its own issuer."""
    for stored in held:
        key = stored.entry.key
        if key.held is HeldReason.SELF_SIGNED:
            return key.material
        if key.issuer is not None and key.issuer.certificate:
            return key.issuer.certificate
    return b""
