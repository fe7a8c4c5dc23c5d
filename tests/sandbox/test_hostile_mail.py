"""Every kind of bad input, through real workers: a verdict in bounded time and memory, and the worker lives on.

Time is bounded by a deadline that only a runaway would miss, memory by what the kernel saw the worker use at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from keycache.domain.examination import Direction, DirectionPolicy, Envelope
from keycache.sandbox.limits import MIB, SandboxLimits
from keycache.sandbox.pool import WorkerPool
from support import odd_mails as odd
from support.openpgp import Maker, packet, subpacket
from support.smime import BODY, NOW, Identity, authority, certs_only, headers, multipart_signed, person, sign, signed_mail

LARGEST = 25 * MIB
DEADLINE = 60.0
"""Seconds for one message: twice the time after which a worker is killed, so that missing it means a hang of the node."""

MEMORY = 250 * MIB
"""What a worker may have used at most, of the 400 MiB above its own 60 that it is allowed."""

ROOT = authority("Hostile Root")
ALICE = person("alice@example.org", ROOT)
PGP = Maker("hostile")
NAME = "Ann <ann@example.org>"


def flooded_key() -> bytes:
    """50,000 signatures of strangers in 17 MiB (CVE-2019-13050)."""
    flood = PGP.signature(0x10, b"", issuer=Maker("flooder").fingerprint, hashed=subpacket(20, bytes(240)))
    return PGP.primary + PGP.user_id(NAME) + PGP.certify(NAME) + flood * 50_000 + packet(14, PGP.subkey_body())


def many_certificates(count: int) -> list[Identity]:
    one = person("bystander@example.org", ROOT)
    return [person(f"bystander{n}@example.org", ROOT, key=one.key) for n in range(count)]


def with_body(body: bytes, kind: bytes = b"text/plain") -> bytes:
    return odd.HEAD + b"Content-Type: " + kind + b"\r\n\r\n" + body


def filled(unit: bytes, kind: bytes = b"text/plain", size: int = LARGEST) -> bytes:
    head = with_body(b"", kind)
    return head + unit * ((size - len(head)) // len(unit))


LINE = b"sixty bytes of text in a line, which is ended as it should.\r\n"
QUOTED = b"text/plain\r\nContent-Transfer-Encoding: quoted-printable"
OPAQUE = b"application/pkcs7-mime\r\nContent-Transfer-Encoding: base64"
AUTOCRYPT = b"Autocrypt: addr=alice@example.org; keydata="

# Made when needed: together they have half a gigabyte. The verdict is the message's own, or that of its one finding.
CASES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "UNREADABLE_MESSAGE"),
    "nested 1,000 deep": (lambda: odd.nested(1_000), "TOO_COMPLEX"),
    "forwarded 1,000 times": (lambda: odd.HEAD + b"Content-Type: message/rfc822\r\n\r\n" * 1_000, "TOO_COMPLEX"),
    "10,000 parts": (lambda: odd.many_parts(10_000), "TOO_COMPLEX"),
    "9,999 parts": (lambda: odd.many_parts(9_999), "NO_KEY_MATERIAL"),
    "5,000 parts that claim to be keys": (lambda: odd.many_key_parts(5_000), "TOO_COMPLEX"),
    "no From": (lambda: b"Subject: x\r\n\r\nhello\r\n", "NO_SENDER"),
    "several From": (lambda: b"From: a@b.example\r\nFrom: a@b.example\r\n\r\nhello\r\n", "SEVERAL_SENDERS"),
    "several mailboxes in From": (lambda: b"From: a@b.example, c@d.example\r\n\r\nhello\r\n", "SEVERAL_SENDERS"),
    "50,000 mailboxes in From": (lambda: b"From: " + b"a@b.example," * 20_000 + b"\r\n\r\n", "SEVERAL_SENDERS"),
    "wrong charset": (lambda: with_body(b"\xff\xfe\x81", b'text/plain; charset="no-such-charset"'), "NO_KEY_MATERIAL"),
    "NUL bytes": (lambda: filled(b"\x00"), "NO_KEY_MATERIAL"),
    "NUL bytes in headers": (lambda: b"From: a\x00b@c.example\r\n\x00: y\r\n\r\n", "NO_SENDER"),
    "bare CR": (lambda: filled(b"--x\r"), "NO_KEY_MATERIAL"),
    "bare LF": (lambda: filled(b"\n"), "NO_KEY_MATERIAL"),
    "one header of 25 MiB": (lambda: b"From: a@b.example\r\nX: " + b"y" * (LARGEST - 100), "TOO_COMPLEX"),
    "headers only": (lambda: b"A: b\r\n" * 1_000_000, "TOO_COMPLEX"),
    "a 25 MiB attachment": (lambda: odd.wide_attachment(LARGEST), "NO_KEY_MATERIAL"),
    "25 MiB of text like armour": (lambda: odd.wide_text(LARGEST), "NO_KEY_MATERIAL"),
    "25 MiB signed by garbage": (lambda: odd.wide_signed(LARGEST), "MALFORMED_KEY"),
    "24 MiB truly signed": (lambda: signed_mail(ALICE, body=b"Content-Type: text/plain\r\n\r\n" + LINE * 400_000), "accepted"),
    "one byte too many": (lambda: odd.wide_attachment(LARGEST) + b"x" * LARGEST, "MESSAGE_TOO_LARGE"),
    "lines like delimiters": (lambda: odd.interleaved_boundaries(90, lines=1_500_000), "TOO_COMPLEX"),
    "boundary of 25 MiB": (lambda: with_body(b"", b'multipart/mixed; boundary="' + b"x" * (LARGEST - 500) + b'"'), "TOO_COMPLEX"),
    "base64 garbage": (lambda: odd.part_of(b"application/pkcs7-mime", bytes(range(256)) * 70_000), "MALFORMED_KEY"),
    "base64 of nothing but padding": (lambda: filled(b"=", OPAQUE), "MALFORMED_KEY"),
    "quoted-printable of soft breaks": (lambda: filled(b"=\r\n", QUOTED), "NO_KEY_MATERIAL"),
    "ASN.1 nested two million deep": (lambda: odd.part_of(b"application/pkcs7-mime", odd.deep_asn1(2_000_000)), "TOO_COMPLEX"),
    "ASN.1 of two million elements": (lambda: odd.part_of(b"application/pkcs7-mime", odd.wide_asn1(2_000_000)), "TOO_COMPLEX"),
    "ASN.1 of a length that lies": (lambda: odd.part_of(b"application/pkcs7-mime", odd.lying_asn1()), "MALFORMED_KEY"),
    "500 certificates in a signature": (
        lambda: multipart_signed(sign(BODY, ALICE, *many_certificates(500))),
        "TOO_COMPLEX",
    ),
    "500 certificates without a signature": (
        lambda: odd.part_of(b"application/pkcs7-mime", certs_only(*many_certificates(500)), name=b"smime.p7c"),
        "TOO_COMPLEX",
    ),
    "500 certificates in a row": (
        lambda: odd.part_of(b"application/pkix-cert", b"".join(one.der for one in many_certificates(500))),
        "UNSIGNED_CERTIFICATES",
    ),
    "a truncated signature": (lambda: signed_mail(ALICE)[:-400], "MALFORMED_KEY"),
    "a truncated opaque signature": (lambda: odd.part_of(b"application/pkcs7-mime", sign(BODY, ALICE, opaque=True)[:-50]), "MALFORMED_KEY"),
    "an OpenPGP key with 50,000 signatures": (lambda: odd.part_of(b"application/pgp-keys", flooded_key()), "KEY_TOO_LARGE"),
    "two million OpenPGP packets": (lambda: odd.part_of(b"application/pgp-keys", packet(6, b"\x04") * 2_000_000), "KEY_TOO_LARGE"),
    "a packet longer than the mail": (lambda: odd.part_of(b"application/pgp-keys", b"\xc6\xff\xff\xff\xff\xff\x04"), "MALFORMED_KEY"),
    "armour without end": (lambda: filled(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\r\n"), "MALFORMED_KEY"),
    "an Autocrypt header of 200 KiB": (lambda: headers() + AUTOCRYPT + b"A" * 200_000 + b"\r\n\r\n", "AUTOCRYPT_INVALID"),
    "900 Autocrypt headers": (lambda: headers() + (AUTOCRYPT + b"AAAA\r\n") * 900 + b"\r\n", "AUTOCRYPT_INVALID"),
    "an encoded word of 200 KiB": (lambda: b"From: =?utf-8?q?" + b"=41" * 60_000 + b"?= <alice@example.org>\r\n\r\n", "NO_KEY_MATERIAL"),
}  # fmt: skip


def peak_memory(pid: int) -> int:
    """Bytes resident at most since the process began (proc(5): VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[WorkerPool]:
    async with WorkerPool(SandboxLimits(workers=1)) as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", list(CASES))
async def test_bad_mail_gets_a_verdict_in_bounded_time_and_memory_and_the_worker_lives_on(pool: WorkerPool, name: str) -> None:
    make, expected = CASES[name]
    async with asyncio.timeout(DEADLINE):
        answer = await pool.examine(make(), Envelope(stated=Direction.INBOUND), DirectionPolicy(), NOW)
    told = [finding.verdict.value if finding.verdict else "accepted" for finding in answer.findings]
    assert expected in ([answer.verdict.value] if answer.verdict else told)
    assert "accepted" not in told or told == ["accepted"]
    if expected == "MESSAGE_TOO_LARGE" and not pool.pids:
        return
    (pid,) = pool.pids
    assert peak_memory(pid) < MEMORY
    assert (pool.state.replaced, pool.state.failed) == (0, 0)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "blob",
    [
        b"\x00" * LARGEST,
        b"\x30\x80" * (LARGEST // 2),
        b"\x30\x00" * (LARGEST // 2),
        b"-----BEGIN CERTIFICATE-----\n" * (LARGEST // 28),
        b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n" * (LARGEST // 60),
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n" * (LARGEST // 38),
        b"MI" + b" " * (LARGEST - 100) + b"!",
        b"\xc6\x01\x04" * MIB,
    ],
    ids=["zeros", "deep", "wide", "begins", "blocks", "armour", "blanks", "packets"],
)
async def test_bad_files_of_keys_get_a_finding_in_bounded_time_and_memory(pool: WorkerPool, blob: bytes) -> None:
    async with asyncio.timeout(DEADLINE):
        findings = await pool.read_material(blob, (), NOW)
        assert await pool.certificates(blob) == ()
    assert findings
    assert all(finding.verdict is not None for finding in findings)
    (pid,) = pool.pids
    assert peak_memory(pid) < MEMORY
    assert (pool.state.replaced, pool.state.failed) == (0, 0)
