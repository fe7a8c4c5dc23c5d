"""`backup` and `restore`: all that is the administrators', in one file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keycache.cli import screen
from keycache.cli.call import Call, command
from keycache.cli.session import interruptible, talk
from keycache.cli.whole_file import whole_file
from keycache.domain.errors import InvalidInput, Refused

if TYPE_CHECKING:
    from keycache.client import Connection
    from keycache.codec.backup import Source
    from keycache.v1.admin_pb2 import RestoreItem, RestoreResult

_BATCH, _BATCH_BYTES = 50, 1024 * 1024
"""Records in one item of a restore: what the log takes in one transaction."""

_File = Annotated[Path, typer.Argument(metavar="FILE", help="Of the backup.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """Of a backup that was read to its end, and is whole."""

    source: Source
    settings: bytes
    records: int
    entries: int


def register(app: typer.Typer) -> None:
    @command(app, "backup", example="keycache backup /var/backups/keycache-2026-11-26")
    def backup(call: Call, path: _File) -> None:
        """Write all that is kept into one file: entries with their time stamps, settings, blocks, issuers, audit log.

        Of one moment; in a cluster any node will do. The file appears whole or not at all, and replaces none.
        """
        from keycache import codec
        from keycache.codec.backup import BackupWriter, Source
        from keycache.v1.admin_pb2 import BackupRequest

        try:
            with whole_file(path, replace=False) as file:
                writer = BackupWriter()

                async def conversation(node: Connection) -> tuple[Source | None, int, int]:
                    source, records, entries = None, 0, 0
                    async for item in node.stream(node.admin.Backup, BackupRequest()):
                        if item.HasField("source"):
                            told = item.source
                            source = Source(
                                made_at=codec.moment(told.made_at),
                                cluster=told.cluster,
                                identity=told.identity,
                                revision=told.revision,
                                version=told.version,
                            )
                            file.write(writer.begin(source))
                        else:
                            file.write(writer.record(item.record.key, item.record.value))
                            records += 1
                            entries += _is_entry(item.record.key)
                    file.write(writer.end())
                    return source, records, entries

                source, records, entries = talk(call, conversation)
        except FileExistsError as error:
            raise Refused(f"{path} exists already.", hint="Choose another name: a backup replaces no file.") from error
        assert source is not None
        if call.json:
            screen.show_json({"file": str(path), "entries": entries, "records": records, **_described(source)})
        else:
            screen.say(
                f"Wrote {entries} entries and {records - entries} other records to {path}, as of revision {source.revision}."
            )

    @command(app, "restore", example="keycache restore --dry-run /var/backups/keycache-2026-11-26")
    def restore(
        call: Call,
        path: _File,
        *,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
        take_settings: Annotated[
            bool, typer.Option("--take-settings", help="Take the backup's settings though there are entries here.")
        ] = False,
        keep_settings: Annotated[
            bool, typer.Option("--keep-settings", help="Keep the settings here, whatever counts as expired by them.")
        ] = False,
    ) -> None:
        """Bring what a backup holds into this node or its cluster, joined with what is there; nothing is removed or shortened.

        A node without entries takes the backup's settings too. Run again after an interruption it goes on.
        """
        from keycache import codec
        from keycache.v1.admin_pb2 import RestoreItem

        if take_settings and keep_settings:
            raise InvalidInput(
                "It must be clear whose settings are to hold.", hint="Say --take-settings or --keep-settings, or neither."
            )
        contents = _read_whole(path)
        choice = "BACKUP" if take_settings else "LOG" if keep_settings else "BY_CONTENT"

        def item(*, dry: bool) -> RestoreItem:
            return RestoreItem(
                settings=contents.settings,
                made_at=codec.timestamp(contents.source.made_at),
                settings_from=RestoreItem.SettingsFrom.Value(choice),
                dry_run=dry,
                total=contents.records,
            )

        # What would be refused on the way is found before anything is changed, and what would be done is asked about.
        outcome = talk(call, lambda node: _sent(node, path, item(dry=True)))
        if not dry_run:
            screen.confirm(f"{_told(outcome, dry_run=True)} Go on?", yes=call.yes)
            outcome = talk(call, lambda node: _sent(node, path, item(dry=False)))
        if call.json:
            screen.show_json({**_document(outcome), "dry_run": dry_run, "backup": _described(contents.source)})
        else:
            screen.say(_told(outcome, dry_run=dry_run))


@dataclass(slots=True, kw_only=True)
class _Outcome:
    settings: list[str]
    brought: int = 0
    known: int = 0
    deleted: int = 0
    expired: int = 0
    documents: int = 0

    def add(self, result: RestoreResult) -> None:
        self.settings += [f"{change.name} {change.old} -> {change.new}" for change in result.changes]
        self.brought += result.brought
        self.known += result.known
        self.deleted += result.deleted
        self.expired += result.expired
        self.documents += result.documents


async def _sent(node: Connection, path: Path, terms: RestoreItem) -> _Outcome:
    """ORDER: the settings are settled BEFORE the first record goes out."""
    from keycache.v1.admin_pb2 import RestoreItem

    outcome = _Outcome(settings=[])

    async def first() -> AsyncIterator[RestoreItem]:
        yield terms

    async def rest() -> AsyncIterator[RestoreItem]:
        for batch in _batches(path):
            item = RestoreItem()
            item.CopyFrom(terms)
            for key, value in batch:
                item.records.add(key=key, value=value)
            yield item

    async def last() -> AsyncIterator[RestoreItem]:
        item = RestoreItem()
        item.CopyFrom(terms)
        item.finish = True
        yield item

    for items in (first(), rest(), last()):
        async for result in node.exchange(node.admin.Restore, items):
            outcome.add(result)
    return outcome


def _batches(path: Path) -> Iterator[list[tuple[str, bytes]]]:
    batch: list[tuple[str, bytes]] = []
    size = 0
    for _, record in _records(path):
        if record is None:
            continue
        if batch and (len(batch) == _BATCH or size + len(record[1]) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record[1])
    if batch:
        yield batch


def _records(path: Path) -> Iterator[tuple[Source | None, tuple[str, bytes] | None]]:
    """Raises InvalidInput, at the latest at the end, for what is no whole backup."""
    from keycache.codec.backup import LINE_BYTES, Source, read_backup

    with path.open("rb") as file:
        for item in read_backup(iter(lambda: file.readline(LINE_BYTES + 1), b"")):
            yield (item, None) if isinstance(item, Source) else (None, item)


def _read_whole(path: Path) -> _Contents:
    """BEFORE anything of it is sent. Raises InvalidInput."""
    from keycache.domain.log import SETTINGS

    source, settings, records, entries = None, None, 0, 0
    try:
        with interruptible():
            for told, record in _records(path):
                source = told or source
                if record is not None:
                    records += 1
                    entries += _is_entry(record[0])
                    settings = record[1] if record[0] == SETTINGS else settings
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error.text}", hint=error.hint) from error
    if source is None or settings is None:
        raise InvalidInput(f"{path}: This backup holds no settings.", hint="Take another backup.")
    return _Contents(source=source, settings=settings, records=records, entries=entries)


def _is_entry(key: str) -> bool:
    from keycache.domain.log import ENTRIES

    return key.startswith(ENTRIES)


def _described(source: Source) -> dict[str, object]:
    from keycache.cli.instants import rfc3339

    return {
        "made_at": rfc3339(source.made_at),
        "cluster": source.cluster,
        "identity": source.identity,
        "revision": source.revision,
        "version": source.version,
    }


def _document(outcome: _Outcome) -> dict[str, object]:
    return {
        "settings": outcome.settings,
        "brought": outcome.brought,
        "known": outcome.known,
        "deleted": outcome.deleted,
        "expired": outcome.expired,
        "documents": outcome.documents,
    }


def _told(outcome: _Outcome, *, dry_run: bool) -> str:
    would = "would be " if dry_run else ""
    told = [
        f"{outcome.brought} entries {would}brought, {outcome.known} were here and {would}joined.",
        f"{outcome.documents} blocks, issuers and other records {would}brought.",
    ]
    if outcome.deleted:
        told.append(f"{outcome.deleted} stay away: an administrator removed them, or rejected their issuer.")
    if outcome.expired:
        told.append(f"{outcome.expired} of them are expired by the settings in force: not served, and left to the purger.")
    if outcome.settings:
        told.append(f"Settings: {', '.join(outcome.settings)}.")
    return " ".join(told)
