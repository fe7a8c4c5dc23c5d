"""Whatever a document tells a person to type is there: commands, options, settings, metrics, files of the checkout."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from docs import markdown, named_things
from docs.checkout import ROOT
from keycache.cli import program

DOCUMENTS = ("README.md", "deploy/OPERATIONS.md")
ROOT_COMMAND = typer.main.get_command(program.build())

_PROMPT = re.compile(r"^[\w-]*[#$]\s+(.+)$", re.MULTILINE)
_CALL = re.compile(r"(?<!--namespace )(?<![\w./:=-])keycache ([a-z].*|-.*)")


def text_of(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def calls(text: str) -> Iterator[str]:
    """What stands behind `keycache ` in code spans that begin with it, and behind the prompts of console blocks."""
    for span in markdown.code(text):
        if "\n" not in span:
            yield from (found[1] for found in [_CALL.match(span)] if found)
    for block in markdown.blocks(text, "console"):
        for line in _PROMPT.findall(block.replace("\\\n", " ")):
            yield from (found[1] for found in [_CALL.search(line)] if found)


def wrong(call: str) -> str:
    """Why the command line cannot be typed so; empty if it can. Only words that are options or names of commands are looked at."""
    command: Any = ROOT_COMMAND
    words = iter(shlex.split(re.split(r"\s[#&|>]", call)[0]))
    for word in words:
        if word.startswith("-") and word != "-":
            name, equals, _ = word.partition("=")
            options = [option for option in command.params if name in option.opts]
            if not options:
                return f"keycache {call}: there is no option {name}"
            if not options[0].is_flag and not equals:
                next(words, None)
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return f"keycache {call}: there is no command {word}"
            command = command.commands[word]
    return ""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_that_a_document_shows_can_be_typed(document: str) -> None:
    shown = list(calls(text_of(document)))

    assert len(shown) > 20, "the commands were not found: the collector is broken"
    assert [problem for problem in map(wrong, shown) if problem] == []


def test_a_command_or_an_option_that_is_not_there_is_found() -> None:
    text = """`keycache statsu`, `keycache cluster join --tokens X`

```console
# keycache cluster evict n1
$ docker exec n keycache status --jason &
```
"""

    assert [problem.rpartition(": ")[2] for problem in map(wrong, calls(text))] == [
        "there is no command statsu",
        "there is no option --tokens",
        "there is no command evict",
        "there is no option --jason",
    ]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_metric_and_setting_that_a_document_names_is_there(document: str) -> None:
    text = text_of(document)
    sections = {name.partition(".")[0] for name in named_things.config_fields()}
    spans = [span for span in markdown.code(text) if "\n" not in span]
    settings = {span for span in spans if span.partition(".")[0] in sections and re.fullmatch(r"[a-z]+\.[a-z_]+", span)}
    for block in markdown.blocks(text, "toml"):
        settings |= {f"{section}.{name}" for section, table in tomllib.loads(block).items() for name in table}
    metrics = {name for span in spans for name in re.findall(r"^keycache_[a-z_]+", span)}

    assert settings, "no settings found: the collector is broken"
    assert metrics, "no metrics found: the collector is broken"
    assert settings - set(named_things.config_fields()) == set()
    assert metrics - set(named_things.metrics()) == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_of_the_checkout_that_a_document_names_is_there(document: str) -> None:
    named = {path for code in markdown.code(text_of(document)) for path in re.findall(r"(?<![\w/.])deploy/[\w./-]+", code)}

    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
