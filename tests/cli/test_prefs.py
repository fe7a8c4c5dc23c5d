"""Reading the lookup timeout of a SEMS prefs.xml."""

from datetime import timedelta

import pytest

from keycache.cli.prefs import SIZE_LIMIT, read_timeout
from keycache.domain.errors import InvalidInput, NotFound


def prefs(inside: str) -> bytes:
    return f'<?xml version="1.0"?>\n<prefs><keys>{inside}</keys></prefs>'.encode()


def test_the_timeout_is_in_minutes() -> None:
    assert read_timeout(prefs("<key-lookup-cache-timeout> 720000 </key-lookup-cache-timeout>")) == timedelta(days=500)


def test_the_same_value_twice_is_one_value() -> None:
    one = "<key-lookup-cache-timeout>1440</key-lookup-cache-timeout>"
    assert read_timeout(prefs(one + one)) == timedelta(hours=24)


def test_a_file_without_the_value_says_so() -> None:
    with pytest.raises(NotFound):
        read_timeout(prefs("<other>1</other>"))


@pytest.mark.parametrize(
    "data",
    [
        prefs("<key-lookup-cache-timeout>-5</key-lookup-cache-timeout>"),
        prefs("<key-lookup-cache-timeout></key-lookup-cache-timeout>"),
        prefs("<key-lookup-cache-timeout>1h</key-lookup-cache-timeout>"),
        prefs("<key-lookup-cache-timeout>9999999999999</key-lookup-cache-timeout>"),
        prefs("<key-lookup-cache-timeout>1</key-lookup-cache-timeout><key-lookup-cache-timeout>2</key-lookup-cache-timeout>"),
        b"",
        b"<prefs>",
        b"\xff\xfe\x00",
        b'<?xml version="1.0" encoding="no-such"?><a/>',
        b"x" * (SIZE_LIMIT + 1),
    ],
    ids=["negative", "empty", "unit", "too many digits", "two values", "no bytes", "cut", "binary", "encoding", "huge"],
)
def test_what_makes_no_sense_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_timeout(data)


BOMB = b"""<!DOCTYPE p [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<p><key-lookup-cache-timeout>&b;</key-lookup-cache-timeout></p>"""
OUTSIDE = b"""<!DOCTYPE p [<!ENTITY x SYSTEM "file:///etc/hostname">]>
<p><key-lookup-cache-timeout>&x;</key-lookup-cache-timeout></p>"""
PLAIN = b"<!DOCTYPE p><p><key-lookup-cache-timeout>1440</key-lookup-cache-timeout></p>"


@pytest.mark.parametrize("data", [BOMB, OUTSIDE, PLAIN], ids=["bomb", "other file", "plain"])
def test_document_types_are_refused_before_anything_is_expanded(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="document type"):
        read_timeout(data)
