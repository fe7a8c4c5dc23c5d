"""Nodes that make a cluster with an etcd of their own, by the commands that an administrator types."""

from __future__ import annotations

import asyncio
import json
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

from keycache.domain.entry import Origin
from support.command import spawn
from support.etcd import free_port
from support.scenario import Running, eventually, present
from support.scenario_people import Person


def places() -> dict[str, str]:
    """Of one node: ports that stay the same over its restarts."""
    return {
        name: f"127.0.0.1:{free_port()}"
        for name in ("LISTEN__GRPC", "LISTEN__JOIN", "CLUSTER__ETCD_CLIENT", "CLUSTER__ETCD_PEER")
    } | {"PURGE__INTERVAL": "1s"}


async def keycache(folder: Path, *words: object, code: int = 0) -> Any:
    """The command as an administrator types it; its document."""
    done = await asyncio.to_thread(spawn, *words, "--json", "--data-dir", folder)
    assert done.returncode == code, (done.stdout, done.stderr)
    return json.loads(done.stdout) if code == 0 else done.stderr.decode()


async def exported(folder: Path) -> dict[str, Any]:
    """By fingerprint, every entry with its sightings, however it got there."""
    done = await asyncio.to_thread(spawn, "export", "--data-dir", folder)
    assert done.returncode == 0, done.stderr
    entries = [json.loads(line) for line in done.stdout.decode().splitlines()]
    return {entry["fingerprint"]: entry["sightings"] for entry in entries if "fingerprint" in entry}


async def in_cluster(folder: Path) -> dict[str, Any]:
    """Its status, once it follows its cluster's log."""

    async def look() -> dict[str, Any] | None:
        done = await asyncio.to_thread(spawn, "status", "--json", "--data-dir", folder)
        status = json.loads(done.stdout) if done.returncode == 0 else {}
        cluster = status.get("cluster") or {}
        return status if cluster.get("link") == "FOLLOWING" and not status["forming"] else None

    return await eventually(look)


async def filled(node: Running, who: list[Person], ages: dict[Origin, timedelta]) -> None:
    lines = [person.line(ages, present()) for person in who]
    assert set(await node.import_lines(lines)) == {"CACHED"}


async def token_of(folder: Path) -> str:
    return str((await keycache(folder, "cluster", "token"))["token"])


async def etcdctl(folder: Path, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """The foreign judge, with this node's certificate, at the members that it knows."""
    endpoints = json.loads((folder / "cluster.json").read_text())["endpoints"]
    pki = folder / "pki"
    command = ["etcdctl", "--endpoints", ",".join(endpoints), "--command-timeout", "5s", *words]
    command += ["--cacert", str(pki / "trusted.pem"), "--cert", str(pki / "etcd.pem"), "--key", str(pki / "etcd.pem")]
    return await asyncio.to_thread(subprocess.run, command, input=stdin, capture_output=True, check=False)


async def seats(folder: Path) -> dict[str, bool]:
    """As etcdctl lists the members that have started: by name (a node's id) whether it votes."""
    done = await etcdctl(folder, "member", "list", "-w", "json")
    if done.returncode:
        return {}
    return {one["name"]: not one.get("isLearner") for one in json.loads(done.stdout)["members"] if one.get("name")}


async def seated(folder: Path, *, voters: int, learners: int = 0) -> dict[str, bool]:
    """The seats once there are so many."""

    async def look() -> dict[str, bool] | None:
        found = await seats(folder)
        return found if (sum(found.values()), len(found)) == (voters, voters + learners) else None

    return await eventually(look)


async def log_keys(folder: Path, prefix: str) -> set[str]:
    """Of the cluster's log, below its prefix, read by etcdctl with this node's certificate."""
    standing = json.loads((folder / "cluster.json").read_text())
    pki = folder / "pki"
    command = [
        "etcdctl",
        "--endpoints",
        ",".join(standing["endpoints"]),
        "--command-timeout",
        "5s",
        "get",
        "--prefix",
        "--keys-only",
    ]
    command += ["--cacert", str(pki / "trusted.pem"), "--cert", str(pki / "etcd.pem"), "--key", str(pki / "etcd.pem")]
    done = await asyncio.to_thread(
        subprocess.run, [*command, f"/keycache/{standing['cluster']}/{prefix}"], capture_output=True, check=True
    )
    return set(done.stdout.decode().split())
