"""The service `Admin`: what administrators call. Whoever calls is the actor in the audit log."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, Protocol

import grpc

from keycache.cache import KeyCache
from keycache.codec import (
    audit_to_wire,
    block_to_wire,
    entry_from_wire,
    entry_to_wire,
    optional_moment,
    setting_change_to_wire,
    settings_to_wire,
    timestamp,
)
from keycache.domain.errors import InvalidInput
from keycache.domain.log import ABSENT, Record
from keycache.domain.ports import Clock
from keycache.domain.verdict import Verdict, best
from keycache.pki import Issued, Role
from keycache.services import convert
from keycache.services.auth import Caller
from keycache.services.calls import Calls, closing
from keycache.v1 import admin_pb2 as pb

NAME = pb.DESCRIPTOR.services_by_name["Admin"].full_name

_ISSUED_ROLES = (Role.MAIL_PROCESSOR, Role.ADMIN)
"""Nodes get theirs by joining, not by asking."""


class Signer(Protocol):
    """Who certifies clients: the node's `pki`."""

    def sign_client(self, csr: bytes, *, role: Role, name: str, now: datetime) -> Issued: ...


class AdminService:
    def __init__(self, cache: KeyCache, signer: Signer, clock: Clock) -> None:
        self._cache = cache
        self._signer = signer
        self._clock = clock

    def handlers(self, calls: Calls) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        return {
            "GetStatus": calls.unary(f"/{NAME}/GetStatus", pb.GetStatusRequest, self.get_status),
            "ListEntries": calls.unary(f"/{NAME}/ListEntries", pb.ListEntriesRequest, self.list_entries),
            "GetEntry": calls.unary(f"/{NAME}/GetEntry", pb.GetEntryRequest, self.get_entry),
            "DeleteEntry": calls.unary(f"/{NAME}/DeleteEntry", pb.DeleteEntryRequest, self.delete_entry),
            "Purge": calls.unary(f"/{NAME}/Purge", pb.PurgeRequest, self.purge),
            "Block": calls.unary(f"/{NAME}/Block", pb.BlockRequest, self.block),
            "Unblock": calls.unary(f"/{NAME}/Unblock", pb.UnblockRequest, self.unblock),
            "ListBlocks": calls.unary(f"/{NAME}/ListBlocks", pb.ListBlocksRequest, self.list_blocks),
            "GetSettings": calls.unary(f"/{NAME}/GetSettings", pb.GetSettingsRequest, self.get_settings),
            "SetSettings": calls.unary(f"/{NAME}/SetSettings", pb.SetSettingsRequest, self.set_settings),
            "ListSettingChanges": calls.unary(
                f"/{NAME}/ListSettingChanges", pb.ListSettingChangesRequest, self.list_setting_changes
            ),
            "ListIssuers": calls.unary(f"/{NAME}/ListIssuers", pb.ListIssuersRequest, self.list_issuers),
            "DecideIssuer": calls.unary(f"/{NAME}/DecideIssuer", pb.DecideIssuerRequest, self.decide_issuer),
            "Import": calls.exchange(f"/{NAME}/Import", pb.ImportItem, self.import_item),
            "Export": calls.stream(f"/{NAME}/Export", pb.ExportRequest, self.export),
            "Backup": calls.stream(f"/{NAME}/Backup", pb.BackupRequest, self.backup),
            "Restore": calls.exchange(f"/{NAME}/Restore", pb.RestoreItem, self.restore),
            "ListAudit": calls.unary(f"/{NAME}/ListAudit", pb.ListAuditRequest, self.list_audit),
            "ListVerdicts": calls.unary(f"/{NAME}/ListVerdicts", pb.ListVerdictsRequest, self.list_verdicts),
            "IssueClient": calls.unary(f"/{NAME}/IssueClient", pb.IssueClientRequest, self.issue_client),
        }

    async def get_status(self, _request: pb.GetStatusRequest, _caller: Caller) -> pb.Status:
        return convert.status(await self._cache.status())

    async def list_entries(self, request: pb.ListEntriesRequest, _caller: Caller) -> pb.ListEntriesResponse:
        query = self._cache.entries.query(
            **convert.criteria(request.filter),
            sort=convert.sort_by(request.sort),
            descending=request.descending,
            limit=convert.page_size(request.page_size),
            after=request.page_token,
        )
        entries, token, total = await self._cache.entries.page(query)
        return pb.ListEntriesResponse(
            entries=[convert.listed_entry(entry) for entry in entries], next_page_token=token, total=total
        )

    async def get_entry(self, request: pb.GetEntryRequest, _caller: Caller) -> pb.GetEntryResponse:
        entries, audit = await self._cache.entries.get(request.fingerprint)
        return pb.GetEntryResponse(
            entries=[convert.listed_entry(entry) for entry in entries], audit=[audit_to_wire(record) for record in audit]
        )

    async def delete_entry(self, request: pb.DeleteEntryRequest, caller: Caller) -> pb.DeleteEntryResponse:
        deleted, revision = await self._cache.entries.delete(request.fingerprint, caller.name)
        return pb.DeleteEntryResponse(deleted=deleted, revision=revision)

    async def purge(self, request: pb.PurgeRequest, caller: Caller) -> pb.PurgeResponse:
        """One thing at a time; only `trust_clock` may go with `confirm_held`, and comes first: a held clock holds the sweep."""
        entries, actor = self._cache.entries, caller.name
        named = request.HasField("filter") or request.all
        if named and (request.confirm_held or request.trust_clock):
            raise InvalidInput("A purge either names entries, or releases what is held; not both at once.")
        if request.trust_clock and not request.dry_run:
            await entries.trust_clock(actor)
        if request.trust_clock and not request.confirm_held:
            return pb.PurgeResponse(revision=self._cache.lookups.revision)
        if request.confirm_held:
            result = await entries.confirm_held(actor, dry_run=request.dry_run)
        else:
            query = entries.query(**convert.criteria(request.filter)) if request.HasField("filter") else None
            result = await entries.purge(query, everything=request.all, dry_run=request.dry_run, actor=actor)
        return pb.PurgeResponse(matched=result.matched, removed=result.removed, revision=result.revision)

    async def block(self, request: pb.BlockRequest, caller: Caller) -> pb.BlockResponse:
        block = await self._cache.blocks.block(
            fingerprint=request.fingerprint,
            address=request.address,
            until=optional_moment(request, "until"),
            reason=request.reason,
            actor=caller.name,
        )
        return pb.BlockResponse(block=block_to_wire(block))

    async def unblock(self, request: pb.UnblockRequest, caller: Caller) -> pb.UnblockResponse:
        await self._cache.blocks.unblock(fingerprint=request.fingerprint, address=request.address, actor=caller.name)
        return pb.UnblockResponse()

    async def list_blocks(self, _request: pb.ListBlocksRequest, _caller: Caller) -> pb.ListBlocksResponse:
        return pb.ListBlocksResponse(blocks=[block_to_wire(block) for block in self._cache.blocks.all()])

    async def get_settings(self, _request: pb.GetSettingsRequest, _caller: Caller) -> pb.GetSettingsResponse:
        settings, revision = self._cache.settings.current()
        return pb.GetSettingsResponse(settings=settings_to_wire(settings), revision=revision)

    async def set_settings(self, request: pb.SetSettingsRequest, caller: Caller) -> pb.SetSettingsResponse:
        result = await self._cache.settings.change(
            harvested=convert.optional_span(request, "harvested_timeout"),
            looked_up=convert.optional_span(request, "looked_up_timeout"),
            imported=convert.optional_span(request, "imported_timeout"),
            purge_hold_share=request.purge_hold_share if request.HasField("purge_hold_share") else None,
            purge_hold_floor=request.purge_hold_floor if request.HasField("purge_hold_floor") else None,
            clock_skew_bound=convert.optional_span(request, "clock_skew_bound"),
            dry_run=request.dry_run,
            actor=caller.name,
            reason=request.reason,
        )
        return pb.SetSettingsResponse(
            settings=settings_to_wire(result.settings),
            would_expire=result.would_expire,
            revision=result.revision,
            changes=[setting_change_to_wire(change) for change in result.changes],
        )

    async def list_setting_changes(
        self, _request: pb.ListSettingChangesRequest, _caller: Caller
    ) -> pb.ListSettingChangesResponse:
        changes = await self._cache.settings.history()
        return pb.ListSettingChangesResponse(changes=[setting_change_to_wire(change) for change in changes])

    async def list_issuers(self, _request: pb.ListIssuersRequest, _caller: Caller) -> pb.ListIssuersResponse:
        return pb.ListIssuersResponse(issuers=[convert.listed_issuer(issuer) for issuer in await self._cache.issuers.all()])

    async def decide_issuer(self, request: pb.DecideIssuerRequest, caller: Caller) -> pb.DecideIssuerResponse:
        state = convert.issuer_state(request.state)
        result = await self._cache.issuers.decide(request.id, state, request.certificate, caller.name)
        return pb.DecideIssuerResponse(entries=result.entries, still_held=result.still_held, revision=result.revision)

    async def import_item(self, item: pb.ImportItem, caller: Caller) -> pb.ImportResult:
        """An item that cannot be read gets a verdict, so that the others of the file are still taken."""
        try:
            return await self._import(item, caller.name)
        except InvalidInput as error:
            return pb.ImportResult(source=item.source, verdict=Verdict.MALFORMED_KEY.value, detail=str(error))

    async def _import(self, item: pb.ImportItem, actor: str) -> pb.ImportResult:
        kind, imports, source = item.WhichOneof("item"), self._cache.imports, item.source
        if kind == "message":
            message = item.message
            result = await imports.message(message.message, convert.envelope(message.envelope), source, actor)
            keys = [convert.key_verdict(key) for key in result.keys]
            return pb.ImportResult(source=source, keys=keys, verdict=result.verdict.value, detail=result.detail)
        if kind == "material":
            found = await imports.material(item.material, source, actor)
        elif kind == "entry":
            found = (await imports.entry(entry_from_wire(item.entry), source, actor),)
        else:
            raise InvalidInput("This item of an import holds nothing.")
        verdict = best(key.verdict for key in found)
        if verdict is None:
            raise InvalidInput("The file holds no key.")
        detail = next((key.detail for key in found if key.verdict is verdict), "")
        keys = [convert.key_verdict(key) for key in found]
        return pb.ImportResult(source=source, keys=keys, verdict=verdict.value, detail=detail)

    async def export(self, request: pb.ExportRequest, _caller: Caller) -> AsyncGenerator[pb.ExportItem, None]:
        query = self._cache.entries.query(**convert.criteria(request.filter), limit=convert.PAGE_LIMIT)
        first = True
        async with closing(self._cache.entries.export(query)) as entries:
            async for entry, total in entries:
                yield pb.ExportItem(entry=entry_to_wire(entry), total=total if first else 0)
                first = False

    async def backup(self, _request: pb.BackupRequest, _caller: Caller) -> AsyncGenerator[pb.BackupItem, None]:
        async with closing(self._cache.restoring.backup()) as items:
            async for item in items:
                yield convert.backup_item(item)

    async def restore(self, item: pb.RestoreItem, caller: Caller) -> pb.RestoreResult:
        restoring, terms = self._cache.restoring, convert.restore_terms(item)
        if item.finish:
            return pb.RestoreResult(revision=await restoring.finish())
        if not item.records:
            settled = await restoring.settle(terms, caller.name)
            return pb.RestoreResult(changes=[setting_change_to_wire(change) for change in settled.changes])
        records = [Record(key=one.key, value=one.value, mod_revision=ABSENT) for one in item.records]
        taken = await restoring.take(records, terms)
        return pb.RestoreResult(
            brought=taken.brought,
            known=taken.known,
            deleted=taken.deleted,
            expired=taken.expired,
            documents=taken.documents,
        )

    async def list_audit(self, request: pb.ListAuditRequest, _caller: Caller) -> pb.ListAuditResponse:
        records = await self._cache.journal.audit(limit=convert.page_size(request.limit), subject=request.subject)
        return pb.ListAuditResponse(records=[audit_to_wire(record) for record in records])

    async def list_verdicts(self, request: pb.ListVerdictsRequest, _caller: Caller) -> pb.ListVerdictsResponse:
        counts, recent = self._cache.journal.verdicts(convert.page_size(request.limit))
        return pb.ListVerdictsResponse(counts=counts, recent=[convert.verdict_line(line) for line in recent])

    async def issue_client(self, request: pb.IssueClientRequest, caller: Caller) -> pb.IssueClientResponse:
        """ORDER: in the audit log BEFORE it leaves the node."""
        role = next((role for role in _ISSUED_ROLES if role.value == request.role), None)
        if role is None:
            names = " or ".join(role.value for role in _ISSUED_ROLES)
            raise InvalidInput(f"{request.role[:80]!r} is not a role that a client can have.", hint=f"Choose {names}.")
        issued = self._signer.sign_client(request.csr, role=role, name=request.name, now=self._clock.now())
        until = f"until {issued.not_after:%Y-%m-%d}"
        await self._cache.journal.record(caller.name, "ISSUE_CLIENT", f"{role.value} {request.name}", until)
        return pb.IssueClientResponse(certificate=issued.certificate, ca=issued.ca, not_after=timestamp(issued.not_after))
