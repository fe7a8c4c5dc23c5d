"""Names in certificates: distinguished names made comparable, and the mail addresses a certificate names.

Addresses stand in the SAN as rfc822Name or SmtpUTF8Mailbox (RFC 9598), and in the subject's emailAddress (RFC 8550 section 3).
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from cryptography import x509

from keycache.domain.errors import InvalidInput
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.smime_asn1 import SEQUENCE, SET, UTF8_STRING, Asn1Limits, Element, Unacceptable, encode, parse, to_der

ADDRESS_COUNT = 100
"""Addresses in one certificate; directories give a person a handful of aliases."""
_SMTP_UTF8_MAILBOX = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9")  # RFC 9598 section 3
_EMAIL_ADDRESS = x509.ObjectIdentifier("1.2.840.113549.1.9.1")  # PKCS #9
_LIMITS = Asn1Limits(elements=2_000, depth=8)
_CODECS = {0x0C: "utf-8", 0x12: "ascii", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1C: "utf-32-be", 0x1E: "utf-16-be"}


@lru_cache(maxsize=2048)
def name_key(der: bytes) -> bytes:
    """A form of a Name in which equal names are equal bytes: case, blanks and string types do not matter (RFC 5280 7.1).

    Raises Unacceptable. A name whose strings cannot be decoded is compared byte for byte.
    """
    rdns: list[bytes] = []
    for rdn in parse(der, _LIMITS).expect(SEQUENCE, "a distinguished name").children:
        pairs = [_pair_key(pair) for pair in rdn.expect(SET, "a part of a distinguished name").children]
        rdns.append(encode(SET, b"".join(sorted(pairs))))
    return encode(SEQUENCE, b"".join(rdns))


def _pair_key(pair: Element) -> bytes:
    if len(pair.children) != 2:
        raise Unacceptable(Verdict.MALFORMED_KEY, "A distinguished name cannot be read.")
    kind, value = pair.children
    codec = _CODECS.get(value.tag)
    if codec is None:
        return kind.raw + to_der(value)
    try:
        text = value.contents.decode(codec)
    except UnicodeDecodeError:
        return kind.raw + value.raw
    folded = unicodedata.normalize("NFKC", " ".join(text.split())).casefold()
    return kind.raw + encode(UTF8_STRING, folded.encode())


def printable(text: str) -> str:
    """The text without what could upset a terminal or a table."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def addresses_of(subject: x509.Name, alternatives: x509.SubjectAlternativeName | None) -> tuple[EmailAddress, ...]:
    """Every mail address named, SAN first, each once. What is no plain address (blanks, NUL, no domain) names nobody.

    Raises Unacceptable (KEY_TOO_LARGE) when there are too many.
    """
    texts: list[str] = []
    for name in alternatives or ():
        if isinstance(name, x509.RFC822Name):
            texts.append(name.value)
        elif isinstance(name, x509.OtherName) and name.type_id == _SMTP_UTF8_MAILBOX:
            texts.extend(_utf8_mailbox(name.value))
    texts.extend(str(attribute.value) for attribute in subject.get_attributes_for_oid(_EMAIL_ADDRESS))
    if len(texts) > ADDRESS_COUNT:
        raise Unacceptable(
            Verdict.KEY_TOO_LARGE, f"The certificate names {len(texts)} addresses; the limit is {ADDRESS_COUNT}."
        )
    found: dict[str, EmailAddress] = {}
    for text in texts:
        address = _address(text)
        if address is not None:
            found.setdefault(address.text, address)
    return tuple(found.values())


def _utf8_mailbox(der: bytes) -> tuple[str, ...]:
    """SmtpUTF8Mailbox. An ASCII local part belongs into rfc822Name, where name constraints see it (RFC 9598 section 3)."""
    try:
        text = parse(der, _LIMITS).expect(UTF8_STRING, "a mailbox").contents.decode()
    except (Unacceptable, UnicodeDecodeError):
        return ()
    return () if text.startswith("\N{ZERO WIDTH NO-BREAK SPACE}") or text.rpartition("@")[0].isascii() else (text,)


def _address(text: str) -> EmailAddress | None:
    if text != text.strip():
        return None
    try:
        return EmailAddress.parse(text)
    except InvalidInput:
        return None
