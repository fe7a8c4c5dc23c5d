"""`client issue|renew`: certificates for mail processors and administrators."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keycache.cli import screen
from keycache.cli.call import Call, command, new_group
from keycache.cli.filters import choice, choice_option, spelt
from keycache.cli.session import talk
from keycache.domain.errors import NotFound, Refused

if TYPE_CHECKING:
    from keycache.client import Connection
    from keycache.v1.admin_pb2 import IssueClientResponse


class ClientRole(Enum):
    """Roles that a person may hand out; a node gets its own when it joins."""

    MAIL_PROCESSOR = "mail-processor"
    ADMIN = "admin"


def register(app: typer.Typer) -> None:
    group = new_group("Who may talk to the node.")
    app.add_typer(group, name="client")

    @command(group, "issue", example="keycache client issue --role mail-processor --name mta1 --out /etc/keycache")
    def issue(
        call: Call,
        role: Annotated[str, choice_option(ClientRole, "--role", help_text="What the client may do.")],
        name: Annotated[str, typer.Option("--name", help="What the audit log calls it.")],
        out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for ca.pem, NAME.pem and NAME.key.")],
    ) -> None:
        """Make a private key here, have it certified by the node, and write both with the CA's certificate.

        The private key (mode 0600) never leaves this machine.
        """
        chosen, files = choice(ClientRole, role), _files(out, name)
        existing = [str(path) for field, path in files.items() if field != "ca" and path.exists()]
        if existing:
            raise Refused(
                f"{' and '.join(existing)} exist already.",
                hint="Choose another --name or --out, or renew what is there: keycache client renew.",
            )
        _certify(call, spelt(chosen), name, files)

    @command(group, "renew", example="keycache client renew --name mta1 --out /etc/keycache")
    def renew(
        call: Call,
        name: Annotated[str, typer.Option("--name", help="As it was issued.")],
        out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder with NAME.pem.")],
    ) -> None:
        """Replace a client's key and certificate by new ones of the same role and name, and its CA file by the one of now.

        Clients that are built on keycache.client take them up while they run. The former certificate stays good until its end.
        """
        from keycache.pki import read_peer

        files = _files(out, name)
        try:
            peer = read_peer(files["certificate"].read_bytes())
        except FileNotFoundError as error:
            raise NotFound(f"There is no {files['certificate']}.", hint="Issue it with 'keycache client issue'.") from error
        _certify(call, peer.role.value, peer.name, files)


def _files(out: Path, name: str) -> dict[str, Path]:
    stem = re.sub(r"[^A-Za-z0-9._@-]", "_", name)
    return {"ca": out / "ca.pem", "certificate": out / f"{stem}.pem", "key": out / f"{stem}.key"}


def _certify(call: Call, role: str, name: str, files: dict[str, Path]) -> None:
    """ORDER: the CA file first, so that a client that looks in between finds servers that it trusts."""
    from keycache.cli import present
    from keycache.pki import new_request, write_private, write_public
    from keycache.v1.admin_pb2 import IssueClientRequest

    key, csr = new_request(name)
    request = IssueClientRequest(role=role, name=name, csr=csr)

    async def conversation(node: Connection) -> IssueClientResponse:
        return await node.call(node.admin.IssueClient, request)

    files["ca"].parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # before anything is issued that could not be written
    answer = talk(call, conversation)
    write_public(files["ca"], answer.ca)
    write_private(files["key"], key.pem)
    write_public(files["certificate"], answer.certificate)
    not_after = present.moment(answer, "not_after")
    if call.json:
        paths = {field: str(path) for field, path in files.items()}
        screen.show_json({"role": role, "name": name, **paths, "not_after": not_after})
    else:
        screen.say(*(f"Wrote {path}" for path in files.values()), f"Good until {not_after}.")
