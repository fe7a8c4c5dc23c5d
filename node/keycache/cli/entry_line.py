"""One entry as one line of JSON, as `export` writes and `import` reads it. Nothing is lost on the way there and back.

Rules for reading, since people edit these files:
1. What is wrong is named with the field it is in; one bad line is one error.
2. A missing time is an error: read as 1970 it would expire the key.
3. A field that this version does not know is told (`unknown`), not refused: a later version may have written the line.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

from keycache.cli.instants import optional_rfc3339, parse_rfc3339, rfc3339
from keycache.domain.entry import Change, Defect, Entry, HeldReason, Issuer, Key, Origin, Protocol, Sighting, Trust
from keycache.domain.errors import InvalidInput
from keycache.domain.names import EmailAddress, Fingerprint

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

_COMPUTED = frozenset({"origin", "cached_at", "refreshed_at", "expires_at", "expired", "block", "mod_revision"})
"""What `list --json` shows beside the stored fields; its entries are thus importable too."""


@dataclass(frozen=True, slots=True)
class ReadLine:
    entry: Entry
    unknown: tuple[str, ...]


def write_line(entry: Entry) -> str:
    """Without the line's end. ASCII alone, so that no terminal, editor or encoding on its way changes it."""
    return json.dumps(entry_fields(entry), separators=(",", ":"))


def entry_fields(entry: Entry) -> dict[str, Any]:
    """Stable names; bytes as base64, instants as RFC 3339, what is not known as null."""
    key = entry.key
    fields: dict[str, Any] = {
        "protocol": key.protocol.value,
        "fingerprint": key.fingerprint.text,
        "addresses": [address.text for address in key.addresses],
        "names": list(key.names),
        "trust": key.trust.value,
        "held": None if key.held is None else key.held.value,
        "issuer": None if key.issuer is None else _issuer_fields(key.issuer),
        "material": _base64(key.material),
        "not_before": optional_rfc3339(key.not_before),
        "not_after": optional_rfc3339(key.not_after),
        "defect": None if key.defect is None else key.defect.value,
        "evidence_at": optional_rfc3339(key.evidence_at),
        "capabilities": list(key.capabilities),
        "prefer_encrypt": key.prefer_encrypt,
        "algorithm": key.algorithm,
        "sightings": [_sighting_fields(sighting) for sighting in entry.sightings],
        "history": [{"at": rfc3339(change.at), "what": change.what, "by": change.by} for change in entry.history],
    }
    if key.extra:
        fields["key_extra"] = _base64(key.extra)
    if entry.extra:
        fields["extra"] = _base64(entry.extra)
    return fields


def read_line(text: str) -> ReadLine:
    """Raises InvalidInput, naming the field."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"This is not JSON: {error}.", hint="Each line is one entry, as 'keycache export' writes it."
        ) from error
    if not isinstance(fields, dict):
        raise InvalidInput("This is not a JSON object.", hint="Each line is one entry, as 'keycache export' writes it.")
    reader = _Reader(fields, "")
    key = Key(
        protocol=reader.one(Protocol, "protocol"),
        fingerprint=reader.made("fingerprint", Fingerprint.parse),
        material=reader.bytes("material", required=True),
        addresses=tuple(reader.parsed("addresses", EmailAddress.parse)),
        names=tuple(reader.parsed("names", str)),
        trust=reader.one(Trust, "trust"),
        held=reader.one_or_none(HeldReason, "held"),
        issuer=_read_issuer(reader.child("issuer")),
        not_before=reader.moment_or_none("not_before"),
        not_after=reader.moment_or_none("not_after"),
        defect=reader.one_or_none(Defect, "defect"),
        evidence_at=reader.moment_or_none("evidence_at"),
        capabilities=tuple(reader.parsed("capabilities", str)),
        prefer_encrypt=reader.flag("prefer_encrypt"),
        algorithm=reader.text("algorithm"),
        extra=reader.bytes("key_extra"),
    )
    sightings = [_read_sighting(one) for one in reader.children("sightings")]
    history = [
        Change(at=one.made("at", parse_rfc3339), what=one.text("what", required=True), by=one.text("by"))
        for one in reader.children("history")
    ]
    sightings.sort(key=lambda sighting: list(Origin).index(sighting.origin))
    try:
        entry = Entry(key=key, sightings=tuple(sightings), history=tuple(history), extra=reader.bytes("extra"))
    except ValueError as error:
        raise InvalidInput("'sightings' must hold one to three sightings, at most one of each origin.") from error
    return ReadLine(entry, tuple(sorted(set(fields) - reader.asked - _COMPUTED)))


def _issuer_fields(issuer: Issuer) -> dict[str, Any]:
    return {"id": issuer.id, "name": issuer.name, "certificate": _base64(issuer.certificate)}


def _read_issuer(reader: _Reader | None) -> Issuer | None:
    if reader is None:
        return None
    return Issuer(
        id=reader.text("id", required=True), name=reader.text("name", required=True), certificate=reader.bytes("certificate")
    )


def _sighting_fields(sighting: Sighting) -> dict[str, Any]:
    fields = {
        "origin": sighting.origin.value,
        "source": sighting.source,
        "cached_at": rfc3339(sighting.cached_at),
        "refreshed_at": rfc3339(sighting.refreshed_at),
    }
    if sighting.extra:
        fields["extra"] = _base64(sighting.extra)
    return fields


def _read_sighting(reader: _Reader) -> Sighting:
    return Sighting(
        origin=reader.one(Origin, "origin"),
        source=reader.text("source"),
        cached_at=reader.made("cached_at", parse_rfc3339),
        refreshed_at=reader.made("refreshed_at", parse_rfc3339),
        extra=reader.bytes("extra"),
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


class _Reader:
    """Fields of one JSON object, checked as they are asked for. `asked`: the names so far."""

    def __init__(self, fields: Mapping[str, Any], path: str) -> None:
        self._fields = fields
        self._path = path
        self.asked: set[str] = set()

    def text(self, name: str, *, required: bool = False) -> str:
        value = self._get(name, str)
        if value is None and required:
            raise InvalidInput(f"'{self._path}{name}' is missing.")
        return value or ""

    def flag(self, name: str) -> bool:
        return self._get(name, bool) or False

    def made(self, name: str, make: Callable[[str], T]) -> T:
        return self._make(name, self.text(name, required=True), make)

    def moment_or_none(self, name: str) -> datetime | None:
        text = self._get(name, str)
        return None if text is None else self._make(name, text, parse_rfc3339)

    def one(self, enum: type[E], name: str) -> E:
        return self.made(name, lambda text: _member(enum, text))

    def one_or_none(self, enum: type[E], name: str) -> E | None:
        text = self._get(name, str)
        return None if text is None else self._make(name, text, lambda value: _member(enum, value))

    def bytes(self, name: str, *, required: bool = False) -> bytes:
        return self._make(name, self.text(name, required=required), _from_base64)

    def parsed(self, name: str, make: Callable[[str], T]) -> list[T]:
        values = self._get(name, list) or []
        if not all(isinstance(value, str) for value in values):
            raise InvalidInput(f"'{self._path}{name}' must hold texts only.")
        return [self._make(name, value, make) for value in values]

    def child(self, name: str) -> _Reader | None:
        value = self._get(name, dict)
        return None if value is None else _Reader(value, f"{self._path}{name}.")

    def children(self, name: str) -> list[_Reader]:
        values = self._get(name, list) or []
        if not all(isinstance(value, dict) for value in values):
            raise InvalidInput(f"'{self._path}{name}' must hold objects only.")
        return [_Reader(value, f"{self._path}{name}[{number}].") for number, value in enumerate(values)]

    def _get(self, name: str, kind: type[T]) -> T | None:
        self.asked.add(name)
        value = self._fields.get(name)
        if value is None or isinstance(value, kind):
            return value
        raise InvalidInput(f"'{self._path}{name}' must be {_KINDS[kind]}.")

    def _make(self, name: str, text: str, make: Callable[[str], T]) -> T:
        try:
            return make(text)
        except InvalidInput as error:
            raise InvalidInput(f"'{self._path}{name}': {error.text}", hint=error.hint) from error


_KINDS: dict[type, str] = {str: "a text", bool: "true or false", list: "a list", dict: "an object"}


def _member(enum: type[E], text: str) -> E:
    try:
        return enum(text)
    except ValueError as error:
        allowed = ", ".join(str(member.value) for member in enum)
        raise InvalidInput(f"{text[:40]!r} is none of {allowed}.") from error


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"This is not base64: {error}.") from error
