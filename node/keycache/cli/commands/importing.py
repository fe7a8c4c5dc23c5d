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
from keycache.cli.session import configuration, talk
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

        # Without the file of a node elsewhere, its limit is taken to be the default: a message over it would end the whole stream.
        from keycache.config import Mail

        limit = (Mail() if call.server is not None else configuration(call).mail).message_limit
        tally = Tally()
        with _Progress(intake.total_size(paths)) as progress:
            things = intake.items(paths, envelope=make_envelope(direction), limit=limit, stdin=sys.stdin.buffer)
            try:
                talk(call, lambda node: _feed(node, things, tally, progress))
            except KeycacheError:
                if done := tally.done:
                    screen.note(f"keycache: {done} items were taken before this; importing them again does no harm.")
                raise
        _tell(call, tally)
        return 1 if tally.failed else 0


async def _feed(node: Connection, things: Iterator[Item | Problem], tally: Tally, progress: _Progress) -> None:
    """Answers come one per item, in the order of items."""
    from keycache.cli.intake import Problem

    sent: deque[Item] = deque()

    async def requests() -> AsyncIterator[ImportItem]:
        for thing in things:
            if isinstance(thing, Problem):
                tally.add_problem(thing)
                progress.advance(thing.size)
            else:
                sent.append(thing)
                yield thing.wire

    async for answer in node.exchange(node.admin.Import, requests()):
        item = sent.popleft()
        tally.add(item, answer)
        progress.advance(item.size)


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
    from keycache.cli import tables

    screen.show(tables.counts(verdicts))
    if not verdicts:
        screen.note("keycache: Nothing was found there.")
    problems = [one for one in tally.results if one["verdict"] not in _FINE]
    for one in problems[:_SHOWN]:
        detail = one["detail"] or "; ".join(key["detail"] or key["advice"] for key in one["keys"])
        screen.note(f"{one['source']}: {one['verdict']}{': ' if detail else ''}{detail}")
    if len(problems) > _SHOWN:
        screen.note(f"... and {len(problems) - _SHOWN} more; --json lists them all.")


_SHOWN = 50
"""Problems told in text: a screenful or two."""
