"""What passes the pipes comes out as it went in, and what no honest worker says is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keycache.domain.entry import Protocol
from keycache.domain.errors import InvalidInput
from keycache.domain.examination import Direction, DirectionPolicy, Envelope, Examination, Finding, Gate, TrustBase
from keycache.domain.names import Domain, EmailAddress
from keycache.domain.verdict import Verdict
from keycache.sandbox import convert
from keycache.v1 import cache_pb2, entry_pb2, sandbox_pb2
from support.entries import addresses, instants, keys, make_key, texts

GATES = st.builds(Gate, name=texts(), passed=st.sampled_from([True, False, None]), detail=texts())


@st.composite
def findings(draw: st.DrawFn) -> Finding:
    key = draw(st.none() | keys())
    verdict = draw(st.sampled_from(Verdict)) if key is None else draw(st.none() | st.sampled_from(Verdict))
    protocol = draw(st.sampled_from(Protocol)) if key is None else key.protocol
    gates = tuple(draw(st.lists(GATES, max_size=3)))
    return Finding(protocol=protocol, key=key, verdict=verdict, detail=draw(texts()), label=draw(texts()), gates=gates)


@st.composite
def examinations(draw: st.DrawFn) -> Examination:
    found = tuple(draw(st.lists(findings(), max_size=3)))
    return Examination(
        direction=draw(st.sampled_from(Direction)),
        sender=draw(st.none() | addresses()),
        message_id=draw(texts()),
        verdict=None if found else draw(st.sampled_from(Verdict)),
        detail=draw(texts()),
        findings=found,
        chain=tuple(draw(st.lists(st.binary(max_size=9), max_size=2))),
        gates=tuple(draw(st.lists(GATES, max_size=3))),
    )


@settings(max_examples=50, deadline=None)
@given(examinations())
def test_examinations_pass_unchanged(examination: Examination) -> None:
    wire = convert.examination_to_wire(examination).SerializeToString()
    assert convert.examination_from_wire(sandbox_pb2.Examination.FromString(wire)) == examination


@settings(deadline=None)
@given(
    st.builds(
        Envelope,
        stated=st.sampled_from(Direction),
        listener=texts(),
        client=texts(),
        user=texts(),
        mail_from=texts(),
        recipients=st.lists(texts(), max_size=3).map(tuple),
        received_at=st.none() | instants(),
    )
)
def test_envelopes_pass_unchanged(envelope: Envelope) -> None:
    wire = convert.envelope_to_wire(envelope).SerializeToString()
    assert convert.envelope_from_wire(cache_pb2.Envelope.FromString(wire)) == envelope


def test_policies_and_trust_bases_pass_unchanged() -> None:
    policy = DirectionPolicy(
        managed_domains=(Domain("a.example"),),
        inbound_listeners=("*:25",),
        outbound_listeners=("b",),
        internal_networks=("10.0.0.0/8",),
    )
    assert convert.policy_from_wire(convert.policy_to_wire(policy)) == policy
    base = TrustBase(
        anchors=(b"a",), approved=(b"b",), intermediates=(b"c", b"d"), crls=(b"e",), rejected=frozenset({"f", "g"})
    )
    assert convert.trust_from_wire(convert.trust_to_wire(base)) == base


def test_undecodable_bytes_of_a_mail_do_not_break_the_answer() -> None:
    detail = b"\xff".decode("utf-8", "surrogateescape")
    examination = Examination(
        direction=Direction.INBOUND, sender=None, message_id=detail, verdict=Verdict.NO_SENDER, detail=detail
    )
    passed = convert.examination_from_wire(convert.examination_to_wire(examination))
    assert (passed.message_id, passed.detail) == ("?", "?")


KEY = make_key()
WIRE_KEY = convert.finding_to_wire(Finding(protocol=KEY.protocol, key=KEY, verdict=None)).key


@pytest.mark.parametrize(
    "finding",
    [
        sandbox_pb2.Finding(),
        sandbox_pb2.Finding(protocol=1),  # type: ignore[arg-type]
        sandbox_pb2.Finding(protocol=1, verdict="ALL_IS_WELL"),  # type: ignore[arg-type]
        sandbox_pb2.Finding(protocol=9, verdict="SECRET_KEY"),  # type: ignore[arg-type]
        sandbox_pb2.Finding(protocol=2, key=WIRE_KEY),  # type: ignore[arg-type]
        sandbox_pb2.Finding(protocol=1, key=entry_pb2.Key(protocol=1, fingerprint="xyz")),  # type: ignore[arg-type]
        sandbox_pb2.Finding(protocol=1, verdict="SECRET_KEY", gates=[cache_pb2.Gate(name="a")]),  # type: ignore[arg-type]
    ],
    ids=[
        "empty",
        "neither key nor verdict",
        "no verdict of ours",
        "no protocol of ours",
        "another's key",
        "no key",
        "no outcome",
    ],
)
def test_findings_that_contradict_themselves_are_refused(finding: sandbox_pb2.Finding) -> None:
    with pytest.raises(InvalidInput):
        convert.finding_from_wire(finding)


@pytest.mark.parametrize(
    "examination",
    [
        sandbox_pb2.Examination(verdict="NO_SENDER"),
        sandbox_pb2.Examination(direction=1),  # type: ignore[arg-type]
        sandbox_pb2.Examination(direction=1, verdict="NO_SENDER", findings=[sandbox_pb2.Finding(protocol=1, key=WIRE_KEY)]),  # type: ignore[arg-type]
        sandbox_pb2.Examination(direction=1, verdict="NO_SENDER", sender="nobody"),  # type: ignore[arg-type]
    ],
    ids=["no direction", "neither verdict nor findings", "both", "no sender of a mail"],
)
def test_examinations_that_contradict_themselves_are_refused(examination: sandbox_pb2.Examination) -> None:
    with pytest.raises(InvalidInput):
        convert.examination_from_wire(examination)


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_any_answer_is_a_value_or_is_refused(data: bytes) -> None:
    for kind, read in (
        (sandbox_pb2.Examination, convert.examination_from_wire),
        (sandbox_pb2.Finding, convert.finding_from_wire),
    ):
        try:
            message = kind.FromString(data)
        except Exception:  # noqa: BLE001 -- the decoder's own refusal, which the pool takes for a lie as well
            continue
        try:
            read(message)  # type: ignore[operator]
        except InvalidInput:
            continue


def test_senders_pass_as_they_are_written() -> None:
    sender = EmailAddress("Ann@example.org")
    examination = Examination(direction=Direction.INBOUND, sender=sender, message_id="", verdict=Verdict.NO_KEY_MATERIAL)
    assert convert.examination_from_wire(convert.examination_to_wire(examination)).sender == sender
