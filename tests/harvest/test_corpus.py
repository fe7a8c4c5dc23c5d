"""Every mail of the corpus comes to what is written beside it.

Beside `NAME.eml` stands `NAME.json`: `direction`, `sender`, `verdict` (null when the keys decide) and `keys`, each with `fingerprint`
(or what it is called), `protocol`, `addresses`, `trust` and `verdict` (null: it may enter). The folder's `corpus.json` gives the
time at which its mails are judged and the roots that are trusted.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from keycache.domain.examination import Direction, DirectionPolicy, Envelope, Examination, TrustBase
from keycache.domain.names import Domain
from keycache.harvest.paths import PathJudge
from keycache.harvest.pipeline import examine

CORPUS = Path(__file__).parents[1] / "corpus"
MAILS = sorted(CORPUS.rglob("*.eml"))
POLICY = DirectionPolicy(managed_domains=(Domain("ours.example"),))


def outcome(examination: Examination) -> dict[str, Any]:
    return {
        "direction": examination.direction.value,
        "sender": examination.sender and examination.sender.text,
        "verdict": examination.verdict and examination.verdict.value,
        "keys": [
            {
                "fingerprint": finding.label if finding.key is None else finding.key.fingerprint.text,
                "protocol": finding.protocol.value,
                "addresses": [] if finding.key is None else [address.text for address in finding.key.addresses],
                "trust": finding.key and finding.key.trust.value,
                "verdict": finding.verdict and finding.verdict.value,
            }
            for finding in examination.findings
        ],
    }


def examined(mail: Path) -> Examination:
    corpus = json.loads((mail.parent / "corpus.json").read_text())
    anchors = [x509.load_pem_x509_certificate((mail.parent / name).read_bytes()) for name in corpus["anchors"]]
    judge = PathJudge(TrustBase(anchors=tuple(anchor.public_bytes(Encoding.DER) for anchor in anchors)))
    envelope = Envelope(stated=Direction.INBOUND, recipients=("bob@ours.example",))
    return examine(mail.read_bytes(), envelope, POLICY, judge, datetime.fromisoformat(corpus["now"]))


def test_the_corpus_is_here() -> None:
    assert {mail.parent.name for mail in MAILS} >= {"autocrypt", "odd", "protected-headers"}
    assert len(MAILS) > 80


@pytest.mark.parametrize("mail", MAILS, ids=[f"{mail.parent.name}/{mail.stem}" for mail in MAILS])
def test_a_mail_comes_to_what_is_written_beside_it(mail: Path) -> None:
    assert outcome(examined(mail)) == json.loads(mail.with_suffix(".json").read_text())
