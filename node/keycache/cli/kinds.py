"""What a file given to `import` is, told from its first bytes: names lie and are often missing. Pure."""

from __future__ import annotations

import re
from enum import Enum

HEAD_SIZE = 64 * 1024
"""Enough for the headers of any ordinary mail."""


class Kind(Enum):
    """EXPORT: JSON lines of our own. MBOX: several messages. MESSAGE: one. MATERIAL: keys in whatever form, the node can tell."""

    EXPORT = "EXPORT"
    MBOX = "MBOX"
    MESSAGE = "MESSAGE"
    MATERIAL = "MATERIAL"


_BOM = b"\xef\xbb\xbf"
_HEADER = re.compile(rb"([!-9;-~]+)[ \t]*:")
_MAIL_HEADERS = frozenset({b"from", b"received", b"return-path", b"message-id", b"date", b"delivered-to", b"mime-version"})
"""One of these makes a block of headers a mail; what `openssl x509 -text` prints looks like headers too, but has none of them."""


def kind_of(head: bytes) -> Kind:
    """`head`: the first HEAD_SIZE bytes, or fewer if there are no more."""
    text = head.removeprefix(_BOM).lstrip(b"\r\n\t ")
    if text.startswith(b"{"):
        return Kind.EXPORT
    if text.startswith(b"From "):
        return Kind.MBOX
    return Kind.MESSAGE if _looks_like_mail(text) else Kind.MATERIAL


def _looks_like_mail(text: bytes) -> bool:
    named = set()
    for line in re.split(rb"\r?\n|\r", text):
        if not line:
            break
        header = _HEADER.match(line)
        if header is not None:
            named.add(header[1].lower())
        elif line[:1] not in b" \t":
            break
    return bool(named & _MAIL_HEADERS)
