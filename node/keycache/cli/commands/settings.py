"""`settings show|set|history|import-prefs`: what all nodes obey alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keycache.cli import screen
from keycache.cli.assignments import Assignments, read_assignments
from keycache.cli.call import Call, command, new_group
from keycache.cli.session import talk

if TYPE_CHECKING:
    from keycache.client import Connection
    from keycache.v1.admin_pb2 import SetSettingsRequest, SetSettingsResponse

Pairs = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME=VALUE...", help="harvested, looked-up, imported, purge-hold-share, ...; or use the options."),
]


def register(app: typer.Typer) -> None:
    group = new_group("Timeouts and other settings that all nodes obey alike.")
    app.add_typer(group, name="settings")

    @command(group, "show", example="keycache settings show")
    def show(call: Call) -> None:
        """The settings in force. In JSON, timeouts are seconds, and timeouts_text is what 'settings set' takes."""
        from keycache.cli import present, tables
        from keycache.v1.admin_pb2 import GetSettingsRequest

        async def conversation(node: Connection) -> dict[str, object]:
            answer = await node.call(node.admin.GetSettings, GetSettingsRequest())
            return {**present.settings(answer.settings), "revision": answer.revision}

        document = talk(call, conversation)
        if call.json:
            screen.show_json(document)
        else:
            screen.show(tables.settings(document))

    @command(group, "set", example="keycache settings set harvested=400d looked-up=48h")
    def set_settings(
        call: Call,
        pairs: Pairs = None,
        harvested: Annotated[str | None, typer.Option("--harvested", metavar="SPAN", help="1h to 999d, such as 500d.")] = None,
        looked_up: Annotated[str | None, typer.Option("--looked-up", metavar="SPAN", help="1h to 999d, such as 24h.")] = None,
        imported: Annotated[str | None, typer.Option("--imported", metavar="SPAN", help="1h to 999d, such as 999d.")] = None,
        hold_share: Annotated[
            str | None,
            typer.Option(
                "--purge-hold-share", metavar="SHARE", help="Hold a sweep that removes more of the cache: 0 to 1 or 20%."
            ),
        ] = None,
        hold_floor: Annotated[
            str | None, typer.Option("--purge-hold-floor", metavar="NUMBER", help="... and more entries than this.")
        ] = None,
        skew_bound: Annotated[
            str | None, typer.Option("--clock-skew-bound", metavar="SPAN", help="How far clocks may disagree: 1s to 24h.")
        ] = None,
        reason: Annotated[str, typer.Option("--reason", help="For the history.")] = "",
    ) -> None:
        """Change settings on all nodes. Tells first how many entries would expire at once, and asks."""
        options = {
            "harvested": harvested,
            "looked-up": looked_up,
            "imported": imported,
            "purge-hold-share": hold_share,
            "purge-hold-floor": hold_floor,
            "clock-skew-bound": skew_bound,
        }
        _change(call, read_assignments(pairs or [], options), reason)

    @command(group, "history", example="keycache settings history")
    def history(call: Call) -> None:
        """Who changed which setting, when, from what to what; newest first."""
        from keycache.cli import present
        from keycache.v1.admin_pb2 import ListSettingChangesRequest

        async def conversation(node: Connection) -> list[dict[str, object]]:
            answer = await node.call(node.admin.ListSettingChanges, ListSettingChangesRequest())
            return [present.setting_change(change) for change in answer.changes]

        changes = talk(call, conversation)
        if call.json:
            screen.show_json({"changes": changes})
            return
        from keycache.cli import tables

        columns = [("Changed (UTC)", "at"), ("Who", "actor"), ("Setting", "name"), ("From", "old"), ("To", "new")]
        screen.show(tables.generic(columns, changes, fold=["Who", "From", "To"]))

    @command(group, "import-prefs", example="keycache settings import-prefs /etc/ovid/prefs.xml")
    def import_prefs(
        call: Call, file: Annotated[Path, typer.Argument(metavar="FILE", help="A SEMS prefs.xml, or a copy of it.")]
    ) -> None:
        """Take over key-lookup-cache-timeout of a SEMS prefs.xml as the timeout of looked-up keys."""
        from keycache.cli.prefs import ELEMENT, SIZE_LIMIT, read_timeout

        with file.open("rb") as stream:
            timeout = read_timeout(stream.read(SIZE_LIMIT + 1))
        _change(call, Assignments(looked_up=timeout), f"{ELEMENT} of {file.name}")


def _change(call: Call, wanted: Assignments, reason: str) -> None:
    from keycache.cli import present

    wanted.check()
    request = _request(wanted, reason)
    foreseen, held = talk(call, lambda node: _foresee(node, request))
    changes = [present.setting_change(change) for change in foreseen.changes]
    if changes:
        listing = ", ".join(f"{change['name']} from {change['old']} to {change['new']}" for change in changes)
        number = foreseen.would_expire
        effect = f"{'1 entry expires' if number == 1 else f'{number} entries expire'} at once."
        screen.confirm(f"Change {listing}: {effect}{f' {_HELD}' if held else ''} Go on?", yes=call.yes)
        foreseen = talk(call, lambda node: _set(node, request, dry_run=False))
        changes = [present.setting_change(change) for change in foreseen.changes] or changes
    document = {
        **present.settings(foreseen.settings),
        "revision": foreseen.revision,
        "expired_at_once": foreseen.would_expire,
        "sweep_held": held,
        "changes": changes,
    }
    if call.json:
        screen.show_json(document)
    elif not changes:
        screen.say("The settings are so already; nothing was changed.")
    else:
        screen.say(*(f"{change['name']}: {change['old']} -> {change['new']}" for change in changes))
        screen.say(f"{foreseen.would_expire} expired at once.{f' {_HELD}' if held else ''}")


_HELD = (
    "They are not served from now on. They are so many that the sweep waits before it removes them: until you run "
    "'keycache purge --confirm-held', or set the timeout back."
)


async def _foresee(node: Connection, request: SetSettingsRequest) -> tuple[SetSettingsResponse, bool]:
    """What the change would do, and whether it makes so much expire that the next sweep is held."""
    from keycache import codec
    from keycache.domain.purge import is_mass_expiry
    from keycache.v1.admin_pb2 import GetStatusRequest

    foreseen = await _set(node, request, dry_run=True)
    if not foreseen.would_expire:
        return foreseen, False
    entries = (await node.call(node.admin.GetStatus, GetStatusRequest())).entries
    expired = entries.expired + foreseen.would_expire
    total = entries.live + entries.held + entries.expired
    return foreseen, is_mass_expiry(expired, total, codec.settings_from_wire(foreseen.settings))


def _request(wanted: Assignments, reason: str) -> SetSettingsRequest:
    from keycache import codec
    from keycache.v1.admin_pb2 import SetSettingsRequest

    request = SetSettingsRequest(
        purge_hold_share=wanted.purge_hold_share, purge_hold_floor=wanted.purge_hold_floor, reason=reason
    )
    spans = {
        "harvested_timeout": wanted.harvested,
        "looked_up_timeout": wanted.looked_up,
        "imported_timeout": wanted.imported,
        "clock_skew_bound": wanted.clock_skew_bound,
    }
    for field, span in spans.items():
        if span is not None:
            getattr(request, field).CopyFrom(codec.duration(span))
    return request


async def _set(node: Connection, request: SetSettingsRequest, *, dry_run: bool) -> SetSettingsResponse:
    request.dry_run = dry_run
    return await node.call(node.admin.SetSettings, request)
