"""The documents of `present` as tables and trees for people, readable at 80 columns. Pure: values in, renderables out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from keycache.cli import cluster_tables
from keycache.cli.fitting import shortened
from keycache.cli.instants import for_people
from keycache.cli.plain import plain
from keycache.cli.present import Document, when
from keycache.domain.verdict import Verdict

SHORT_FINGERPRINT = 12
"""Digits shown in tables, 48 bits: among a million keys two hardly begin alike. `show` and `delete` take them, and refuse if so."""

FOLD_MIN = 10
_GAP = "  "
"""What stands between two columns."""

LONG_LIFE = timedelta(days=2)
"""From here on tables show the day of expiry, below also the minute."""

_GOOD = {verdict.value for verdict in Verdict if verdict.is_served}
_KEPT = {verdict.value for verdict in Verdict if verdict.is_kept}
_OUTCOMES = {"PASSED": ("passed ", "green"), "FAILED": ("FAILED ", "bold red"), "SKIPPED": ("skipped", "dim")}


@dataclass(frozen=True, slots=True)
class Listing:
    """A table where there is room for one, else each row as names and values. Columns named in `fold` give way first, down to
    FOLD_MIN cells; all others stay whole."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Text]]
    fold: Sequence[str]

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.rows or self._needed() <= options.max_width:
            yield self._table()
            return
        for number, row in enumerate(self.rows):
            if number:
                yield Text("")
            yield pairs(zip(self.columns, row, strict=True))

    def _needed(self) -> int:
        widths = (
            max(map(cell_len, (name, *(row[place].plain for row in self.rows)))) for place, name in enumerate(self.columns)
        )
        least = (min(width, FOLD_MIN) if name in self.fold else width for name, width in zip(self.columns, widths, strict=True))
        return sum(least) + len(_GAP) * (len(self.columns) - 1)

    def _table(self) -> Table:
        made = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for column in self.columns:
            if column in self.fold:
                made.add_column(column, overflow="fold")
            else:
                made.add_column(column, no_wrap=True, overflow="ellipsis")
        for row in self.rows:
            made.add_row(*row)
        return made


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, fold: Sequence[str] = ()) -> Listing:
    cells = [[cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row] for row in rows]
    return Listing(columns, cells, fold)


def short(fingerprint: str) -> str:
    return fingerprint[:SHORT_FINGERPRINT]


def moment(text: str | None) -> str:
    return for_people(when(text))


def expiry(one: Document) -> str:
    """Of an entry or a found key."""
    expires, refreshed = when(one["expires_at"]), when(one["refreshed_at"])
    text = for_people(expires)
    return text[:10] if expires and refreshed and expires - refreshed >= LONG_LIFE else text


def verdict(name: str) -> Text:
    return Text(plain(name), style="green" if name in _GOOD else "yellow" if name in _KEPT else "")


def explanation(result: Document, room: int | None = None) -> Tree:
    """What would happen to one message, and every gate on the way. `room`: cells for the name of the file and the verdict."""
    told = verdict(result["verdict"])
    head = Text(shortened(plain(result["file"]), None if room is None else room - told.cell_len - 2), style="bold")
    head.append(": ").append_text(told)
    tree = Tree(head)
    if result["sender"]:
        tree.add(Text(f"From {plain(result['sender'])}, {result['direction'].lower()}"))
    _add_gates(tree, result["gates"])
    for key in result["keys"]:
        protocol = key["protocol"] or "key"
        label = Text(plain(f"{protocol} {short(key['fingerprint'])}".strip()))
        label.append(": ").append_text(verdict(key["verdict"]))
        branch = tree.add(label)
        for address in key["addresses"]:
            branch.add(Text(plain(address)))
        _add_gates(branch, key["gates"])
        _add_texts(branch, _unsaid(key), key["advice"])
    if not any(key["verdict"] == result["verdict"] for key in result["keys"]):
        _add_texts(tree, _unsaid(result), result["advice"])
    return tree


def _unsaid(one: Document) -> str:
    """The detail of a message or key, unless one of its gates or its advice says the same."""
    return "" if one["detail"] in {one["advice"], *(gate["detail"] for gate in one["gates"])} else one["detail"]


def lookups(results: Iterable[Document]) -> Listing:
    rows: list[tuple[str | Text, ...]] = []
    for result in results:
        address = result["address"]
        rows += [
            (address, key["protocol"], key["trust"], key["origin"], expiry(key), short(key["fingerprint"]))
            for key in result["keys"]
        ]
        if result["miss"]:
            rows.append((address, "-", "-", "-", "-", Text(result["miss"]["code"] or "", style="yellow")))
    return table(["Address", "Protocol", "Trust", "Origin", "Expires", "Key"], rows, fold=["Address"])


def entries(listed: Iterable[Document]) -> Listing:
    rows = [
        (
            addresses(entry),
            entry["protocol"],
            Text(entry["trust"], style="yellow" if entry["trust"] == "HELD" else ""),
            entry["origin"],
            Text(expiry(entry), style="red" if entry["expired"] else ""),
            Text(short(entry["fingerprint"]), style="red" if entry["block"] else ""),
        )
        for entry in listed
    ]
    return table(["Address", "Protocol", "Trust", "Origin", "Expires", "Key"], rows, fold=["Address"])


def pairs(rows: Iterable[tuple[str, object]]) -> Table:
    """Names and values, one a line."""
    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True, style="bold")
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, value if isinstance(value, Text) else Text(plain(str(value))))
    return made


def status(answer: Document) -> Table:
    entries_, purge = answer["entries"], answer["purge"]
    rows: list[tuple[str, object]] = [
        ("Mode", answer["mode"]),
        ("Node", answer["node_id"]),
        ("Version", answer["version"]),
        ("Since", f"{moment(answer['started_at'])} UTC"),
        ("Entries", f"{entries_['live']} live, {entries_['held']} held, {entries_['expired']} expired"),
        ("Revision", answer["applied_revision"]),
        ("Digest", answer["digest"]),
        ("Purge", f"{purge['state']}{': ' if purge['reason'] else ''}{purge['reason']}"),
    ]
    if purge["waiting"]:
        rows.append(("", f"{purge['waiting']} expired entries wait"))
    if purge["last_sweep_at"]:
        rows.append(("", f"last sweep {moment(purge['last_sweep_at'])} UTC removed {purge['last_sweep_removed']}"))
    if answer["settings"]:
        rows.append(("Timeouts", timeouts(answer["settings"])))
    rows += cluster_tables.rows(answer["cluster"]) if answer["cluster"] else []
    rows += [("Warning", Text(plain(warning), style="yellow")) for warning in answer["warnings"]]
    return pairs(rows)


def timeouts(settings_: Document) -> str:
    """In one line."""
    return ", ".join(f"{name.replace('_', '-')} {span}" for name, span in settings_["timeouts_text"].items())


def settings(answer: Document) -> Table:
    rows: list[tuple[str, object]] = [
        (name.replace("_", "-"), f"{span} after the last sighting") for name, span in answer["timeouts_text"].items()
    ]
    rows.append(("purge-hold-share", f"{answer['purge_hold_share']:g}"))
    rows.append(("purge-hold-floor", f"{answer['purge_hold_floor']} entries"))
    rows.append(("clock-skew-bound", answer["clock_skew_bound_text"]))
    return pairs(rows)


def entry(one: Document, audit: Iterable[Document]) -> list[Listing | Table | Text]:
    """Everything known of one entry."""
    head: list[tuple[str, object]] = [
        ("Fingerprint", one["fingerprint"]),
        ("Protocol", f"{one['protocol']} {one['algorithm']}".strip()),
        *(("Address", address) for address in one["addresses"]),
        *(("Name", name) for name in one["names"]),
        ("Trust", f"{one['trust']}{' (' + one['held'] + ')' if one['held'] else ''}"),
        ("Expires", f"{moment(one['expires_at'])} UTC{' (expired)' if one['expired'] else ''}"),
        ("Valid", validity(one)),
    ]
    if one["issuer"]:
        head.append(("Issuer", f"{one['issuer']['name']} (id {one['issuer']['id']})"))
    if one["defect"]:
        head.append(("Defect", Text(one["defect"], style="red")))
    if one["evidence_at"]:
        head.append(("Shown by its owner", f"{moment(one['evidence_at'])} UTC"))
    if one["prefer_encrypt"]:
        head.append(("Prefers encryption", "yes"))
    if one["capabilities"]:
        head.append(("Capabilities", ", ".join(one["capabilities"])))
    if one["block"]:
        until = one["block"]["until"]
        head.append(("Blocked", f"{'until ' + moment(until) if until else 'until unblocked'} {one['block']['reason']}".strip()))
    sightings = [
        (sighting["origin"], sighting["source"], moment(sighting["cached_at"]), moment(sighting["refreshed_at"]))
        for sighting in one["sightings"]
    ]
    parts: list[Listing | Table | Text] = [
        pairs(head),
        Text(""),
        table(["Origin", "Source", "First (UTC)", "Last (UTC)"], sightings, fold=["Source"]),
    ]
    changes = [(moment(change["at"]), change["what"], change["by"]) for change in one["history"]]
    if changes:
        parts += [Text(""), table(["Changed (UTC)", "What", "By"], changes, fold=["By"])]
    records = [(moment(record["at"]), record["actor"], record["action"], record["detail"]) for record in audit]
    if records:
        parts += [Text(""), table(["Done (UTC)", "Who", "What", "Detail"], records, fold=["Who", "Detail"])]
    return parts


def validity(one: Document) -> str:
    """The key's own, whatever the cache's timeouts."""
    start, end = one["not_before"], one["not_after"]
    if not start and not end:
        return "without bounds"
    return " ".join([*([f"from {moment(start)}"] if start else []), *([f"to {moment(end)}"] if end else []), "UTC"])


def counts(verdicts: dict[str, int]) -> Listing:
    return table(["Verdict", "Number"], [(verdict(name), str(number)) for name, number in verdicts.items()])


def addresses(one: Document) -> str:
    """The first, and how many more."""
    bound: list[str] = one["addresses"]
    more = f" (+{len(bound) - 1})" if len(bound) > 1 else ""
    return f"{bound[0]}{more}" if bound else "-"


def _add_gates(branch: Tree, gates: Iterable[Document]) -> None:
    for gate in gates:
        label, style = _OUTCOMES.get(gate["outcome"] or "", (gate["outcome"] or "?", ""))
        text = Text(label, style=style)
        text.append(f"  {plain(gate['name'])}", style="default")
        if gate["detail"]:
            text.append(f": {plain(gate['detail'])}", style="default")
        branch.add(text)


def _add_texts(branch: Tree, *texts: str) -> None:
    for text in texts:
        if text:
            branch.add(Text(plain(text), style="italic"))


def generic(columns: Sequence[tuple[str, str]], documents: Iterable[dict[str, Any]], *, fold: Sequence[str] = ()) -> Listing:
    """A table of documents: (title, field) for each column. Fields that end in `at` or `until` are instants."""
    rows = [
        tuple(moment(one[field]) if field in {"at", "until"} else str(one[field]) for _, field in columns) for one in documents
    ]
    return table([title for title, _ in columns], rows, fold=fold)
