from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.domain.names import EmailAddress
from keycache.harvest.openpgp_userid import NAME_LIMIT, address_of, name_of


@pytest.mark.parametrize(
    ("user_id", "address"),
    [
        ("alice@example.org", "alice@example.org"),
        ("Alice <alice@example.org>", "alice@example.org"),
        ("<alice@example.org>", "alice@example.org"),
        ("Alice (work) <alice@example.org>", "alice@example.org"),
        ("Alice <Alice@EXAMPLE.org>", "Alice@example.org"),
        ("a@x.example <b@y.example>", "b@y.example"),
        ("Älice <älice@bücher.example>", "älice@xn--bcher-kva.example"),
        ('"Doe, Jane" <jane@example.org>', "jane@example.org"),
        (" alice@example.org ", "alice@example.org"),
    ],
)
def test_a_user_id_names_one_address(user_id: str, address: str) -> None:
    assert address_of(user_id.encode()) == EmailAddress(address)


@pytest.mark.parametrize(
    "user_id",
    [
        b"",
        b"Alice",
        b"Alice <alice>",
        b"Alice <>",
        b"a@x.example, b@y.example",
        b"a@x.example b@y.example",
        b"<a@x.example> <b@y.example>",
        b"a@x.example, B <b@y.example>",
        b"a@x.example; B <b@y.example>",
        b"A <a@x.example> and more",
        b"A <a@x.example>, B <b@y.example>",
        b"A < a@x.example >",
        b"A <a@x.example",
        b"A a@x.example>",
        b"A >a@x.example<",
        b"A <a@x.example@y.example>",
        b"mail a@x.example",
        b"a@x.example\x00",
        b"a@x.example\n",
        b"\xff <a@x.example>",
        "Alice \u202e<a@x.example>".encode(),
        b"<a@x.example\r\nb@y.example>",
        b"A <mailto:a@x.example>",
        b"a@" + b"x" * 400,
    ],
)
def test_what_can_be_read_in_two_ways_names_nobody(user_id: bytes) -> None:
    assert address_of(user_id) is None


@given(st.binary(max_size=80) | st.text(alphabet='ab@<>,;"\\ .\x00é()', max_size=40).map(str.encode))
def test_any_user_id_names_at_most_one_address_that_stands_in_it(user_id: bytes) -> None:
    address = address_of(user_id)
    assert address is None or address.index.partition("@")[0] in user_id.decode().lower()
    assert len(name_of(user_id)) <= NAME_LIMIT


def test_a_name_for_people_has_no_control_characters() -> None:
    assert name_of(b"a\x1b[31m\nb\xff") == "a\ufffd[31m\ufffdb\ufffd"
