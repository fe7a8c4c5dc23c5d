"""The quickstart with a real node: what it shows, and that nothing stays behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sample_mails import sample_mails

from keycache.clock import SystemClock

SCRIPT = Path(__file__).parents[2] / "deploy" / "quickstart.py"
PATIENCE = 180.0
"""Seconds until a test gives up on a process; it usually takes two, and a cluster forty."""


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """With `folder` as the place for temporary files, in a session of its own as from a terminal."""
    return subprocess.Popen(
        [sys.executable, SCRIPT, *options],
        env={**os.environ, "TMPDIR": str(folder), "KEYCACHE_DATA_DIR": "/nowhere", "KEYCACHE_LISTEN__GRPC": "nonsense"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def wait_until(true, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE} s"
        time.sleep(0.02)


def nodes_of(folder: Path) -> list[int]:
    """Processes of nodes whose directory is below `folder`, by their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"KEYCACHE_DATA_DIR={folder}".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_it_shows_every_mail_and_every_sender_and_leaves_nothing(tmp_path: Path) -> None:
    code, out, err = outcome(start(tmp_path))

    verdicts, _, lookups = out.partition("What a lookup answers")
    samples = sample_mails(SystemClock().now())
    assert (code, err) == (0, "")
    for mail in samples.mails:
        assert re.search(rf" {mail.name} .* {mail.verdict.value} ", verdicts)
        assert re.search(rf" {re.escape(mail.sender)} .* {mail.miss.value if mail.miss else 'UTC'} ", lookups)
    assert re.search(r"^All as it should be; \d+\.\d s\.$", out, re.MULTILINE)
    assert (list(tmp_path.iterdir()), nodes_of(tmp_path)) == ([], [])


def test_a_directory_that_was_named_stays_and_can_be_used_again(tmp_path: Path) -> None:
    data_dir = tmp_path / "node"

    assert [outcome(start(tmp_path, "--data-dir", str(data_dir)))[::2] for _ in range(2)] == [(0, ""), (0, "")]
    assert list(tmp_path.iterdir()) == [data_dir]


def test_with_keep_the_node_runs_on_and_the_printed_commands_work(tmp_path: Path) -> None:
    code, out, _ = outcome(start(tmp_path, "--keep"))
    commands = re.findall(r"^  (\S+keycache --data-dir \S+ .*)$", out, re.MULTILINE)
    pid = int(re.search(r"^  kill (\d+) ", out, re.MULTILINE).group(1))
    try:
        assert code == 0
        assert len(commands) >= 5
        assert [
            line for line in commands if subprocess.run(line.split(), capture_output=True, check=False).returncode != 0
        ] == []
        again = outcome(start(tmp_path, "--data-dir", re.search(r"--data-dir (\S+)", out).group(1)))
        assert again[0] == 1
        assert "A node runs on" in again[2]
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: pid not in nodes_of(tmp_path), "the end of the node")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_stops_its_node_and_clears_away(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path)
    wait_until(lambda: list(tmp_path.glob("*/node.log")) or process.poll() is not None, "the start of the node")
    process.send_signal(number)

    code, _, err = outcome(process)

    assert (code, err) == (130, "quickstart: interrupted; everything is cleared away\n")
    assert (list(tmp_path.iterdir()), nodes_of(tmp_path)) == ([], [])


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "keycache.toml").write_text("[mail]\n")

    code, _, err = outcome(start(tmp_path, "--data-dir", str(tmp_path)))

    assert code == 1
    assert "is neither empty nor of an earlier quickstart" in err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"keycache.toml": "[mail]\n"}


def test_a_cluster_of_three_serves_what_has_not_expired_and_nothing_else(tmp_path: Path) -> None:
    code, out, err = outcome(start(tmp_path, "--nodes", "3"))

    assert (code, err) == (0, "")
    served = re.findall(r"^Node \d: (\d+) keys served, 0 of the (\d+) expired\.$", out, re.MULTILINE)
    assert len(served) == 3
    assert {(int(keys) > 0, int(expired) > 0) for keys, expired in served} == {(True, True)}
    assert re.search(r"^All as it should be; \d+\.\d s\.$", out, re.MULTILINE)
    assert (list(tmp_path.iterdir()), nodes_of(tmp_path)) == ([], [])
