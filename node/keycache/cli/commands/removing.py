"""`delete` and `purge`: what an administrator removes by an explicit act."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from keycache.cli import filters, screen
from keycache.cli.call import Call, command
from keycache.cli.commands.finding import resolve
from keycache.cli.session import talk
from keycache.domain.errors import InvalidInput

if TYPE_CHECKING:
    from keycache.cli.present import Document
    from keycache.client import Connection
    from keycache.v1.admin_pb2 import PurgeRequest, PurgeResponse, Status


def register(app: typer.Typer) -> None:
    @command(app, "delete", example="keycache delete 3f2a9c1e7b6d4410")
    def delete(
        call: Call,
        wanted: Annotated[str, typer.Argument(metavar="KEY", help="Fingerprint, its first 8 or more digits, or an address.")],
    ) -> None:
        """Delete one key, or all keys of one address. The next signed mail may bring it back: see 'block' for the opposite."""

        async def find(node: Connection) -> list[str]:
            return await resolve(node, wanted)

        async def remove(node: Connection) -> int:
            from keycache.v1.admin_pb2 import DeleteEntryRequest

            return sum(
                [
                    (await node.call(node.admin.DeleteEntry, DeleteEntryRequest(fingerprint=fingerprint))).deleted
                    for fingerprint in fingerprints
                ]
            )

        fingerprints = talk(call, find)
        screen.confirm(f"Delete {_keys(len(fingerprints))} ({', '.join(fingerprints)})?", yes=call.yes)
        deleted = talk(call, remove)
        if call.json:
            screen.show_json({"deleted": deleted, "fingerprints": fingerprints})
        else:
            screen.say(f"Deleted {_keys(deleted)}.")

    @command(app, "purge", example="keycache purge --origin looked-up --older-than 30d --dry-run")
    def purge(
        call: Call,
        *,
        address: filters.Address = None,
        domain: filters.DomainName = None,
        protocol: filters.OfProtocol = None,
        origin: filters.OfOrigin = None,
        trust: filters.OfTrust = None,
        issuer: filters.IssuerId = None,
        older_than: filters.OlderThan = None,
        expired: filters.Expired = None,
        all_entries: Annotated[bool, typer.Option("--all", help="Every entry there is.")] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell how many.")] = False,
        confirm_held: Annotated[
            bool, typer.Option("--confirm-held", help="Release a sweep that waits because so much expired at once.")
        ] = False,
        trust_clock: Annotated[
            bool, typer.Option("--trust-clock", help="The node's clock is right, whatever made it suspect.")
        ] = False,
    ) -> None:
        """Remove the entries that match, now. Expired ones go by themselves; this is for others."""
        from keycache.v1.admin_pb2 import PurgeRequest

        wanted = filters.entry_filter(
            address=address,
            domain=domain,
            protocol=protocol,
            origin=origin,
            trust=trust,
            issuer=issuer,
            older_than=older_than,
            expired=expired,
        )
        filtered, releasing = bool(wanted.ByteSize()), confirm_held or trust_clock
        if [filtered, all_entries, releasing].count(True) != 1:
            raise InvalidInput(
                "It must be clear what to purge.",
                hint="Give filters such as --origin, --domain or --older-than, or --all, or --confirm-held or --trust-clock.",
            )
        if releasing:
            _release(call, PurgeRequest(confirm_held=confirm_held, trust_clock=trust_clock), dry_run=dry_run)
            return
        request = PurgeRequest(filter=wanted if filtered else None, all=all_entries)
        matched = _purged(call, request, dry_run=True).matched
        if not dry_run:
            if matched:
                screen.confirm(f"Remove {_keys(matched)}?", yes=call.yes)
            _told(call, _purged(call, request, dry_run=False))
        else:
            _foretold(call, matched)


def _release(call: Call, request: PurgeRequest, *, dry_run: bool) -> None:
    """Let a held purge go on, after telling what it waits for."""
    from keycache.cli import present
    from keycache.v1.admin_pb2 import GetStatusRequest

    async def look(node: Connection) -> Status:
        return await node.call(node.admin.GetStatus, GetStatusRequest())

    state = talk(call, look)
    # While the clock is suspect the node plans no sweep, so what waits is all that can be told.
    waiting = state.purge.waiting if request.trust_clock else _purged(call, request, dry_run=True).matched
    if dry_run:
        _foretold(call, waiting)
        return
    if not waiting and not request.trust_clock:
        document = {"dry_run": False, "matched": 0, "removed": 0, "revision": state.applied_revision}
        _shown(call, document, "No expired key waits to be removed; there is nothing to confirm.")
        return
    question = f"Remove {_keys(waiting)} that expired?" if request.confirm_held else f"{_keys(waiting)} wait to be removed."
    if request.trust_clock:
        question = f"{question} Is it {present.moment(state, 'now')} now, as the node's clock says?"
    screen.confirm(question, yes=call.yes)
    answer = _purged(call, request, dry_run=False)
    if request.confirm_held:
        _told(call, answer)
    else:
        _shown(
            call, _document(answer), "The node's clock counts as right from now on; the next sweep removes what has expired."
        )


def _foretold(call: Call, matched: int) -> None:
    if call.json:
        screen.show_json({"dry_run": True, "matched": matched, "removed": 0})
    else:
        screen.say(f"{_keys(matched)} would be removed.")


def _purged(call: Call, request: PurgeRequest, *, dry_run: bool) -> PurgeResponse:
    async def conversation(node: Connection) -> PurgeResponse:
        request.dry_run = dry_run
        # As long as it takes: a million removals are ten thousand transactions.
        return await node.call(node.admin.Purge, request, timeout=None)

    return talk(call, conversation)


def _told(call: Call, answer: PurgeResponse) -> None:
    _shown(call, _document(answer), f"Removed {_keys(answer.removed)}.")


def _document(answer: PurgeResponse) -> Document:
    return {"dry_run": False, "matched": answer.matched, "removed": answer.removed, "revision": answer.revision}


def _shown(call: Call, document: Document, sentence: str) -> None:
    if call.json:
        screen.show_json(document)
    else:
        screen.say(sentence)


def _keys(number: int) -> str:
    return "1 key" if number == 1 else f"{number} keys"
