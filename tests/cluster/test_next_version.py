"""Beside nodes of a later version: what they write is kept, passed on and written back whole, whatever of it is understood."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from pathlib import Path

from google.protobuf.message import Message

from keycache.codec import decode_entry
from keycache.domain.entry import Origin
from keycache.v1 import entry_pb2, record_pb2
from support.cluster import NAME, Cluster, cluster
from support.ledger import now
from support.scenario import eventually, present
from support.scenario_people import Person

DAY = timedelta(days=1)
PREFIX = f"/keycache/{NAME}/"


def field(number: int, value: bytes) -> bytes:
    """A field that no message of this version has; length-delimited, as protobuf encodes it."""
    tag = number << 3 | 2
    encoded = bytearray()
    while tag > 0x7F:
        encoded.append(tag & 0x7F | 0x80)
        tag >>= 7
    return bytes((*encoded, tag, len(value))) + value


def later(message: Message, text: str) -> None:
    """As a later version writes it."""
    message.MergeFromString(field(999, text.encode()))


def read(made: Cluster, key: str) -> bytes:
    (record,) = json.loads(made.etcd.etcdctl("get", PREFIX + key, "-w", "json"))["kvs"]
    return base64.b64decode(record["value"])


def write(made: Cluster, key: str, value: bytes) -> None:
    """As a node of that version does. With the identity in the compare, as every write has it; etcdctl alone is this test's."""
    made.etcd.etcdctl("put", PREFIX + key, stdin=value)


async def test_fields_of_a_later_version_are_served_around_and_survive_a_refresh_on_ours(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2, members=1) as made:
        who = Person("later")
        await made.node(0).import_lines([who.line({Origin.HARVESTED: 10 * DAY}, present())])
        await made.settled()
        key = f"entries/openpgp/{who.fingerprint}"
        entry = entry_pb2.Entry.FromString(read(made, key))
        later(entry, "of the entry")
        later(entry.key, "of the key")
        later(entry.sightings[0], "of the sighting")
        write(made, key, entry.SerializeToString())
        await made.settled()
        for node in made.nodes:
            assert await node.running.outcome(who.address) == "served"
        refreshed = await made.node(1).harvest(who.mail())
        assert refreshed.verdict == "REFRESHED"
        written = read(made, key)
        for text in ("of the entry", "of the key", "of the sighting"):
            assert written.count(text.encode()) == 1, text
        assert decode_entry(written).sightings[0].refreshed_at > now() - DAY
        await made.settled()


async def test_a_later_versions_settings_are_obeyed_and_kept_over_a_change_on_ours(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2, members=1) as made:
        settings = record_pb2.Settings.FromString(read(made, "settings"))
        later(settings, "a setting to come")
        settings.imported_timeout.FromTimedelta(77 * DAY)
        write(made, "settings", settings.SerializeToString())
        await made.settled()
        assert (await made.node(1).timeouts())["imported"] == 77 * DAY
        await made.node(0).settle(harvested=333 * DAY)
        written = read(made, "settings")
        assert b"a setting to come" in written
        kept = record_pb2.Settings.FromString(written)
        assert (kept.imported_timeout.ToTimedelta(), kept.harvested_timeout.ToTimedelta()) == (77 * DAY, 333 * DAY)


async def test_a_later_versions_member_and_records_of_kinds_to_come_disturb_nobody_and_stay(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2, members=1) as made:
        await made.settled()
        member = record_pb2.Member(
            node_id="next-node", address="127.0.0.1:1", version="99.0", clock_trusted=True, purge_state="A_STATE_TO_COME"
        )
        for stamp in (member.started_at, member.clock):
            stamp.FromDatetime(now())
        later(member, "of the member")
        strange = {
            "members/next-node": member.SerializeToString(),
            "novelty/one": b"a record of a kind to come",
            "entries/pigeon/abcd": b"an entry of a protocol to come",
            f"entries/openpgp/{'ab' * 20}": field(998, b"an entry that says nothing to us"),
            f"blocks/shape/{'ab' * 20}": field(998, b"a block of a kind to come"),
        }
        for key, value in strange.items():
            write(made, key, value)
        who = Person("beside")
        assert (await made.node(0).harvest(who.mail())).verdict == "CACHED"
        statuses = await made.settled()
        assert [status.entries.live for status in statuses] == [1, 1]

        async def told() -> bool | None:
            members = await made.node(1).members()
            return True if "next-node" in members and members["next-node"].version == "99.0" else None

        assert await eventually(told)
        await made.nodes[1].restart()
        made.etcd.compact()
        await made.nodes[0].restart()
        await made.settled()
        for key, value in strange.items():
            assert read(made, key) == value
        for node in made.nodes:
            assert await node.running.outcome(who.address) == "served"
            assert set(await node.running.export()) == {who.fingerprint}
