"""A verdict, miss code, setting, metric, command, call or gate that no document names fails the build (habit 15)."""

from __future__ import annotations

import re
import tomllib

import pytest

from docs import markdown, named_things
from docs.checkout import ROOT


def document(name: str) -> str:
    """Empty if there is none: then the tests tell all that it should name."""
    path = ROOT / name
    return path.read_text("utf-8") if path.exists() else ""


README = document("README.md")
EVERYTHING = README + "\n" + document("node/ARCHITECTURE.md")
CODE = "\n".join(markdown.code(EVERYTHING))


def configured() -> set[str]:
    """section.name of everything in the configuration examples, comments left out."""
    found = set()
    for block in markdown.blocks(EVERYTHING, "toml"):
        for section, values in tomllib.loads(block).items():
            found |= {f"{section}.{name}" for name in values} if isinstance(values, dict) else set()
    return found


def listed(missing: list[str]) -> str:
    """For the person who sees the test fail: all of them."""
    return "no document names: " + ", ".join(missing)


def told(command: str) -> bool:
    """As `keycache settings set ...`, `settings set ...`, or in a list such as `settings show|set`."""
    *groups, verb = command.split(" ")
    before = "".join(rf"{re.escape(group)} " for group in groups)
    return re.search(rf"(?:^|keycache ){before}(?:[\w-]+\|)*{re.escape(verb)}(?![\w-])", CODE, re.MULTILINE) is not None


def test_the_readme_names_every_verdict() -> None:
    missing = [name for name in named_things.verdicts() if not markdown.names(README, name)]

    assert missing == [], listed(missing)


@pytest.mark.parametrize("kind", ["miss_codes", "settings", "metrics"])
def test_the_documents_name_every(kind) -> None:
    everything = getattr(named_things, kind)()

    assert everything, f"no {kind} found in the code: the collector is broken"
    missing = [name for name in everything if not markdown.names(EVERYTHING, name)]
    assert missing == [], listed(missing)


def test_the_documents_name_every_gate_as_code() -> None:
    """As code, since gates are called by words that stand in any text."""
    missing = [name for name in named_things.gates() if not markdown.names(CODE, name)]

    assert missing == [], listed(missing)


def test_the_documents_name_every_field_of_the_configuration() -> None:
    known = configured()

    missing = [name for name in named_things.config_fields() if name not in known and not markdown.names(EVERYTHING, name)]
    assert missing == [], listed(missing)


def test_the_documents_name_no_field_of_the_configuration_that_is_not_there() -> None:
    assert configured() - set(named_things.config_fields()) == set()


def test_the_documents_name_every_call() -> None:
    missing = [name for name in named_things.calls() if not {name, name.partition(".")[2]} & set(re.findall(r"[\w.]+", CODE))]

    assert missing == [], listed(missing)


def test_the_documents_name_every_command() -> None:
    missing = [command for command in named_things.commands() if not told(command)]

    assert missing == [], listed(missing)
