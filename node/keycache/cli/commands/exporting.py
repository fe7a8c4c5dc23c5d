"""`export`: entries with everything known of them, or just the keys."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from keycache.cli import filters, screen
from keycache.cli.call import Call, command
from keycache.cli.filters import choice, choice_option
from keycache.cli.session import talk
from keycache.cli.whole_file import whole_file

if TYPE_CHECKING:
    from keycache.client import Connection
    from keycache.v1.entry_pb2 import Entry


class Format(Enum):
    """JSONL keeps everything; the others hold keys of one protocol each."""

    JSONL = "JSONL"
    PEM = "PEM"
    ARMOURED = "ARMOURED"


def register(app: typer.Typer) -> None:
    @command(app, "export", example="keycache export --output keys.jsonl")
    def export(
        call: Call,
        form: Annotated[
            str, choice_option(Format, "--format", help_text="jsonl keeps all; pem: S/MIME, armoured: OpenPGP.")
        ] = "jsonl",
        output: Annotated[
            Path | None, typer.Option("--output", metavar="FILE", help="Write there, readable by you alone.")
        ] = None,
        address: filters.Address = None,
        domain: filters.DomainName = None,
        protocol: filters.OfProtocol = None,
        origin: filters.OfOrigin = None,
        trust: filters.OfTrust = None,
        issuer: filters.IssuerId = None,
        older_than: filters.OlderThan = None,
        expired: filters.Expired = None,
    ) -> None:
        """Write entries as JSON lines with all time stamps, which 'import' takes back, or as bare keys.

        Always a text of its own: --json changes nothing here.
        """
        from keycache.v1.admin_pb2 import ExportRequest

        chosen = choice(Format, form)
        request = ExportRequest(
            filter=filters.entry_filter(
                address=address,
                domain=domain,
                protocol=protocol,
                origin=origin,
                trust=trust,
                issuer=issuer,
                older_than=older_than,
                expired=expired,
            )
        )
        with _target(output) as stream:

            async def conversation(node: Connection) -> tuple[int, int]:
                written = skipped = 0
                async for item in node.stream(node.admin.Export, request):
                    if not item.HasField("entry"):
                        continue
                    text = rendered(item.entry, chosen)
                    stream.write(text)
                    written, skipped = (written + 1, skipped) if text else (written, skipped + 1)
                return written, skipped

            written, skipped = talk(call, conversation)
        if output is not None:
            screen.note(f"Wrote {written} to {output}.")
        if skipped:
            screen.note(f"{skipped} entries of the other protocol have no such form and were left out.")


def rendered(entry: Entry, form: Format) -> str:
    """With the line's end; empty if the entry has no such form."""
    from keycache import codec
    from keycache.cli.armour import armoured, pem
    from keycache.cli.entry_line import write_line
    from keycache.domain.entry import Protocol

    if form is Format.JSONL:
        return f"{write_line(codec.entry_from_wire(entry))}\n"
    wanted = Protocol.SMIME if form is Format.PEM else Protocol.OPENPGP
    if codec.enum_member(Protocol, entry.key.protocol) is not wanted:
        return ""
    return pem(entry.key.material) if form is Format.PEM else armoured(entry.key.material)


@contextmanager
def _target(path: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that stands there whole or not at all; mode 0600, since it tells who writes to whom."""
    if path is None:
        yield sys.stdout
        return
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as stream:  # a pipe or a device
            yield stream
        return
    with whole_file(path, replace=True) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", write_through=True)
        yield text
        text.detach()
