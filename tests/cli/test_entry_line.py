"""Entries as lines of JSON: nothing is lost, and what is wrong is named."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings

from keycache.cli.entry_line import entry_fields, read_line, write_line
from keycache.domain.entry import Change, Entry, Issuer, Origin, Protocol, Trust
from keycache.domain.errors import InvalidInput
from support.entries import T0, entries, make_entry, make_sighting

MOMENT = datetime(2026, 3, 2, 1, 2, 3, 456, tzinfo=UTC)


@given(entries())
@settings(max_examples=60, deadline=None)
def test_an_entry_comes_back_as_it_went(entry: Entry) -> None:
    assert read_line(write_line(entry)).entry == entry


def test_fields_of_a_later_version_come_back_too() -> None:
    """Field 4095 of each message, which this version does not know."""
    later = b"\xfa\xff\x01\x03new"
    entry = make_entry(1, replace(make_sighting(), extra=later))
    entry = replace(entry, extra=later, key=replace(entry.key, extra=later))
    assert read_line(write_line(entry)).entry == entry


def test_the_names_of_the_fields_are_stable() -> None:
    issuer = Issuer(id="00" * 8, name="CN=Issuer", certificate=b"\x30")
    sightings = (make_sighting(), make_sighting(Origin.IMPORTED, cached_at=MOMENT, source="a.pem"))
    history = (Change(at=T0, what="CACHED", by="mta1"),)
    entry = make_entry(
        1, *sightings, history=history, trust=Trust.HELD, issuer=issuer, names=("CN=Zoë",), not_after=MOMENT, material_size=3
    )
    assert entry_fields(entry) == {
        "protocol": "SMIME",
        "fingerprint": entry.key.fingerprint.text,
        "addresses": ["user1@example.org"],
        "names": ["CN=Zoë"],
        "trust": "HELD",
        "held": "UNKNOWN_ISSUER",
        "issuer": {"id": "0000000000000000", "name": "CN=Issuer", "certificate": "MA=="},
        "material": base64.b64encode(entry.key.material).decode(),
        "not_before": None,
        "not_after": "2026-03-02T01:02:03.000456Z",
        "defect": None,
        "evidence_at": None,
        "capabilities": [],
        "prefer_encrypt": False,
        "algorithm": "",
        "sightings": [
            {
                "origin": "HARVESTED",
                "source": "<mail@example.org>",
                "cached_at": "2026-03-01T12:00:00Z",
                "refreshed_at": "2026-03-01T12:00:00Z",
            },
            {
                "origin": "IMPORTED",
                "source": "a.pem",
                "cached_at": "2026-03-02T01:02:03.000456Z",
                "refreshed_at": "2026-03-02T01:02:03.000456Z",
            },
        ],
        "history": [{"at": "2026-03-01T12:00:00Z", "what": "CACHED", "by": "mta1"}],
    }


def test_a_line_is_one_line_of_ascii() -> None:
    line = write_line(make_entry(1, names=("a\nb\u2028Zoë\x1b",)))
    assert line.isascii()
    assert "\n" not in line
    assert "\x1b" not in line


def edited(**changes: Any) -> str:
    return json.dumps({**entry_fields(make_entry(1, protocol=Protocol.OPENPGP)), **changes})


SIGHTING = entry_fields(make_entry(1))["sightings"][0]


def test_the_age_of_a_sighting_can_be_edited() -> None:
    line = edited(sightings=[{**SIGHTING, "refreshed_at": "2024-10-17T12:00:00+02:00"}])
    assert read_line(line).entry.sightings[0].refreshed_at == datetime(2024, 10, 17, 10, tzinfo=UTC)


def test_sightings_may_come_in_any_order() -> None:
    line = edited(sightings=[{**SIGHTING, "origin": "IMPORTED"}, SIGHTING])
    assert [one.origin for one in read_line(line).entry.sightings] == [Origin.HARVESTED, Origin.IMPORTED]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("", "not JSON"),
        ("[1]", "not a JSON object"),
        ("{" * 100_000, "not JSON"),
        ('{"a":' * 100_000, "not JSON"),
        ("{}", "'protocol' is missing"),
        (edited(protocol="PGP"), "'protocol': 'PGP' is none of SMIME, OPENPGP"),
        (edited(fingerprint="xyz"), "'fingerprint': 'xyz' is not a fingerprint"),
        (edited(fingerprint=5), "'fingerprint' must be a text"),
        (edited(material=None), "'material' is missing"),
        (edited(material="$$$"), "'material': This is not base64"),
        (edited(addresses="a@b.example"), "'addresses' must be a list"),
        (edited(addresses=["nobody"]), "'addresses': 'nobody' is not a mail address"),
        (edited(names=[1]), "'names' must hold texts only"),
        (edited(not_after="soon"), "'not_after': 'soon' is not an RFC 3339 time"),
        (edited(prefer_encrypt="yes"), "'prefer_encrypt' must be true or false"),
        (edited(issuer={"name": "CN=x"}), "'issuer.id' is missing"),
        (edited(sightings=[]), "'sightings' must hold one to three"),
        (edited(sightings=[SIGHTING, SIGHTING]), "'sightings' must hold one to three"),
        (edited(sightings=["x"]), "'sightings' must hold objects only"),
        (edited(sightings=[{**SIGHTING, "refreshed_at": None}]), "'sightings[0].refreshed_at' is missing"),
        (
            edited(sightings=[{**SIGHTING, "refreshed_at": "2026-01-01T00:00:00"}]),
            "'sightings[0].refreshed_at': '2026-01-01T00",
        ),
        (edited(history=[{"at": "2026-01-01T00:00:00Z"}]), "'history[0].what' is missing"),
    ],
)
def test_what_is_wrong_is_named(line: str, named: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_line(line)
    assert named in caught.value.text


def test_unknown_fields_are_told_and_computed_ones_are_not() -> None:
    read = read_line(edited(flavour="sweet", expires_at="2027-01-01T00:00:00Z", expired=False))
    assert read.unknown == ("flavour",)
