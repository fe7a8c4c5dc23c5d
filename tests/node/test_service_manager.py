"""A service manager is told when the node answers and when it stops, by the protocol of sd_notify(3)."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.command import spawn, start, stop
from support.forming import places

PATIENCE = 45.0
"""Seconds; a failure, never a pace."""


@contextmanager
def manager(folder: Path, *, abstract: bool = False) -> Iterator[tuple[socket.socket, str]]:
    """Where a manager listens, and the node's NOTIFY_SOCKET."""
    name = str(folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"\0{name}" if abstract else name)
        channel.settimeout(PATIENCE)
        yield channel, f"@{name}" if abstract else name


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_is_said_once_the_node_answers_and_stopping_when_it_stops(tmp_path: Path, *, abstract: bool) -> None:
    data = tmp_path / "data"
    with manager(tmp_path, abstract=abstract) as (channel, address):
        node = start(data, environ={"NOTIFY_SOCKET": address})
        assert channel.recv(4096) == b"READY=1"
        with urllib.request.urlopen(f"http://{node.run_file['metrics']}/readyz") as answer:
            assert answer.read() == b"ready\n"
        assert stop(node) == 0
        assert channel.recv(4096) == b"STOPPING=1"


def test_a_node_that_goes_over_to_a_cluster_is_ready_again_and_never_stopping(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with manager(tmp_path) as (channel, address):
        node = start(data, environ={"NOTIFY_SOCKET": address}, **places())
        assert channel.recv(4096) == b"READY=1"
        created = spawn("cluster", "create", "--name", "mail", "--json", "--data-dir", data)
        assert (created.returncode, json.loads(created.stdout)["cluster"]) == (0, "mail"), created.stderr
        assert channel.recv(4096) == b"READY=1"
        assert stop(node) == 0
        assert channel.recv(4096) == b"STOPPING=1"


def test_a_manager_that_is_not_there_stops_nothing(tmp_path: Path) -> None:
    node = start(tmp_path, environ={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert stop(node) == 0
    told = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["word"] for line in told if "manager" in line["event"]] == ["READY=1", "STOPPING=1"]
