"""One certificate that stands in a mail several times: only what was accepted says what it is worth."""

from __future__ import annotations

from cryptography import x509

from keycache.domain.entry import HeldReason, Trust
from keycache.domain.examination import Direction, DirectionPolicy, Envelope, TrustBase
from keycache.harvest.paths import PathJudge
from keycache.harvest.pipeline import examine
from support import smime as make

ROOT = make.authority("Collection Root")
BELOW = make.authority("Collection Intermediate", ROOT)
ALICE = make.person("alice@example.org", BELOW)


def part(mail: bytes, boundary: bytes) -> bytes:
    """The signed mail as a part of another one."""
    return mail[mail.index(b"Content-Type:") :].replace(b"=-keycache-=", boundary)


def worth(judge: PathJudge, first: bytes, second: bytes) -> list[tuple[str | None, Trust, HeldReason | None]]:
    """Verdict, trust and reason of the keys in a mail with two signed parts."""
    lines = b"".join(b"--=both\r\n" + one + b"\r\n" for one in (part(first, b"=one="), part(second, b"=two=")))
    mail = make.headers() + b"Content-Type: multipart/mixed; boundary==both\r\n\r\n" + lines + b"--=both--\r\n"
    examination = examine(mail, Envelope(stated=Direction.INBOUND), DirectionPolicy(), judge, make.NOW)
    keys = [(one.verdict and one.verdict.value, one.key) for one in examination.findings if one.key is not None]
    return [(verdict, key.trust, key.held) for verdict, key in keys]


def test_a_suspended_certificate_gains_no_trust_by_a_second_signature_without_its_chain() -> None:
    hold = make.revocation_list(BELOW, [ALICE], reason=x509.ReasonFlags.certificate_hold)
    judge = PathJudge(TrustBase(anchors=(ROOT.der,), crls=(hold,)))
    bare, whole = make.signed_mail(ALICE), make.signed_mail(ALICE, BELOW)
    held = [(None, Trust.HELD, HeldReason.UNKNOWN_ISSUER)]
    assert worth(judge, bare, whole) == held
    assert worth(judge, whole, bare) == held
    assert worth(judge, whole, whole) == [("CERTIFICATE_REVOKED", Trust.ANCHORED, None)]


def test_a_broken_second_signature_does_not_take_away_why_a_key_is_held() -> None:
    judge = PathJudge(TrustBase(anchors=(ROOT.der,)))
    alone = make.person("alice@example.org")
    good = make.signed_mail(alone)
    broken = good.replace(b"Dear Bob", b"Dear Eve")
    for first, second in ((good, broken), (broken, good)):
        assert worth(judge, first, second) == [(None, Trust.HELD, HeldReason.SELF_SIGNED)]
