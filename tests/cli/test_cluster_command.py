"""The command `cluster` against a node whose log is a real etcd, over TLS."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.command import Command, Node, Result, start, stop
from support.etcd import EtcdCluster, tls_files
from support.openpgp import Maker, armour

PATIENCE = 45.0
"""Seconds for what must come, on a machine that is busy with other tests, too."""


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    folder = tmp_path_factory.mktemp("etcd")
    with EtcdCluster.run(folder, tls=tls_files(folder / "tls")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, etcd: EtcdCluster) -> Iterator[Node]:
    assert etcd.tls is not None
    running = start(
        tmp_path_factory.mktemp("node"),
        CLUSTER__NAME="mail-keys",
        CLUSTER__ENDPOINTS=",".join(etcd.endpoints),
        CLUSTER__CA=str(etcd.tls.ca),
        CLUSTER__CERTIFICATE=str(etcd.tls.client),
        CLUSTER__KEY=str(etcd.tls.client_key),
        CLUSTER__QUOTA="4 GiB",
        CLUSTER__ADDRESS="mx1.example.org:7640",
    )
    yield running
    stop(running)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "key.asc"
    file.write_bytes(armour(Maker("anna@one.example").certificate("<anna@one.example>")))
    return file


def once(look: Callable[[], Result], wanted: Callable[[Any], bool]) -> Any:
    """The first document of which that is true."""
    deadline = time.monotonic() + PATIENCE
    while not wanted(document := json.loads(look().out)):
        assert time.monotonic() < deadline, document
        time.sleep(0.1)
    return document


def test_the_node_follows_etcd_and_says_so(cli: Command, etcd: EtcdCluster) -> None:
    document = once(lambda: cli("status", "--json"), lambda one: one["cluster"]["etcd"] != [])
    assert document["mode"] == "cluster"
    cluster = document["cluster"]
    assert (cluster["name"], cluster["link"], cluster["reason"], cluster["outbox"]["entries"]) == (
        "mail-keys",
        "FOLLOWING",
        "",
        0,
    )
    assert cluster["purger"] == f"mx1.example.org:7640 ({document['node_id'][:8]})"
    (endpoint,) = cluster["etcd"]
    assert (endpoint["endpoint"], endpoint["reachable"], endpoint["leader"]) == (etcd.endpoints[0], True, True)
    assert endpoint["quota_bytes"] == 4 << 30 or endpoint["version"].startswith("3.6")
    told = cli("status").out
    assert "mail-keys: FOLLOWING, heard" in told
    assert f"{etcd.endpoints[0]} {endpoint['version']}, leader" in told


def test_the_node_is_the_one_member(cli: Command) -> None:
    document = cli("cluster", "members", "--json").json
    (member,) = document["members"]
    assert (member["address"], member["alive"], member["is_this_node"]) == ("mx1.example.org:7640", True, True)
    assert (member["purger"], member["clock_trusted"], member["skew"]) == (True, True, None)
    assert document["revision"] > 0
    told = cli("cluster", "members").out
    assert f"*{member['node_id'][:8]}" in told
    assert "purger" in told


def test_a_node_that_follows_its_log_would_resume_and_has_nothing_to_resolve(cli: Command) -> None:
    checked = cli("cluster", "check", "--json")
    assert checked.json["action"] == "RESUME"
    # This etcd forgets nothing by itself, which a monitor is told.
    assert ["compact" in one for one in checked.json["warnings"]] == [True]
    assert checked.code == 4
    assert checked.json["replica"]["identity"] == checked.json["log"]["identity"]
    refused = cli("cluster", "resolve", "--discard", "--yes")
    assert (refused.code, refused.out) == (1, "")
    assert "There is nothing to resolve" in refused.err


def test_a_node_that_refuses_a_wiped_log_tells_why_and_goes_on_as_it_is_told(
    cli: Command, etcd: EtcdCluster, key: Path
) -> None:
    assert cli("import", key).code == 0
    etcd.etcdctl("del", "--prefix", "/keycache/mail-keys/")
    once(lambda: cli("status", "--json"), lambda one: one["cluster"]["link"] == "REFUSED")
    assert "'keycache cluster resolve --merge'" in cli("status", "--json").json["warnings"][0]
    assert cli("lookup", "anna@one.example").code == 0

    checked = cli("cluster", "check", "--json")
    assert (checked.code, checked.json["action"]) == (1, "REFUSE")
    assert (checked.json["entries"]["kept"], checked.json["log"]["identity"]) == (1, None)
    told = cli("cluster", "check")
    assert told.code == 1
    assert "1 kept, 0 expired, 0 of these held back" in told.out

    assert cli("cluster", "resolve", "--merge", "--dry-run").out == "1 entry would be brought into the log.\n"
    asked = cli("cluster", "resolve", "--discard")
    assert asked.code == 1
    assert "FORGET 1 entry of this node, for good" in asked.err
    assert cli("cluster", "check").code == 1

    done = cli("cluster", "resolve", "--merge", "--yes", "--json").json
    assert {name: done[name] for name in ("way", "dry_run", "entries", "known", "deleted", "outbox")} == {
        "way": "MERGE",
        "dry_run": False,
        "entries": 1,
        "known": 0,
        "deleted": 0,
        "outbox": 0,
    }
    once(lambda: cli("status", "--json"), lambda one: one["cluster"]["link"] == "FOLLOWING")
    assert cli("cluster", "check", "--json").json["log"]["identity"] == done["identity"]
    assert cli("audit", "--json").json["records"][0]["action"] == "RESOLVE"


def test_what_a_discard_forgot_is_gone(cli: Command, etcd: EtcdCluster) -> None:
    etcd.etcdctl("del", "--prefix", "/keycache/mail-keys/")
    once(lambda: cli("status", "--json"), lambda one: one["cluster"]["link"] == "REFUSED")
    assert cli("cluster", "resolve", "--discard", "--yes").out == "1 entry forgotten.\n"
    once(lambda: cli("status", "--json"), lambda one: one["cluster"]["link"] == "FOLLOWING")
    assert cli("lookup", "anna@one.example").code == 1
