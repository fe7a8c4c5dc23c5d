"""Content-Type, Content-Disposition and transfer encodings."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keycache.harvest.fields import (
    ContentType,
    content_type,
    decode_base64,
    decode_quoted_printable,
    disposition_name,
    token,
)

TEXT = ContentType(type="text/plain")


@pytest.mark.parametrize(
    ("value", "kind", "parameters"),
    [
        (b" Text/HTML", "text/html", {}),
        (b"multipart/signed; boundary=x; protocol=application/pgp-signature", "multipart/signed", None),
        (b'a/b; X="q;\\"=r"; x=second', "a/b", {"x": 'q;"=r'}),
        (b"a/b (comment (nested)) ; (more) x=1", "a/b", {"x": "1"}),
        (b'a/b; x="(no comment)"', "a/b", {"x": "(no comment)"}),
        (b"a/b;;; x = 1 ;y", "a/b", {"x": "1"}),
        (b"a/b; x=one two; y=3", "a/b", {"x": "one two", "y": "3"}),
        (b'a/b; x="unclosed; y=1', "a/b", {"x": "unclosed; y=1"}),
        (b"a/b; name*=utf-8'de'Schl%C3%BCssel.asc", "a/b", {"name": "Schlüssel.asc"}),
        (b"a/b; name*1=b; name*0=a; name*2*=%63", "a/b", {"name": "abc"}),
        (b"a/b; name*0*=iso-8859-1''%FC; name*1=x", "a/b", {"name": "üx"}),
        (b"a/b; name*0=a; name*2=c", "a/b", {"name": "a"}),
        (b"a/b; name*=no-such-charset''%FC", "a/b", {"name": "�"}),
        (b"a/b; name=plain; name*=utf-8''better", "a/b", {"name": "better"}),
    ],
)
def test_types_and_parameters_are_read_as_they_are_meant(value: bytes, kind: str, parameters: dict[str, str] | None) -> None:
    read = content_type(value, TEXT)
    assert read.type == kind
    if parameters is not None:
        assert dict(read.parameters) == parameters
    else:
        assert read.parameters["protocol"] == "application/pgp-signature"


@pytest.mark.parametrize("value", [b"", b"text", b"/plain", b"text/", b"\x00\xff", b"(a/b)", b";boundary=x"])
def test_what_is_no_type_is_the_default(value: bytes) -> None:
    assert content_type(value, TEXT) == TEXT


def test_the_disposition_names_the_file_before_the_type_does() -> None:
    typed = content_type(b"a/b; name=old.p7m", TEXT)
    assert disposition_name(b'attachment; filename="new.p7m"', typed) == "new.p7m"
    assert disposition_name(b"attachment", typed) == "old.p7m"
    assert disposition_name(b"", TEXT) == ""


def test_a_transfer_encoding_is_one_word_in_lower_case() -> None:
    assert token(b' "Base64" (by us)') == "base64"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"AAEC", b"\x00\x01\x02"),
        (b"A A\r\nE!C\xff", b"\x00\x01\x02"),
        (b"AAE=ignored", b"\x00\x01"),
        (b"AAE", b"\x00\x01"),
        (b"AA", b"\x00"),
        (b"A", b""),
        (b"====", b""),
        (b"", b""),
        (b"\x00\x00", b""),
    ],
)
def test_base64_is_read_past_garbage_and_torn_ends(data: bytes, expected: bytes) -> None:
    assert decode_base64(data) == expected


@settings(deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=20).filter(lambda b: not set(b) & set(base64.b64encode(bytes(range(256))))))
def test_base64_with_any_foreign_bytes_in_it_decodes_the_same(data: bytes, garbage: bytes) -> None:
    encoded = base64.b64encode(data).rstrip(b"=")
    middle = len(encoded) // 2
    alphabet = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
    clean = bytes(byte for byte in garbage if byte not in alphabet)
    assert decode_base64(encoded[:middle] + clean + encoded[middle:]) == data


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_readers_take_any_bytes(data: bytes) -> None:
    read = content_type(b"a/b;" + data, TEXT)
    assert read.type == "a/b"
    content_type(data, TEXT)
    disposition_name(data, read)
    token(data)
    decode_base64(data)
    decode_quoted_printable(data)


@pytest.mark.parametrize(
    "value", [b"a/b;" + b" " * 200_000, b"a/b" + b";x=" * 60_000, b"a/b; x=" + b"(" * 200_000, b"a/b; " + b"x" * 200_000]
)
def test_long_fields_cost_no_more_than_their_length(value: bytes) -> None:
    """Each of these would take minutes with a pattern that backtracks."""
    assert content_type(value, TEXT).type == "a/b"
