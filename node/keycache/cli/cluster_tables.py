"""What `status` and `cluster` tell of the nodes that share a log, for people. Pure, as `tables`, which it completes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from rich.text import Text

from keycache.cli.instants import for_people
from keycache.cli.plain import plain
from keycache.cli.present import Document, when
from keycache.domain.spans import format_span

SHORT_ID = 8
"""Digits of a node's id, as nodes show it."""

_BINARY = ("bytes", "KiB", "MiB", "GiB", "TiB")
_GOOD_LINK = "FOLLOWING"


def sized(number: int) -> str:
    """Bytes as people say them: `1.5 GiB`."""
    size, unit = float(number), 0
    while size >= 1024 and unit < len(_BINARY) - 1:
        size, unit = size / 1024, unit + 1
    return f"{number} bytes" if unit == 0 else f"{size:.1f} {_BINARY[unit]}"


def rows(cluster: Document) -> list[tuple[str, object]]:
    """The block of `status`."""
    heard = "" if cluster["log_age"] is None else f", heard {_ago(cluster['log_age'])} ago"
    link = Text(plain(f"{cluster['name']}: {cluster['link']}{heard}"), style="" if cluster["link"] == _GOOD_LINK else "yellow")
    made: list[tuple[str, object]] = [("Cluster", link)]
    if cluster["reason"]:
        made.append(("", cluster["reason"]))
    made.append(("Outbox", _outbox(cluster["outbox"])))
    made.append(("Purger", f"{cluster['purger'] or 'none now'}: {_purging(cluster['purge'])}"))
    if cluster["purge"]["waiting"]:
        made.append(("", f"{cluster['purge']['waiting']} expired entries wait"))
    if cluster["reconciled_at"]:
        compared = f"{for_people(when(cluster['reconciled_at']))} UTC with the whole log: {cluster['repaired']} differed"
        made.append(("Compared", compared))
    made += [("etcd" if not number else "", _endpoint(one)) for number, one in enumerate(cluster["etcd"])]
    return made


def member_row(one: Document) -> tuple[str | Text, ...]:
    """In the columns of MEMBER_COLUMNS."""
    state = "gone" if not one["alive"] else "purger" if one["purger"] else "alive"
    unknown = not one["alive"]
    return (
        f"{'*' if one['is_this_node'] else ''}{one['node_id'][:SHORT_ID]}",
        one["address"],
        one["version"],
        Text(state, style={"gone": "red", "purger": "green"}.get(state, "")),
        _seen(one),
        "-" if unknown else str(one["lag"]),
        "-" if one["skew"] is None else skew(one["skew"]),
        "-" if unknown else str(one["outbox"]),
    )


MEMBER_COLUMNS = ("Node", "Address", "Version", "State", "Seen (UTC)", "Lag", "Skew", "Outbox")


def member_notes(members: Iterable[Document]) -> list[str]:
    """What of them needs a person."""
    notes = []
    for one in members:
        name = f"{one['address']} ({one['node_id'][:SHORT_ID]})"
        if one["alive"] and not one["clock_trusted"]:
            notes.append(f"{name} does not trust its clock.")
        if one["alive"] and one["purge"]["state"].startswith("HELD_"):
            notes.append(f"{name}: {_purging(one['purge'])}")
    return notes


def skew(seconds: float) -> str:
    """With its sign, rounded as becomes its size."""
    if abs(seconds) < 60:
        return f"{round(seconds, 1) or 0.0:+.1f}s"
    return f"{'+' if seconds > 0 else '-'}{format_span(timedelta(seconds=round(abs(seconds))))}"


def check_rows(answer: Document, timeouts: str) -> list[tuple[str, object]]:
    refused = answer["action"] == "REFUSE"
    entries = answer["entries"]
    made: list[tuple[str, object]] = [("Restart", Text(plain(answer["action"]), style="bold red" if refused else ""))]
    made += [("", answer[name]) for name in ("reason", "hint") if answer[name]]
    made.append(("Entries", f"{entries['kept']} kept, {entries['expired']} expired, {entries['held_back']} of these held back"))
    if answer["held_reason"]:
        made.append(("", answer["held_reason"]))
    if timeouts:
        made.append(("Timeouts", timeouts))
    made.append(("Replica", _at(answer["replica"])))
    made.append(("Log", "not reachable" if answer["action"] == "SERVE_ONLY" else _at(answer["log"])))
    return made + [("Warning", Text(plain(warning), style="yellow")) for warning in answer["warnings"]]


def _at(place: Document) -> str:
    return f"{place['identity'] or 'nobody has begun it'}, revision {place['revision']}"


def _seen(one: Document) -> str:
    """Of one that lives the time, of one that is gone the day: the table must fit a terminal."""
    seen = when(one["last_seen"])
    return "-" if seen is None else f"{seen:%H:%M:%S}" if one["alive"] else f"{seen:%Y-%m-%d}"


def _ago(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else format_span(timedelta(seconds=round(seconds)))


def _outbox(outbox: Document) -> str:
    if not outbox["entries"]:
        return "empty"
    room = f"{sized(outbox['bytes'])} of {sized(outbox['limit_bytes'])}"
    return f"{outbox['entries']} entries wait for the log, {room}"


def _purging(purge: Document) -> str:
    return f"{purge['state']}{': ' if purge['reason'] else ''}{purge['reason']}"


def _endpoint(one: Document) -> Text:
    if not one["reachable"]:
        return Text(plain(f"{one['endpoint']} does not answer"), style="yellow")  # why not, the warnings say
    role = ", leader" if one["leader"] else ", learner" if one["learner"] else ""
    quota = f" of {sized(one['quota_bytes'])}" if one["quota_bytes"] else ""
    text = Text(plain(f"{one['endpoint']} {one['version']}{role}, {sized(one['db_bytes'])}{quota}"))
    text.append(plain(f" ({sized(one['db_bytes_in_use'])} in use)"))
    if one["alarms"]:
        text.append(plain(f", alarm {' '.join(one['alarms'])}"), style="bold red")
    return text
