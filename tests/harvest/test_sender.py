"""Who a mail is from: exactly one mailbox in From, or none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.sender import Sender, read_address, read_date, read_message_id, read_sender


@pytest.mark.parametrize(
    ("field", "address"),
    [
        ("b@y.example", "b@y.example"),
        (" <b@y.example> ", "b@y.example"),
        ("Ben <b@Y.Example>", "b@y.example"),
        ('"a@x.example" <b@y.example>', "b@y.example"),
        ("a@x.example <b@y.example>", "b@y.example"),
        ('"<a@x.example>" <b@y.example>', "b@y.example"),
        ('"a@x.example, " <b@y.example>', "b@y.example"),
        ("(a@x.example) b@y.example", "b@y.example"),
        ("Ben (a (nested) comment, <a@x.example>) <b@y.example>", "b@y.example"),
        ("=?utf-8?q?a=40x=2Eexample=2C?= <b@y.example>", "b@y.example"),
        ("=?utf-8?q?J=C3=BCrgen?= <b@y.example> (office)", "b@y.example"),
        ("b (x) @ (y) y . example", "b@y.example"),
        ("<@relay.example,@other.example:b@y.example>", "b@y.example"),
        ('"b"@y.example', "b@y.example"),
        ("Jürgen <jürgen@bücher.example>", "jürgen@xn--bcher-kva.example"),
        ("b@y.example,", "b@y.example"),
        (",, b@y.example ;", "b@y.example"),
        ("B.O'Neill+list@y.example", "B.O'Neill+list@y.example"),
    ],
)
def test_one_mailbox_is_the_sender(field: str, address: str) -> None:
    assert read_sender([field.encode()]) == Sender(address=EmailAddress(address), verdict=None, count=1)


@pytest.mark.parametrize(
    "field",
    [
        "a@x.example, b@y.example",
        "<a@x.example> <b@y.example>",
        "a@x.example; b@y.example",
        "Team: a@x.example;",
        "Team: a@x.example, b@y.example;",
        "a@x.example: b@y.example;",
        "Neill, Ben <b@y.example>",
        "Ann <a@x.example>, a@x.example",
    ],
)
def test_more_than_one_mailbox_or_a_group_is_several_senders(field: str) -> None:
    sender = read_sender([field.encode()])
    assert (sender.address, sender.verdict) == (None, Verdict.SEVERAL_SENDERS)
    assert sender.count > 1
    assert sender.detail


@pytest.mark.parametrize("fields", [["a@x.example", "a@x.example"], ["", "a@x.example"], ["a@x.example", "b@y.example", ""]])
def test_more_than_one_from_field_is_several_senders_whatever_they_hold(fields: list[str]) -> None:
    sender = read_sender([field.encode() for field in fields])
    assert (sender.address, sender.verdict, sender.count) == (None, Verdict.SEVERAL_SENDERS, len(fields))


@pytest.mark.parametrize(
    "field",
    [
        "", " ", "Ben", "undisclosed-recipients:;", "a@x.example b@y.example", "<b@y.example> trailing", '"b@y.example"',
        '"a@x.example" b@y.example', "=?utf-8?q?b=40y.example?=", "<>", "Ben <>", "<b@y.example", "b@y.example>", "b@", "@y.example",
        "b@y.example (open", '"open <b@y.example>', "<b@y.example(>", "b@[192.0.2.1]", '"b b"@y.example', "b@y@z.example", "b(@y.example",
        "b\x00@y.example", "b@y..example", ".b@y.example", "b\u00a0c@y.example", "b@-y.example",
    ],
)  # fmt: skip
def test_what_is_no_single_address_is_no_sender(field: str) -> None:
    sender = read_sender([field.encode()])
    assert (sender.address, sender.verdict) == (None, Verdict.NO_SENDER)
    assert sender.detail


def test_no_from_field_is_no_sender() -> None:
    assert read_sender([]) == Sender(address=None, verdict=Verdict.NO_SENDER, detail="The mail has no From field.")


def test_bytes_that_are_no_utf8_may_stand_in_a_display_name() -> None:
    assert read_sender([b"J\xfcrgen <b@y.example>"]).address == EmailAddress("b@y.example")


@settings(deadline=None)
@given(st.text(max_size=80) | st.lists(st.sampled_from('<>@,;:"(\\) .ab'), max_size=40).map("".join))
def test_any_from_field_gives_an_address_or_a_verdict(field: str) -> None:
    sender = read_sender([field.encode("utf-8", "replace")])
    assert (sender.address is None) == (sender.verdict is not None)


@pytest.mark.parametrize(
    "field", [b" " * 200_000, b"(" * 200_000, b'"' * 200_001, b"<" + b" " * 200_000 + b">", b"a@b," * 50_000, b"\\" * 200_000]
)
def test_a_long_from_field_costs_no_more_than_its_length(field: bytes) -> None:
    assert read_sender([field]).address is None


@pytest.mark.parametrize(
    ("text", "address"),
    [("<a@x.example>", "a@x.example"), (" a@x.example ", "a@x.example"), ("<>", None), ("", None), ("postmaster", None)],
)
def test_envelope_addresses_come_with_or_without_brackets(text: str, address: str | None) -> None:
    assert read_address(text) == (EmailAddress(address) if address else None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Tue, 26 Nov 2019 20:03:00 -0400", datetime(2019, 11, 27, 0, 3, tzinfo=UTC)),
        (b" 26 Nov 2019 20:03 GMT (summer)", datetime(2019, 11, 26, 20, 3, tzinfo=UTC)),
        (b"Tue, 26 Nov 2019 20:03:00 -0000", datetime(2019, 11, 26, 20, 3, tzinfo=UTC)),
        (b"yesterday", None),
        (b"Tue, 99 Nov 2019 20:03:00 +0000", None),
        (b"31 Dec 9999 23:59:00 -2359", None),
        (b"\xff", None),
        (b"1" * 10_000, None),
    ],
)
def test_dates_are_read_in_utc_or_not_at_all(value: bytes, expected: datetime | None) -> None:
    assert read_date([value]) == expected


def test_two_dates_are_none() -> None:
    assert read_date([b"Tue, 26 Nov 2019 20:03:00 +0000"] * 2) is None
    assert read_date([]) is None


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_any_date_field_is_read_without_an_error(value: bytes) -> None:
    read = read_date([value])
    assert read is None or read.tzinfo is UTC


def test_a_message_id_is_printable_and_bounded() -> None:
    assert read_message_id([b" <a@b>\t"]) == "<a@b>"
    assert read_message_id([b"<a\x00\x1b[31m\xff@b>"]) == "<a\ufffd\ufffd[31m\ufffd@b>"
    assert read_message_id(["\u202e<a@b>".encode()]) == "\ufffd<a@b>"
    assert len(read_message_id([b"a" * 5_000])) == 998
    assert read_message_id([]) == ""
