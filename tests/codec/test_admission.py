"""The words of a join come over the wire as they were said, and show no secret when they are printed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keycache.codec.admission import (
    application_from_wire,
    application_to_wire,
    greeting_from_wire,
    greeting_to_wire,
    progress_from_wire,
    progress_to_wire,
)
from keycache.domain.errors import InvalidInput
from keycache.domain.joining import Doing, EtcdMode, Greeting, JoinProgress
from keycache.domain.names import NodeId
from keycache.v1 import join_pb2 as pb
from support.join_host import ADMISSION, APPLICATION, CHECKS, NOON


def test_a_greeting_comes_back_as_it_was() -> None:
    greeting = Greeting(version="1.0", clock=NOON)
    assert greeting_from_wire(greeting_to_wire(greeting)) == greeting


def test_an_application_comes_back_as_it_was() -> None:
    bare = replace(
        APPLICATION, dry_run=True, applicant=replace(APPLICATION.applicant, etcd_client=None, etcd_peer=None, names=())
    )
    for application in (APPLICATION, bare):
        wire = pb.JoinRequest.FromString(application_to_wire(application).SerializeToString())
        assert application_from_wire(wire) == application


@pytest.mark.parametrize(
    "progress", [Doing("Waiting."), CHECKS, ADMISSION, replace(ADMISSION, etcd_mode=EtcdMode.MANAGED, etcd_access=None)]
)
def test_progress_comes_back_as_it_was(progress: JoinProgress) -> None:
    wire = pb.JoinProgress.FromString(progress_to_wire(progress).SerializeToString())
    assert progress_from_wire(wire) == progress


def test_what_is_printed_shows_no_secret() -> None:
    shown = f"{APPLICATION!r} {ADMISSION!r}"
    for secret in (b"s" * 16, b"the authority's key", b"etcd's key"):
        assert secret.decode() not in shown


@pytest.mark.parametrize(
    "change",
    [
        {"token_id": ""},
        {"token_id": "../../set"},
        {"token_id": "0A1B2C3D"},
        {"token_secret": b""},
        {"token_secret": b"s" * 17},
        {"node_id": ""},
        {"node_id": "a/b"},
        {"grpc_address": ""},
        {"etcd_peer_address": "b.example"},
        {"clock": None},
    ],
    ids=str,
)
def test_an_application_that_could_not_come_from_a_node_is_refused(change: dict[str, object]) -> None:
    message = application_to_wire(APPLICATION)
    for field, value in change.items():
        part = message if field in message.DESCRIPTOR.fields_by_name else message.node
        if value is None:
            part.ClearField(field)
        else:
            setattr(part, field, value)
    with pytest.raises(InvalidInput):
        application_from_wire(message)


def test_progress_of_a_later_version_is_refused() -> None:
    with pytest.raises(InvalidInput, match="does not know"):
        progress_from_wire(pb.JoinProgress())


@pytest.mark.parametrize("field", ["etcd_mode", "identity", "clock", "settings"])
def test_an_admission_that_lacks_what_a_node_cannot_guess_is_refused(field: str) -> None:
    message = progress_to_wire(ADMISSION)
    message.admission.ClearField(field)
    with pytest.raises(InvalidInput):
        progress_from_wire(message)


def test_an_id_of_a_node_is_what_can_stand_in_a_key_of_the_log() -> None:
    assert NodeId.parse("0d9b1c52-6f5e-4a7e-9a43-1f2e3d4c5b6a") == NodeId("0d9b1c52-6f5e-4a7e-9a43-1f2e3d4c5b6a")
    for text in ("", "a/b", "-a", "a-", "a" * 65, "a b", "\u00e4", "a\n"):
        with pytest.raises(InvalidInput, match="cannot be the id of a node"):
            NodeId.parse(text)
