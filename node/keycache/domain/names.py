"""Names that cannot be wrong: each normalises once, at the border, and is compared by value afterwards."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import NewType

from keycache.domain.errors import InvalidInput

Revision = NewType("Revision", int)
"""A position in the entry log; 0 is before everything."""

ADDRESS_LIMIT = 320
"""64 + 1 + 255 octets: RFC 5321 sections 4.5.3.1.1 and 4.5.3.1.2."""

_NODE_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?")
"""Our own are UUIDs."""
_FINGERPRINT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FINGERPRINT_LENGTHS = (40, 64)
_HEX = "0123456789abcdef"
_DOMAIN = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_PLAIN = re.compile(rf"[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@{_DOMAIN.pattern}")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f<>,;:\\\[\]\ud800-\udfff]")


_DOT_ATOM = re.compile(r"[^.]+(\.[^.]+)*")
_DEVIATIONS = re.compile("[\u00df\u03c2]")
"""Sharp s and final sigma: own letters of domains today, but other ones to the codec, which knows the older standard (RFC 5894
section 7.2). A key of strasse.example must not be found for stra\u00dfe.example."""


def _ascii_label(label: str) -> str:
    if _DEVIATIONS.search(label):
        return "xn--" + unicodedata.normalize("NFC", label).encode("punycode").decode("ascii")
    return label.encode("idna").decode("ascii").lower()


def _ascii_domain(domain: str) -> str:
    """The domain as lower-case A-labels, so that both spellings of one name are one name (RFC 5891 section 4)."""
    domain = domain.rstrip(".").lower()
    try:
        ascii_form = domain if domain.isascii() else ".".join(_ascii_label(label) for label in domain.split("."))
    except UnicodeError as error:
        raise InvalidInput(f"{domain!r} is not a domain name.") from error
    if len(ascii_form) > 253 or not _DOMAIN.fullmatch(ascii_form):
        raise InvalidInput(f"{domain!r} is not a domain name.")
    return ascii_form


@dataclass(frozen=True, slots=True)
class Domain:
    """A mail domain in lower-case A-labels."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Domain:
        """From what a person typed. Raises InvalidInput."""
        return cls(_ascii_domain(text.strip().lstrip("@")))

    def covers(self, address: EmailAddress) -> bool:
        """Whether the address lies in this very domain (sub-domains are other domains)."""
        return address.domain == self.text


@dataclass(frozen=True, slots=True)
class EmailAddress:
    """A mailbox. `text` keeps the local part as written and the domain in lower-case A-labels.

    Domains compare case-insensitively; local parts are indexed case-insensitively, and exact matches rank first
    (RFC 8550 section 3, RFC 9787 section 8.1.1).
    """

    text: str

    @classmethod
    def parse(cls, text: str) -> EmailAddress:
        """From `local@domain`, without display name or brackets. Raises InvalidInput."""
        if len(text) <= 253 and _PLAIN.fullmatch(text):  # nothing to be made normal: nearly all, at half the time
            return cls(text)
        text = text.strip()
        local, at, domain = text.rpartition("@")
        bare = local[1:-1] if len(local) > 1 and local[0] == local[-1] == '"' else local
        if not at or not bare or len(text.encode("utf-8", "replace")) > ADDRESS_LIMIT:
            raise InvalidInput(f"{text[:80]!r} is not a mail address.", hint="Write it as name@example.org.")
        if _FORBIDDEN.search(bare) or '"' in bare or "@" in bare:
            raise InvalidInput(f"{text[:80]!r} is not a mail address.", hint="Write it as name@example.org.")
        # Quotes that are not needed mean nothing (RFC 5321 section 4.1.2).
        return cls(f"{bare if _DOT_ATOM.fullmatch(bare) else local}@{_ascii_domain(domain)}")

    @property
    def index(self) -> str:
        """The form under which it is indexed and compared: all lower case."""
        return self.text.lower()

    @property
    def domain(self) -> str:
        return self.text.rpartition("@")[2]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, order=True)
class Fingerprint:
    """Lower-case hex. S/MIME: SHA-256 of the DER. OpenPGP: the key's own, 40 digits (v4) or 64 (v6)."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Fingerprint:
        """From hex with or without blanks, colons or a leading 0x. Raises InvalidInput."""
        if len(text) in _FINGERPRINT_LENGTHS and not text.strip(_HEX):  # nothing to be made normal: as records have it
            return cls(text)
        plain = re.sub(r"[\s:]", "", text).lower().removeprefix("0x")
        if not _FINGERPRINT.fullmatch(plain):
            raise InvalidInput(f"{text[:80]!r} is not a fingerprint.", hint="A fingerprint has 40 or 64 hexadecimal digits.")
        return cls(plain)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class NodeId:
    """The random name of one node, made once at its first start."""

    text: str

    @classmethod
    def parse(cls, text: str) -> NodeId:
        """From another node. Raises InvalidInput for what cannot stand in a certificate, or in a key of the log."""
        if not _NODE_ID.fullmatch(text):
            raise InvalidInput(f"{text[:80]!r} cannot be the id of a node.", hint="Ids are made by the nodes themselves.")
        return cls(text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ClusterIdentity:
    """The random name of one log's lifetime. A wiped and rebuilt log has another one (DESIGN 2, FACTS 3)."""

    text: str

    def __str__(self) -> str:
        return self.text
