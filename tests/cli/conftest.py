"""A real node for each module of tests, and the command run against it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from keycache.cli.program import run
from support.command import Command, Node, Result, start, stop


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    running = start(tmp_path_factory.mktemp("node"))
    yield running
    stop(running)


@pytest.fixture
def cli(node: Node, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process, for this module's node."""

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        code = run(["--data-dir", str(node.data_dir), *(str(one) for one in arguments)])
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call
