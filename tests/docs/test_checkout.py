"""What the checkout looks like."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest

from docs import markdown
from docs.checkout import ROOT, files, text_of

TOP_LEVEL = {"pyproject.toml", "README.md", "proto", "node", "tests", "deploy", "LICENSE", "CHANGELOG.md", "requirements.lock"}

LINE_LIMIT = 400
"""node/CONTRIBUTING.md, habit 16."""

LONGER: dict[str, str] = {}
"""Files that may be longer, each with the reason."""

FOREIGN = ("/work/", "/root/", "/home/", "/opt/pypi", "pypi.org", "pythonhosted")
"""Paths of one machine and hosts of registries. This file has to name them."""

DOCUMENTS = [path for path in files() if path.suffix == ".md"]


def test_the_top_level_holds_only_what_belongs_there() -> None:
    found = {path.relative_to(ROOT).parts[0] for path in files()}

    assert {name for name in found if not name.startswith(".")} == TOP_LEVEL


def test_no_file_of_the_node_is_too_long_to_read() -> None:
    generated = ROOT / "node" / "keycache" / "v1"
    sources = [path for path in files(ROOT / "node") if path.suffix == ".py" and generated not in path.parents]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").split("\n")) - 1 for path in sources}

    assert {name: length for name, length in lengths.items() if length > LINE_LIMIT and name not in LONGER} == {}


def test_every_exception_to_the_length_is_still_needed() -> None:
    lengths = {name: len((ROOT / name).read_text("utf-8").split("\n")) - 1 for name in LONGER}

    assert {name: length for name, length in lengths.items() if length <= LINE_LIMIT} == {}


def test_no_file_names_a_path_of_one_machine_or_the_host_of_a_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in files()
        if path != Path(__file__) and (text := text_of(path)) is not None
        for word in FOREIGN
        if word in text
    ]

    assert found == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere(document) -> None:
    broken = []
    for target in markdown.targets(document.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        path = (document.parent / unquote(place)).resolve() if place else document
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in markdown.anchors(path.read_text("utf-8"))):
            broken.append(target)

    assert broken == []


def test_the_changelog_tells_of_the_version_in_pyproject() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")

    assert re.search(rf"^## \[?{re.escape(version)}\b", changelog, re.MULTILINE), f"no heading '## {version}' in CHANGELOG.md"


def test_the_readme_begins_with_the_two_commands() -> None:
    shell = "\n".join(markdown.code((ROOT / "README.md").read_text("utf-8")))
    commands = re.findall(r"deploy/quickstart|tests/run", shell)

    assert list(dict.fromkeys(commands)) == ["deploy/quickstart", "tests/run"]
