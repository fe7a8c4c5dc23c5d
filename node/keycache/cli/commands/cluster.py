"""`cluster create|token|join|members|check|resolve`: how nodes come to share a log, how they stand to it, and the way on for one that
refused it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from keycache.cli import failure, screen
from keycache.cli.call import Call, command, new_group
from keycache.cli.commands import forming
from keycache.cli.session import talk
from keycache.domain.errors import InvalidInput

if TYPE_CHECKING:
    from keycache.cli.present import Document
    from keycache.client import Connection
    from keycache.v1.cluster_pb2 import ResolveRequest, ResolveResponse


def register(app: typer.Typer) -> None:
    group = new_group("The nodes that share a log.")
    app.add_typer(group, name="cluster")
    forming.register(group)

    @command(group, "members", example="keycache cluster members")
    def members(call: Call) -> None:
        """Every node that shares the log, or did: how far it is, how far its clock is off, which of them purges."""
        from keycache.cli import present
        from keycache.v1.cluster_pb2 import ListMembersRequest

        async def conversation(node: Connection) -> Document:
            answer = await node.call(node.cluster.ListMembers, ListMembersRequest())
            return {"members": [present.member(one) for one in answer.members], "revision": answer.revision}

        document = talk(call, conversation)
        if call.json:
            screen.show_json(document)
            return
        from keycache.cli import cluster_tables, tables

        listed = document["members"]
        screen.show(
            tables.table(
                cluster_tables.MEMBER_COLUMNS, [cluster_tables.member_row(one) for one in listed], fold=["Address", "Version"]
            )
        )
        screen.say("* the node that answers", *cluster_tables.member_notes(listed))

    @command(group, "check", example="keycache cluster check")
    def check(call: Call) -> int:
        """What a restart of this node would keep, expire and hold back, and whether it may go on with the log. Changes nothing.

        Exit code 1 when it may not, 4 when it may and there are warnings, for a monitor to tell: each says what to do.
        """
        from keycache.cli import present
        from keycache.v1.cluster_pb2 import CheckRequest

        async def conversation(node: Connection) -> Document:
            return present.check(await node.call(node.cluster.Check, CheckRequest()))

        document = talk(call, conversation)
        if call.json:
            screen.show_json(document)
        else:
            from keycache.cli import cluster_tables, tables

            timeouts = tables.timeouts(document["settings"]) if document["settings"] else ""
            screen.show(tables.pairs(cluster_tables.check_rows(document, timeouts)))
        if document["action"] == "REFUSE":
            return failure.REFUSED
        return failure.WARNED if document["warnings"] else failure.DONE

    @command(group, "resolve", example="keycache cluster resolve --merge --dry-run")
    def resolve(
        call: Call,
        *,
        merge: Annotated[
            bool, typer.Option("--merge", help="Bring what this node has into the log, joined with what is there.")
        ] = False,
        discard: Annotated[
            bool, typer.Option("--discard", help="Forget what this node has, and take what is in the log.")
        ] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell how many.")] = False,
    ) -> None:
        """The way on for a node that refused its log ('cluster check' tells why). Put the right log back first, if there is one."""
        from keycache.cli import present
        from keycache.v1.cluster_pb2 import ResolveRequest

        if merge is discard:
            raise InvalidInput("It must be clear which way to go on.", hint="Say either --merge or --discard.")
        way = "MERGE" if merge else "DISCARD"
        request = ResolveRequest(way=ResolveRequest.Way.Value(way), dry_run=True)
        answer = _resolved(call, request)
        if not dry_run:
            screen.confirm(_question(answer, merge=merge), yes=call.yes)
            request.dry_run = False
            answer = _resolved(call, request)
        if call.json:
            screen.show_json(present.resolved(way, answer, dry_run=dry_run))
        else:
            screen.say(_told(answer, merge=merge, dry_run=dry_run))


def _resolved(call: Call, request: ResolveRequest) -> ResolveResponse:
    async def conversation(node: Connection) -> ResolveResponse:
        # As long as it takes: a million entries are ten thousand transactions.
        return await node.call(node.cluster.Resolve, request, timeout=None)

    return talk(call, conversation)


def _question(answer: ResolveResponse, *, merge: bool) -> str:
    log = f"log {answer.identity}" if answer.identity else "the log, which nobody has begun yet"
    if merge:
        return f"Bring {_entries(answer.entries)} of this node{_waiting(answer)} into {log}, joined with what is there?"
    return f"FORGET {_entries(answer.entries)} of this node{_waiting(answer)}, for good, and take what is in {log}?"


def _told(answer: ResolveResponse, *, merge: bool, dry_run: bool) -> str:
    would = "would be " if dry_run else ""
    entries = f"{_entries(answer.entries)}{_waiting(answer)}"
    if not merge:
        return f"{entries} {would}forgotten."
    known = f" The log knew {answer.known} of them." if answer.known else ""
    deleted = f" {_entries(answer.deleted)} not: an administrator removed them there." if answer.deleted else ""
    return f"{entries} {would}brought into the log.{known}{deleted}"


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number} entries"


def _waiting(answer: ResolveResponse) -> str:
    return f" and {answer.outbox} in its outbox" if answer.outbox else ""
