"""`lookup`, `list`, `search` and `show`: what is in the cache."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keycache.cli import filters, screen
from keycache.cli.call import Call, command
from keycache.cli.filters import choice, choice_option
from keycache.cli.session import talk
from keycache.domain.entry import Origin, Protocol, Trust
from keycache.domain.errors import InvalidInput, NotFound, Refused
from keycache.domain.ports import SortBy

if TYPE_CHECKING:
    from keycache.cli.present import Document
    from keycache.client import Connection
    from keycache.v1.admin_pb2 import EntryFilter, ListEntriesRequest, ListEntriesResponse
    from keycache.v1.cache_pb2 import LookupFilter, LookupResult

BATCH = 1000
"""Addresses in one BatchLookup: what the node takes."""
PAGE = 1000
"""Entries in one ListEntries: what the node gives."""
PREFIX_MIN = 8
"""Digits of a fingerprint that may stand for the whole: 32 bits, as short as OpenPGP ever abbreviated."""

Sorted = Annotated[str | None, choice_option(SortBy, "--sort", help_text="Order of the entries. Default: address.")]
Descending = Annotated[bool, typer.Option("--descending", help="The other way round.")]
Limit = Annotated[int, typer.Option("--limit", min=0, help="Show at most so many; 0: all.")]
PageToken = Annotated[str, typer.Option("--page", metavar="TOKEN", help="Go on after an earlier listing, where it says so.")]


def register(app: typer.Typer) -> None:
    @command(app, "lookup", example="keycache lookup alice@example.org --output /tmp/keys")
    def lookup(
        call: Call,
        addresses: Annotated[list[str] | None, typer.Argument(metavar="ADDRESS...", help="Mail addresses.")] = None,
        fingerprint: Annotated[list[str] | None, typer.Option("--fingerprint", help="Look up this key instead.")] = None,
        protocol: Annotated[list[str] | None, choice_option(Protocol, "--protocol", help_text="Accept this protocol.")] = None,
        origin: Annotated[list[str] | None, choice_option(Origin, "--origin", help_text="Accept this origin.")] = None,
        trust: Annotated[
            list[str] | None, choice_option(Trust, "--trust", help_text="Accept this trust. Default: anchored and bound.")
        ] = None,
        output: Annotated[Path | None, typer.Option("--output", metavar="DIR", help="Write the keys into this folder.")] = None,
    ) -> int:
        """Keys to encrypt to, best first, or why there is none.

        Exit code 1 when anything asked for has no key. --protocol, --origin, --trust and --fingerprint may be repeated.
        """
        if not addresses and not fingerprint:
            raise InvalidInput("Nothing to look up.", hint="Name an address, or a key with --fingerprint.")
        accept = lookup_filter(protocol or [], origin or [], trust or [])
        answers = talk(call, lambda node: _look_up(node, addresses or [], fingerprint or [], accept))
        from keycache.cli import present

        results = [present.looked_up(answer) for answer in answers]
        if output is not None:
            _write_keys(output, answers)
        if call.json:
            screen.show_json({"results": results})
        else:
            from keycache.cli import tables

            screen.show(tables.lookups(results))
            for result in results:
                if result["miss"]:
                    screen.say(f"{result['address']}: {result['miss']['detail']}")
        return 1 if any(result["miss"] for result in results) else 0

    @command(app, "list", example="keycache list --domain example.org --sort refreshed --descending")
    def list_entries(
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
        sort: Sorted = None,
        descending: Descending = False,
        limit: Limit = 100,
        page: PageToken = "",
    ) -> None:
        """List entries, expired and held ones too."""
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
        _list(call, wanted, sort=sort, descending=descending, limit=limit, page=page)

    @command(app, "search", example="keycache search alice")
    def search(
        call: Call,
        *,
        text: Annotated[str, typer.Argument(metavar="TEXT", help="Part of an address, a name or a fingerprint.")],
        sort: Sorted = None,
        descending: Descending = False,
        limit: Limit = 100,
        page: PageToken = "",
    ) -> int:
        """Search by part of an address, name or fingerprint. Exit code 1 when nothing matches."""
        found = _list(call, filters.entry_filter(text=text), sort=sort, descending=descending, limit=limit, page=page)
        return 0 if found else 1

    @command(app, "show", example="keycache show 3f2a9c1e7b6d4410")
    def show(
        call: Call,
        wanted: Annotated[str, typer.Argument(metavar="KEY", help="Fingerprint, its first 8 or more digits, or an address.")],
    ) -> None:
        """Everything known of a key: sightings, expiry, history and what administrators did with it."""

        async def conversation(node: Connection) -> list[tuple[Document, list[Document]]]:
            from keycache.cli import present
            from keycache.v1.admin_pb2 import GetEntryRequest

            shown = []
            for fingerprint in await resolve(node, wanted):
                answer = await node.call(node.admin.GetEntry, GetEntryRequest(fingerprint=fingerprint))
                audit = [present.audit_record(record) for record in answer.audit]
                shown += [(present.listed_entry(one), audit) for one in answer.entries]
            return shown

        shown = talk(call, conversation)
        if call.json:
            screen.show_json({"entries": [{**entry, "audit": audit} for entry, audit in shown]})
            return
        from keycache.cli import tables

        for number, (entry, audit) in enumerate(shown):
            screen.show(*([""] if number else []), *tables.entry(entry, audit))


async def resolve(node: Connection, key: str) -> list[str]:
    """The fingerprints of an address's keys, or the one that a person named or abbreviated. Raises NotFound, Refused."""
    from keycache.domain.names import Fingerprint
    from keycache.v1.admin_pb2 import EntryFilter

    if "@" in key:
        found = [one async for one in _all_fingerprints(node, filters.entry_filter(address=key))]
        if not found:
            raise NotFound(f"No key of {key} is cached.", hint="Try 'keycache search' with a part of it.")
        return found
    digits = re.sub(r"[\s:]", "", key).lower().removeprefix("0x")
    if not re.fullmatch(rf"[0-9a-f]{{{PREFIX_MIN},63}}", digits) or len(digits) == 40:
        return [Fingerprint.parse(key).text]
    found = [one async for one in _all_fingerprints(node, EntryFilter(text=digits)) if one.startswith(digits)]
    if not found:
        raise NotFound(f"No key's fingerprint begins with {digits}.", hint="Try 'keycache search'.")
    if len(found) > 1:
        raise Refused(f"{len(found)} keys begin with {digits}: {', '.join(found[:5])}.", hint="Give more digits.")
    return found


async def _all_fingerprints(node: Connection, wanted: EntryFilter) -> AsyncIterator[str]:
    from keycache.v1.admin_pb2 import ListEntriesRequest

    async for page in pages(node, ListEntriesRequest(filter=wanted), limit=0):
        for listed in page.entries:
            yield listed.entry.key.fingerprint


async def pages(node: Connection, request: ListEntriesRequest, *, limit: int) -> AsyncIterator[ListEntriesResponse]:
    """Pages of a listing until `limit` entries (0: all) were given."""
    left = limit
    while True:
        request.page_size = min(left, PAGE) if limit else PAGE
        page = await node.call(node.admin.ListEntries, request)
        yield page
        left -= len(page.entries)
        request.page_token = page.next_page_token
        if not page.next_page_token or (limit and left <= 0):
            return


def lookup_filter(protocols: list[str], origins: list[str], trusts: list[str]) -> LookupFilter:
    """Raises InvalidInput."""
    from keycache import codec
    from keycache.v1.cache_pb2 import LookupFilter

    return LookupFilter(
        protocols=[codec.wire_enum(choice(Protocol, text)) for text in protocols],  # type: ignore[misc]
        origins=[codec.wire_enum(choice(Origin, text)) for text in origins],  # type: ignore[misc]
        trusts=[codec.wire_enum(choice(Trust, text)) for text in trusts],  # type: ignore[misc]
    )


async def _look_up(node: Connection, addresses: list[str], keys: list[str], accept: LookupFilter) -> list[LookupResult]:
    from keycache.domain.names import Fingerprint
    from keycache.v1.cache_pb2 import BatchLookupRequest, LookupRequest

    answers: list[LookupResult] = []
    for start in range(0, len(addresses), BATCH):
        request = BatchLookupRequest(addresses=addresses[start : start + BATCH], filter=accept)
        answers += (await node.call(node.cache.BatchLookup, request)).results
    for key in keys:
        fingerprint = Fingerprint.parse(key).text
        answer = await node.call(node.cache.Lookup, LookupRequest(fingerprint=fingerprint, filter=accept))
        answer.result.address = answer.result.address or fingerprint
        answers.append(answer.result)
    return answers


def _write_keys(folder: Path, answers: list[LookupResult]) -> None:
    """One file a key, named by the address asked for and the key. The folder is made if need be."""
    from keycache.cli.armour import armoured, pem
    from keycache.v1.entry_pb2 import PROTOCOL_OPENPGP

    folder.mkdir(parents=True, exist_ok=True)
    for answer in answers:
        for found in answer.keys:
            openpgp = found.key.protocol == PROTOCOL_OPENPGP
            stem = re.sub(r"[^\w.@+-]", "_", answer.address).lstrip(".")[:120]
            path = folder / f"{stem}-{found.key.fingerprint[:16]}.{'asc' if openpgp else 'pem'}"
            path.write_text(armoured(found.key.material) if openpgp else pem(found.key.material), "ascii")
            screen.note(f"Wrote {path}")


def _list(call: Call, wanted: EntryFilter, *, sort: str | None, descending: bool, limit: int, page: str) -> int:
    """Show the entries; returns how many match."""
    from keycache import codec
    from keycache.cli import present
    from keycache.v1.admin_pb2 import ListEntriesRequest

    request = ListEntriesRequest(
        filter=wanted,
        sort=codec.wire_enum(choice(SortBy, sort)) if sort else 0,  # type: ignore[arg-type]
        descending=descending,
        page_token=page,
    )

    async def conversation(node: Connection) -> tuple[list[Document], int, str]:
        listed: list[Document] = []
        total, token = 0, ""
        async for answer in pages(node, request, limit=limit):
            listed += [present.listed_entry(one) for one in answer.entries]
            total, token = answer.total, answer.next_page_token
        return listed, total, token

    listed, total, token = talk(call, conversation)
    if call.json:
        screen.show_json({"entries": listed, "total": total, "next_page_token": token or None})
    else:
        from keycache.cli import tables

        screen.show(tables.entries(listed))
        screen.say("", f"{len(listed)} of {total} entries.{f' More: --page {token}' if token else ''}")
    return total
