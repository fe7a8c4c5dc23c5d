"""The installed command as a process: start and stop, pipes, signals, terminals, and what is told without a node."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import termios
from pathlib import Path

import pytest

from keycache.cli.entry_line import write_line
from support.command import EXECUTABLE, OWN_ENVIRONMENT, Node, spawn, start, stop
from support.entries import make_entry
from support.openpgp import Maker, armour


def test_a_node_starts_with_nothing_and_stops_cleanly(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    node = start(data_dir)
    assert node.run_file["pid"] == node.process.pid
    assert (data_dir / "run.json").stat().st_mode & 0o777 == 0o600
    assert spawn("status", "--json", "--data-dir", data_dir).returncode == 0
    assert stop(node) == 0
    assert not (data_dir / "run.json").exists()
    gone = spawn("status", "--data-dir", data_dir)
    assert (gone.returncode, gone.stdout) == (3, b"")
    assert "127.0.0.1:7640" in gone.stderr.decode()
    assert f"keycache serve --data-dir {data_dir}" in gone.stderr.decode()


def test_a_node_that_died_is_not_reached_and_its_address_told(tmp_path: Path) -> None:
    node = start(tmp_path / "data")
    node.process.kill()
    node.process.wait()
    result = spawn("list", KEYCACHE_DATA_DIR=str(node.data_dir))
    assert result.returncode == 3
    assert node.run_file["grpc"] in result.stderr.decode()
    assert len(result.stderr.decode().splitlines()) == 2


def test_without_any_node_the_way_to_start_one_is_told(tmp_path: Path) -> None:
    result = spawn("--json", "status", "--data-dir", tmp_path)
    assert (result.returncode, result.stdout) == (3, b"")
    assert result.stderr.decode() == (
        f"keycache: No node at 127.0.0.1:7640: {tmp_path} holds none yet.\n"
        f"  Start it with: keycache serve --data-dir {tmp_path}. "
        "If it lives elsewhere, say --data-dir, or --server with --ca, --cert and --key.\n"
    )


def test_a_data_directory_that_may_not_be_looked_into_is_told_as_such() -> None:
    """Here by a name that no file system takes; a directory of somebody else's goes the same way."""
    result = spawn("status", "--data-dir", "/" + "x" * 300)
    assert result.returncode == 1
    assert "may not be read: File name too long" in result.stderr.decode()


def test_a_bad_configuration_is_told_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "keycache.toml").write_text('[listen]\ngrcp = "127.0.0.1:0"\n')
    for command in ("serve", "status"):
        (tmp_path / "pki").mkdir(exist_ok=True)
        (tmp_path / "pki" / "ca.pem").touch()
        result = spawn(command, "--data-dir", tmp_path)
        assert result.returncode == 1
        assert "did you mean grpc" in result.stderr.decode()
        assert "Traceback" not in result.stderr.decode()


def test_serve_check_only_checks(tmp_path: Path) -> None:
    assert spawn("serve", "--check", "--data-dir", tmp_path / "data").returncode == 0
    assert not (tmp_path / "data").exists()


def test_a_second_node_in_the_same_directory_is_refused(node: Node) -> None:
    result = spawn("serve", "--data-dir", node.data_dir, KEYCACHE_LISTEN__GRPC="127.0.0.1:0", KEYCACHE_LISTEN__METRICS="off")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr.decode()


def test_messages_come_from_standard_input_too(node: Node) -> None:
    mail = b"From: stdin@one.example\nContent-Type: application/pgp-keys\n\n" + armour(
        Maker("stdin").certificate("<stdin@one.example>")
    )
    result = spawn("harvest", "-", "--direction", "inbound", "--data-dir", node.data_dir, stdin=mail)
    assert result.returncode == 0
    assert "CACHED" in result.stdout.decode()


@pytest.mark.parametrize("arguments", [["settings", "show", "--json"], ["settings", "show"], ["version"]])
def test_a_closed_pipe_is_no_matter(node: Node, arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [EXECUTABLE, "--data-dir", node.data_dir, *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        env=OWN_ENVIRONMENT,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (141, b"")


def test_a_full_disk_is_told_in_a_line(node: Node) -> None:
    for arguments in (["list"], ["list", "--json"], ["list", "--help"]):
        with Path("/dev/full").open("wb") as full:
            process = subprocess.run(
                [EXECUTABLE, "--data-dir", node.data_dir, *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                env=OWN_ENVIRONMENT,
                timeout=60,
                check=False,
            )
        assert (process.returncode, process.stderr) == (1, b"keycache: No space left on device.\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_matter(node: Node, closed: str) -> None:
    for arguments in ("settings show", "harvest - --json"):
        line = f'exec "$0" --data-dir "$1" {arguments} {closed}'
        process = subprocess.run(
            ["/bin/sh", "-c", line, EXECUTABLE, node.data_dir],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=OWN_ENVIRONMENT,
            timeout=60,
            check=False,
        )
        assert (process.returncode, process.stderr) == (0, b""), arguments


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_when_the_node_dies_the_verdicts_so_far_are_told_first(tmp_path: Path, form: list[str]) -> None:
    node = start(tmp_path / "data")
    mail = b"From: a@one.example\r\n\r\nhi\r\n"
    pipes = [tmp_path / name for name in ("first.eml", "second.eml", "third.eml")]
    for pipe in pipes:
        os.mkfifo(pipe)
    process = subprocess.Popen(
        [EXECUTABLE, "--data-dir", node.data_dir, "harvest", "--direction", "inbound", *pipes, *form],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=OWN_ENVIRONMENT,
    )
    with pipes[0].open("wb") as stream:
        stream.write(mail)
    # That the second is opened says that the first has its verdict.
    with pipes[1].open("wb") as stream:
        node.process.kill()
        node.process.wait()
        stream.write(mail)
    stdout, stderr = (stream.decode() for stream in process.communicate(timeout=60))
    assert process.returncode == 3
    if form:
        told = [(one["file"], one["verdict"]) for one in json.loads(stdout)["results"]]
        assert told == [(str(pipes[0]), "NO_KEY_MATERIAL")]
    else:
        assert stdout.startswith(f"NO_KEY_MATERIAL       {pipes[0]}\n")
    lines = stderr.splitlines()
    assert lines[0] == f"keycache: 1 of 3 files have their verdict, those from {pipes[1]} on not."
    assert lines[1].startswith("keycache: No node answers at 127.0.0.1:")


def test_a_node_of_any_port_that_does_not_run_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "keycache.toml").write_text('[listen]\ngrpc = "127.0.0.1:0"\n')
    node = start(tmp_path)
    assert stop(node) == 0
    result = spawn("status", "--data-dir", tmp_path)
    assert (result.returncode, result.stderr.decode()) == (
        3,
        f"keycache: The node of {tmp_path} does not run.\n  Start it with: keycache serve --data-dir {tmp_path}\n",
    )


def test_a_data_directory_that_is_a_file_is_misuse() -> None:
    result = spawn("status", "--data-dir", "/etc/passwd")
    assert (result.returncode, b"/etc/passwd is not a folder." in result.stderr) == (2, True)


@pytest.mark.parametrize(
    "server", ["localhost", "localhost:0", "localhost:99999", "dns:///localhost:7640", "::1:7640", ":7640"]
)
def test_a_server_is_a_host_and_a_port(server: str) -> None:
    result = spawn("status", "--server", server)
    assert (result.returncode, b"is not host:port" in result.stderr) == (2, True)


def test_names_that_are_no_text_are_harvested_and_imported(node: Node, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.eml"
    Path(os.fsdecode(name)).write_bytes(b"From: a@one.example\n\nhi\n")
    for command in ("harvest", "import"):
        process = subprocess.run(
            [EXECUTABLE, "--data-dir", node.data_dir, command, name, "--json"],
            capture_output=True,
            env=OWN_ENVIRONMENT,
            timeout=60,
            check=False,
        )
        assert (process.returncode, process.stderr) == (0, b"")
        (result,) = json.loads(process.stdout)["results"]
        assert result["verdict"] == "NO_KEY_MATERIAL"
        assert "udce9.eml" in ascii(result.get("file") or result["source"])


def test_ctrl_c_ends_quietly_with_130(node: Node) -> None:
    process = subprocess.Popen(
        [EXECUTABLE, "--data-dir", node.data_dir, "harvest", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=OWN_ENVIRONMENT,
        # Shells start what runs in the background with this signal ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 -- no threads here
    )
    assert process.stdin is not None
    # It has asked the pipe for more once it has taken what was there.
    process.stdin.write(b"From: a@one.example\n")
    process.stdin.flush()
    while _waiting(process.stdin.fileno()):
        assert process.poll() is None
    # With the pipe still open: nobody need press Ctrl-D too. A signal between two reads is seen by neither, so it is sent again.
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
    _, stderr = process.communicate()
    assert (process.returncode, stderr) == (130, b"")


def _waiting(descriptor: int) -> int:
    """Bytes in the pipe that nobody has read yet."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4), "little")


@pytest.mark.parametrize(("answer", "code", "told"), [(b"y\n", 0, "looked_up: 24h -> 30h"), (b"n\n", 1, "Nothing was done.")])
def test_a_terminal_is_asked_and_may_say_no(node: Node, answer: bytes, code: int, told: str) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [EXECUTABLE, "--data-dir", node.data_dir, "settings", "set", f"looked-up={30 + code}h"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**OWN_ENVIRONMENT, "TERM": "xterm"},
    )
    os.close(follower)
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(leader, 4096)
    os.write(leader, answer)
    try:
        while chunk := os.read(leader, 4096):
            shown += chunk
    except OSError:
        pass  # how Linux tells that the other side of a terminal is closed
    os.close(leader)
    assert process.wait(60) == code
    assert "0 entries expire at once" in shown.decode()
    assert told in shown.decode()


def test_colour_is_for_terminals_that_want_it(node: Node) -> None:
    for environ, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            [EXECUTABLE, "--data-dir", node.data_dir, "list", "--help"],
            stdin=subprocess.DEVNULL,
            stdout=follower,
            stderr=follower,
            env={**OWN_ENVIRONMENT, "TERM": "xterm-256color", **environ},
        )
        os.close(follower)
        shown = b""
        try:
            while chunk := os.read(leader, 4096):
                shown += chunk
        except OSError:
            pass
        os.close(leader)
        assert process.wait(60) == 0
        assert (re.search(rb"\x1b\[[0-9;]*3[0-9]", shown) is not None) is coloured, environ


def test_an_import_shows_its_progress_on_a_terminal(node: Node, tmp_path: Path) -> None:
    file = tmp_path / "e.jsonl"
    file.write_text("".join(f"{write_line(make_entry(number))}\n" for number in range(50)))
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [EXECUTABLE, "--data-dir", node.data_dir, "import", file],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=follower,
        env={**OWN_ENVIRONMENT, "TERM": "xterm"},
    )
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 4096):
            shown += chunk
    except OSError:
        pass
    os.close(leader)
    process.wait(60)
    assert b"Importing" in shown
