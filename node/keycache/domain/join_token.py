"""The token with which a node joins a cluster: its text, and what the cluster remembers of it. After kubeadm's bootstrap token:
short-lived, used once, and it pins the host's authority, so that the joiner knows whom it talks to before it says anything.

    kc1/cache1.example.org:7642,192.0.2.7:7642/0123-4567-...   22 groups of four

The last part is in Crockford's base 32 (no I, L, O, U; capitals or not, read as meant), so that it can be typed:

    4 bytes    id: names the token in lists and logs
    16 bytes   secret
    32 bytes   SHA-256 of the SubjectPublicKeyInfo of the cluster's authority
    3 bytes    check: of all that stands before it, endpoints and version too

The public key is pinned and not the certificate, as in kubeadm (`--discovery-token-ca-cert-hash`) and RFC 7469 section 2.4: what
matters is who holds the key, and an authority's certificate may be made anew for the same key while a token is out.

The log keeps the hash of the secret only. A plain SHA-256 is enough for that: 128 random bits cannot be guessed, however fast.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from keycache.domain.errors import InvalidInput, OutOfRange
from keycache.domain.names import Domain, NodeId
from keycache.domain.secret import Secret
from keycache.domain.spans import format_span

TTL_DEFAULT = timedelta(hours=1)
"""Time to walk to the other machine. kubeadm's day is a night in which nobody looks."""
TTL_MIN, TTL_MAX = timedelta(minutes=1), timedelta(days=7)
"""Less cannot be pasted; more than a machine's way by post is a password that stands about."""

ID_BYTES, SECRET_BYTES, HASH_BYTES, _CHECK_BYTES = 4, 16, 32, 3
ENTROPY_BYTES = ID_BYTES + SECRET_BYTES
ENDPOINTS_MAX = 5
"""As many as a cluster has voters at most (DESIGN 4)."""

_VERSION = "kc1"
_SHAPE = re.compile(r"kc([0-9]{1,3})/([^/]*)/(.*)", re.IGNORECASE | re.DOTALL)
_BLANK = re.compile(r"[\s\u200b]+")
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Of Douglas Crockford's Base 32 (crockford.com/base32.html)."""
_MEANT = str.maketrans("OIL", "011")
_SYMBOLS = (ID_BYTES + SECRET_BYTES + HASH_BYTES + _CHECK_BYTES) * 8 // 5
_PORT = re.compile(r"[1-9][0-9]{0,4}")

_AGAIN = "Copy the whole token as 'keycache cluster token' printed it. Nothing was sent."


@dataclass(frozen=True, slots=True)
class HostPort:
    """Where a node is reached. `host`: a host name in lower-case A-labels, or an IP address in its shortest form."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> HostPort:
        """From `host:port`, an IPv6 address in brackets. Raises InvalidInput."""
        host, colon, port = text.strip().rpartition(":")
        hint = "Write it as cache.example.org:7642, 192.0.2.7:7642 or [2001:db8::7]:7642."
        if not colon or not _PORT.fullmatch(port) or int(port) > 65535:
            raise InvalidInput(f"{text[:80]!r} does not name a host and a port from 1 to 65535.", hint=hint)
        bracketed = host.startswith("[") and host.endswith("]")
        try:
            address = ipaddress.ip_address(host[1:-1] if bracketed else host)
        except ValueError:
            address = None
        if bracketed != (address is not None and address.version == 6):
            raise InvalidInput(f"{text[:80]!r} does not name a host and a port.", hint=hint)
        try:
            return cls(Domain.parse(host).text if address is None else str(address), int(port))
        except InvalidInput as error:
            raise InvalidInput(f"{text[:80]!r} does not name a host and a port.", hint=hint) from error

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """What the token says. `authority`: SHA-256 of the SPKI of the cluster's authority. `repr` does not show the secret."""

    id: str
    secret: Secret
    endpoints: tuple[HostPort, ...]
    authority: bytes

    @classmethod
    def new(cls, entropy: bytes, *, endpoints: Sequence[HostPort], authority: bytes) -> JoinToken:
        """`entropy`: ENTROPY_BYTES fresh random bytes. `endpoints`: where joiners reach this node or others, best first.

        Raises InvalidInput when there is no endpoint, or more than ENDPOINTS_MAX.
        """
        if not 1 <= len(endpoints) <= ENDPOINTS_MAX:
            raise InvalidInput(
                f"A token carries 1 to {ENDPOINTS_MAX} addresses, not {len(endpoints)}.",
                hint="Set listen.join to where other nodes reach this one.",
            )
        if len(entropy) != ENTROPY_BYTES or len(authority) != HASH_BYTES:
            raise ValueError("entropy or hash of another length")
        return cls(
            id=entropy[:ID_BYTES].hex(), secret=Secret(entropy[ID_BYTES:]), endpoints=tuple(endpoints), authority=authority
        )

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """From what a person pasted or typed. Raises InvalidInput, which tells a mistyped token from what is none."""
        shape = _SHAPE.fullmatch(_BLANK.sub("", text).strip("'\""))
        if shape is None:
            raise InvalidInput("This is not a token for joining a cluster: one begins with 'kc1/'.", hint=_AGAIN)
        version, places, code = shape.groups()
        if int(version) != int(_VERSION[2:]):
            raise InvalidInput(
                f"This token is of a kind (kc{int(version)}) that this version of Keycache does not know.",
                hint="Install the version that the cluster runs, then join. Nothing was sent.",
            )
        body = _decoded(code)
        try:
            endpoints = tuple(HostPort.parse(place) for place in places.split(","))
        except InvalidInput as error:
            raise InvalidInput(f"The token is mistyped: {error.text}", hint=_AGAIN) from error
        said, check = body[:-_CHECK_BYTES], body[-_CHECK_BYTES:]
        if check != _check(endpoints, said):
            raise InvalidInput("The token is mistyped: a character of it is wrong, or two changed places.", hint=_AGAIN)
        return cls.new(said[:ENTROPY_BYTES], endpoints=endpoints, authority=said[ENTROPY_BYTES:])

    def reveal(self) -> str:
        """The text, secret and all: for the administrator's eyes, never for a log."""
        said = bytes.fromhex(self.id) + self.secret.reveal() + self.authority
        code = _encoded(said + _check(self.endpoints, said))
        groups = "-".join(code[at : at + 4] for at in range(0, len(code), 4))
        return f"{_VERSION}/{_places(self.endpoints)}/{groups}"


class TokenState(Enum):
    UNUSED = "UNUSED"
    USED = "USED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Joiner:
    """Who presents a token. `key`: SHA-256 of the public key in its request, of which the request proves possession."""

    node: NodeId
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """What stands in the log under `tokens/<id>`. `secret_sha256`: never the secret. `used_by` and `used_at`: both or neither."""

    id: str
    secret_sha256: bytes
    created_at: datetime
    created_by: str
    expires_at: datetime
    used_by: Joiner | None = None
    used_at: datetime | None = None

    def __post_init__(self) -> None:
        if (self.used_by is None) != (self.used_at is None):
            raise ValueError("a used token names its user and the time")

    @property
    def state(self) -> TokenState:
        return TokenState.UNUSED if self.used_by is None else TokenState.USED


class TokenVerdict(Enum):
    """What becomes of a token that a joiner presents."""

    OK = "OK"
    UNKNOWN = "UNKNOWN"
    EXPIRED = "EXPIRED"
    USED = "USED"
    WRONG_SECRET = "WRONG_SECRET"  # noqa: S105 -- the name of an outcome

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES = {
    TokenVerdict.OK: "The token is good.",
    TokenVerdict.UNKNOWN: "The cluster knows no token of this id: it was withdrawn, or made by another cluster.",
    TokenVerdict.EXPIRED: "The token has expired.",
    TokenVerdict.USED: "The token was used by another node already, and each is good for one.",
    TokenVerdict.WRONG_SECRET: "The token's id is known, but its secret is another one.",
}

NEW_TOKEN_HINT = "Make a new one with 'keycache cluster token' on a node of the cluster."  # noqa: S105 -- a sentence


def check_ttl(ttl: timedelta) -> timedelta:
    """The span itself. Raises OutOfRange."""
    if not TTL_MIN <= ttl <= TTL_MAX:
        raise OutOfRange(
            f"A token cannot live for {format_span(ttl)}.",
            hint=f"Choose --ttl from {format_span(TTL_MIN)} to {format_span(TTL_MAX)}.",
        )
    return ttl


def record_of(token: JoinToken, *, created_by: str, now: datetime, ttl: timedelta = TTL_DEFAULT) -> TokenRecord:
    """What to write into the log when a token is made. Raises OutOfRange."""
    return TokenRecord(
        id=token.id,
        secret_sha256=secret_hash(token.secret),
        created_at=now,
        created_by=created_by,
        expires_at=now + check_ttl(ttl),
    )


def secret_hash(secret: Secret) -> bytes:
    return hashlib.sha256(secret.reveal()).digest()


def judge(record: TokenRecord | None, *, secret: Secret, joiner: Joiner, now: datetime) -> TokenVerdict:
    """Whether the joiner may be let in. `record`: what the log holds under the id it named.

    ORDER: the secret is compared before anything is told of the token's state, so that who does not hold it learns no more than that
    the id exists. The node that used the token may present it again, with the same key, until it expires: the answer may have been
    lost on its way, and the joiner must be able to go on after a crash. Marking the token used must compare its `mod_revision`,
    or two nodes could use it at once.
    """
    if record is None:
        return TokenVerdict.UNKNOWN
    if not hmac.compare_digest(secret_hash(secret), record.secret_sha256):
        return TokenVerdict.WRONG_SECRET
    if now >= record.expires_at:
        return TokenVerdict.EXPIRED
    if record.used_by is not None and record.used_by != joiner:
        return TokenVerdict.USED
    return TokenVerdict.OK


def _places(endpoints: Sequence[HostPort]) -> str:
    return ",".join(str(endpoint) for endpoint in endpoints)


def _check(endpoints: Sequence[HostPort], said: bytes) -> bytes:
    """Not against forgers, who can compute it: against slips of hand, of which it passes one in 16 million."""
    return hashlib.sha256(f"{_VERSION}/{_places(endpoints)}/".encode() + said).digest()[:_CHECK_BYTES]


def _encoded(data: bytes) -> str:
    number, symbols = int.from_bytes(data), []
    for _ in range(_SYMBOLS):
        number, rest = divmod(number, 32)
        symbols.append(_ALPHABET[rest])
    return "".join(reversed(symbols))


def _decoded(code: str) -> bytes:
    symbols = code.replace("-", "").upper().translate(_MEANT)
    strange = sorted(set(symbols) - set(_ALPHABET))
    if strange:
        raise InvalidInput(f"The token is mistyped: {strange[0]!r} stands in no token.", hint=_AGAIN)
    if len(symbols) != _SYMBOLS:
        many = "short" if len(symbols) < _SYMBOLS else "long"
        raise InvalidInput(
            f"The token is too {many}: its last part has {len(symbols)} of {_SYMBOLS} letters and digits.", hint=_AGAIN
        )
    number = 0
    for symbol in symbols:
        number = 32 * number + _ALPHABET.index(symbol)
    return number.to_bytes(_SYMBOLS * 5 // 8)
