"""A backup as lines of ASCII, so that no terminal, editor or mail on its way changes it. Nothing is lost on the way there and back.

    keycache backup 1
    {"made_at": ..., "cluster": ..., "identity": ..., "revision": ..., "version": ...}
    ["settings", "<base64>"]                    one record of the log each, as it is stored
    ...
    end <number of records> <SHA-256 of all lines before, in hex>

The first line comes first and the last one last in every later version, too: so what a version cannot read is told apart from what was
cut off or damaged, and from what never was a backup.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from keycache.codec import from_us, to_us
from keycache.domain.errors import InvalidInput
from keycache.domain.log import (
    AUDIT,
    BLOCKS,
    CHAIN,
    DELETIONS,
    ENTRIES,
    ISSUERS,
    SETTINGS,
    SETTINGS_HISTORY,
)

VERSION = 1

LINE_BYTES = 16 * 1024 * 1024
"""No record is larger (`cache.writer.RECORD_BYTES`, in base64): a reader needs no more memory, whatever file it is given."""

_MAGIC = b"keycache backup "
_KINDS = (ENTRIES, SETTINGS_HISTORY, BLOCKS, ISSUERS, CHAIN, AUDIT, DELETIONS)
_HINT = "Take another backup. A backup is never repaired: what is missing from it, nobody knows."


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Of which log a backup was made, at which revision, and when. `cluster`: its name; empty: of a node alone. `version`: of Keycache."""

    made_at: datetime
    cluster: str
    identity: str
    revision: int
    version: str


def is_backed_up(key: str) -> bool:
    """Whether a record is the administrators', so part of a backup; the rest is of one log and its nodes (members, tokens, witnesses)."""
    return key == SETTINGS or key.startswith(_KINDS)


class BackupWriter:
    """Each method gives the bytes that come next."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._count = 0

    def begin(self, source: Source) -> bytes:
        fields = {
            "made_at": to_us(source.made_at),
            "cluster": source.cluster,
            "identity": source.identity,
            "revision": source.revision,
            "version": source.version,
        }
        return self._add(_MAGIC + b"%d\n" % VERSION + json.dumps(fields).encode() + b"\n")

    def record(self, key: str, value: bytes) -> bytes:
        self._count += 1
        return self._add(json.dumps([key, base64.b64encode(value).decode()]).encode() + b"\n")

    def end(self) -> bytes:
        return f"end {self._count} {self._digest.hexdigest()}\n".encode()

    def _add(self, data: bytes) -> bytes:
        self._digest.update(data)
        return data


def read_backup(lines: Iterable[bytes]) -> Iterator[Source | tuple[str, bytes]]:
    """The source, then every record. That it is whole is known only at the end: raises InvalidInput there, or before."""
    digest, count, source = hashlib.sha256(), 0, False
    rows = iter(lines)
    _check_version(next(rows, b""), digest)
    for line in rows:
        if len(line) > LINE_BYTES:
            raise InvalidInput("This backup is damaged: a line of it is longer than any record.", hint=_HINT)
        if not line.endswith(b"\n"):
            break
        if line.startswith(b"end "):
            _check_end(line, count, digest.hexdigest())
            if next(rows, None) is not None:
                raise InvalidInput("This backup is damaged: something follows its end.", hint=_HINT)
            return
        digest.update(line)
        try:
            fields = json.loads(line)
            if source:
                key, text = fields
                count += 1
                yield _known(str(key)), base64.b64decode(text, validate=True)
                continue
            source = True
            made_at = from_us(int(fields["made_at"]))
            told = {name: str(fields[name]) for name in ("cluster", "identity", "version")}
            yield Source(made_at=made_at, revision=int(fields["revision"]), **told)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, binascii.Error) as error:
            number = count + 2 if source else 2
            raise InvalidInput(f"This backup is damaged: its line {number} cannot be read.", hint=_HINT) from error
    raise InvalidInput("This backup was cut off: its end is missing.", hint=_HINT)


def _check_version(line: bytes, digest: hashlib._Hash) -> None:
    number = line.removeprefix(_MAGIC).strip()
    if not line.startswith(_MAGIC) or not number.isdigit() or len(number) > 9:
        raise InvalidInput(
            "This is no backup of Keycache.", hint="Exports (JSON lines) and files of keys are taken by 'keycache import'."
        )
    if int(number) != VERSION:
        raise InvalidInput(
            f"This backup has the form {int(number)}; this version of Keycache reads form {VERSION}.",
            hint="It was made by another version: upgrade Keycache on this machine and on the node.",
        )
    digest.update(line)


def _check_end(line: bytes, count: int, digest: str) -> None:
    if line != f"end {count} {digest}\n".encode():
        raise InvalidInput("This backup is damaged: its checksum differs.", hint=_HINT)


def _known(key: str) -> str:
    if not is_backed_up(key):
        raise InvalidInput(f"This backup holds a record that no backup holds: {key[:80]!r}.", hint=_HINT)
    return key
