"""Units of systemd, read as systemd reads them, as far as ours need it (systemd.syntax(7))."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from functools import cache
from pathlib import Path

Unit = dict[str, list[str]]
"""By `Section.Key`: the values, in order."""


def read_unit(path: Path) -> Unit:
    found: defaultdict[str, list[str]] = defaultdict(list)
    section = ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and line[0] not in "#;":
            key, _, value = line.partition("=")
            found[f"{section}.{key}"].append(value)
    return dict(found)


@cache
def _sets() -> dict[str, frozenset[str]]:
    """The sets of system calls, as this machine's systemd knows them; a set may name others."""
    told = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True, timeout=60).stdout
    found: defaultdict[str, set[str]] = defaultdict(set)
    name = ""
    for line in told.splitlines():
        if line and not line[0].isspace():
            name = line.strip()
        elif line.strip() and not line.strip().startswith("#"):
            found[name].add(line.strip())
    return {name: frozenset(items) for name, items in found.items() if name.startswith("@")}


def _expanded(word: str) -> frozenset[str]:
    if not word.startswith("@"):
        return frozenset({word})
    return frozenset().union(*(_expanded(item) for item in _sets()[word]))


def allowed_calls(unit: Unit) -> frozenset[str]:
    """What SystemCallFilter= lets through: an allow-list first, then what is taken from it (systemd.exec(5))."""
    allowed = _expanded("@default")
    for value in unit["Service.SystemCallFilter"]:
        named = frozenset().union(*(_expanded(word) for word in value.removeprefix("~").split()))
        allowed = allowed - named if value.startswith("~") else allowed | named
    return allowed | _expanded("@default")
