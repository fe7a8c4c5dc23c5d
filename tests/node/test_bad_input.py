"""Bad mail through a real node, by the command: each gets a verdict, lookups are answered meanwhile, memory stays bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from support import odd_mails as odd
from support.command import spawn
from support.openpgp import Maker, packet, subpacket
from support.scenario import Running, running
from support.scenario_people import Person
from support.smime import BODY, authority, multipart_signed, person, sign

MIB = 1024 * 1024

PEAK, AFTERWARDS = 600 * MIB, 250 * MIB
"""Of the node itself, workers apart. It begins with 50; a mail of 25 MiB is there some ten times on its way from gRPC's buffers to the
worker's pipe, and two are under way at once. What is left afterwards is what gRPC and the allocator keep for the next."""

ROOT = authority("Bad Input Root")


def flooded_key() -> bytes:
    """50,000 signatures of strangers in 17 MiB (CVE-2019-13050)."""
    maker = Maker("flooded")
    flood = maker.signature(0x10, b"", issuer=Maker("flooder").fingerprint, hashed=subpacket(20, bytes(240)))
    name = "Ann <ann@example.org>"
    return maker.primary + maker.user_id(name) + maker.certify(name) + flood * 50_000 + packet(14, maker.subkey_body())


def crowded_signature() -> bytes:
    one = person("alice@example.org", ROOT)
    others = [person(f"bystander{number}@example.org", ROOT, key=one.key) for number in range(500)]
    return multipart_signed(sign(BODY, one, *others))


def with_body(body: bytes, kind: bytes = b"text/plain") -> bytes:
    return odd.HEAD + b"Content-Type: " + kind + b"\r\n\r\n" + body


CASES: dict[str, tuple[Callable[[], bytes], str]] = {
    "truncated": (lambda: crowded_signature()[:4000], "MALFORMED_KEY"),
    "nested": (lambda: odd.nested(1_000), "TOO_COMPLEX"),
    "parts": (lambda: odd.many_parts(10_000), "TOO_COMPLEX"),
    "charset": (lambda: with_body(b"\xff\xfe\x81", b'text/plain; charset="no-such-charset"'), "NO_KEY_MATERIAL"),
    "no-from": (lambda: b"Subject: x\r\n\r\nhello\r\n", "NO_SENDER"),
    "several-from": (lambda: b"From: a@b.example\r\nFrom: c@d.example\r\n\r\nhello\r\n", "SEVERAL_SENDERS"),
    "nul": (lambda: with_body(b"\0" * (25 * MIB - 400)), "NO_KEY_MATERIAL"),
    "attachment": (lambda: odd.wide_attachment(25 * MIB), "NO_KEY_MATERIAL"),
    "over-the-limit": (lambda: odd.wide_attachment(25 * MIB) + b"x" * 4096, "MESSAGE_TOO_LARGE"),
    "asn1-deep": (lambda: odd.part_of(b"application/pkcs7-mime", odd.deep_asn1(2_000_000)), "TOO_COMPLEX"),
    "asn1-wide": (lambda: odd.part_of(b"application/pkcs7-mime", odd.wide_asn1(2_000_000)), "TOO_COMPLEX"),
    "base64": (lambda: odd.part_of(b"application/pkcs7-mime", bytes(range(256)) * 10_000), "MALFORMED_KEY"),
    "openpgp-flood": (lambda: odd.part_of(b"application/pgp-keys", flooded_key()), "KEY_TOO_LARGE"),
    "crowd": (crowded_signature, "TOO_COMPLEX"),
}


def private_memory(pid: int) -> int:
    """Bytes of its own now: file mappings not counted (proc(5): RssAnon)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


async def watch(node: Running, address: str, ended: asyncio.Event) -> tuple[int, int]:
    """Look the address up until then; how often, and the most memory seen. Raises when a lookup is not answered."""
    count = most = 0
    while not ended.is_set():
        assert await node.outcome(address) == "served"
        count += 1
        most = max(most, private_memory(node.pid))
        await asyncio.sleep(0.005)
    return count, most


async def test_every_bad_mail_gets_its_verdict_while_lookups_go_on_in_bounded_memory(tmp_path: Path) -> None:
    known, ended = Person("known"), asyncio.Event()
    files = {name: tmp_path / f"{name}.eml" for name in CASES}
    for name, (make, _) in CASES.items():
        files[name].write_bytes(make())
    data = tmp_path / "data"
    async with running(data, WORKERS__COUNT="2") as node:
        assert (await node.harvest(known.mail())).verdict == "CACHED"
        watching = asyncio.create_task(watch(node, known.address, ended))
        halves = (list(CASES)[::2], list(CASES)[1::2])
        arguments = [
            ("harvest", "--json", "--direction", "inbound", "--data-dir", data, *(files[name] for name in half))
            for half in halves
        ]
        results = await asyncio.gather(*(asyncio.to_thread(spawn, *one) for one in arguments))
        ended.set()
        count, most = await watching
        verdicts: dict[str, str] = {}
        for result in results:
            assert b"Traceback" not in result.stderr
            document = json.loads(result.stdout)
            verdicts |= {Path(one["file"]).stem: one["verdict"] for one in document["results"]}
        assert verdicts == {name: verdict for name, (_, verdict) in CASES.items()}
        assert count > 10
        assert most < PEAK, f"{most / MIB:.0f} MiB"
        left = private_memory(node.pid)
        assert left < AFTERWARDS, f"{left / MIB:.0f} MiB"
        assert (await node.status()).entries.live == 1
