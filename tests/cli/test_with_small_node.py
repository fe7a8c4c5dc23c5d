"""The command against a node whose limits and settings are its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.command import Command, Node, start, stop
from support.openpgp import Maker, armour

LIMIT = 64 * 1024
ROOM = 1024 * 1024
"""What the node's transport takes above its limit."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    running = start(tmp_path_factory.mktemp("node"), MAIL__MESSAGE_LIMIT=str(LIMIT))
    yield running
    stop(running)


def key(address: str) -> bytes:
    return armour(Maker(address).certificate(f"<{address}>"))


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_what_a_node_elsewhere_finds_too_large_stops_nothing_else(cli: Command, node: Node, tmp_path: Path) -> None:
    """The node ends the whole stream at such a message, with answers to others still to come."""
    for number in range(6):
        written(tmp_path / f"{number}0-key.asc", key(f"elsewhere{number}@one.example"))
    huge = b"From: a@one.example\n\n" + b"x" * (LIMIT + 2 * ROOM)
    written(tmp_path / "25-mail.eml", huge)
    written(tmp_path / "26-little-over.eml", b"From: a@one.example\n\n" + b"x" * LIMIT)
    written(tmp_path / "45-keys.gpg", b"\x99" * (LIMIT + 2 * ROOM))
    document = cli("import", tmp_path, "--server", node.run_file["grpc"], "--json").json
    assert document["verdicts"]["MESSAGE_TOO_LARGE"] == 2
    assert document["verdicts"]["KEY_TOO_LARGE"] == 1
    assert document["failed"] == 2
    told = {Path(result["source"]).name: result["verdict"] for result in document["results"]}
    assert {name: told[name] for name in ("25-mail.eml", "26-little-over.eml", "45-keys.gpg")} == {
        "25-mail.eml": "MESSAGE_TOO_LARGE",
        "26-little-over.eml": "MESSAGE_TOO_LARGE",
        "45-keys.gpg": "KEY_TOO_LARGE",
    }
    assert len(document["results"]) == 9
    addresses = [f"elsewhere{number}@one.example" for number in range(6)]
    assert cli("lookup", *addresses).code == 0


def test_a_change_that_expires_too_much_at_once_says_that_the_sweep_waits(cli: Command, tmp_path: Path) -> None:
    file = written(tmp_path / "a.asc", key("aged@two.example"))
    assert cli("import", file).code == 0
    entry = json.loads(cli("export", "--address", "aged@two.example").out)
    cli("purge", "--all", "--yes")
    then = (datetime.now(UTC) - timedelta(hours=2)).isoformat()  # noqa: TID251 -- the node's clock is the machine's
    aged = {**entry, "sightings": [{**entry["sightings"][0], "cached_at": then, "refreshed_at": then}]}
    assert cli("import", written(tmp_path / "aged.jsonl", json.dumps(aged).encode())).code == 0

    harmless = cli("settings", "set", "purge-hold-floor=0", "purge-hold-share=0.5", "--yes", "--json").json
    assert (harmless["expired_at_once"], harmless["sweep_held"]) == (0, False)
    asked = cli("settings", "set", "imported=1h")
    assert asked.code == 1
    assert "1 entry expires at once. They are not served from now on." in asked.err
    assert "keycache purge --confirm-held" in asked.err
    changed = cli("settings", "set", "imported=1h", "--yes")
    assert "1 expired at once. They are not served from now on." in changed.out

    assert cli("lookup", "aged@two.example", "--json").json["results"][0]["miss"]["code"] == "EXPIRED"
    waiting = cli("purge", "--confirm-held", "--dry-run", "--json").json
    assert waiting == {"dry_run": True, "matched": 1, "removed": 0}
    assert cli("purge", "--confirm-held", "--yes", "--json").json["removed"] == 1


def test_a_change_whose_expired_entries_are_few_says_nothing_of_waiting(cli: Command, tmp_path: Path) -> None:
    cli("settings", "set", "imported=999d", "purge-hold-floor=100", "--yes")
    file = written(tmp_path / "a.asc", key("few@three.example"))
    assert cli("import", file).code == 0
    entry = json.loads(cli("export", "--address", "few@three.example").out)
    cli("delete", "few@three.example", "--yes")
    then = (datetime.now(UTC) - timedelta(hours=2)).isoformat()  # noqa: TID251 -- the node's clock is the machine's
    aged = {**entry, "sightings": [{**entry["sightings"][0], "cached_at": then, "refreshed_at": then}]}
    assert cli("import", written(tmp_path / "aged.jsonl", json.dumps(aged).encode())).code == 0
    changed = cli("settings", "set", "imported=1h", "--yes", "--json").json
    assert (changed["expired_at_once"], changed["sweep_held"]) == (1, False)
