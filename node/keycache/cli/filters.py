"""The options that say which entries are meant, and what they mean on the wire."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from keycache.domain.entry import Origin, Protocol, Trust
from keycache.domain.errors import InvalidInput

if TYPE_CHECKING:
    from keycache.v1.admin_pb2 import EntryFilter

E = TypeVar("E", bound=Enum)


def spelt(member: Enum) -> str:
    """As people type it: `looked-up`."""
    return member.name.lower().replace("_", "-")


def choice(enum: Iterable[E], text: str) -> E:
    """One of `enum`, a class or some of its members, whatever the case, with dashes or underscores. Raises InvalidInput, naming
    what is allowed."""
    for member in enum:
        if spelt(member) == text.strip().lower().replace("_", "-"):
            return member
    *most, last = map(spelt, enum)
    raise InvalidInput(f"{text[:40]!r} is not {', '.join(most)} or {last}.")


def choice_option(enum: Iterable[Enum], *names: str, help_text: str) -> Any:
    """A typer option whose values are those of `enum`, a class or some of its members, offered on completion."""
    offered = [spelt(one) for one in enum]
    return typer.Option(*names, help=help_text, metavar="|".join(offered), autocompletion=lambda: offered)


Address = Annotated[str | None, typer.Option("--address", help="Only keys bound to this address.")]
DomainName = Annotated[str | None, typer.Option("--domain", help="Only keys of addresses in this domain.")]
OfProtocol = Annotated[str | None, choice_option(Protocol, "--protocol", help_text="Only keys of this protocol.")]
OfOrigin = Annotated[str | None, choice_option(Origin, "--origin", help_text="Only keys obtained this way.")]
OfTrust = Annotated[str | None, choice_option(Trust, "--trust", help_text="Only keys with this trust.")]
IssuerId = Annotated[str | None, typer.Option("--issuer", help="Only held keys of this issuer (its id).")]
OlderThan = Annotated[
    str | None, typer.Option("--older-than", metavar="SPAN", help="Only keys last seen at least this long ago, such as 90d.")
]
Expired = Annotated[bool | None, typer.Option("--expired/--unexpired", help="Only expired keys, or only others.")]


def entry_filter(
    *,
    text: str | None = None,
    address: str | None = None,
    domain: str | None = None,
    protocol: str | None = None,
    origin: str | None = None,
    trust: str | None = None,
    issuer: str | None = None,
    older_than: str | None = None,
    expired: bool | None = None,
) -> EntryFilter:
    """Raises InvalidInput for what cannot be meant."""
    from keycache import codec
    from keycache.domain.names import Domain, EmailAddress
    from keycache.domain.spans import parse_span
    from keycache.v1.admin_pb2 import EntryFilter

    made = EntryFilter(
        text=text or "",
        address=EmailAddress.parse(address).text if address else "",
        domain=Domain.parse(domain).text if domain else "",
        protocol=codec.wire_enum(choice(Protocol, protocol)) if protocol else 0,  # type: ignore[arg-type]
        origin=codec.wire_enum(choice(Origin, origin)) if origin else 0,  # type: ignore[arg-type]
        trust=codec.wire_enum(choice(Trust, trust)) if trust else 0,  # type: ignore[arg-type]
        issuer=issuer or "",
        expired=expired,
    )
    if older_than:
        made.older_than.CopyFrom(codec.duration(parse_span(older_than)))
    return made
