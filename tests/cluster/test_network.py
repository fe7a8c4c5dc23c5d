"""The network that the fault tests stand on does what they believe it does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support import network as network_module
from support.network import NoNamespaces, network

ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], 9000))
print("ready", flush=True)
connection, _ = server.accept()
while data := connection.recv(100):
    connection.sendall(data)
"""


def test_a_cut_loses_what_is_sent_and_healed_it_arrives() -> None:
    with network("a", "b") as made:
        there = made.hosts["b"]
        echo = subprocess.Popen([*there.inside, sys.executable, "-c", ECHO, there.address], stdout=subprocess.PIPE)
        try:
            assert echo.stdout is not None
            assert echo.stdout.readline() == b"ready\n"
            connection = made.hosts["a"].connect(there.address, 9000)
            connection.settimeout(10)
            connection.sendall(b"one")
            assert connection.recv(10) == b"one"
            made.isolate("a")
            connection.sendall(b"two")
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):
                connection.recv(10)
            made.heal()
            connection.settimeout(30)
            assert connection.recv(10) == b"two"
            connection.close()
        finally:
            echo.kill()
            echo.wait()
    assert not [name for name in network_module._namespaces() if name.startswith(made._stem)]


def test_nothing_of_it_is_seen_outside() -> None:
    def seen() -> tuple[str, str]:
        return network_module._ip("-o", "link"), network_module._ip("route", "show", "table", "all")

    before = seen()
    with network("a", "b"):
        assert seen() == before


def test_who_may_make_no_namespaces_is_told_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: str) -> str:
        raise subprocess.CalledProcessError(1, "ip", stderr="mount --make-shared /run/netns failed: Operation not permitted\n")

    monkeypatch.setattr(network_module, "_ip", refused)
    with pytest.raises(NoNamespaces, match="rights of root"), network("a"):
        raise AssertionError("never reached")
