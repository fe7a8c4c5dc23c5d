"""One message from bytes to verdict: the gates in their order, then the walk through its parts. Pure.

The order is by cost and by what an administrator wants to hear first: outbound mail is never looked into, so it is told from its
headers and envelope alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from keycache.domain.examination import Direction, DirectionPolicy, Envelope, Examination, Gate
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest import autocrypt, direction
from keycache.harvest.budget import DEFAULT, Budget, BudgetExceeded, refuse_size
from keycache.harvest.collect import Collection
from keycache.harvest.mime import Header, read_headers, split
from keycache.harvest.paths import PathJudge
from keycache.harvest.sender import Sender, read_date, read_message_id, read_sender
from keycache.harvest.walk import Walk

GATES = ("size", "readable", "direction", "sender", "managed domain", "structure", "key material")
"""The message's own questions, in order. Each key has further ones."""


@dataclass(slots=True, kw_only=True)
class _Course:
    """What is known of the message so far, and the gates it passed."""

    direction: Direction
    sender: EmailAddress | None = None
    message_id: str = ""
    passed: list[Gate] = field(default_factory=list)

    def ok(self, detail: str = "") -> None:
        """The next gate is passed."""
        self.passed.append(Gate(name=GATES[len(self.passed)], passed=True, detail=detail))

    def stop(self, verdict: Verdict, detail: str) -> Examination:
        """The next gate is not passed; the others are not reached."""
        failed = Gate(name=GATES[len(self.passed)], passed=False, detail=detail)
        rest = (Gate(name=name, passed=None) for name in GATES[len(self.passed) + 1 :])
        return Examination(
            direction=self.direction,
            sender=self.sender,
            message_id=self.message_id,
            verdict=verdict,
            detail=detail,
            gates=(*self.passed, failed, *rest),
        )


def examine(
    message: bytes,
    envelope: Envelope,
    policy: DirectionPolicy,
    judge: PathJudge,
    now: datetime,
    budget: Budget = DEFAULT,
) -> Examination:
    """What the message holds for the cache, judged at `now`. Whatever the bytes, there is a verdict or there are findings."""
    oversized = refuse_size(len(message), envelope, budget)
    if oversized is not None:
        return oversized
    course = _Course(direction=envelope.stated)
    course.ok(f"{len(message):,} bytes")
    try:
        headers = read_headers(message, budget)
    except BudgetExceeded as exceeded:
        return course.stop(Verdict.TOO_COMPLEX, str(exceeded))
    if not headers:
        detail = "The mail is empty." if not message.strip() else "It does not begin with header fields."
        return course.stop(Verdict.UNREADABLE_MESSAGE, detail)
    course.ok()
    sender = read_sender(_values(headers, "from"))
    course.sender = sender.address
    course.message_id = read_message_id(_values(headers, "message-id"))
    return _judge_sender(sender, course, envelope, policy) or _look_into(
        message, headers, sender, course, envelope, judge, now, budget
    )


def _judge_sender(sender: Sender, course: _Course, envelope: Envelope, policy: DirectionPolicy) -> Examination | None:
    """The gates that need no more than headers and envelope. None: passed."""
    ruling = direction.decide(envelope, policy, sender.address)
    course.direction = ruling.direction
    if ruling.verdict is not None:
        return course.stop(ruling.verdict, ruling.detail)
    course.ok(ruling.detail)
    if sender.verdict is not None:
        return course.stop(sender.verdict, sender.detail)
    assert sender.address is not None
    course.ok(sender.address.text)
    if policy.manages(sender.address):
        return course.stop(Verdict.OWN_DOMAIN, f"{sender.address.domain} is a managed domain.")
    course.ok()
    return None


def _look_into(
    message: bytes,
    headers: tuple[Header, ...],
    sender: Sender,
    course: _Course,
    envelope: Envelope,
    judge: PathJudge,
    now: datetime,
    budget: Budget,
) -> Examination:
    assert sender.address is not None
    received_at = min(envelope.received_at or now, now)
    date = read_date(_values(headers, "date"))
    found = Collection(now)
    walk = Walk(
        sender=sender.address,
        date=autocrypt.effective_date(date, received_at, now),
        now=now,
        judge=judge,
        budget=budget,
        found=found,
    )
    try:
        parts = split(message, budget)
        found.add(
            autocrypt.examine_headers(
                [value.decode("utf-8", "replace") for value in _values(headers, "autocrypt")],
                sender.address,
                sender.count,
                parts.parts[0].type.type == "multipart/report",
                date,
                received_at,
                now,
            )
        )
        walk.run(parts)
    except BudgetExceeded as exceeded:
        return course.stop(Verdict.TOO_COMPLEX, str(exceeded))
    course.ok(f"{len(parts.parts):,} parts")
    findings = found.findings()
    if not findings and walk.is_encrypted:
        return course.stop(Verdict.ENCRYPTED_MESSAGE, "The mail is encrypted, and no key lies outside.")
    if not findings:
        return course.stop(Verdict.NO_KEY_MATERIAL, "There is no signature that brings a certificate, and no OpenPGP key.")
    course.ok(f"{len(findings)} found")
    return Examination(
        direction=course.direction,
        sender=course.sender,
        message_id=course.message_id,
        verdict=None,
        findings=findings,
        chain=tuple(walk.chain),
        gates=tuple(course.passed),
    )


def _values(headers: tuple[Header, ...], name: str) -> tuple[bytes, ...]:
    return tuple(header.value for header in headers if header.name == name)
