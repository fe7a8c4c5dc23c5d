"""`harvest` and `explain`: messages in files, and what comes of them."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keycache.cli import screen
from keycache.cli.call import Call, command
from keycache.cli.filters import choice, choice_option
from keycache.cli.session import interruptible, message_limit, talk
from keycache.domain.errors import KeycacheError
from keycache.domain.examination import Direction
from keycache.domain.verdict import Verdict

if TYPE_CHECKING:
    from keycache.cli.present import Document
    from keycache.client import Connection
    from keycache.v1.cache_pb2 import Envelope

Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="Messages as received, one each; - is standard input.")]
STATABLE = (Direction.INBOUND, Direction.OUTBOUND)
"""Unknown is nothing to state: the node finds out."""

Stated = Annotated[
    str | None, choice_option(STATABLE, "--direction", help_text="State the direction; else the node decides it.")
]
Listener = Annotated[str | None, typer.Option("--listener", help="address[:port] of the listener that took the mail.")]
Client = Annotated[str | None, typer.Option("--client", help="IP address that the mail came from.")]
User = Annotated[str | None, typer.Option("--user", help="Who authenticated, if anybody did.")]
MailFrom = Annotated[str | None, typer.Option("--mail-from", help="SMTP sender.")]
Recipients = Annotated[list[str] | None, typer.Option("--rcpt", help="SMTP recipient; may be given several times.")]


def register(app: typer.Typer) -> None:
    @command(app, "harvest", example="keycache harvest --direction inbound mail.eml")
    def harvest(
        call: Call,
        files: Files,
        direction: Stated = None,
        listener: Listener = None,
        client: Client = None,
        user: User = None,
        mail_from: MailFrom = None,
        rcpt: Recipients = None,
    ) -> int:
        """Hand over mail: verify and keep the senders' keys, and tell the verdicts.

        Exit code 0 says that every message got its verdict, whether or not a key was kept; 1 that a file could not be read.
        """
        envelope = make_envelope(direction, listener, client, user, mail_from, rcpt)
        return _hand_over(call, files, envelope, explain=False)

    @command(app, "explain", example="keycache explain --direction inbound mail.eml")
    def explain(
        call: Call,
        files: Files,
        direction: Stated = None,
        listener: Listener = None,
        client: Client = None,
        user: User = None,
        mail_from: MailFrom = None,
        rcpt: Recipients = None,
    ) -> int:
        """Tell what 'harvest' would do and why: each gate passed or failed. Nothing is kept."""
        envelope = make_envelope(direction, listener, client, user, mail_from, rcpt)
        return _hand_over(call, files, envelope, explain=True)


def make_envelope(
    direction: str | None,
    listener: str | None = None,
    client: str | None = None,
    user: str | None = None,
    mail_from: str | None = None,
    recipients: list[str] | None = None,
) -> Envelope:
    """Raises InvalidInput."""
    from keycache import codec
    from keycache.v1.cache_pb2 import Envelope

    stated = choice(STATABLE, direction) if direction else None
    return Envelope(
        direction=codec.wire_enum(stated),  # type: ignore[arg-type]
        listener=listener or "",
        client=client or "",
        user=user or "",
        mail_from=mail_from or "",
        recipients=recipients or [],
    )


def _hand_over(call: Call, files: list[str], envelope: Envelope, *, explain: bool) -> int:
    """Text tells each verdict as it comes, JSON all at the end; whatever ends the work early, those got so far are told."""
    limit = message_limit(call)  # of a node elsewhere: the most that any takes, and it tells its own
    results: list[Document] = []
    unreadable = 0

    async def conversation(node: Connection) -> None:
        nonlocal unreadable
        for file in files:
            try:
                # One byte beyond the limit tells that it is over.
                with interruptible():
                    data = _read(file, limit + 1)
            except (OSError, ValueError) as error:
                unreadable += 1
                result = _judged_here(file, Verdict.UNREADABLE_MESSAGE, _why_unreadable(error), explain=explain)
            else:
                if len(data) > limit:
                    detail = f"It is over {limit} bytes."
                    result = _judged_here(file, Verdict.MESSAGE_TOO_LARGE, detail, explain=explain)
                else:
                    result = await _sent(node, file, data, envelope, explain=explain)
            results.append(result)
            if not call.json:
                _tell(result, explain=explain)

    try:
        talk(call, conversation)
    except (KeycacheError, KeyboardInterrupt):
        if results:
            _end(call, results, explain=explain)
            screen.note(
                f"keycache: {len(results)} of {len(files)} files have their verdict, those from {files[len(results)]} on not."
            )
        raise
    _end(call, results, explain=explain)
    return 1 if unreadable else 0


def _tell(result: Document, *, explain: bool) -> None:
    from keycache.cli import mail_lines, tables

    if explain:
        screen.show(tables.explanation(result, screen.room()))
    else:
        screen.show_lines(mail_lines.mail(result, screen.room()))


def _end(call: Call, results: list[Document], *, explain: bool) -> None:
    """What stands below all results: the advice, or the document that holds them."""
    from keycache.cli import mail_lines

    if call.json:
        screen.show_json({"results": results})
    elif not explain and (lines := list(mail_lines.advice(results, screen.room()))):
        screen.say("")
        screen.show_lines(lines)


def _why_unreadable(error: OSError | ValueError) -> str:
    if isinstance(error, IsADirectoryError):
        return "It is a folder: name the mails in it, or take them all over with 'keycache import'."
    return f"It cannot be read: {(error.strerror if isinstance(error, OSError) else None) or error}."


def _read(file: str, limit: int) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(limit)
    if not file:
        raise FileNotFoundError(errno.ENOENT, "The name is empty")
    with Path(file).open("rb") as stream:
        return stream.read(limit)


async def _sent(node: Connection, file: str, data: bytes, envelope: Envelope, *, explain: bool) -> Document:
    from keycache.cli import present
    from keycache.client import MessageTooLarge
    from keycache.v1.cache_pb2 import HarvestRequest

    method = node.cache.Explain if explain else node.cache.Harvest
    try:
        answer = await node.call(method, HarvestRequest(message=data, envelope=envelope))
    except MessageTooLarge as error:
        return _judged_here(file, Verdict.MESSAGE_TOO_LARGE, error.text, explain=explain)
    return present.harvested(file, answer, with_gates=explain)


def _judged_here(file: str, verdict: Verdict, detail: str, *, explain: bool) -> Document:
    """As if the node had said so, about what was never sent."""
    from keycache.cli import present
    from keycache.v1.cache_pb2 import HarvestResponse

    answer = HarvestResponse(verdict=verdict.value, detail=detail, advice=verdict.advice)
    return present.harvested(file, answer, with_gates=explain)
