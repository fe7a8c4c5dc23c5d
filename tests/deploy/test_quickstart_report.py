"""The quickstart's judgement of what came out."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import quickstart_report
from sample_mails import sample_mails

SAMPLES = sample_mails(datetime(2026, 5, 4, 12, tzinfo=UTC))


def harvested() -> list[dict[str, Any]]:
    """What a good node says of every mail."""
    return [{"file": f"/somewhere/{mail.name}.eml", "verdict": mail.verdict.value} for mail in SAMPLES.mails]


def found() -> list[dict[str, Any]]:
    """What a good node answers for every sender."""
    return [
        {
            "address": mail.sender,
            "keys": []
            if mail.miss
            else [
                {
                    "protocol": "SMIME",
                    "fingerprint": mail.fingerprint,
                    "trust": "ANCHORED",
                    "expires_at": "2027-09-16T12:00:00Z",
                }
            ],
            "miss": {"code": mail.miss.value, "detail": ""} if mail.miss else None,
        }
        for mail in SAMPLES.mails
    ]


def test_what_came_out_as_it_should_is_no_difference() -> None:
    assert quickstart_report.differences(SAMPLES, harvested(), found()) == []


def test_another_verdict_is_a_difference() -> None:
    wrong = harvested()
    wrong[0]["verdict"] = "SIGNATURE_INVALID"

    assert quickstart_report.differences(SAMPLES, wrong, found()) == [
        "smime-clear-signed should give CACHED, but gave SIGNATURE_INVALID."
    ]


def test_a_mail_without_a_verdict_is_a_difference() -> None:
    assert quickstart_report.differences(SAMPLES, harvested()[1:], found()) == [
        "smime-clear-signed should give CACHED, but gave nothing."
    ]


def test_another_key_is_a_difference() -> None:
    wrong = deepcopy(found())
    wrong[0]["keys"][0]["fingerprint"] = "00" * 32

    assert quickstart_report.differences(SAMPLES, harvested(), wrong) == [
        f"The lookup of anna@example.com should give {SAMPLES.mails[0].fingerprint}, but gave {'00' * 32}."
    ]


def test_a_key_where_none_should_be_is_a_difference() -> None:
    wrong = found()
    forged = next(number for number, mail in enumerate(SAMPLES.mails) if mail.name == "smime-forged")
    wrong[forged] |= {"keys": wrong[0]["keys"], "miss": None}

    assert quickstart_report.differences(SAMPLES, harvested(), wrong) == [
        f"The lookup of hanna@example.com should give NOT_FOUND, but gave {SAMPLES.mails[0].fingerprint}."
    ]


def test_the_tables_have_one_line_for_each_mail_and_each_sender(capsys) -> None:
    quickstart_report.show(SAMPLES, harvested(), found())

    verdicts, lookups = capsys.readouterr().out.split("What a lookup answers")
    assert [mail.name for mail in SAMPLES.mails if verdicts.count(f" {mail.name} ") != 1] == []
    assert [mail.sender for mail in SAMPLES.mails if lookups.count(f" {mail.sender} ") != 1] == []
    assert "2027-09-16 12:00 UTC" in lookups
