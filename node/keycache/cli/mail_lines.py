"""The documents of mails, and of the keys in them, as lines for people. Pure: values in, rich's texts out.

VERDICT               FILE
  inbound, from anna@example.com
  smime 4a211c87310a  anna@example.com  VERDICT
    What was found, said once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rich.cells import cell_len
from rich.text import Text

from keycache.cli import tables
from keycache.cli.fitting import cut, folded, shortened
from keycache.cli.plain import plain
from keycache.cli.present import Document
from keycache.domain.verdict import Verdict

COLUMN = max(len(verdict.value) for verdict in Verdict)
_HEX = re.compile(r"[0-9a-f]{32,}")
_SUCCESS = {verdict.value for verdict in Verdict if verdict.is_served}
_ADVICE = {verdict.value: verdict.advice for verdict in Verdict}
"""For what was told without one; a node of a later version knows more verdicts, and sends its advice along."""
_DETAIL_INDENT = 4


def mail(result: Document, room: int | None) -> Iterator[Text]:
    """One message that was handed over: of `present.harvested`."""
    yield _head(result["verdict"], result["file"], room)
    sender = f", from {plain(result['sender'])}" if result["sender"] else ""
    if sender or result["direction"] != "UNKNOWN":
        yield Text(cut(f"  {result['direction'].lower()}{sender}", room), style="dim")
    yield from _body(result, room)


def imported(result: Document, room: int | None) -> Iterator[Text]:
    """One item of an import: of `present.import_result`."""
    yield _head(result["verdict"], result["source"], room)
    yield from _body(result, room)


def advice(results: Iterable[Document], room: int | None) -> Iterator[Text]:
    """What to do, once for each verdict that was not a success, in their order of rank."""
    told = {one["verdict"]: one.get("advice", "") for result in results for one in (result, *result["keys"])}
    told = {name: text or _ADVICE.get(name, "") for name, text in told.items()}
    order = list(_ADVICE)
    for name in sorted(told, key=lambda name: (order.index(name) if name in order else len(order), name)):
        if told[name] and name not in _SUCCESS:
            lines = folded(f"{plain(name)}: {plain(told[name])}", room, indent=2, first=0)
            first = tables.verdict(name)
            first.append(lines[0][len(plain(name)) :])
            yield first
            yield from map(Text, lines[1:])


def recent(lines: Iterable[Document], room: int | None, *, long: bool) -> Iterator[Text]:
    """Messages that the node looked at: of `present.verdict_line`. `long`: with direction, id and detail below each."""
    yield Text(cut(f"{'Seen (UTC)':16}  {'Verdict':{COLUMN}} From", room), style="bold")
    for line in lines:
        head = Text(f"{tables.moment(line['at'])}  ")
        head.append_text(_padded(line["verdict"]))
        head.append(shortened(plain(line["sender"]) or "-", None if room is None else room - head.cell_len))
        yield head
        if long:
            facts = ", ".join(part for part in (line["direction"].lower(), line["message_id"]) if part)
            yield from _indented(facts, room, style="dim")
            yield from _indented(line["detail"], room)


def _head(verdict: str, name: str, room: int | None) -> Text:
    head = _padded(verdict)
    head.append(shortened(plain(name), None if room is None else room - head.cell_len))
    return head


def _padded(verdict: str) -> Text:
    text = tables.verdict(verdict)
    text.append(" " * (max(COLUMN - text.cell_len, 0) + 1))
    return text


def _body(result: Document, room: int | None) -> Iterator[Text]:
    """The keys with what was found; a sentence that was said already, or that is the advice at the end, is left out."""
    said = {"", result.get("advice", ""), *(key["detail"] for key in result["keys"])}
    if result["detail"] not in said:
        yield from _indented(result["detail"], room)
    said = {"", result.get("advice", "")}
    for key in result["keys"]:
        yield _key(key, room)
        if key["detail"] not in said | {key["advice"]}:
            yield from _indented(key["detail"], room)
        said.add(key["detail"])


def _key(key: Document, room: int | None) -> Text:
    """Where it is too long for a line, address and label give way, each to half of the room at most; not a fingerprint."""
    fingerprint = _HEX.fullmatch(key["fingerprint"]) is not None
    name = tables.short(key["fingerprint"]) if fingerprint else plain(key["fingerprint"]) or "(no key)"
    address, protocol = plain(tables.addresses(key)), (key["protocol"] or "key").lower()
    if room is not None:
        rest = room - cell_len(f"  {protocol}     ") - len(key["verdict"])
        name = name if fingerprint else shortened(name, rest - min(cell_len(address), rest // 2))
        address = shortened(address, rest - cell_len(name))
    line = Text(f"  {protocol} {name}  {address}  ")
    line.append_text(tables.verdict(key["verdict"]))
    return line


def _indented(text: str, room: int | None, *, style: str = "") -> Iterator[Text]:
    if text:
        yield from (Text(line, style=style) for line in folded(plain(text), room, indent=_DETAIL_INDENT))
