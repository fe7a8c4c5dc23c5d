"""Whether a mail came in or goes out, from its envelope and the configuration (seed questions 3 and 4). Pure.

The first signal that speaks decides, the surest first:

1. `stated`: the caller's own word.
2. `user`: who authenticated is one of ours submitting mail: outbound.
3. `listener`: the interface that took the mail, inbound or outbound. It is asked before the client's address, because giving each
   direction its own interface is what an administrator does to settle the matter (question 4), while a spam filter or load
   balancer in front of an inbound listener has an internal address too.
4. `network`: a client in our internal networks sends outbound mail.
5. `domains`: inbound if a recipient is ours and the author is not; outbound if the author or the envelope sender is ours and a
   recipient is not; between our own people: inbound, which the gate on managed domains then ends.
6. `network` again: a client from outside of them brings inbound mail.

Listener and network are checked against the domains: "outbound" for a mail from a stranger to our own people only is a connector
that is set up wrong (CONNECTOR_SUSPECT), and the detail says what to change.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from keycache.domain.examination import Direction, DirectionPolicy, Envelope
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.sender import read_address

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """`verdict`: None when the mail is inbound and may be looked into. `detail`: which signal decided, or what to change."""

    direction: Direction
    verdict: Verdict | None
    detail: str


def decide(envelope: Envelope, policy: DirectionPolicy, author: EmailAddress | None) -> Ruling:
    """`author`: the address in From, None if there is not exactly one."""
    parties = _Parties.of(envelope, policy, author)
    if envelope.stated is Direction.INBOUND:
        return _inbound("The caller stated that the mail came in.")
    if envelope.stated is Direction.OUTBOUND:
        return _outbound("The caller stated that the mail goes out.", parties)
    if envelope.user:
        return _outbound("The client authenticated as a user of ours, so the mail goes out.", parties)
    settings = _compiled(policy)
    listener, listener_detail = _by_listener(envelope.listener, settings)
    if listener is Direction.INBOUND:
        return _inbound(listener_detail)
    if listener is Direction.OUTBOUND:
        return _suspect_listener(envelope.listener, parties) or _outbound(listener_detail, parties)
    client = _address(envelope.client)
    network = next((net for net in settings.networks if client is not None and client in net), None)
    if network is not None:
        detail = f"The client {client} lies in the internal network {network}, so the mail goes out."
        return _suspect_network(client, network, parties) or _outbound(detail, parties)
    if policy.managed_domains:
        return _by_domains(parties, listener_detail)
    if client is not None and settings.networks:
        return _inbound(f"The client {client} lies in none of the internal networks, so the mail came in.")
    return _unknown(envelope, listener_detail, configured=bool(settings.inbound or settings.outbound or settings.networks))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parties:
    """Who of the people of a mail is ours. Booleans of the recipients are False when none is known."""

    author_ours: bool
    sender_ours: bool
    author_known: bool
    recipients: int
    any_ours: bool
    all_ours: bool

    @classmethod
    def of(cls, envelope: Envelope, policy: DirectionPolicy, author: EmailAddress | None) -> _Parties:
        mail_from = read_address(envelope.mail_from)
        who = author or mail_from
        ours = [_is_ours(policy, read_address(recipient)) for recipient in envelope.recipients]
        return cls(
            author_ours=_is_ours(policy, who),
            sender_ours=_is_ours(policy, mail_from),
            author_known=who is not None,
            recipients=len(ours),
            any_ours=any(ours),
            all_ours=bool(ours) and all(ours),
        )

    @property
    def come_in(self) -> bool:
        """From a stranger to our own people only: whatever a listener says, this is inbound mail."""
        return self.all_ours and not self.author_ours and not self.sender_ours


def _is_ours(policy: DirectionPolicy, address: EmailAddress | None) -> bool:
    return address is not None and policy.manages(address)


def _by_domains(parties: _Parties, listener_detail: str) -> Ruling:
    hint = f" ({listener_detail})" if listener_detail else ""
    if parties.any_ours and not parties.author_ours:
        return _inbound("A recipient is in a managed domain and the sender is not, so the mail came in.")
    if parties.all_ours:
        return _inbound("Sender and recipients are all in managed domains; the mail stays among our own people.")
    if parties.author_ours or parties.sender_ours:
        return _outbound("The sender is in a managed domain and not every recipient is, so the mail goes out.", parties)
    if parties.recipients:
        return Ruling(
            direction=Direction.UNKNOWN,
            verdict=Verdict.DIRECTION_UNKNOWN,
            detail=f"Neither the sender nor any recipient is in a managed domain. Is one missing in 'managed_domains'?{hint}",
        )
    if parties.author_known:
        return _inbound("The sender is in no managed domain, so the mail came in.")
    return Ruling(
        direction=Direction.UNKNOWN,
        verdict=Verdict.DIRECTION_UNKNOWN,
        detail=f"The mail names no sender and the caller gave no recipients.{hint}",
    )


def _suspect_listener(listener: str, parties: _Parties) -> Ruling | None:
    if not parties.come_in:
        return None
    return Ruling(
        direction=Direction.OUTBOUND,
        verdict=Verdict.CONNECTOR_SUSPECT,
        detail=f"Listener {_shown(listener)} is one of 'outbound_listeners', but the sender is in no managed domain and every "
        "recipient is. Let the connector that brings mail from outside use another address or port, and name that one in "
        "'inbound_listeners'.",
    )


def _suspect_network(client: Address | None, network: Network, parties: _Parties) -> Ruling | None:
    if not parties.come_in:
        return None
    return Ruling(
        direction=Direction.OUTBOUND,
        verdict=Verdict.CONNECTOR_SUSPECT,
        detail=f"The client {client} lies in the internal network {network}, but the sender is in no managed domain and every "
        "recipient is. If a mail filter or load balancer in front of this system has that address, narrow "
        "'internal_networks', or let inbound mail use a listener of its own and name it in 'inbound_listeners'.",
    )


def _inbound(detail: str) -> Ruling:
    return Ruling(direction=Direction.INBOUND, verdict=None, detail=detail)


def _outbound(detail: str, parties: _Parties) -> Ruling:
    if parties.come_in:
        detail += " Yet the sender is in no managed domain and every recipient is."
    return Ruling(direction=Direction.OUTBOUND, verdict=Verdict.OUTBOUND_MESSAGE, detail=detail)


def _unknown(envelope: Envelope, listener_detail: str, *, configured: bool) -> Ruling:
    if listener_detail:
        detail = listener_detail
    elif not configured:
        detail = "Neither managed domains nor listeners nor internal networks are configured, and no direction was stated."
    elif not envelope.listener and not envelope.client:
        detail = "No managed domains are configured, and the caller gave neither listener nor client address."
    else:
        detail = "No managed domains are configured, and neither listener nor client address tells."
    return Ruling(direction=Direction.UNKNOWN, verdict=Verdict.DIRECTION_UNKNOWN, detail=detail)


# Listeners ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Listener:
    """`address` None: any (a wildcard or not given). `name`: what is no IP address, compared as text. `port` 0: any."""

    address: Address | None
    name: str
    port: int

    def score(self, other: _Listener) -> int:
        """How closely a configured listener fits the one that took the mail; 0: not at all. An address counts above a port."""
        if self.port and other.port and self.port != other.port:
            return 0
        if self.name != other.name:
            return 0
        if self.address is not None and other.address is not None and self.address != other.address:
            return 0
        exact_address = bool(self.name) or (self.address is not None and self.address == other.address)
        exact_port = bool(self.port) and self.port == other.port
        return 1 + 2 * exact_address + exact_port


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    inbound: tuple[_Listener, ...]
    outbound: tuple[_Listener, ...]
    networks: tuple[Network, ...]


@lru_cache(maxsize=8)
def _compiled(policy: DirectionPolicy) -> _Compiled:
    networks = (_network(text) for text in policy.internal_networks)
    return _Compiled(
        inbound=tuple(_listener(text) for text in policy.inbound_listeners),
        outbound=tuple(_listener(text) for text in policy.outbound_listeners),
        networks=tuple(network for network in networks if network is not None),
    )


def _by_listener(text: str, settings: _Compiled) -> tuple[Direction | None, str]:
    """The closest fit wins: 192.0.2.2:25 before *:25. As close on both sides, as when one interface serves both: it tells nothing."""
    if not text or not (settings.inbound or settings.outbound):
        return None, ""
    listener = _listener(text)
    inbound = max((one.score(listener) for one in settings.inbound), default=0)
    outbound = max((one.score(listener) for one in settings.outbound), default=0)
    shown = _shown(text)
    if inbound > outbound:
        return Direction.INBOUND, f"Listener {shown} is one of 'inbound_listeners', so the mail came in."
    if outbound > inbound:
        return Direction.OUTBOUND, f"Listener {shown} is one of 'outbound_listeners', so the mail goes out."
    if inbound:
        return None, f"Listener {shown} is as much one of 'inbound_listeners' as of 'outbound_listeners', so it tells nothing."
    return None, f"Listener {shown} is in neither 'inbound_listeners' nor 'outbound_listeners'."


def _listener(text: str) -> _Listener:
    """`192.0.2.1`, `192.0.2.1:25`, `[2001:db8::1]:25`, `2001:db8::1`, `*:25`, `:25`, `0.0.0.0:25`, `mx1.example.org:25`."""
    text = text.strip().lower()
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    if host in {"", "*"}:
        return _Listener(None, "", number)
    address = _address(host)
    if address is None:
        return _Listener(None, host, number)
    return _Listener(None if address.is_unspecified else address, "", number)


def _address(text: str) -> Address | None:
    """IPv4 in IPv6 clothing is IPv4 (RFC 4291 section 2.5.5.2); a zone (%eth0) is dropped."""
    try:
        address = ipaddress.ip_address(text.strip().strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _network(text: str) -> Network | None:
    """None for what is no network: the configuration has refused that at start, and a worker judges by the rest."""
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return None


def _shown(text: str) -> str:
    return repr(text[:80])
