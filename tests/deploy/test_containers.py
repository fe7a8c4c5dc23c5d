"""deploy/Dockerfile and deploy/compose.yaml: linted, and what can be tried without a container engine is tried."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from docs.checkout import ROOT
from keycache import config
from keycache.app import GRACE_SECONDS
from keycache.cluster.etcd_process import STOP_SECONDS
from support.command import spawn, start, stop

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
COMPOSE = ROOT / "deploy" / "compose.yaml"
SCRIPTS = Path(sys.executable).parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
IGNORED = {".git", ".venv", "__pycache__"}


def lint(program: str, *arguments: object) -> tuple[int, str]:
    done = subprocess.run([SCRIPTS / program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def copied() -> list[str]:
    """What the image takes from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
    return [word for line in lines for word in line.split()[:-1]]


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
    return found


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert lint("hadolint", DOCKERFILE) == (0, "")


def test_hadolint_finds_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp\n")

    code, told = lint("hadolint", "--no-color", tmp_path / "Dockerfile")

    assert code == 1
    assert {"DL3006", "DL3003"} <= set(re.findall(r"DL\d+", told))


def test_the_compose_file_is_one_by_the_specification() -> None:
    assert lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)[0] == 0


def test_a_compose_file_that_is_none_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text("utf-8").replace("hostname: node1", "hostnames: node1"), "utf-8")

    code, told = lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", wrong)

    assert code == 1
    assert "hostnames" in told


def test_every_yaml_file_of_deploy_is_well_written() -> None:
    assert lint("yamllint", "--strict", "deploy") == (0, "")


@pytest.mark.parametrize("name", ["node1", "node2", "node3"])
def test_the_settings_of_each_service_are_ones_that_the_node_takes(tmp_path: Path, name: str) -> None:
    service = services()[name]

    loaded = config.load(data_dir=tmp_path, file=None, environ=service["environment"])

    assert (str(loaded.cluster.address), service["hostname"]) == (f"{name}:7640", name)
    assert str(loaded.listen.join) == "0.0.0.0:7642"
    assert service["volumes"] == [f"{name}:/var/lib/keycache"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


def test_a_stop_of_a_container_has_time_for_calls_and_for_etcd() -> None:
    periods = {service["stop_grace_period"] for service in services().values()}

    assert [int(period.removesuffix("s")) >= GRACE_SECONDS + STOP_SECONDS + 20 for period in periods] == [True]


def test_the_image_bears_the_version_of_the_project() -> None:
    assert {service["image"] for service in services().values()} == {f"keycache:{VERSION}"}
    assert f"--tag keycache:{VERSION}" in DOCKERFILE.read_text("utf-8")


def test_no_secret_is_told_to_an_image_or_a_container() -> None:
    names = re.findall(r"^(?:ARG|ENV) (\w+)", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
    names += [name for service in services().values() for name in service["environment"]]

    assert [name for name in names if re.search("KEY$|SECRET|TOKEN|PASSWORD", name)] == []
    assert not any("env_file" in service for service in services().values())


def test_the_image_is_built_as_somebody_who_is_not_root() -> None:
    (user,) = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE.read_text("utf-8"), re.MULTILINE)

    assert user == ("10001", "10001")


def test_the_package_can_be_built_of_what_the_image_copies(tmp_path: Path) -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert set(copied()) == let_through
    source = tmp_path / "src"
    source.mkdir()
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=lambda _, names: IGNORED & set(names))
        else:
            shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path,
        ".",
    ]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120, check=False)

    assert built.returncode == 0, built.stderr
    assert [path.name for path in tmp_path.glob("*.whl")] == [f"keycache-{VERSION}-py3-none-any.whl"]


def test_the_image_and_the_probes_ask_what_a_node_answers(tmp_path: Path) -> None:
    """HEALTHCHECK's command, and the paths and the port's name that Kubernetes asks."""
    (check,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
    program, *words = yaml.safe_load(check)
    assert program == "keycache"
    pod = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "statefulset.yaml").read_text("utf-8"))["spec"]["template"]["spec"]
    probes = [pod["containers"][0][f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert {probe["port"] for probe in probes} == {"metrics"}
    node = start(tmp_path)
    try:
        assert spawn(*words, "--data-dir", tmp_path).returncode == 0
        for probe in probes:
            with urlopen(f"http://{node.run_file['metrics']}{probe['path']}") as answer:
                assert answer.status == 200
    finally:
        assert stop(node) == 0
    assert spawn(*words, "--data-dir", tmp_path).returncode == 3
