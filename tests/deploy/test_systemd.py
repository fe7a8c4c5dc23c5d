"""deploy/systemd: systemd understands the unit, and a node with its etcd and its workers does all its work within the unit's limits."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.checkout import ROOT
from keycache.app import GRACE_SECONDS
from keycache.cluster import guard
from keycache.cluster.etcd_process import STOP_SECONDS
from support.command import EXECUTABLE, spawn, start, stop
from support.forming import places
from support.scenario import Running, children, connected
from support.scenario_people import Person
from support.units import read_unit

SYSTEMD = ROOT / "deploy" / "systemd"
UNIT = SYSTEMD / "keycache.service"
CONFINED = Path(__file__).parents[1] / "support" / "confined.py"
INSTALLED = "/opt/keycache/bin/keycache"

EXPOSED = 15
"""Tenths, as `systemd-analyze security` counts them: beyond 1.5 something was given up. A network and /proc it needs make 1.2."""

HOSTILE = """
import json, mmap, os, socket, sys

def tried(act):
    try:
        act()
    except OSError as error:
        return error.strerror
    return "done"

print(json.dumps({
    "raw packets": tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "netlink": tried(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "code made at run time": tried(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)),
    "a file elsewhere": tried(lambda: open(sys.argv[1] + "/elsewhere", "w")),
    "another's file": tried(lambda: os.chown(sys.argv[2], 1, 1)),
    "another's priority": tried(lambda: os.setpriority(os.PRIO_PROCESS, 0, -1)),
    "a file in its directory": tried(lambda: open(sys.argv[2] + "/here", "w")),
    "the network": tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
}))
"""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with the command where this machine has it: systemd looks whether it is there."""
    text = UNIT.read_text("utf-8")
    assert text.count(INSTALLED) == 1
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace(INSTALLED, str(EXECUTABLE)), "utf-8")
    return copy


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *(str(one) for one in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_systemd_understands_every_line_of_the_unit(unit: Path) -> None:
    told = analyze("verify", "--recursive-errors=no", unit)

    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def test_systemd_says_of_a_line_that_it_does_not_understand_it(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("KillMode=mixed", "KillMood=mixed"))

    assert "'KillMood'" in analyze("verify", unit).stderr


def test_the_unit_gives_a_node_little_that_it_could_misuse(unit: Path) -> None:
    told = analyze("security", "--offline=yes", f"--threshold={EXPOSED}", unit)

    assert told.returncode == 0, told.stdout


def test_the_user_of_the_unit_is_the_one_that_sysusers_makes(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    shutil.copy(SYSTEMD / "keycache.sysusers", tmp_path)
    made = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", tmp_path / "keycache.sysusers"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    name, _, _, _, told, home, shell = (tmp_path / "etc" / "passwd").read_text().splitlines()[0].split(":")

    assert (told, home, shell) == ("Keycache node", "/var/lib/keycache", "/usr/sbin/nologin")
    found = read_unit(UNIT)
    assert [name] == found["Service.User"] == found["Service.Group"]
    assert found["Service.StateDirectory"] == ["keycache"]


def test_a_stop_has_time_for_calls_in_flight_then_for_etcd_and_some_more() -> None:
    (limit,) = read_unit(UNIT)["Service.TimeoutStopSec"]

    assert int(limit.removesuffix("s")) >= GRACE_SECONDS + STOP_SECONDS + 20


def told_by_kernel(pid: int, file: str) -> str:
    return Path(f"/proc/{pid}/{file}").read_text()


async def test_a_node_does_all_its_work_within_the_limits_of_the_unit(tmp_path: Path) -> None:
    """Mail is examined by workers, which limit themselves further; an etcd of the node's own runs; all end in order."""
    data, out, sender = tmp_path / "data", tmp_path / "data" / "client", Person("sender")
    data.mkdir(mode=0o700)
    inside = (sys.executable, str(CONFINED), str(UNIT), str(data))
    node = start(data, inside=inside, WORKERS__COUNT="2", **places())
    try:
        status = told_by_kernel(node.process.pid, "status")
        assert re.search(r"^NoNewPrivs:\t1$.*^Seccomp:\t2$", status, re.MULTILINE | re.DOTALL)
        assert re.search(r"^CapEff:\t0{16}$", status, re.MULTILINE)
        async with connected(node, None) as connection:
            running = Running(node, connection)
            assert (await running.harvest(sender.mail())).verdict == "CACHED"
            assert await running.outcome(sender.address) == "served"
        for words in (
            ("cluster", "create", "--name", "mail"),
            ("cluster", "token"),
            ("client", "issue", "--role", "mail-processor", "--name", "mta1", "--out", out),
        ):
            done = spawn(*words, "--data-dir", data, inside=inside)
            assert done.returncode == 0, done.stderr
        programs = {told_by_kernel(pid, "comm").strip() for pid in children(node.process.pid)}
        assert "etcd" in programs
        async with connected(node, None) as connection:
            running = Running(node, connection)
            assert (await running.harvest(Person("later").mail())).verdict == "CACHED"
            assert (await running.status()).entries.live == 2
        assert stop(node) == 0
    finally:
        node.process.kill()
        node.process.wait()
    log = (data / "log").read_text()
    assert "Operation not permitted" not in log
    assert "Read-only" not in log
    problems = [line for line in map(json.loads, log.splitlines()) if line.get("level") in {"error", "critical"}]
    assert problems == []


def test_what_the_unit_forbids_is_forbidden_there(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    inside = [sys.executable, CONFINED, UNIT, data, sys.executable, "-c", HOSTILE, tmp_path, data]
    done = subprocess.run(inside, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    refused = "Operation not permitted"
    assert json.loads(done.stdout) == {
        "raw packets": refused,
        "netlink": refused,
        "code made at run time": refused,
        "a file elsewhere": "Read-only file system",
        "another's file": refused,
        "another's priority": refused,
        "a file in its directory": "done",
        "the network": "done",
    }


PARENT = """
import os, sys
from subprocess import run
sys.exit(run([sys.executable, *sys.argv[1:4], str(os.getpid()), *sys.argv[4:]]).returncode)
"""


@pytest.mark.parametrize("refused", [False, True])
def test_nothing_is_started_that_could_outlive_its_node(tmp_path: Path, *, refused: bool) -> None:
    """Where the kernel refuses prctl, etcd and workers would run without it if nobody looked."""
    unit, data = tmp_path / "unit.service", tmp_path / "data"
    data.mkdir()
    unit.write_text(UNIT.read_text("utf-8") + ("\n[Service]\nSystemCallFilter=~prctl\n" if refused else ""), "utf-8")
    confined = [sys.executable, str(CONFINED), str(unit), str(data)]
    guarded = [sys.executable, "-c", PARENT, "-I", "-S", guard.__file__, "/bin/echo", "started"]
    worker = [
        sys.executable,
        "-c",
        "from keycache.sandbox.child import confine; import os; confine(os.getppid(), 2**30); print('works')",
    ]
    for command, said in ((guarded, "started"), (worker, "works")):
        told = subprocess.run([*confined, *command], capture_output=True, text=True, timeout=60, check=False)
        assert (said in told.stdout, "prctl" in told.stderr) == (not refused, refused), told
