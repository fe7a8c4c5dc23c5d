"""Mails and their keys as lines for people."""

from __future__ import annotations

from typing import Any

from rich.cells import cell_len

from keycache.cli import mail_lines
from keycache.domain.verdict import Verdict

PATH = "/tmp/keycache-quickstart-ikgkusrm/sample-mail/smime-two-certificates.eml"


def key(verdict: Verdict, detail: str = "", **fields: Any) -> dict[str, Any]:
    known = {"fingerprint": "4a211c87310a" + "0" * 52, "protocol": "SMIME", "addresses": ["anna@example.com"]}
    return {**known, "verdict": verdict.value, "detail": detail, "advice": verdict.advice, **fields}


def mail(verdict: Verdict, detail: str = "", *keys: dict[str, Any], **fields: Any) -> dict[str, Any]:
    known = {"file": PATH, "direction": "INBOUND", "sender": "anna@example.com", "keys": list(keys)}
    return {**known, "verdict": verdict.value, "detail": detail, "advice": verdict.advice, **fields}


def told(document: dict[str, Any], room: int | None) -> list[str]:
    return [line.plain for line in mail_lines.mail(document, room)]


CHAIN = "The chain ends in the trusted CN=Sample Mail Authority."
USAGE = "The certificate's key usage does not include encryption (keyAgreement)."
TWO = mail(Verdict.CACHED, CHAIN, key(Verdict.CACHED, CHAIN), key(Verdict.SIGNING_ONLY, USAGE))


def test_a_mail_is_one_line_its_keys_are_one_line_each_and_nothing_is_said_twice() -> None:
    assert told(TWO, 80) == [
        "CACHED                /tmp/keycache-quick…sample-mail/smime-two-certificates.eml",
        "  inbound, from anna@example.com",
        "  smime 4a211c87310a  anna@example.com  CACHED",
        "    The chain ends in the trusted CN=Sample Mail Authority.",
        "  smime 4a211c87310a  anna@example.com  SIGNING_ONLY",
        "    The certificate's key usage does not include encryption (keyAgreement).",
    ]


def test_where_no_terminal_shows_it_names_and_sentences_stay_whole() -> None:
    lines = told(mail(Verdict.NO_KEY_MATERIAL, "x " * 100), None)
    assert lines[0] == f"NO_KEY_MATERIAL       {PATH}"
    assert lines[2].strip() == ("x " * 100).strip()


def test_the_same_sentence_about_several_keys_is_said_once() -> None:
    keys = [key(Verdict.SIGNING_ONLY, USAGE, fingerprint=digit * 64) for digit in "ab"]
    assert told(mail(Verdict.SIGNING_ONLY, USAGE, *keys), 80)[2:] == [
        "  smime aaaaaaaaaaaa  anna@example.com  SIGNING_ONLY",
        f"    {USAGE}",
        "  smime bbbbbbbbbbbb  anna@example.com  SIGNING_ONLY",
    ]


def test_a_sentence_that_is_the_advice_is_left_to_the_end() -> None:
    verdict = Verdict.KEY_EXPIRED
    document = mail(verdict, verdict.advice, key(verdict, verdict.advice))
    assert told(document, 80)[2:] == ["  smime 4a211c87310a  anna@example.com  KEY_EXPIRED"]
    assert [line.plain for line in mail_lines.advice([document], None)] == [f"KEY_EXPIRED: {verdict.advice}"]


def test_a_mail_without_keys_tells_why_below_it() -> None:
    document = mail(Verdict.UNREADABLE_MESSAGE, "It is empty.", file="a.eml", direction="UNKNOWN", sender=None)
    assert told(document, 80) == ["UNREADABLE_MESSAGE    a.eml", "    It is empty."]


def test_a_key_that_could_not_be_read_keeps_the_name_of_its_file() -> None:
    secret = key(Verdict.SECRET_KEY, fingerprint="karl-secret.asc", protocol="OPENPGP", addresses=[])
    assert told(mail(Verdict.SECRET_KEY, "", secret), 80)[2:] == ["  openpgp karl-secret.asc  -  SECRET_KEY"]
    nameless = key(Verdict.MALFORMED_KEY, fingerprint="", protocol=None, addresses=["a@b.example", "c@d.example"])
    assert told(mail(Verdict.MALFORMED_KEY, "", nameless), 80)[2:] == ["  key (no key)  a@b.example (+1)  MALFORMED_KEY"]


def test_nothing_is_wider_than_a_terminal_of_ordinary_width() -> None:
    long = "漢字" * 40 + "@example.org"
    keys = [key(verdict, "x" * 200, addresses=[long]) for verdict in Verdict]
    keys += [key(verdict, "", addresses=[long], fingerprint=f"{long}.asc") for verdict in Verdict]
    for room in (60, 80, 120):
        lines = told(mail(Verdict.CACHED, "y" * 200, *keys, sender=long), room)
        lines += [line.plain for line in mail_lines.advice([mail(verdict) for verdict in Verdict], room)]
        assert max(map(cell_len, lines)) <= room


def test_advice_comes_once_for_each_verdict_that_was_no_success_best_first() -> None:
    results = [TWO, TWO, mail(Verdict.NO_KEY_MATERIAL), mail(Verdict.SELF_SIGNED)]
    lines = [line.plain for line in mail_lines.advice(results, None)]
    wanted = (Verdict.SELF_SIGNED, Verdict.SIGNING_ONLY, Verdict.NO_KEY_MATERIAL)
    assert lines == [f"{verdict.value}: {verdict.advice}" for verdict in wanted]


def test_a_verdict_of_a_later_version_is_told_with_the_advice_it_brings() -> None:
    later = {**mail(Verdict.CACHED), "verdict": "KEY_IN_ORBIT", "advice": "Wait."}
    assert [line.plain for line in mail_lines.advice([later], 80)] == ["KEY_IN_ORBIT: Wait."]
    assert told(later, 80)[0].startswith("KEY_IN_ORBIT ")


def test_an_imported_item_is_told_alike() -> None:
    item = {"source": "a.pem", "verdict": "SIGNING_ONLY", "detail": USAGE, "keys": [key(Verdict.SIGNING_ONLY, USAGE)]}
    assert [line.plain for line in mail_lines.imported(item, 80)] == [
        "SIGNING_ONLY          a.pem",
        "  smime 4a211c87310a  anna@example.com  SIGNING_ONLY",
        f"    {USAGE}",
    ]


def test_messages_seen_take_one_line_each_and_more_only_when_asked() -> None:
    line = {
        "at": "2026-11-23T15:31:07Z",
        "message_id": "<1@example.com>",
        "sender": f"{'long.' * 12}name@example.com",
        "direction": "INBOUND",
        "verdict": "SELF_SIGNED",
        "detail": "Nobody else vouches for it.",
    }
    short = [text.plain for text in mail_lines.recent([line], 80, long=False)]
    assert short == [
        "Seen (UTC)        Verdict               From",
        "2026-11-23 15:31  SELF_SIGNED           long.long.lon…long.long.name@example.com",
    ]
    long = [text.plain for text in mail_lines.recent([line], 80, long=True)]
    assert long == [*short, "    inbound, <1@example.com>", "    Nobody else vouches for it."]
