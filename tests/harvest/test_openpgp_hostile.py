"""Whatever the bytes, the parsers answer; and what they accept stays provable."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import example, given, settings
from hypothesis import strategies as st

from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.openpgp import examine_keys, find_armoured_blocks, keys_in_signature
from keycache.harvest.openpgp_packets import MalformedPackets, Packet, spans
from support.openpgp import BIRTH, DAY, T0, Maker, armour, packet

ALICE = EmailAddress.parse("alice@example.org")
NAME = "Alice <alice@example.org>"

_MAKERS = [Maker("alice"), Maker("alice", version=6)]
_SEEDS = [
    *(maker.certificate(NAME, lives=200 * DAY) for maker in _MAKERS),
    *(maker.certificate(NAME, before=maker.revoke(at=BIRTH)) for maker in _MAKERS),
    armour(_MAKERS[0].certificate(NAME)),
    _MAKERS[0].secret_certificate(NAME),
    _MAKERS[0].certificate(NAME) + Maker("bob").certify_other(_MAKERS[0], NAME) + packet(17, b"photo"),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A real key with a few bytes changed, cut out, doubled or put in."""
    data = bytearray(draw(st.sampled_from(_SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["change", "cut", "double", "insert"]))
        if kind == "change" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 100))]
        elif kind == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 100))]
        else:
            data[at:at] = draw(st.binary(max_size=20))
    return bytes(data)


@settings(max_examples=300, deadline=10_000, derandomize=True)
@given(mutated())
@example(b"\x99")
@example(b"\xc6\xff\xff\xff\xff\xff")
@example(packet(6, b"\x04\0\0\0\0\x12"))
def test_a_changed_key_never_raises_and_what_passes_is_the_senders(blob: bytes) -> None:
    findings = examine_keys(blob, ALICE, T0)
    assert findings
    for finding in findings:
        if finding.verdict is None:
            assert finding.key is not None
            assert finding.key.fingerprint.text in {maker.fingerprint for maker in _MAKERS}
            assert finding.key.addresses == (ALICE,)
            (again,) = examine_keys(finding.key.material, ALICE, T0)
            assert again.key == finding.key


@settings(max_examples=200, deadline=10_000, derandomize=True)
@given(st.binary(max_size=200))
def test_random_bytes_never_raise(blob: bytes) -> None:
    for data in (blob, armour(blob), b"\xc6" + blob):
        assert all(finding.verdict is not None for finding in examine_keys(data, ALICE, T0))
        keys_in_signature(data, ALICE, T0)
        find_armoured_blocks(data)


@given(st.lists(st.tuples(st.integers(0, 63), st.binary(max_size=300)), max_size=8))
def test_packets_are_read_as_they_were_written(packets: list[tuple[int, bytes]]) -> None:
    data = b"".join(Packet(tag, body).encode() for tag, body in packets)
    assert [(span.tag, data[span.body : span.end]) for span in spans(data)] == packets


@given(st.binary(max_size=400))
def test_packets_lie_in_order_within_the_bytes(data: bytes) -> None:
    position = 0
    with suppress(MalformedPackets):
        for span in spans(data):
            assert span.start == position
            assert span.start < span.body <= span.end <= len(data)
            position = span.end


def test_a_long_packet_keeps_its_length() -> None:
    for size in (191, 192, 8383, 8384, 70_000):
        data = Packet(13, b"x" * size).encode()
        assert [span.end - span.body for span in spans(data)] == [size]


def test_a_secret_key_with_changed_bytes_is_never_kept() -> None:
    maker = _MAKERS[0]
    blob = maker.secret_certificate(NAME)
    for at in range(6, len(blob), 7):
        changed = bytearray(blob)
        changed[at] ^= 0x41
        for finding in examine_keys(bytes(changed), ALICE, T0):
            assert finding.verdict in (Verdict.SECRET_KEY, Verdict.MALFORMED_KEY)
            assert finding.key is None
