"""The splitter: what belongs to which part, byte for byte."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keycache.harvest.budget import DEFAULT, Budget, BudgetExceeded
from keycache.harvest.mime import Header, canonical, read_headers, split
from support.odd_mails import interleaved_boundaries, many_parts, nested, wide_attachment

SIGNED = (
    b'From: ann@example.org\r\nContent-Type: multipart/signed; boundary=x;\r\n protocol="application/pkcs7-signature"\r\n\r\n'
    b"preamble\r\n--x\r\nContent-Type: text/plain\r\n\r\nHello\r\n\r\n--x\r\n"
    b"Content-Type: application/pkcs7-signature; name=smime.p7s\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n--x--\r\nepilogue"
)


def shape(data: bytes, budget: Budget = DEFAULT) -> list[tuple[int, int, str, bytes]]:
    """(parent, depth, type, raw content) of every part."""
    message = split(data, budget)
    return [(p.parent, p.depth, p.type.type, data[p.body : p.end]) for p in message.parts]


def multipart(boundary: str, *parts: bytes, kind: str = "mixed", close: bool = True) -> bytes:
    head = f"Content-Type: multipart/{kind}; boundary={boundary}\n\n".encode()
    lines = b"".join(b"--" + boundary.encode() + b"\n" + part + b"\n" for part in parts)
    return head + lines + (b"--" + boundary.encode() + b"--\n" if close else b"")


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_the_signed_part_is_given_without_the_line_break_that_belongs_to_the_delimiter(line_end: bytes) -> None:
    data = SIGNED.replace(b"\r\n", line_end)
    message = split(data, DEFAULT)
    top, content, signature = message.parts
    assert message.raw(content) == b"Content-Type: text/plain\r\n\r\nHello\r\n".replace(b"\r\n", line_end)
    assert canonical(message.raw(content)) == b"Content-Type: text/plain\r\n\r\nHello\r\n"
    assert message.content(signature) == b"\x00\x01\x02"
    assert (top.children, top.complete, signature.filename) == ((1, 2), True, "smime.p7s")
    assert top.type.parameters["protocol"] == "application/pkcs7-signature"


def test_a_message_without_structure_is_one_text_part() -> None:
    assert shape(b"Subject: a\n\nbody\n--x\n") == [(-1, 0, "text/plain", b"body\n--x\n")]


def test_headers_are_unfolded_and_keep_their_bytes() -> None:
    data = b"From ann Mon Jan  1\nA: 1\r\n\tb\xff\r\n  c\r\nb :\x00 2 \r\nA:3\r\n\r\nbody"
    assert read_headers(data, DEFAULT) == (Header("a", b" 1\tb\xff  c"), Header("b", b"\x00 2 "), Header("a", b"3"))


@pytest.mark.parametrize(
    "data", [b"", b"\n\nbody", b"no header here\nA: b\n", b" folded: first\n", b"\x00\x01\x02", b"\xff: a\n"]
)
def test_what_does_not_begin_with_a_header_has_none(data: bytes) -> None:
    assert read_headers(data, DEFAULT) == ()


def test_an_outer_delimiter_ends_the_inner_parts_that_were_cut_off() -> None:
    inner = multipart("in", b"\na", b"\nb", close=False)
    data = multipart("out", inner, b"\nc")
    assert shape(data) == [
        (-1, 0, "multipart/mixed", data.partition(b"\n\n")[2]),
        (0, 1, "multipart/mixed", inner.partition(b"\n\n")[2]),
        (1, 2, "text/plain", b"a"),
        (1, 2, "text/plain", b"b\n"),
        (0, 1, "text/plain", b"c"),
    ]
    assert [part.complete for part in split(data, DEFAULT).parts] == [True, False, False, False, False]


def test_a_boundary_used_twice_belongs_to_the_inner_part_until_that_is_closed() -> None:
    data = multipart("x", multipart("x", b"\na"), b"\nb")
    assert [(parent, kind, body) for parent, _, kind, body in shape(data)][2:] == [
        (1, "text/plain", b"a"),
        (0, "text/plain", b"b"),
    ]


def test_a_line_that_only_begins_like_a_boundary_is_text() -> None:
    assert shape(multipart("x", b"\n--xy\n--x -\n --x\nend"))[1:] == [(0, 1, "text/plain", b"--xy\n--x -\n --x\nend")]


def test_blanks_behind_a_boundary_are_transport_padding() -> None:
    assert shape(b"Content-Type: multipart/mixed; boundary=x\n\n--x \t\n\na\n--x-- \n")[1:] == [(0, 1, "text/plain", b"a")]


def test_what_follows_the_closing_delimiter_is_no_part() -> None:
    assert len(shape(multipart("x", b"\na") + b"--x\n\nb\n")) == 2


@pytest.mark.parametrize(
    ("data", "bodies"),
    [
        (b"Content-Type: multipart/mixed; boundary=x\n\n--x", [b""]),
        (b"Content-Type: multipart/mixed; boundary=x\n\n--x\n--x\n--x--", [b"", b""]),
        (b"Content-Type: multipart/mixed; boundary=x\n\n--x\nA: b\n--x--", [b""]),
        (b"Content-Type: multipart/mixed; boundary=x\n--x\n\na", [b"a"]),
        (b"Content-Type: multipart/mixed\n\n--x\n\na\n--x--", []),
        (b'Content-Type: multipart/mixed; boundary=""\n\n--\n\na\n----', []),
    ],
    ids=["ends in the delimiter", "empty parts", "headers only", "no blank line", "no boundary", "empty boundary"],
)
def test_torn_structures_are_read_as_far_as_they_go(data: bytes, bodies: list[bytes]) -> None:
    assert [body for _, _, _, body in shape(data)][1:] == bodies


def test_everything_inside_a_forwarded_message_is_foreign() -> None:
    forwarded = b"Content-Type: message/rfc822\n\n" + multipart("in", b"\na")
    data = multipart("out", b"\nmine", forwarded, b"\nmine too")
    assert [(p.type.type, p.foreign) for p in split(data, DEFAULT).parts] == [
        ("multipart/mixed", False),
        ("text/plain", False),
        ("message/rfc822", False),
        ("multipart/mixed", True),
        ("text/plain", True),
        ("text/plain", False),
    ]


def test_parts_of_a_digest_are_messages() -> None:
    data = multipart("x", b"\nSubject: a\n\nb", kind="digest")
    assert [(p.type.type, p.foreign) for p in split(data, DEFAULT).parts] == [
        ("multipart/digest", False),
        ("message/rfc822", False),
        ("text/plain", True),
    ]


@pytest.mark.parametrize("depth", [100, 1_000, 100_000])
def test_nesting_beyond_the_budget_is_refused(depth: int) -> None:
    with pytest.raises(BudgetExceeded, match="nested more than 100 deep"):
        split(nested(depth), DEFAULT)


def test_nesting_within_the_budget_is_read() -> None:
    assert len(split(nested(98), DEFAULT).parts) == 99


def test_forwarded_messages_nest_within_the_same_budget() -> None:
    with pytest.raises(BudgetExceeded, match="nested more than 100 deep"):
        split(b"Content-Type: message/rfc822\n\n" * 1_000, DEFAULT)


def test_ten_thousand_parts_are_read_and_one_more_is_refused() -> None:
    assert len(split(many_parts(9_999), DEFAULT).parts) == 10_000
    with pytest.raises(BudgetExceeded, match="more than 10,000 parts"):
        split(many_parts(10_000), DEFAULT)


@pytest.mark.parametrize(
    "data",
    [b"a: b\n" * 1_001, b"a: " + b"b" * 300_000 + b"\n", b"a: b\n" + b" c\n" * 100_000],
    ids=["many", "long", "folded"],
)
def test_headers_have_a_budget(data: bytes) -> None:
    with pytest.raises(BudgetExceeded):
        read_headers(data, DEFAULT)


def test_headers_of_all_parts_together_have_a_budget() -> None:
    with pytest.raises(BudgetExceeded, match="50,000 in all"):
        split(multipart("x", *[b"a: b\n" * 500 + b"\n"] * 101), DEFAULT)


def test_a_large_attachment_costs_no_copies() -> None:
    data = wide_attachment(8 * 1024 * 1024)
    tracemalloc.start()
    split(data, DEFAULT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1024 * 1024


def test_boundaries_that_almost_match_everywhere_cost_one_pass() -> None:
    """98 open multiparts and a body of lines that begin like delimiters: no line is compared with every boundary."""
    data = interleaved_boundaries(98, lines=50_000)
    assert len(split(data, DEFAULT).parts) == 99


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a\nb", b"a\r\nb"),
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"a\rb\r\r\nc\n\n", b"a\rb\r\r\nc\r\n\r\n"),
        (b"", b""),
    ],
)
def test_the_canonical_form_ends_every_line_by_crlf_and_leaves_bare_crs(raw: bytes, expected: bytes) -> None:
    assert canonical(raw) == expected
    assert canonical(canonical(raw)) == canonical(raw)


PIECES = st.sampled_from(
    [
        b"\n", b"\r\n", b"\r", b"--x", b"--y", b"--x--", b"--y--", b"a", b": ", b"\x00", b"\xff", b" ", b"\t",
        b"Content-Type: multipart/mixed; boundary=x\n", b"Content-Type: multipart/signed; boundary=\"y\"\n",
        b"Content-Type: message/rfc822\n", b"Content-Transfer-Encoding: base64\n", b"From: a@b.c\n", b"=", b"\"", b"(", b";",
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=60).map(b"".join) | st.binary(max_size=200))
def test_parts_lie_within_their_parents_and_never_overlap(data: bytes) -> None:
    message = split(data, DEFAULT)
    top = message.parts[0]
    assert top.end == len(data)
    for part in message.parts:
        assert part.start <= part.body <= part.end <= len(data)
        message.content(part)
        children = [message.parts[index] for index in part.children]
        assert all(child.parent == part.index and child.depth == part.depth + 1 for child in children)
        assert all(part.body <= child.start and child.end <= part.end for child in children if child.start < child.end)
        assert all(a.end <= b.start for a, b in itertools.pairwise(children))
