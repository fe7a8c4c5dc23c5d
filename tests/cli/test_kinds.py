"""What a file is, told from its beginning."""

import pytest

from keycache.cli.kinds import HEAD_SIZE, Kind, kind_of


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b'{"protocol":"SMIME"}\n', Kind.EXPORT),
        (b'\xef\xbb\xbf\n {"a":1}', Kind.EXPORT),
        (b"From alice@example.org Mon Mar  2 10:00:00 2026\nFrom: a\n", Kind.MBOX),
        (b"From: alice@example.org\r\nTo: bob\r\n\r\nhi", Kind.MESSAGE),
        (b"Return-Path: <>\nReceived: from x\n\tby y\n\n", Kind.MESSAGE),
        (b"X-Odd: 1\nMIME-Version: 1.0\n\n-----BEGIN PGP PUBLIC KEY BLOCK-----", Kind.MESSAGE),
        (b"Received: " + b"x" * HEAD_SIZE, Kind.MESSAGE),
        (b"-----BEGIN CERTIFICATE-----\nMII", Kind.MATERIAL),
        (b"Certificate:\n    Data:\n        Version: 3\n-----BEGIN CERTIFICATE-----\n", Kind.MATERIAL),
        (b"Bag Attributes\n    localKeyID: 01\nsubject=/CN=a\n-----BEGIN CERTIFICATE-----\n", Kind.MATERIAL),
        (b"subject: CN=a\nissuer: CN=b\n-----BEGIN CERTIFICATE-----\n", Kind.MATERIAL),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: x\n\nmQ", Kind.MATERIAL),
        (b"0\x82\x03\x01", Kind.MATERIAL),
        (b"\x99\x01\x0d\x04", Kind.MATERIAL),
        (b"", Kind.MATERIAL),
    ],
)
def test_a_file_is_what_it_begins_with(head: bytes, kind: Kind) -> None:
    assert kind_of(head) is kind
