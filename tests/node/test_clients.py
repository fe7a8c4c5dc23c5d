"""A mail processor with a certificate of its own: it may do its work, from anywhere, and nothing of an administrator's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keycache.client import Unreachable, connect
from keycache.domain.errors import PermissionDenied
from keycache.v1 import admin_pb2
from support.command import EXECUTABLE, OWN_ENVIRONMENT, spawn
from support.scenario import Running, running
from support.scenario_people import Person

UNARY = {
    "GetStatus": admin_pb2.GetStatusRequest(),
    "ListEntries": admin_pb2.ListEntriesRequest(),
    "GetEntry": admin_pb2.GetEntryRequest(),
    "DeleteEntry": admin_pb2.DeleteEntryRequest(),
    "Purge": admin_pb2.PurgeRequest(all=True),
    "Block": admin_pb2.BlockRequest(address="a@people.example"),
    "Unblock": admin_pb2.UnblockRequest(address="a@people.example"),
    "ListBlocks": admin_pb2.ListBlocksRequest(),
    "GetSettings": admin_pb2.GetSettingsRequest(),
    "SetSettings": admin_pb2.SetSettingsRequest(),
    "ListSettingChanges": admin_pb2.ListSettingChangesRequest(),
    "ListIssuers": admin_pb2.ListIssuersRequest(),
    "DecideIssuer": admin_pb2.DecideIssuerRequest(),
    "ListAudit": admin_pb2.ListAuditRequest(),
    "ListVerdicts": admin_pb2.ListVerdictsRequest(),
    "IssueClient": admin_pb2.IssueClientRequest(role="admin", name="intruder"),
}


async def _nothing() -> AsyncIterator[admin_pb2.RestoreItem]:
    for item in ():
        yield item


async def test_a_mail_processor_harvests_puts_and_looks_up_from_another_directory_and_administers_nothing(
    tmp_path: Path,
) -> None:
    data, out = tmp_path / "data", tmp_path / "elsewhere"
    async with running(data) as node:
        issued = spawn("client", "issue", "--role", "mail-processor", "--name", "mta1", "--out", out, "--data-dir", data)
        assert issued.returncode == 0, issued.stderr
        assert {path.name: path.stat().st_mode & 0o777 for path in out.iterdir()} == {
            "ca.pem": 0o644,
            "mta1.pem": 0o644,
            "mta1.key": 0o600,
        }
        target = node.node.run_file["grpc"]
        async with connect(target, ca=out / "ca.pem", certificate=out / "mta1.pem", key=out / "mta1.key") as connection:
            mta, person, other = Running(node.node, connection), Person("sender"), Person("found")
            assert (await mta.harvest(person.mail())).verdict == "CACHED"
            assert [key.verdict for key in (await mta.put(other.material, other.address)).keys] == ["CACHED"]
            assert await mta.served([person.address, other.address]) == {person.address, other.address}
            assert await mta.outcome(person.address) == "served"
            for rpc, request in UNARY.items():
                with pytest.raises(PermissionDenied, match=f"{rpc} needs the role admin"):
                    await connection.call(getattr(connection.admin, rpc), request)
            with pytest.raises(PermissionDenied, match="Export"):
                await mta.export()
            with pytest.raises(PermissionDenied, match="Import"):
                await mta.import_lines([])
            with pytest.raises(PermissionDenied, match="Backup"):
                async for _ in connection.stream(connection.admin.Backup, admin_pb2.BackupRequest()):
                    pass
            with pytest.raises(PermissionDenied, match="Restore"):
                async for _ in connection.exchange(connection.admin.Restore, _nothing()):
                    pass
        assert await node.served([person.address, other.address]) == {person.address, other.address}
        every = {method.name for method in admin_pb2.DESCRIPTOR.services_by_name["Admin"].methods}
        assert every == {*UNARY, "Import", "Export", "Backup", "Restore"}

        by_hand = ["--server", target, "--ca", "ca.pem", "--cert", "mta1.pem", "--key", "mta1.key"]
        found = _command(out, *by_hand, "--json", "lookup", person.address)
        assert (found.returncode, json.loads(found.stdout)["results"][0]["keys"][0]["fingerprint"]) == (0, person.fingerprint)
        refused = _command(out, *by_hand, "purge", "--all", "--yes")
        assert refused.returncode == 1
        assert b"needs the role admin" in refused.stderr


def _command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """From that folder, where no node is, and without any word on one in the environment."""
    return subprocess.run(
        [EXECUTABLE, *arguments], cwd=folder, env=OWN_ENVIRONMENT, capture_output=True, timeout=60, check=False
    )


async def test_a_certificate_of_another_node_opens_nothing(tmp_path: Path) -> None:
    async with running(tmp_path / "ours") as ours, running(tmp_path / "theirs"):
        theirs = tmp_path / "theirs" / "pki"
        for ca in (theirs / "ca.pem", tmp_path / "ours" / "pki" / "ca.pem"):
            async with connect(
                ours.node.run_file["grpc"], ca=ca, certificate=theirs / "admin.pem", key=theirs / "admin.key"
            ) as connection:
                stranger = Running(ours.node, connection)
                with pytest.raises(Unreachable):
                    await stranger.lookup("a@people.example")
                with pytest.raises(Unreachable):
                    await stranger.status()
        assert (await ours.status()).entries.live == 0
