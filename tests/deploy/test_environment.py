"""deploy/environment, with a Python that only writes down what it is told: no network, no packages of this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAMS = ("bash", "cat", "cp", "cut", "dirname", "flock", "mkdir", "mktemp", "rm", "sed", "sha256sum", "sh", "tail")
"""What the script uses of the base system."""

PYTHON = """#!/bin/sh
# Stands for python3, and for .venv/bin/python once it has "made" .venv.
case "$*" in
*version_info*) [ ! -e "$STUBS/too-old" ] ;;
*ensurepip*) [ ! -e "$STUBS/no-venv" ] ;;
*sys.prefix*) echo "$PWD/.venv" ;;
--version) echo "Python 3.9.2" ;;
"-m venv .venv") echo "make" >>"$STUBS/calls" && mkdir -p .venv/bin && cp "$0" "$PWD/.venv/bin/python" ;;
"-m pip --version") ;;
*"pip install"*--editable*) echo "install project" >>"$STUBS/calls" ;;
*"pip install"*--require-hashes*)
    sed 's/^/install /' .venv/requirements.txt >>"$STUBS/calls"
    [ ! -e "$STUBS/no-network" ] || { echo "cannot reach the index"; exit 1; } ;;
*) echo "unexpected: $*" >>"$STUBS/calls"; exit 1 ;;
esac
"""


class Machine:
    """A checkout and a PATH with nothing on it but `PROGRAMS`, the stand-in for Python, and what a test adds."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.stubs = folder / "stubs"
        (self.checkout / "deploy").mkdir(parents=True)
        self.stubs.mkdir()
        shutil.copy2(ROOT / "deploy" / "environment", self.checkout / "deploy")
        (self.checkout / "pyproject.toml").write_text("[project]\n")
        (self.checkout / "requirements.lock").write_text("a==1\n# DEV\nb==2\n")
        for name in PROGRAMS:
            (self.stubs / name).symlink_to(shutil.which(name) or name)
        self.program("python3", PYTHON)
        self.program("id", "#!/bin/sh\necho 1000\n")
        for name in ("gpg", "openssl", "faketime", "etcd", "etcdctl", "ip", "systemd-analyze"):
            self.program(name, "#!/bin/sh\n")

    def program(self, name: str, text: str) -> None:
        (self.stubs / name).write_text(text)
        (self.stubs / name).chmod(0o755)

    def having(self, *signs: str) -> None:
        for sign in signs:
            (self.stubs / sign).touch()

    def run(self, *arguments: str) -> tuple[int, list[str], str]:
        """Exit code, what Python was told since the last run, and what was said to the person."""
        done = subprocess.run(
            ["/bin/bash", self.checkout / "deploy" / "environment", *arguments],
            env={"PATH": str(self.stubs), "STUBS": str(self.stubs)},
            capture_output=True,
            text=True,
            check=False,
        )
        calls = self.stubs / "calls"
        told = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return done.returncode, told, done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_fresh_checkout_gets_what_a_node_needs_and_no_more(machine: Machine) -> None:
    assert machine.run()[:2] == (0, ["make", "install a==1", "install project"])


def test_a_second_run_does_nothing_and_says_nothing(machine: Machine) -> None:
    machine.run()

    assert machine.run() == (0, [], "")


def test_the_checks_add_their_part_to_what_is_there(machine: Machine) -> None:
    machine.run()

    assert machine.run("--dev")[:2] == (0, ["install a==1", "install # DEV", "install b==2", "install project"])


def test_what_serves_the_checks_serves_a_node(machine: Machine) -> None:
    machine.run("--dev")

    assert machine.run()[:2] == (0, [])


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_or_project_is_installed(machine: Machine, name: str) -> None:
    machine.run()
    changed = machine.checkout / name
    changed.write_text("c==3\n" + changed.read_text())

    assert machine.run()[1][-1] == "install project"
    assert machine.run()[:2] == (0, [])


def test_a_lock_that_changed_for_the_checks_alone_does_not_trouble_a_node(machine: Machine) -> None:
    machine.run()
    with (machine.checkout / "requirements.lock").open("a") as lock:
        lock.write("c==3\n")

    assert machine.run()[:2] == (0, [])


def test_what_an_interrupted_run_left_is_thrown_away(machine: Machine) -> None:
    machine.having("no-network")
    code, _, said = machine.run()
    assert code == 1
    assert "cannot reach the index" in said
    assert "PIP_INDEX_URL" in said
    (machine.stubs / "no-network").unlink()

    assert machine.run()[:2] == (0, ["make", "install a==1", "install project"])


def test_an_environment_moved_with_its_checkout_is_made_anew(machine: Machine) -> None:
    machine.run()
    machine.checkout = machine.checkout.rename(machine.checkout.with_name("elsewhere"))

    assert machine.run()[:2] == (0, ["make", "install a==1", "install project"])


def test_without_the_right_to_install_packages_it_says_what_to_run(machine: Machine) -> None:
    machine.having("no-venv")
    machine.program("apt-get", "#!/bin/sh\nexit 1\n")
    (machine.stubs / "gpg").unlink()

    code, told, said = machine.run("--dev")

    assert (code, told) == (1, [])
    assert "    apt-get update && apt-get install -y --no-install-recommends python3-venv gnupg\n" in said


def test_root_installs_only_what_is_missing(machine: Machine) -> None:
    machine.program("id", "#!/bin/sh\necho 0\n")
    machine.program("apt-get", '#!/bin/sh\necho "apt-get $*" >>"$STUBS/calls"\n')
    (machine.stubs / "openssl").unlink()

    assert machine.run("--dev")[1][:3] == [
        "apt-get update",
        "apt-get install -y --no-install-recommends openssl",
        "make",
    ]


def test_packages_that_cannot_be_installed_are_named_with_the_reason(machine: Machine) -> None:
    machine.having("no-venv")
    machine.program("id", "#!/bin/sh\necho 0\n")
    machine.program("apt-get", "#!/bin/sh\necho 'no route to the archive'\nexit 100\n")

    code, told, said = machine.run()

    assert (code, told) == (1, [])
    assert "no route to the archive" in said
    assert "install -y --no-install-recommends python3-venv" in said


def test_a_python_that_is_too_old_is_told_as_such(machine: Machine) -> None:
    machine.having("too-old")

    code, told, said = machine.run()

    assert (code, told) == (1, [])
    assert "needs Python 3.11 or newer; this is Python 3.9.2" in said
