"""`status`, `verdicts` and `audit`: how the node is, what it saw, who did what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from keycache.cli import screen
from keycache.cli.call import Call, command
from keycache.cli.session import talk

if TYPE_CHECKING:
    from keycache.cli.present import Document
    from keycache.client import Connection

Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="The newest so many.")]


def register(app: typer.Typer) -> None:
    @command(app, "status", example="keycache status --json")
    def status(call: Call) -> None:
        """How the node is: entries, revision, purging, warnings."""
        from keycache.cli import present
        from keycache.v1.admin_pb2 import GetStatusRequest

        async def conversation(node: Connection) -> Document:
            return present.status(await node.call(node.admin.GetStatus, GetStatusRequest()))

        document = talk(call, conversation)
        if call.json:
            screen.show_json(document)
            return
        from keycache.cli import tables

        screen.show(tables.status(document))

    @command(app, "verdicts", example="keycache verdicts --limit 20")
    def verdicts(
        call: Call,
        limit: Limit = 100,
        *,
        long: Annotated[bool, typer.Option("--long", help="Also each message's direction, id and what was found.")] = False,
    ) -> None:
        """What became of the mail this node saw last: counts since its start, and the newest messages."""
        from keycache.cli import present
        from keycache.v1.admin_pb2 import ListVerdictsRequest

        async def conversation(node: Connection) -> Document:
            answer = await node.call(node.admin.ListVerdicts, ListVerdictsRequest(limit=limit))
            recent = [present.verdict_line(line) for line in answer.recent]
            return {"counts": dict(sorted(answer.counts.items())), "recent": recent}

        document = talk(call, conversation)
        if call.json:
            screen.show_json(document)
            return
        from keycache.cli import mail_lines, tables

        screen.show(tables.counts(document["counts"]), "")
        screen.show_lines(mail_lines.recent(document["recent"], screen.room(), long=long))

    @command(app, "audit", example="keycache audit --subject alice@example.org")
    def audit(
        call: Call,
        limit: Limit = 100,
        subject: Annotated[str, typer.Option("--subject", help="Only what was done to this.")] = "",
    ) -> None:
        """What administrators did, newest first."""
        from keycache.cli import present
        from keycache.v1.admin_pb2 import ListAuditRequest

        async def conversation(node: Connection) -> list[Document]:
            answer = await node.call(node.admin.ListAudit, ListAuditRequest(limit=limit, subject=subject))
            return [present.audit_record(record) for record in answer.records]

        records = talk(call, conversation)
        if call.json:
            screen.show_json({"records": records})
            return
        from keycache.cli import tables

        columns = [("Done (UTC)", "at"), ("Who", "actor"), ("What", "action"), ("To", "subject"), ("Detail", "detail")]
        screen.show(tables.generic(columns, records, fold=["Who", "To", "Detail"]))
