"""From a user ID to the one mail address it names, or to none (RFC 9580 section 5.11 leaves the form open)."""

from __future__ import annotations

import re

from keycache.domain.errors import InvalidInput
from keycache.domain.names import EmailAddress

NAME_LIMIT = 200
"""Characters of a user ID shown to people; a screen line holds fewer."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
"""Control characters and those that turn the reading direction: a name made of them shows something else than it says."""


def address_of(user_id: bytes) -> EmailAddress | None:
    """`name@example.org` alone, or `anything <name@example.org>`. Whatever could be read in two ways names nobody."""
    try:
        text = user_id.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if _CONTROL.search(text):
        return None
    text = text.strip(" ")
    if "<" in text or ">" in text:
        name, _, rest = text.partition("<")
        if text.count("<") != 1 or text.count(">") != 1 or not rest.endswith(">"):
            return None
        if "@" in name and ("," in name or ";" in name):
            return None  # a list of addresses, of which only the last stands in brackets
        text = rest[:-1]
    if text.count("@") != 1 and not text.startswith('"'):
        return None
    if " " in text:
        return None
    try:
        return EmailAddress.parse(text)
    except InvalidInput:
        return None


def name_of(user_id: bytes) -> str:
    """For people: control characters replaced, of a bounded length."""
    text = _CONTROL.sub("\ufffd", user_id.decode("utf-8", "replace"))
    return text if len(text) <= NAME_LIMIT else text[: NAME_LIMIT - 1] + "…"
