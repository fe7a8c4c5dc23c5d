"""People with OpenPGP keys, as many as a scenario needs: their mails, their keys, and lines of an export that tell of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from keycache.cli.entry_line import write_line
from keycache.cli.instants import rfc3339
from keycache.domain.entry import Entry, Key, Origin, Protocol, Sighting, Trust
from keycache.domain.names import EmailAddress, Fingerprint
from support.openpgp import Maker, armour
from support.scenario import present

AGE = timedelta(days=4000)
"""Of the keys: older than any clock of a scenario is behind. They never expire by themselves."""


@dataclass(frozen=True)
class Person:
    """Equal names have equal keys within one run of the tests."""

    name: str

    @property
    def address(self) -> str:
        return f"{self.name}@people.example"

    @cached_property
    def _maker(self) -> Maker:
        return Maker(self.name, created=_BORN)

    @property
    def fingerprint(self) -> str:
        return self._maker.fingerprint

    @cached_property
    def material(self) -> bytes:
        return self._maker.certificate(f"<{self.address}>")

    def mail(self, padding: int = 0) -> bytes:
        """An inbound mail with the key; `padding`: bytes of text beside it."""
        head = f"From: {self.address}\r\nTo: post@ours.example\r\nMessage-ID: <{self.name}@people.example>\r\nMIME-Version: 1.0\r\n"
        key = b"Content-Type: application/pgp-keys\r\n\r\n" + armour(self.material)
        if not padding:
            return head.encode() + key
        line = b"sixty bytes of text in a line, which is ended as it should.\r\n"
        text = b"Content-Type: text/plain\r\n\r\n" + line * (padding // len(line))
        return (
            head.encode()
            + b'Content-Type: multipart/mixed; boundary="mixed"\r\n\r\n--mixed\r\n'
            + b"\r\n--mixed\r\n".join((text, key))
            + b"\r\n--mixed--\r\n"
        )

    def line(self, ages: Mapping[Origin, timedelta], now: datetime) -> str:
        """One line of an export: last refreshed so long before `now`, first cached an hour before that."""
        entry = Entry(
            key=Key(
                protocol=Protocol.OPENPGP,
                fingerprint=Fingerprint(self.fingerprint),
                material=self.material,
                addresses=(EmailAddress.parse(self.address),),
                trust=Trust.BOUND,
            ),
            sightings=tuple(
                Sighting(
                    origin=origin,
                    source="elsewhere",
                    cached_at=now - ages[origin] - timedelta(hours=1),
                    refreshed_at=now - ages[origin],
                )
                for origin in Origin
                if origin in ages
            ),
        )
        return write_line(entry)


_BORN = present() - AGE


def people(prefix: str, count: int) -> list[Person]:
    return [Person(f"{prefix}{number}") for number in range(count)]


def aged(line: str, refreshed_at: datetime) -> str:
    """A line of an export as an administrator's editor leaves it: every sighting last refreshed then."""
    fields = json.loads(line)
    for sighting in fields["sightings"]:
        sighting["refreshed_at"] = rfc3339(refreshed_at)
        sighting["cached_at"] = min(sighting["cached_at"], sighting["refreshed_at"])
    return json.dumps(fields)
