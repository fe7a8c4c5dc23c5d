"""`block add|remove|list`: keys and addresses never to be served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from keycache.cli import screen
from keycache.cli.call import Call, command, new_group
from keycache.cli.session import talk
from keycache.domain.errors import InvalidInput

if TYPE_CHECKING:
    from keycache.cli.present import Document
    from keycache.client import Connection

Targets = Annotated[list[str], typer.Argument(metavar="KEY_OR_ADDRESS...", help="Whole fingerprints, or mail addresses.")]


def register(app: typer.Typer) -> None:
    group = new_group("Keys and addresses never to be served, whatever mail brings.")
    app.add_typer(group, name="block")

    @command(group, "add", example='keycache block add alice@example.org --for 30d --reason "laptop stolen"')
    def add(
        call: Call,
        targets: Targets,
        until: Annotated[
            str | None, typer.Option("--until", metavar="TIME", help="Ends by itself then, as 2026-12-31.")
        ] = None,
        span: Annotated[str | None, typer.Option("--for", metavar="SPAN", help="Ends by itself after this, as 30d.")] = None,
        reason: Annotated[str, typer.Option("--reason", help="Why, for those who wonder later.")] = "",
    ) -> None:
        """Never serve this key, or any key to this address. It outlasts deletion and new mail; revocations are still learnt."""
        from keycache import codec
        from keycache.cli import present
        from keycache.cli.instants import parse_moment
        from keycache.clock import SystemClock
        from keycache.domain.spans import parse_span
        from keycache.v1.admin_pb2 import BlockRequest

        if until and span:
            raise InvalidInput("--until and --for both say when the block ends.", hint="Give one of them.")
        end = parse_moment(until) if until else None
        if span:
            try:
                end = SystemClock().now().replace(microsecond=0) + parse_span(span)
            except OverflowError as error:
                raise InvalidInput(f"{span} from now is past the calendar.", hint="Leave --for out for no end.") from error
        names = [_target(target) for target in targets]

        async def conversation(node: Connection) -> list[Document]:
            requests = [BlockRequest(**name, until=codec.timestamp(end), reason=reason) for name in names]
            return [present.block((await node.call(node.admin.Block, request)).block) for request in requests]

        blocks = talk(call, conversation)
        if call.json:
            screen.show_json({"blocks": blocks})
        else:
            screen.say(*(f"Blocked {one['value']} {_until(one)}." for one in blocks))

    @command(group, "remove", example="keycache block remove alice@example.org")
    def remove(call: Call, targets: Targets) -> None:
        """Serve it again, if it is cached and usable."""
        from keycache.v1.admin_pb2 import UnblockRequest

        names = [_target(target) for target in targets]

        async def conversation(node: Connection) -> None:
            for name in names:
                await node.call(node.admin.Unblock, UnblockRequest(**name))

        talk(call, conversation)
        values = [value for name in names for value in name.values()]
        if call.json:
            screen.show_json({"unblocked": values})
        else:
            screen.say(*(f"Unblocked {value}." for value in values))

    @command(group, "list", example="keycache block list")
    def list_blocks(call: Call) -> None:
        """Everything that is blocked, until when, by whom and why. Blocks that have ended by themselves stand there as a record."""
        from keycache.cli import present
        from keycache.v1.admin_pb2 import ListBlocksRequest

        async def conversation(node: Connection) -> list[Document]:
            return [present.block(one) for one in (await node.call(node.admin.ListBlocks, ListBlocksRequest())).blocks]

        blocks = talk(call, conversation)
        if call.json:
            screen.show_json({"blocks": blocks})
            return
        from keycache.cli import tables

        columns = [("Blocked", "value"), ("Until (UTC)", "until"), ("By", "by"), ("Reason", "reason")]
        screen.show(tables.generic(columns, blocks, fold=["Blocked", "By", "Reason"]))


def _target(text: str) -> dict[str, str]:
    """The field of the request that names it. Raises InvalidInput."""
    from keycache.domain.names import EmailAddress, Fingerprint

    if "@" in text:
        return {"address": EmailAddress.parse(text).text}
    return {"fingerprint": Fingerprint.parse(text).text}


def _until(block: Document) -> str:
    return f"until {block['until']}" if block["until"] else "until it is unblocked"
