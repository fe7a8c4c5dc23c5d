"""Fields of a later version survive a round through this one: decoded, changed, written again (DESIGN 6)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from keycache import codec
from keycache.domain.entry import Change, Defect, Issuer, Trust
from keycache.domain.merge import join_entries, obtain
from keycache.domain.names import EmailAddress
from keycache.domain.settings import Settings, Timeouts
from keycache.v1 import entry_pb2, record_pb2
from support.entries import T0, make_entry, make_key, make_sighting

FIELD = 1001
GROUPED = ("Issuer", "Key", "Sighting", "Change", "Entry", "Settings")


def later(*files: Any) -> dict[str, type[Message]]:
    """The messages of a version to come: each of ours with one field more."""
    pool = descriptor_pool.DescriptorPool()
    found: dict[str, type[Message]] = {}
    for imported in ("google/protobuf/timestamp.proto", "google/protobuf/duration.proto"):
        pool.AddSerializedFile(descriptor_pool.Default().FindFileByName(imported).serialized_pb)
    for file in files:
        proto = descriptor_pb2.FileDescriptorProto()
        file.DESCRIPTOR.CopyToProto(proto)
        for message in proto.message_type:
            message.field.add(
                name="of_a_later_version",
                number=FIELD,
                type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
                label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
            )
        pool.Add(proto)
        for message in proto.message_type:
            descriptor: Descriptor = pool.FindMessageTypeByName(f"{proto.package}.{message.name}")
            found[message.name] = message_factory.GetMessageClass(descriptor)
    return found


LATER = later(entry_pb2, record_pb2)


def upgraded(message: Message) -> Any:
    """The same message as the later version has it, with its new field filled in wherever there is one."""
    newer = LATER[type(message).__name__].FromString(message.SerializeToString())
    _fill(newer)
    return newer


def _fill(message: Any) -> None:
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None and descriptor.message_type.name in GROUPED:
            for one in value if descriptor.is_repeated else (value,):
                _fill(one)
    message.of_a_later_version = f"new in {type(message).__name__}"


def entry_of_later() -> Any:
    key = {"trust": Trust.HELD, "issuer": Issuer(id="aa", name="CN=A", certificate=b"der")}
    entry = make_entry(1, make_sighting(), history=(Change(at=T0, what="CACHED", by="x"),), **key)
    return upgraded(codec.entry_to_wire(entry))


def new_fields(message: Any) -> list[str]:
    """Every new field in the message, however deep."""
    found = [message.of_a_later_version] if message.of_a_later_version else []
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None and descriptor.message_type.name in GROUPED:
            for one in value if descriptor.is_repeated else (value,):
                found += new_fields(one)
    return found


def reread(value: bytes) -> Any:
    return LATER["Entry"].FromString(value)


EVERYWHERE = ["new in Entry", "new in Key", "new in Issuer", "new in Sighting", "new in Change"]


def test_an_entry_of_a_later_version_is_read_and_written_again_unchanged() -> None:
    message = entry_of_later()
    value = message.SerializeToString(deterministic=True)
    entry = codec.decode_entry(value)
    assert reread(codec.encode_entry(entry)) == message
    assert sorted(new_fields(reread(codec.encode_entry(entry)))) == sorted(EVERYWHERE)


def test_what_a_later_version_knows_survives_a_change_by_this_one() -> None:
    entry = codec.decode_entry(entry_of_later().SerializeToString())
    changed = replace(
        entry,
        key=replace(entry.key, addresses=(EmailAddress.parse("new@example.org"),), defect=Defect.REVOKED),
        sightings=(replace(entry.sightings[0], refreshed_at=T0.replace(year=2030)),),
    )
    again = reread(codec.encode_entry(changed))
    assert sorted(new_fields(again)) == sorted(EVERYWHERE)
    assert list(again.key.addresses) == ["new@example.org"]
    assert again.key.defect == codec.wire_enum(Defect.REVOKED)
    assert codec.decode_entry(again.SerializeToString()) == changed


def test_what_a_later_version_knows_survives_a_refresh_by_harvested_mail() -> None:
    entry = codec.decode_entry(entry_of_later().SerializeToString())
    seen = make_key(1, trust=Trust.HELD, issuer=Issuer(id="aa", name="CN=A", certificate=b"der"))
    refreshed = obtain(entry, seen, make_sighting(cached_at=T0.replace(year=2027)), Timeouts()).entry
    assert refreshed is not None
    fields = new_fields(reread(codec.encode_entry(refreshed)))
    assert {"new in Entry", "new in Key", "new in Issuer", "new in Change"} <= {*fields}


def test_what_a_later_version_knows_survives_a_join_with_a_copy_that_does_not_know_it() -> None:
    entry = codec.decode_entry(entry_of_later().SerializeToString())
    plain = make_entry(1, trust=Trust.HELD, issuer=entry.key.issuer)
    for joined in (join_entries(entry, plain), join_entries(plain, entry)):
        assert "new in Key" in new_fields(reread(codec.encode_entry(joined)))


def test_the_halves_of_a_record_keep_what_a_later_version_knows() -> None:
    message = entry_of_later()
    key, rest = codec.halves(codec.decode(entry_pb2.Entry, message.SerializeToString()))
    assert LATER["Key"].FromString(key) == message.key
    assert LATER["Entry"].FromString(rest).of_a_later_version == "new in Entry"
    assert reread(codec.encode_entry(codec.entry_of_halves(key, rest))) == message


def test_settings_of_a_later_version_keep_its_fields_when_this_one_changes_them() -> None:
    value = upgraded(codec.settings_to_wire(Settings())).SerializeToString()
    settings = codec.decode_settings(value)
    assert settings == replace(Settings(), extra=settings.extra)
    changed = replace(settings, purge_hold_floor=7)
    again = LATER["Settings"].FromString(codec.encode_settings(changed))
    assert (again.of_a_later_version, again.purge_hold_floor) == ("new in Settings", 7)


@pytest.mark.parametrize("kind", [entry_pb2.Key, entry_pb2.Sighting, record_pb2.Settings])
def test_a_message_of_this_version_has_nothing_left_over(kind: type[Message]) -> None:
    made = {
        "Key": lambda: codec.key_from_wire(codec.key_to_wire(make_key())).extra,
        "Sighting": lambda: codec.sighting_from_wire(codec.sighting_to_wire(make_sighting())).extra,
        "Settings": lambda: codec.settings_from_wire(codec.settings_to_wire(Settings())).extra,
    }
    assert made[kind.__name__]() == b""
