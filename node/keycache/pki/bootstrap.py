"""What a joiner does before it says anything: look at whom it would talk to.

It makes a TLS 1.3 connection to the host's `listen.join` without trusting it, takes the certificates that are shown (the host adds its
authority's), and closes it: nothing but the handshake was sent. If the authority's public key is the one that the token pins and the
host's certificate is issued by it, for this host and this day, the authority's certificate is good for a real channel, which gRPC
verifies anew. So a man in the middle never sees the token's secret.

pyOpenSSL, because Python 3.11's `ssl` shows a certificate only of a peer it has verified, and its chain not at all (`get_unverified_chain`
came with 3.13); gRPC shows none before a call. pyOpenSSL is kept by the authors of `cryptography`, on which it stands.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL

from keycache.domain.errors import KeycacheError, Refused, Unavailable
from keycache.domain.join_token import NEW_TOKEN_HINT, HostPort, JoinToken
from keycache.pki.authority import CA_NAME
from keycache.pki.identity import key_hash

TIMEOUT = 10.0
"""Seconds for one address, connecting and shaking hands: a lost first packet is sent again after 1, 3 and 7 (RFC 6298)."""
_HANDSHAKE_LIMIT = 64 * 1024
"""Bytes of a stranger that are read; a host's handshake has 2 KiB."""
_READ = 16 * 1024


class Doubt(Enum):
    """Why a host is not talked to, the most telling first."""

    MISMATCH = "MISMATCH"
    OTHER_CLUSTER = "OTHER_CLUSTER"
    FORGED = "FORGED"
    WRONG_NAME = "WRONG_NAME"
    CLOCK = "CLOCK"
    NO_AUTHORITY = "NO_AUTHORITY"
    NO_TLS = "NO_TLS"
    UNREACHABLE = "UNREACHABLE"


_HINTS = {
    Doubt.MISMATCH: "Nothing was sent. Compare the address with the token, look at what stands between the two machines, and try again "
    "only when you know why.",
    Doubt.OTHER_CLUSTER: f"Nothing was sent. If the address belongs to another cluster now, get a token of that one. {NEW_TOKEN_HINT}",
    Doubt.FORGED: "Nothing was sent. Look at what stands between the two machines, and try again only when you know why.",
    Doubt.WRONG_NAME: "Nothing was sent. Add the name to listen.names on the host, restart it and make a new token.",
    Doubt.CLOCK: "Nothing was sent. Set the clock that is wrong, then try again.",
    Doubt.NO_AUTHORITY: "Nothing was sent. The token must name the host's listen.join, not its listen.grpc.",
    Doubt.NO_TLS: "Nothing was sent. Check that the token names the host's listen.join and that no proxy stands before it.",
    Doubt.UNREACHABLE: "Check that the host runs, that its listen.join is an address which this machine reaches, and the firewall.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubtful:
    """A host that cannot be talked to, with a sentence."""

    endpoint: HostPort
    doubt: Doubt
    text: str

    def error(self) -> KeycacheError:
        kind = Unavailable if self.doubt in {Doubt.UNREACHABLE, Doubt.NO_TLS} else Refused
        return kind(self.text, hint=_HINTS[self.doubt])


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host that is the one the token speaks of. `ca`: its authority's certificate in PEM, the root for a real channel."""

    endpoint: HostPort
    ca: bytes


async def find_host(token: JoinToken, *, now: datetime, timeout: float = TIMEOUT) -> Host:  # noqa: ASYNC109 -- of each address
    """The first of the token's hosts that proves to be the one it speaks of. Raises Unavailable, Refused: the most telling doubt."""
    doubts: list[Doubtful] = []
    for endpoint in token.endpoints:
        found = await look_at(endpoint, authority=token.authority, now=now, timeout=timeout)
        if isinstance(found, Host):
            return found
        doubts.append(found)
    raise min(doubts, key=lambda doubtful: list(Doubt).index(doubtful.doubt)).error()


async def look_at(
    endpoint: HostPort,
    *,
    authority: bytes,
    now: datetime,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 -- as above
) -> Host | Doubtful:
    """`authority`: SHA-256 of the SPKI that the host must show. Sends a TLS ClientHello and no more."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    except (OSError, TimeoutError) as error:
        reason = "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error))
        return Doubtful(endpoint=endpoint, doubt=Doubt.UNREACHABLE, text=f"{endpoint} cannot be reached: {reason}.")
    try:
        async with asyncio.timeout(timeout):
            chain = await _shown_chain(endpoint.host, reader, writer)
    except (SSL.Error, OSError, EOFError, ValueError, TimeoutError):
        return Doubtful(endpoint=endpoint, doubt=Doubt.NO_TLS, text=f"What listens on {endpoint} does not speak TLS 1.3.")
    finally:
        writer.close()
    return judge_chain(chain, endpoint=endpoint, authority=authority, now=now)


def judge_chain(chain: Sequence[x509.Certificate], *, endpoint: HostPort, authority: bytes, now: datetime) -> Host | Doubtful:
    """The certificates that a stranger showed, its own first. Whether they prove it to be the host.

    ORDER: identity before time and name, so that a stranger's certificate is never called a wrong clock.
    """

    def doubtful(doubt: Doubt, text: str) -> Doubtful:
        return Doubtful(endpoint=endpoint, doubt=doubt, text=text)

    leaf, roots = chain[0], [one for one in chain[1:] if _is_root(one)]
    if not roots:
        return doubtful(Doubt.NO_AUTHORITY, f"{endpoint} shows no certificate of an authority, as a host does to joiners.")
    root = next((one for one in roots if key_hash(one.public_key()) == authority), None)
    if root is None:
        theirs = next((one for one in roots if _issued_by(leaf, one) and _common_name(one).startswith(CA_NAME)), None)
        if theirs is None:
            return doubtful(
                Doubt.MISMATCH,
                f"{endpoint} is not the host that the token speaks of: somebody else may have come between (man in the middle).",
            )
        return doubtful(
            Doubt.OTHER_CLUSTER,
            f"{endpoint} shows the authority {_common_name(theirs)!r}, which is not the token's: a node of another cluster, or "
            "somebody who has come between (man in the middle).",
        )
    if not _issued_by(leaf, root) or not _is_server(leaf):
        return doubtful(Doubt.FORGED, f"{endpoint} shows the right authority, but a certificate that is not a host's of it.")
    for one in (root, leaf):
        start, end = one.not_valid_before_utc, one.not_valid_after_utc
        if not start <= now <= end:
            off = "behind, or the host's was ahead" if now < start else "ahead, or the host has renewed nothing for long"
            valid = f"valid from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
            return doubtful(
                Doubt.CLOCK,
                f"The certificate of {endpoint} is {valid}, but this machine's clock says {now:%Y-%m-%d %H:%M}: it is {off}.",
            )
    if not _names(leaf, endpoint.host):
        return doubtful(
            Doubt.WRONG_NAME, f"The certificate of {endpoint} is a host's of this cluster, but does not name {endpoint.host}."
        )
    return Host(endpoint=endpoint, ca=root.public_bytes(Encoding.PEM))


async def _shown_chain(host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[x509.Certificate]:
    """Raises SSL.Error, OSError, EOFError for what is no TLS 1.3."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_alpn_protos([b"h2"])  # gRPC's server ends others
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    if not _is_address(host):
        connection.set_tlsext_host_name(host.encode("ascii"))  # RFC 6066 section 3: never an address
    room = _HANDSHAKE_LIMIT
    while True:
        try:
            connection.do_handshake()
            break
        except SSL.WantReadError:
            pass
        while True:
            try:
                writer.write(connection.bio_read(_READ))
            except SSL.WantReadError:
                break
        await writer.drain()
        data = await reader.read(min(_READ, room))
        room -= len(data)
        if not data or room <= 0:
            raise EOFError
        connection.bio_write(data)
    chain = connection.get_peer_cert_chain(as_cryptography=True) or []
    if not chain:
        raise EOFError
    return [one for one in chain if isinstance(one, x509.Certificate)]


def _is_root(certificate: x509.Certificate) -> bool:
    """A CA's that is signed with its own key: then whoever made it holds the key."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    return constraints.ca and _issued_by(certificate, certificate)


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        return False
    return True


def _is_server(leaf: x509.Certificate) -> bool:
    """Clients hold certificates of the same authority; they must not pass for a host."""
    try:
        return ExtendedKeyUsageOID.SERVER_AUTH in leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, x509.ExtensionNotFound):
        return False


def _names(leaf: x509.Certificate, host: str) -> bool:
    """Our certificates hold no wildcards, host names in lower-case A-labels."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    if _is_address(host):
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
    return host in names.get_values_for_type(x509.DNSName)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _common_name(certificate: x509.Certificate) -> str:
    """For people: whatever a stranger wrote, without what a terminal could obey."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return "".join(letter for letter in str(names[0].value)[:80] if letter.isprintable()) if names else ""
