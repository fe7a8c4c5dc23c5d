"""What the quickstart shows, and what of it is not as it should be. Works on what `keycache harvest --json` and `keycache lookup
--json` print under "results"."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from rich.console import Console
from rich.table import Table
from sample_mails import SampleMail, Samples

from keycache.domain.verdict import Verdict

_TABLE_WIDTH = 120
"""Columns when the output is no terminal: every row fits in one line."""

Result = Mapping[str, Any]


def show(samples: Samples, harvested: Sequence[Result], found: Sequence[Result]) -> None:
    """Both tables, on standard output."""
    console = Console(width=None if sys.stdout.isatty() else _TABLE_WIDTH, highlight=False)
    console.print(_verdicts(samples, harvested), "", _lookups(found), sep="\n")


def differences(samples: Samples, harvested: Sequence[Result], found: Sequence[Result]) -> list[str]:
    """What came out differently from what `samples` says, as sentences; empty when all is well."""
    verdicts = {_stem(result): str(result["verdict"]) for result in harvested}
    answers = {str(result["address"]): result for result in found}
    cases = [(mail.name, mail.verdict.value, verdicts.get(mail.name, "nothing")) for mail in samples.mails]
    cases += [(f"The lookup of {mail.sender}", _expected(mail), _answered(answers.get(mail.sender))) for mail in samples.mails]
    return [f"{what} should give {wanted}, but gave {got}." for what, wanted, got in cases if got != wanted]


def _expected(mail: SampleMail) -> str:
    return mail.fingerprint if mail.miss is None else mail.miss.value


def _answered(result: Result | None) -> str:
    """The best key's fingerprint, or the code of the miss."""
    if result is None:
        return "no answer"
    return str(result["keys"][0]["fingerprint"] if result["keys"] else result["miss"]["code"])


def _stem(result: Result) -> str:
    return PurePath(str(result["file"])).stem


def _verdicts(samples: Samples, harvested: Sequence[Result]) -> Table:
    by_name = {_stem(result): result for result in harvested}
    table = Table(title="What became of the mails", title_justify="left")
    for heading in ("Mail", "What it brings", "Verdict", "Kept"):
        table.add_column(heading)
    for mail in samples.mails:
        verdict = by_name[mail.name]["verdict"] if mail.name in by_name else "-"
        table.add_row(mail.name, mail.about, verdict, _kept(verdict))
    return table


def _kept(verdict: str) -> str:
    member = next((one for one in Verdict if one.value == verdict), None)
    if member is None:
        return "?"
    return "yes" if member.is_served else "held" if member.is_kept else "no"


def _lookups(found: Sequence[Result]) -> Table:
    table = Table(title="What a lookup answers", title_justify="left")
    for heading in ("Address", "Key", "Fingerprint", "Trust", "Expires"):
        table.add_column(heading)
    for result in found:
        for key in result["keys"]:
            expires = str(key["expires_at"])[:16].replace("T", " ")
            table.add_row(result["address"], key["protocol"], f"{key['fingerprint'][:16]}...", key["trust"], f"{expires} UTC")
        if not result["keys"]:
            table.add_row(result["address"], "-", "-", "-", result["miss"]["code"])
    return table
