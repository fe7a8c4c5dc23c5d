"""`authority show|begin|confirm|withdraw`: the authority that certifies nodes and clients, and its change while all of them run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keycache.cli import screen
from keycache.cli.call import Call, command, new_group
from keycache.cli.session import talk
from keycache.domain.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from keycache.client import Connection
    from keycache.v1.cluster_pb2 import AuthorityResponse

_CaOut = Annotated[Path | None, typer.Option("--ca-out", metavar="FILE", help="Write the CA file for clients there.")]

_STEPS = {
    "SPREAD": "nodes come to trust the next authority",
    "SWITCHED": "nodes come to show certificates of the next authority",
    "SETTLED": "nodes forget the former authority",
}


def register(app: typer.Typer) -> None:
    group = new_group("The authority that certifies nodes and clients.")
    app.add_typer(group, name="authority")

    @command(group, "show", example="keycache authority show --ca-out ca.pem")
    def show(call: Call, *, ca_out: _CaOut = None) -> None:
        """Which authority certifies, until when, and how far a change of it is."""
        from keycache.v1.cluster_pb2 import GetAuthorityRequest

        _ask(call, lambda node: node.call(node.cluster.GetAuthority, GetAuthorityRequest()), ca_out)

    @command(group, "begin", example="keycache authority begin --ca-out ca.pem")
    def begin(call: Call, *, ca_out: _CaOut = None) -> None:
        """Begin to change the authority. Nothing stops: all nodes come to trust the next one beside the present one, by themselves.

        Then give every client the new CA file, say 'authority confirm --clients-trust', issue every client a new certificate, and say
        'authority confirm --clients-renewed'. Meanwhile no node joins or leaves.
        """
        from keycache.v1.cluster_pb2 import BeginAuthorityChangeRequest

        screen.confirm(
            "Begin to change the authority? Every client will need a new CA file and a new certificate.", yes=call.yes
        )
        _ask(call, lambda node: node.call(node.cluster.BeginAuthorityChange, BeginAuthorityChangeRequest()), ca_out)

    @command(group, "confirm", example="keycache authority confirm --clients-trust")
    def confirm(
        call: Call,
        *,
        clients_trust: Annotated[
            bool, typer.Option("--clients-trust", help="Every client has the new CA file: nodes may show the next authority's.")
        ] = False,
        clients_renewed: Annotated[
            bool, typer.Option("--clients-renewed", help="Every client has a new certificate: the former ones are to end.")
        ] = False,
    ) -> None:
        """Say that the clients have followed: the change goes on. Clients that have not are cut off then."""
        from keycache.v1.cluster_pb2 import ConfirmAuthorityChangeRequest as Request

        if clients_trust is clients_renewed:
            raise InvalidInput("It must be clear what is confirmed.", hint="Say either --clients-trust or --clients-renewed.")
        what = "CLIENTS_TRUST" if clients_trust else "CLIENTS_RENEWED"
        question = "Has every client the new CA file?" if clients_trust else "Has every client a new certificate?"
        screen.confirm(f"{question} One that has not is cut off.", yes=call.yes)
        request = Request(what=Request.What.Value(what))
        _ask(call, lambda node: node.call(node.cluster.ConfirmAuthorityChange, request), None)

    @command(group, "withdraw", example="keycache authority withdraw")
    def withdraw(call: Call) -> None:
        """Take the change back, while no node shows a certificate of the next authority."""
        from keycache.v1.cluster_pb2 import WithdrawAuthorityChangeRequest

        _ask(call, lambda node: node.call(node.cluster.WithdrawAuthorityChange, WithdrawAuthorityChangeRequest()), None)


def _ask(call: Call, ask: Callable[[Connection], Awaitable[AuthorityResponse]], ca_out: Path | None) -> None:
    from keycache.cli import present
    from keycache.pki import write_public

    answer = talk(call, ask)
    if ca_out is not None:
        write_public(ca_out, answer.ca)
    document = {
        "authority": answer.signing,
        "ends_at": present.moment(answer, "ends_at"),
        "step": answer.step,
        "following": answer.following,
        "begun_at": present.moment(answer, "begun_at"),
        "begun_by": answer.begun_by,
        "waits": answer.waits,
        "nodes": [{"node_id": one.node_id, "address": one.address, "there": one.there} for one in answer.nodes],
        "former_clients": list(answer.former_clients),
    }
    if call.json:
        screen.show_json(document)
        return
    screen.say(f"Authority {answer.signing[:16]}, until {document['ends_at']}.")
    if not answer.following:
        screen.say("No change of it is under way.")
        return
    screen.say(f"It is changed to {answer.following[:16]}: {_STEPS.get(answer.step, answer.step)}.")
    for one in answer.nodes:
        screen.say(f"  {one.address} ({one.node_id[:8]}): {'there' if one.there else 'not yet'}")
    if answer.waits:
        screen.say(answer.waits)
    if ca_out is not None:
        screen.say(f"Wrote {ca_out}")
