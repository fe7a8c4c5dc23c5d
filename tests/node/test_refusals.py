"""What a node does not start on: it says what is wrong and what to do, ends with 1, and leaves every byte as it was."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from support.command import EXECUTABLE, OWN_ENVIRONMENT, spawn
from support.scenario import running
from support.scenario_people import Person, people

PAGE = 4096


def refusal(data_dir: Path, **environ: str) -> str:
    """What `serve` says when it refuses, checked for what every refusal must be: short, for people, with a hint."""
    settings = {"KEYCACHE_LISTEN__GRPC": "127.0.0.1:0", "KEYCACHE_LISTEN__METRICS": "off", **environ}
    result = spawn("serve", "--data-dir", data_dir, **settings)
    return _checked(result)


def _checked(result: subprocess.CompletedProcess[bytes]) -> str:
    told = result.stderr.decode()
    assert (result.returncode, result.stdout) == (1, b""), told
    assert "Traceback" not in told
    # What was logged before may stand above; the refusal is the end: a sentence, and what to do.
    said, hint = ("\n" + told).rpartition("\nkeycache: ")[2].split("\n", 1)
    assert said.endswith(".")
    assert hint.startswith("  ")
    return f"{said}\n{hint}"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    async def fill(data: Path) -> dict[str, str]:
        async with running(data) as node:
            for person in people("filled", 12):
                await node.put(person.material, person.address)
            return await node.export()

    data = tmp_path_factory.mktemp("template") / "data"
    return data, asyncio.run(fill(data))


@pytest.fixture
def filled(template: tuple[Path, dict[str, str]], tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A data directory with some keys, its node stopped; and what an export shows of them."""
    data, everything = template
    return shutil.copytree(data, tmp_path / "data"), everything


def contents(data: Path) -> dict[str, bytes]:
    """Of all but the lock and the log, which change at every start."""
    return {
        path.name: path.read_bytes() for path in data.iterdir() if path.is_file() and path.name not in {"keycache.lock", "log"}
    }


async def test_a_second_node_on_the_same_directory_is_refused_and_the_first_is_unharmed(tmp_path: Path) -> None:
    person = Person("first")
    async with running(tmp_path) as node:
        await node.put(person.material, person.address)
        told = refusal(tmp_path)
        assert f"in use by another node (process {node.pid})" in told
        assert "--data-dir" in told
        assert node.node.run_file["pid"] == node.pid
        assert await node.outcome(person.address) == "served"
        assert (await node.harvest(Person("second").mail())).verdict == "CACHED"


async def test_a_port_that_is_taken_is_named_and_the_keys_are_untouched(filled: tuple[Path, dict[str, str]]) -> None:
    data, everything = filled
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"Cannot listen on {address}" in refusal(data, KEYCACHE_LISTEN__GRPC=address)
        assert address.rpartition(":")[2] in refusal(data, KEYCACHE_LISTEN__METRICS=address)
    assert not (data / "run.json").exists()
    async with running(data) as node:
        assert await node.export() == everything


def overwrite_the_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // PAGE // 2 * PAGE)
        file.write(b"\xa5" * 2 * PAGE)


def make_it_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def later_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 9999")


DAMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "garbage in the middle": (overwrite_the_middle, "damaged", "keycache import"),
    "garbage in front": (lambda path: path.write_bytes(b"\xa5" * PAGE + path.read_bytes()[PAGE:]), "", "keycache import"),
    "cut in half": (lambda path: os.truncate(path, path.stat().st_size // 2), "damaged", "keycache import"),
    "cut within its header": (lambda path: os.truncate(path, 50), "", "keycache import"),
    "empty": (lambda path: os.truncate(path, 0), "it is empty", "keycache import"),
    "a later version's": (later_version, "schema version 9999", "later version of Keycache"),
    "somebody else's text": (lambda path: path.write_bytes(b"Dear diary,\n" * 1000), "", "keycache import"),
    "a directory": (make_it_a_directory, "", ""),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_database_that_cannot_be_trusted_is_refused_with_the_way_out_and_not_a_byte_changes(
    filled: tuple[Path, dict[str, str]], damage: str
) -> None:
    data, _ = filled
    database = data / "keycache.db"
    make, what, how = DAMAGES[damage]
    make(database)
    before = contents(data)
    told = refusal(data)
    assert str(database) in told
    assert what in told
    assert how in told
    after = contents(data)
    assert {name: after[name] for name in before} == before
    # Reading a database in WAL mode makes an index of its log, and an empty log: nothing of ours.
    assert {name for name in set(after) - set(before) if after[name]} <= {"keycache.db-shm"}


@pytest.mark.parametrize("damage", ["garbage in the middle", "cut in half", "empty"])
async def test_the_way_out_that_is_told_leads_out(filled: tuple[Path, dict[str, str]], tmp_path: Path, damage: str) -> None:
    """Move the database away, start anew, import the last export: everything as it was, time stamps too."""
    data, everything = filled
    DAMAGES[damage][0](data / "keycache.db")
    assert "Stop the node and move keycache.db" in " ".join(refusal(data).split())
    (tmp_path / "kept").mkdir()
    for path in data.glob("keycache.db*"):
        path.rename(tmp_path / "kept" / path.name)
    (tmp_path / "last.jsonl").write_text("".join(f"{line}\n" for line in everything.values()))
    async with running(data) as node:
        assert await node.export() == {}
        assert spawn("import", tmp_path / "last.jsonl", "--data-dir", data).returncode == 0
        assert await node.export() == everything


def system(*arguments: object) -> None:
    subprocess.run([str(one) for one in arguments], check=True, capture_output=True, timeout=60)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    try:
        system("mount", "--bind", folder, folder)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine lets nobody mount: {error.stderr.decode().strip()}")
    try:
        system("mount", "-o", "remount,ro,bind", folder)
        yield
    finally:
        system("umount", folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
async def test_a_read_only_file_system_is_told_as_such(filled: tuple[Path, dict[str, str]]) -> None:
    data, everything = filled
    with read_only(data):
        before = contents(data)
        assert "Read-only file system" in refusal(data)
        assert contents(data) == before
    async with running(data) as node:
        assert await node.export() == everything


def test_a_directory_that_the_nodes_user_may_not_write_is_told_as_such(filled: tuple[Path, dict[str, str]]) -> None:
    """By root, whom no rights hold, without the power that makes it so."""
    data, _ = filled
    powerless = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
    for path in (data, *data.iterdir()):
        path.chmod(0o500 if path.is_dir() else 0o400)
    before = contents(data)
    result = subprocess.run(
        [*powerless, EXECUTABLE, "serve", "--data-dir", data],
        env={**OWN_ENVIRONMENT, "KEYCACHE_LISTEN__GRPC": "127.0.0.1:0", "KEYCACHE_LISTEN__METRICS": "off"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    told = _checked(result)
    assert "Permission denied" in told
    assert str(data) in told
    assert contents(data) == before
