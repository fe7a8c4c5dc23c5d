"""Tokens and removals come back from the log as they were; a token that cannot be read in full lets nobody in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from keycache.codec.joining import decode_removal, decode_token, encode_removal, encode_token, token_used
from keycache.domain.errors import InvalidInput
from keycache.domain.join_token import Joiner, TokenRecord
from keycache.domain.names import NodeId
from keycache.domain.removal import Removal
from keycache.v1 import record_pb2

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
JOINER = Joiner(node=NodeId("b"), key=b"k" * 32)
UNUSED = TokenRecord(
    id="0a1b2c3d", secret_sha256=b"h" * 32, created_at=NOW, created_by="alice", expires_at=NOW + timedelta(hours=1)
)
USED = replace(UNUSED, used_by=JOINER, used_at=NOW)


@pytest.mark.parametrize("record", [UNUSED, USED])
def test_a_token_comes_back_as_it_was(record: TokenRecord) -> None:
    assert decode_token(encode_token(record)) == record


def test_marking_a_token_used_gives_the_record_of_a_used_one() -> None:
    assert token_used(encode_token(UNUSED), JOINER, at=NOW) == encode_token(USED)


def test_marking_a_token_used_keeps_what_a_later_version_wrote() -> None:
    later = b"\xfa\x01\x04news"  # field 31
    assert token_used(encode_token(UNUSED) + later, JOINER, at=NOW) == encode_token(USED) + later


@pytest.mark.parametrize("missing", ["state", "expires_at", "created_at"])
def test_a_token_without_its_state_or_a_time_is_refused(missing: str) -> None:
    message = record_pb2.JoinToken.FromString(encode_token(UNUSED))
    message.ClearField(missing)
    with pytest.raises(InvalidInput, match="lacks its state or a time"):
        decode_token(message.SerializeToString())


def test_a_state_of_a_later_version_is_refused() -> None:
    message = record_pb2.JoinToken.FromString(encode_token(UNUSED))
    message.state = 7  # type: ignore[assignment]
    with pytest.raises(InvalidInput):
        decode_token(message.SerializeToString())


def test_a_removal_comes_back_as_it_was() -> None:
    removal = Removal(node=NodeId("b"), at=NOW, actor="alice")
    assert decode_removal(encode_removal(removal)) == removal
