"""Every command helps itself."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from keycache.cli.program import build, run

EXPECTED = {
    *("serve", "version", "status", "verdicts", "audit", "harvest", "explain", "lookup", "list", "search", "show", "delete"),
    *(
        "purge",
        "import",
        "export",
        "backup",
        "restore",
        "block add",
        "block remove",
        "block list",
        "settings show",
        "settings set",
    ),
    *(
        "settings history",
        "settings import-prefs",
        "issuers list",
        "issuers approve",
        "issuers reject",
        "client issue",
        "client renew",
    ),
    *("authority show", "authority begin", "authority confirm", "authority withdraw"),
    *("cluster members", "cluster check", "cluster resolve", "cluster create", "cluster token", "cluster join"),
    *("cluster leave", "cluster recover", "cluster remove"),
}
"""DESIGN 8, as far as it goes."""


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = list(commands(get_command(build())))


def test_the_commands_are_those_of_the_design() -> None:
    assert {" ".join(path) for path, _ in ALL} == EXPECTED


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_has_help_with_an_example_that_it_understands(path: tuple[str, ...], command: Any) -> None:
    assert command.help
    words = shlex.split(command.epilog.removeprefix("Example: "))
    assert words[: 1 + len(path)] == ["keycache", *path]
    context = command.make_context(path[-1], words[1 + len(path) :], resilient_parsing=False)
    assert not context.args
    assert all(parameter.help for parameter in command.params if parameter.name != "help")


def test_help_is_exit_zero_and_fits_eighty_columns(capfd: pytest.CaptureFixture[str]) -> None:
    for path, _ in ALL:
        assert run([*path, "--help"]) == 0
        shown = capfd.readouterr().out
        assert "Example: keycache" in " ".join(shown.split())
        assert max(map(len, shown.splitlines())) <= 80, path


def test_the_common_options_stand_before_and_after_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    outputs = set()
    for arguments in (["--json", "version"], ["version", "--json"], ["--yes", "version", "--json", "--data-dir", "/x"]):
        assert run(arguments) == 0
        outputs.add(capfd.readouterr().out)
    assert len(outputs) == 1
    assert outputs.pop().startswith("{")


@pytest.mark.parametrize("name", ["harvest", "explain", "import"])
def test_only_directions_that_may_be_stated_are_offered(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    shown = capfd.readouterr().out
    assert "inbound|outbound" in shown
    assert "unknown" not in shown
    assert run([name, "--direction", "unknown", "x.eml"]) == 2
    assert "'unknown' is not inbound or outbound." in capfd.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["statsu"],
        ["status", "--no-such-option"],
        ["lookup"],
        ["list", "--origin", "stolen"],
        ["block"],
        ["block", "add", "nobody"],
        ["harvest", "--direction", "unknown", "x.eml"],
        ["settings", "set", "harvested"],
        ["cluster", "resolve"],
        ["cluster", "resolve", "--merge", "--discard"],
    ],
    ids=" ".join,
)
def test_misuse_is_two_and_told_without_a_traceback(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    shown = capfd.readouterr()
    assert shown.err or arguments == ["block"]  # which shows its help
    assert "Traceback" not in shown.err
