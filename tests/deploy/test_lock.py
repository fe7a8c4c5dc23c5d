"""requirements.lock holds what pyproject.toml asks for, and can be fetched by anybody."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def locked(text: str) -> dict[str, str]:
    """Versions by name."""
    return {canonicalize_name(name): version for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE)}


def unmet(wanted: list[str], text: str) -> list[str]:
    versions = locked(text)
    requirements = [Requirement(one) for one in wanted]
    return [str(one) for one in requirements if versions.get(canonicalize_name(one.name), "") not in one.specifier]


def test_the_part_of_a_node_holds_what_it_runs_on_and_what_installs_it() -> None:
    node = LOCK.split("\n# DEV\n")[0]

    assert unmet(PROJECT["project"]["dependencies"] + PROJECT["build-system"]["requires"], node) == [], "run tests/lock"


def test_the_whole_holds_what_the_checks_need() -> None:
    assert unmet(PROJECT["project"]["optional-dependencies"]["dev"], LOCK) == [], "run tests/lock"


def test_every_requirement_has_one_version_and_hashes() -> None:
    entries = re.findall(r"^[A-Za-z0-9].*(?:\n    .*)*", LOCK, re.MULTILINE)
    shape = re.compile(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*( ; [^\\]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+")

    assert [entry.split("\n")[0] for entry in entries if not shape.fullmatch(entry)] == []
    assert len(locked(LOCK)) == len(entries)
