"""`issuers list|approve|reject`: whom to believe that no configured root vouches for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keycache.cli import screen
from keycache.cli.call import Call, command, new_group
from keycache.cli.session import talk
from keycache.domain.administration import IssuerState
from keycache.domain.errors import InvalidInput, NotFound, Refused

if TYPE_CHECKING:
    from keycache.client import Connection
    from keycache.v1.admin_pb2 import DecideIssuerResponse, ListedIssuer

CERTIFICATE_LIMIT = 1024 * 1024
"""Bytes. A certificate is some KiB; with a bundle around it some hundreds."""

IssuerId = Annotated[
    str, typer.Argument(metavar="ISSUER", help="The issuer's id as 'issuers list' shows it, or its beginning.")
]


def register(app: typer.Typer) -> None:
    group = new_group("Issuers of held keys: approve them, and their keys are served; reject them, and they are dropped.")
    app.add_typer(group, name="issuers")

    @command(group, "list", example="keycache issuers list")
    def list_issuers(call: Call) -> None:
        """Issuers with held keys, and those decided on."""
        from keycache.cli import present

        issuers = [present.issuer(one) for one in talk(call, _issuers)]
        if call.json:
            screen.show_json({"issuers": issuers})
            return
        from keycache.cli import tables

        columns = [("Issuer", "id"), ("Name", "name"), ("State", "state"), ("Held", "held"), ("Certificate", "has_certificate")]
        columns.append(("Keys of", "sample_addresses"))
        shown = [
            {
                **one,
                "has_certificate": "known" if one["has_certificate"] else "wanted",
                "sample_addresses": ", ".join(one["sample_addresses"]),
            }
            for one in issuers
        ]
        screen.show(tables.generic(columns, shown, fold=["Name", "Keys of"]))

    @command(group, "approve", example="keycache issuers approve 5d0c9a4e --certificate partner-ca.pem")
    def approve(
        call: Call,
        issuer: IssuerId,
        certificate: Annotated[
            Path | None, typer.Option("--certificate", metavar="FILE", help="Its certificate, where no mail brought it along.")
        ] = None,
    ) -> None:
        """Trust this issuer: its held keys are served at once, later ones as they come."""
        data = b"" if certificate is None else _read(certificate)
        _decide(call, issuer, IssuerState.APPROVED, data)

    @command(group, "reject", example="keycache issuers reject 5d0c9a4e")
    def reject(call: Call, issuer: IssuerId) -> None:
        """Distrust this issuer: its held keys are dropped, later ones not kept."""
        _decide(call, issuer, IssuerState.REJECTED, b"")


async def _issuers(node: Connection) -> list[ListedIssuer]:
    from keycache.v1.admin_pb2 import ListIssuersRequest

    return list((await node.call(node.admin.ListIssuers, ListIssuersRequest())).issuers)


def _decide(call: Call, issuer: str, state: IssuerState, certificate: bytes) -> None:
    from keycache import codec
    from keycache.v1.admin_pb2 import DecideIssuerRequest

    chosen = named(talk(call, _issuers), issuer)
    approve = state is IssuerState.APPROVED
    effect = "served" if approve else "dropped"
    screen.confirm(question(chosen, approve=approve), yes=call.yes)
    request = DecideIssuerRequest(id=chosen.id, state=codec.wire_enum(state), certificate=certificate)  # type: ignore[arg-type]

    async def conversation(node: Connection) -> DecideIssuerResponse:
        return await node.call(node.admin.DecideIssuer, request, timeout=None)

    answer = talk(call, conversation)
    if call.json:
        document = {
            "id": chosen.id,
            "name": chosen.name,
            "state": state.value,
            "entries": answer.entries,
            "still_held": answer.still_held,
            "revision": answer.revision,
        }
        screen.show_json(document)
        return
    screen.say(
        f"{'Approved' if approve else 'Rejected'} {chosen.name}: {'1 key' if answer.entries == 1 else f'{answer.entries} keys'} {effect}."
    )
    if answer.still_held:
        screen.say(f"{answer.still_held} stay held, each for a reason of its own; see 'keycache list --trust held'.")


def question(chosen: ListedIssuer, *, approve: bool) -> str:
    """With whose keys they are: the name of an issuer is whatever its maker wrote."""
    what, effect = ("Approve", "served") if approve else ("Reject", "dropped")
    held = "1 held key is" if chosen.held == 1 else f"{chosen.held} held keys are"
    whose = f" Keys of {', '.join(chosen.sample_addresses)}." if chosen.sample_addresses else ""
    return f"{what} {chosen.name} ({chosen.id})? Its {held} then {effect}.{whose}"


def named(issuers: list[ListedIssuer], text: str) -> ListedIssuer:
    """The one whose id begins so. Raises NotFound, Refused."""
    prefix = text.strip().lower()
    matching = [one for one in issuers if prefix and one.id.startswith(prefix)]
    if not matching:
        raise NotFound(f"No issuer's id begins with {text[:40]!r}.", hint="See 'keycache issuers list'.")
    if len(matching) > 1:
        raise Refused(f"{len(matching)} issuers' ids begin with {prefix}.", hint="Give more digits.")
    return matching[0]


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        data = stream.read(CERTIFICATE_LIMIT + 1)
    if len(data) > CERTIFICATE_LIMIT:
        raise InvalidInput(f"{file} is too large for a certificate.")
    return data
