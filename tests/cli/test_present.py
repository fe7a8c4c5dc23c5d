"""Answers of the node as documents and as tables."""

from __future__ import annotations

import io
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console, RenderableType

from keycache import codec
from keycache.cli import mail_lines, present, tables
from keycache.domain.entry import Trust
from keycache.v1 import admin_pb2, cache_pb2, entry_pb2, record_pb2
from support.entries import T0, make_entry

DAY = timedelta(days=1)


def rendered(*parts: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for part in parts:
        console.print(part, markup=False, highlight=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_harvest_is_told_as_the_issue_asks() -> None:
    key = cache_pb2.KeyVerdict(
        fingerprint="ab" * 32,
        protocol=entry_pb2.PROTOCOL_SMIME,
        addresses=["alice@example.org"],
        verdict="CACHED",
        detail="new",
        advice="nothing to do",
    )
    answer = cache_pb2.HarvestResponse(
        direction=cache_pb2.DIRECTION_INBOUND,
        verdict="CACHED",
        detail="one key",
        keys=[key],
        revision=7,
        sender="alice@example.org",
    )
    document = present.harvested("a.eml", answer)
    assert document == {
        "file": "a.eml",
        "direction": "INBOUND",
        "verdict": "CACHED",
        "detail": "one key",
        "advice": "",
        "sender": "alice@example.org",
        "message_id": None,
        "revision": 7,
        "keys": [
            {
                "fingerprint": "ab" * 32,
                "protocol": "SMIME",
                "addresses": ["alice@example.org"],
                "verdict": "CACHED",
                "detail": "new",
                "advice": "nothing to do",
                "queued": False,
            }
        ],
    }


def test_a_lookup_is_told_as_the_issue_asks() -> None:
    key = entry_pb2.Key(
        protocol=entry_pb2.PROTOCOL_OPENPGP, fingerprint="cd" * 20, trust=entry_pb2.TRUST_BOUND, addresses=["a@example.org"]
    )
    found = cache_pb2.FoundKey(
        key=key,
        origin=entry_pb2.ORIGIN_LOOKED_UP,
        cached_at=codec.timestamp(T0),
        refreshed_at=codec.timestamp(T0 + timedelta(microseconds=1)),
        expires_at=codec.timestamp(T0 + DAY),
    )
    assert present.looked_up(cache_pb2.LookupResult(address="A@example.org", keys=[found])) == {
        "address": "A@example.org",
        "keys": [
            {
                "fingerprint": "cd" * 20,
                "protocol": "OPENPGP",
                "trust": "BOUND",
                "origin": "LOOKED_UP",
                "cached_at": "2026-03-01T12:00:00Z",
                "refreshed_at": "2026-03-01T12:00:00.000001Z",
                "expires_at": "2026-03-02T12:00:00Z",
                "not_before": None,
                "not_after": None,
                "addresses": ["a@example.org"],
                "names": [],
                "algorithm": "",
            }
        ],
        "miss": None,
    }
    miss = cache_pb2.Miss(code=cache_pb2.MISS_CODE_BAD_ADDRESS, detail="not an address")
    assert present.looked_up(cache_pb2.LookupResult(address="x", miss=miss)) == {
        "address": "x",
        "keys": [],
        "miss": {"code": "BAD_ADDRESS", "detail": "not an address"},
    }


def test_timeouts_are_seconds_and_text() -> None:
    document = present.settings(
        record_pb2.Settings(
            harvested_timeout=Duration(seconds=500 * 86400),
            looked_up_timeout=Duration(seconds=86400),
            imported_timeout=Duration(seconds=5400),
            purge_hold_share=0.2,
            purge_hold_floor=100,
            clock_skew_bound=Duration(seconds=120),
        )
    )
    assert document == {
        "timeouts": {"harvested": 43_200_000, "looked_up": 86_400, "imported": 5_400},
        "timeouts_text": {"harvested": "500d", "looked_up": "24h", "imported": "90m"},
        "purge_hold_share": 0.2,
        "purge_hold_floor": 100,
        "clock_skew_bound": 120,
        "clock_skew_bound_text": "2m",
    }


def test_the_status_is_told_as_the_issue_asks() -> None:
    document = present.status(
        admin_pb2.Status(
            mode="standalone",
            node_id="n",
            entries=admin_pb2.EntryCounts(live=3, expired=2, held=1),
            applied_revision=9,
            digest="00",
            purge=admin_pb2.PurgeStatus(state="HELD_CLOCK", reason="The clock was set.", waiting=2),
            warnings=["Beware."],
        )
    )
    assert document["entries"] == {"live": 3, "expired": 2, "held": 1}
    assert (document["mode"], document["node_id"], document["applied_revision"], document["digest"]) == (
        "standalone",
        "n",
        9,
        "00",
    )
    assert (document["purge"]["state"], document["purge"]["reason"]) == ("HELD_CLOCK", "The clock was set.")
    text = rendered(tables.status(document))
    assert "2 expired entries wait" in text
    assert "Beware." in text


def test_a_listed_entry_is_the_export_and_what_is_computed() -> None:
    entry = make_entry(1, trust=Trust.HELD)
    listed = admin_pb2.ListedEntry(
        entry=codec.entry_to_wire(entry),
        expires_at=codec.timestamp(T0 + DAY),
        origin=entry_pb2.ORIGIN_HARVESTED,
        mod_revision=5,
        block=record_pb2.Block(
            kind=record_pb2.BLOCK_KIND_ADDRESS, value="user1@example.org", at=codec.timestamp(T0), reason="why"
        ),
    )
    document = present.listed_entry(listed)
    assert document["trust"] == "HELD"
    assert (document["origin"], document["refreshed_at"], document["expires_at"], document["expired"]) == (
        "HARVESTED",
        "2026-03-01T12:00:00Z",
        "2026-03-02T12:00:00Z",
        False,
    )
    assert document["block"]["reason"] == "why"
    text = rendered(*tables.entry(document, []))
    assert entry.key.fingerprint.text in text
    assert "CN=Issuer 1" in text
    assert "until unblocked why" in text


def test_members_of_a_later_version_are_shown_as_numbers() -> None:
    assert present.word(entry_pb2.Origin, 99, "ORIGIN_") == "99"
    assert present.word(entry_pb2.Origin, 0, "ORIGIN_") is None


def test_hostile_text_cannot_reach_the_terminal() -> None:
    evil = "\x1b]0;owned\x07[red]alice[/red]\u202e"
    line = admin_pb2.VerdictLine(at=Timestamp(seconds=1), sender=evil, verdict=evil, detail=evil)
    columns = [("At", "at"), ("From", "sender"), ("Verdict", "verdict"), ("Detail", "detail")]
    text = rendered(tables.generic(columns, [present.verdict_line(line)]), width=400)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\u001b]0;owned\\u0007[red]alice[/red]\\u202e" in text
    for lines in (mail_lines.recent([present.verdict_line(line)], 80, long=True), mail_lines.recent([], 80, long=True)):
        assert not any("\x1b" in text.plain or "\u202e" in text.plain for text in lines)
    gate = cache_pb2.Gate(name=evil, outcome=cache_pb2.Gate.FAILED, detail=evil)
    answer = cache_pb2.HarvestResponse(verdict=evil, detail=evil, sender=evil, gates=[gate])
    tree = rendered(tables.explanation(present.harvested(evil, answer, with_gates=True)), width=400)
    assert "\x1b" not in tree
    assert "FAILED" in tree


def test_a_table_that_has_no_room_becomes_names_and_values() -> None:
    shown = tables.table(["Address", "Key"], [("alice@example.org", "a" * 12), ("bob@example.org", "b" * 12)], fold=["Address"])
    wide, folded, narrow = (rendered(shown, width=width).splitlines() for width in (31, 24, 23))
    assert [line.rstrip() for line in wide[2:]] == ["alice@example.org  aaaaaaaaaaaa", "bob@example.org    bbbbbbbbbbbb"]
    assert [line.rstrip() for line in folded[2:]] == [
        "alice@exam  aaaaaaaaaaaa",
        "ple.org",
        "bob@exampl  bbbbbbbbbbbb",
        "e.org",
    ]
    assert [line.rstrip() for line in narrow] == [
        "Address  alice@example.",
        "         org",
        "Key      aaaaaaaaaaaa",
        "",
        "Address  bob@example.or",
        "         g",
        "Key      bbbbbbbbbbbb",
    ]


def test_an_explanation_says_what_a_gate_found_only_once() -> None:
    gate = cache_pb2.Gate(name="signature", outcome=cache_pb2.Gate.FAILED, detail="The digest differs.")
    key = cache_pb2.KeyVerdict(
        fingerprint="ab" * 32, verdict="SIGNATURE_INVALID", detail="The digest differs.", advice="Forged.", gates=[gate]
    )
    answer = cache_pb2.HarvestResponse(verdict="SIGNATURE_INVALID", detail="The digest differs.", advice="Forged.", keys=[key])
    text = rendered(tables.explanation(present.harvested("a.eml", answer, with_gates=True), 80))
    assert (text.count("The digest differs."), text.count("Forged.")) == (1, 1)
