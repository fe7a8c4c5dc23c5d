"""Odd messages that are too large to keep as files, made on demand. All are the same on every run."""

from __future__ import annotations

import base64
import random

HEAD = b"From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nMessage-ID: <odd@example.org>\r\nMIME-Version: 1.0\r\n"


def nested(depth: int) -> bytes:
    """Multiparts within multiparts, `depth` of them, never closed."""
    levels = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))
    return HEAD + levels + b"\r\nbody\r\n"


def many_parts(count: int) -> bytes:
    return (
        HEAD
        + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n"
        + b"--x\r\nContent-Type: text/plain\r\n\r\na\r\n" * count
        + b"--x--\r\n"
    )


def many_key_parts(count: int) -> bytes:
    """Parts that each claim to be an OpenPGP key and are none."""
    return (
        HEAD
        + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n"
        + b"--x\r\nContent-Type: application/pgp-keys\r\n\r\nno key\r\n" * count
        + b"--x--\r\n"
    )


def wide_attachment(size: int) -> bytes:
    """A text and an attachment in base64; the whole is somewhat under `size` bytes."""
    line = base64.b64encode(random.Random(7).randbytes(57)) + b"\r\n"
    return (
        HEAD
        + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nsee attachment\r\n"
        + b"--x\r\nContent-Type: application/zip; name=a.zip\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + line * ((size - 500) // len(line))
        + b"--x--\r\n"
    )


def wide_text(size: int) -> bytes:
    """One text part of lines that look like delimiters and armour."""
    line = b"--=_boundary\r\n-----BEGIN PGP PUBLIC KEY BLOCK----- not at the end\r\n"
    return HEAD + b"Content-Type: text/plain\r\n\r\n" + line * ((size - 300) // len(line))


def wide_signed(size: int) -> bytes:
    """A multipart/signed whose content is large and whose signature is garbage."""
    head = (
        HEAD
        + b'Content-Type: multipart/signed; boundary=x; protocol="application/pkcs7-signature"\n\n--x\nContent-Type: text/plain\n\n'
    )
    tail = (
        b"\n--x\nContent-Type: application/pkcs7-signature\nContent-Transfer-Encoding: base64\n\nMIAGCSqGSIb3DQEHAqCA\n--x--\n"
    )
    line = b"all work and no play makes jack a dull boy\n"
    return head + line * ((size - len(head) - len(tail)) // len(line)) + tail


def interleaved_boundaries(depth: int, *, lines: int) -> bytes:
    levels = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))
    return HEAD + levels + b"\r\n" + b"--b\r\n--b9999\r\n" * lines


def part_of(kind: bytes, body: bytes, *, name: bytes = b"") -> bytes:
    """A message that consists of one part in base64."""
    named = b'; name="' + name + b'"' if name else b""
    head = HEAD + b"Content-Type: " + kind + named + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return head + base64.encodebytes(body)


def deep_asn1(depth: int) -> bytes:
    """SEQUENCEs of indefinite length within each other, the first few as in signed data."""
    return b"\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x80" + b"\x30\x80" * depth


def wide_asn1(count: int) -> bytes:
    """One SET of very many empty elements."""
    return b"\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x80\x30\x80\x02\x01\x01\x31\x80" + b"\x30\x00" * count


def lying_asn1() -> bytes:
    """A length of two to the power of 63 over ten bytes."""
    return b"\x30\x88\x7f\xff\xff\xff\xff\xff\xff\xff" + b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"
