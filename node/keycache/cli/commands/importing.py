"""`import`: keys, past mail and our own exports, from files and folders."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from keycache.cli import screen
from keycache.cli.call import Call, command
from keycache.cli.commands.mail import Stated, make_envelope
from keycache.cli.kinds import Kind
from keycache.cli.session import interruptible, message_limit, talk
from keycache.domain.errors import KeycacheError
from keycache.domain.verdict import Verdict

if TYPE_CHECKING:
    from keycache.cli.intake import Item, Problem
    from keycache.cli.present import Document
    from keycache.client import Connection
    from keycache.v1.admin_pb2 import ImportItem, ImportResult

_FINE = {verdict.value for verdict in Verdict if verdict.is_kept or verdict is Verdict.REVOCATION_LEARNED}


@dataclass(slots=True)
class Tally:
    """What came of an import. Good entries of exports are only counted: there may be millions."""

    results: list[Document] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    unknown: set[str] = field(default_factory=set)
    done: int = 0

    def add_problem(self, problem: Problem) -> None:
        self.failed += 1
        self.verdicts[problem.verdict] += 1
        self.results.append({"source": problem.source, "verdict": problem.verdict, "detail": problem.detail, "keys": []})

    def add(self, item: Item, answer: ImportResult) -> None:
        """A message without a key is nothing unusual; a file of keys or an entry that is not kept was given in vain."""
        from keycache.cli import present

        self.done += 1
        result = present.import_result(answer)
        told = [key["verdict"] for key in result["keys"]] or [result["verdict"]]
        self.verdicts.update(told)
        fine = result["verdict"] in _FINE
        if not fine and item.kind is not Kind.MESSAGE:
            self.failed += 1
        if not fine or item.kind is not Kind.EXPORT:
            self.results.append(result)
        self.unknown.update(item.unknown)


def register(app: typer.Typer) -> None:
    @command(app, "import", example="keycache import partner-keys.asc ~/Maildir export.jsonl")
    def import_files(
        call: Call,
        paths: Annotated[
            list[Path],
            typer.Argument(
                metavar="PATH...", help="Keys (PEM, DER, PKCS#7, OpenPGP), mails, mbox, maildir, exports, folders; -"
            ),
        ],
        direction: Stated = "inbound",
    ) -> int:
        """Take over keys, past mail and our own exports, with their time stamps.

        What a file holds is told by its content. Bad files and lines are named and left out, the rest goes on; exit code 1 then.
        """
        from keycache.cli import intake

        limit = message_limit(call)  # of a node elsewhere: the most that any takes, and it tells its own
        tally = Tally()
        with _Progress(intake.total_size(paths)) as progress:
            things = intake.items(paths, envelope=make_envelope(direction), limit=limit, stdin=sys.stdin.buffer)
            try:
                talk(call, lambda node: _Feed(node, tally, progress).all(things))
            except (KeycacheError, KeyboardInterrupt):
                if done := tally.done:
                    progress.stop()
                    _tell(call, tally)
                    screen.note(f"keycache: {done} items were taken before this; importing them again does no harm.")
                raise
        _tell(call, tally)
        return 1 if tally.failed else 0


class _Feed:
    """What is sent to the node, and what it answers: one answer per item, in the order of items."""

    def __init__(self, node: Connection, tally: Tally, progress: _Progress) -> None:
        self._node = node
        self._tally = tally
        self._progress = progress

    async def all(self, things: Iterator[Item | Problem]) -> None:
        """A node ends the whole stream at a message that it finds too large, and does not say which it was. Then what was sent and
        not answered goes out again, one by one, which does no harm to what it took after all, and a new stream takes the rest."""
        while unanswered := await self._stream(things):
            for item in unanswered:
                if await self._stream(iter([item])):
                    self._take(item.too_large())

    async def _stream(self, things: Iterator[Item | Problem]) -> tuple[Item, ...]:
        """Send until there is no more, or until something was too large: then the items without an answer."""
        from keycache.cli.intake import Problem
        from keycache.client import MessageTooLarge

        sent: deque[Item] = deque()
        ended = False

        async def requests() -> AsyncIterator[ImportItem]:
            # Not `for thing in things`: a stream that has ended must take nothing from the next one.
            while not ended:
                with interruptible():
                    thing = next(things, None)
                if thing is None:
                    return
                if isinstance(thing, Problem):
                    self._take(thing)
                else:
                    sent.append(thing)
                    yield thing.wire

        try:
            async for answer in self._node.exchange(self._node.admin.Import, requests()):
                item = sent.popleft()
                self._tally.add(item, answer)
                self._progress.advance(item.size)
        except MessageTooLarge:
            return tuple(sent)
        finally:
            ended = True
        return ()

    def _take(self, problem: Problem) -> None:
        self._tally.add_problem(problem)
        self._progress.advance(problem.size)


class _Progress:
    """A bar on standard error while it is a terminal, else nothing."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        console = screen.stderr_console()
        if console.is_terminal and self._total:
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("Importing"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("", total=self._total)
            self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """What is told from now on, no bar paints over."""
        if self._bar is not None:
            self._bar.stop()

    def advance(self, size: int) -> None:
        if self._bar is not None:
            self._bar.advance(self._task, size)


def _tell(call: Call, tally: Tally) -> None:
    if tally.unknown:
        screen.note(f"keycache: Fields of a later version were left aside: {', '.join(sorted(tally.unknown))}.")
    verdicts = dict(sorted(tally.verdicts.items()))
    if call.json:
        screen.show_json({"verdicts": verdicts, "failed": tally.failed, "results": tally.results})
        return
    from keycache.cli import mail_lines, tables

    screen.show(tables.counts(verdicts))
    if not verdicts:
        screen.note("keycache: Nothing was found there.")
    problems = [one for one in tally.results if one["verdict"] not in _FINE and not _usual(one)]
    room = screen.note_room()
    screen.note_lines(line for one in problems[:_SHOWN] for line in mail_lines.imported(one, room))
    if len(problems) > _SHOWN:
        screen.note(f"... and {len(problems) - _SHOWN} more; --json lists them all.")
    screen.note_lines(mail_lines.advice(problems, room))


def _usual(result: Document) -> bool:
    """Of past mail, most brings no key at all: that is counted, not told."""
    return result["verdict"] == Verdict.NO_KEY_MATERIAL.value and not result["keys"]


_SHOWN = 50
"""Problems told in text: a screenful or two."""
