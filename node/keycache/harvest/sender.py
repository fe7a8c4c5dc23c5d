"""Whose mail it is: the one mailbox in From, and the message's date and id. Strict, since a key is bound to what stands here.

Rules:
- From decides, alone. A key serves to write to the person a mail is *from*; Sender names who typed it (RFC 5322 section 3.6.2).
  RFC 8550 section 3 lets a certificate match either, for showing a mail; binding a key to From by a certificate for Sender
  would let a secretary's key, or anybody's, stand in for the author's. So Sender is not read.
- The address is what stands in angle brackets, or a bare addr-spec. Display names, quoted strings, comments and encoded words are
  for eyes only and are never looked into: '"a@x" <b@y>' is b@y.
- More than one mailbox, more than one From, or a group with members: SEVERAL_SENDERS. Anything unclear: NO_SENDER.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from keycache.domain.errors import InvalidInput
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict

MESSAGE_ID_LIMIT = 998
"""Characters: a line of RFC 5322 section 2.1.1."""

DATE_LIMIT = 128
"""Bytes; the longest form of RFC 5322 section 3.3 with comments has some 60."""

_SPECIALS = frozenset('<>,;:"(')
_DOT_ATOM = re.compile(r"[^\s\x00-\x1f\x7f()<>\[\]:;@\\,\".]+(?:\.[^\s\x00-\x1f\x7f()<>\[\]:;@\\,\".]+)*")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """`address` is set exactly when `verdict` is None. `count`: mailboxes seen in all From fields."""

    address: EmailAddress | None
    verdict: Verdict | None
    detail: str = ""
    count: int = 0


def read_sender(from_fields: Sequence[bytes]) -> Sender:
    """Of the values of all From fields."""
    if not from_fields:
        return _none("The mail has no From field.")
    if len(from_fields) > 1:
        detail = f"The mail has {len(from_fields)} From fields; RFC 5322 allows one."
        return Sender(address=None, verdict=Verdict.SEVERAL_SENDERS, detail=detail, count=len(from_fields))
    listed = _mailboxes(from_fields[0])
    if len(listed.specs) > 1 or (listed.group and listed.specs):
        what = "a group" if listed.group else f"{len(listed.specs)} mailboxes"
        detail = f"From holds {what}."
        return Sender(address=None, verdict=Verdict.SEVERAL_SENDERS, detail=detail, count=max(len(listed.specs), 2))
    if listed.malformed:
        return _none(f"From cannot be read: {listed.malformed}.")
    if not listed.specs:
        return _none("From holds no mailbox.")
    address = read_address(listed.specs[0])
    if address is None:
        return _none("What stands in From is no mail address.")
    return Sender(address=address, verdict=None, count=1)


def read_address(text: str) -> EmailAddress | None:
    """One address as on an envelope, with or without angle brackets; None if it is none (or the null sender)."""
    text = text.strip()
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1]
    text = _unquoted(text)
    local = text.rpartition("@")[0]
    if not _DOT_ATOM.fullmatch(local) and not local.startswith('"'):
        return None
    try:
        return EmailAddress.parse(text)
    except InvalidInput:
        return None


def read_date(values: Sequence[bytes]) -> datetime | None:
    """Of the Date field, in UTC; None when absent, given more than once or unreadable. An unknown zone (-0000) is read as UTC."""
    if len(values) != 1 or len(values[0]) > DATE_LIMIT:
        return None
    try:
        moment = parsedate_to_datetime(values[0].decode("ascii"))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def read_message_id(values: Sequence[bytes]) -> str:
    """For people to find the mail again: printable, bounded, empty if there is none."""
    if not values:
        return ""
    text = values[0].decode("utf-8", "replace").strip()
    return _UNPRINTABLE.sub("\ufffd", text[:MESSAGE_ID_LIMIT])


def _none(detail: str) -> Sender:
    return Sender(address=None, verdict=Verdict.NO_SENDER, detail=detail)


@dataclass(slots=True)
class _Listed:
    """`specs`: addr-specs as found. `malformed`: what is wrong, empty if nothing."""

    specs: list[str]
    group: bool = False
    malformed: str = ""


def _mailboxes(value: bytes) -> _Listed:
    """RFC 5322 section 3.4 with its obsolete forms, read front to back without recursion."""
    try:
        text = value.decode("utf-8")  # RFC 6532 section 3.2
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    listed = _Listed([])
    words: list[str] = []  # the current mailbox before any angle bracket
    angle: str | None = None
    position = 0
    while position < len(text):
        char = text[position]
        if char == '"':
            end = _quote_end(text, position)
            words.append(text[position:end])
            position = end
        elif char == "(":
            position = _comment_end(text, position)
            words.append(" ")
        elif char == "<":
            end = _angle_end(text, position)
            if angle is not None:
                listed.specs += [angle, text[position + 1 : end]]
            if end < 0 or angle is not None:
                listed.malformed = "its angle brackets do not match"
                return listed
            angle, position, words = text[position + 1 : end], end + 1, []
        elif char in ",;":
            _finish(listed, words, angle)
            words, angle, position = [], None, position + 1
        elif char == ":":
            listed.group = True
            words, position = [], position + 1
        elif char == ">":
            listed.malformed = "its angle brackets do not match"
            return listed
        else:
            start = position
            while position < len(text) and text[position] not in _SPECIALS:
                position += 1
            words.append(text[start:position])
        if position < 0:
            listed.malformed = "a quote or comment has no end"
            return listed
    _finish(listed, words, angle)
    return listed


def _finish(listed: _Listed, words: list[str], angle: str | None) -> None:
    """One mailbox is read; an empty place in the list is none (RFC 5322 section 4.4)."""
    spec = _route_free(_compact(angle)) if angle is not None else _compact("".join(words))
    if angle is None and not spec:
        return
    listed.specs.append(spec)
    if angle is not None and "".join(words).strip():
        listed.malformed = "there are words behind its angle brackets"
    elif "@" not in spec:
        listed.malformed = "there is no address in it"
    elif " " in spec and '"' not in spec:
        listed.malformed = "there are words around its address but no angle brackets"


def _compact(text: str) -> str:
    """Without comments, and without white space around '@' and dots (obsolete syntax, RFC 5322 section 4.4)."""
    kept: list[str] = []
    position = 0
    while position < len(text):
        end = position + 1
        if text[position] == '"':
            end = _quote_end(text, position)
        elif text[position] == "(":
            end = _comment_end(text, position)
        if end < 0:  # no address: brackets and quotes have no place in one
            return ""
        kept.append(" " if text[position] == "(" else text[position:end])
        position = end
    # Blanks are joined first: a pattern that looks for runs of them at every blank takes quadratic time.
    return re.sub(r" ?([@.]) ?", r"\1", " ".join("".join(kept).split()))


def _route_free(spec: str) -> str:
    """Without an obsolete source route: <@relay,@other:local@domain>."""
    if spec.startswith("@") and ":" in spec:
        return spec.partition(":")[2]
    return spec


def _unquoted(spec: str) -> str:
    """A needlessly quoted local part loses its quotes: "ann"@x and ann@x are one mailbox (RFC 5321 section 4.1.2)."""
    local, at, domain = spec.rpartition("@")
    if at and len(local) > 2 and local[0] == local[-1] == '"' and _DOT_ATOM.fullmatch(local[1:-1]):
        return f"{local[1:-1]}@{domain}"
    return spec


def _quote_end(text: str, position: int) -> int:
    """Behind the quoted string that begins at `position`; -1: it has no end."""
    position += 1
    while position < len(text) and text[position] != '"':
        position += 2 if text[position] == "\\" else 1
    return position + 1 if position < len(text) else -1


def _comment_end(text: str, position: int) -> int:
    """Behind the comment that begins at `position`, which may nest (RFC 5322 section 3.2.2); -1: it has no end."""
    depth = 0
    while position < len(text):
        char = text[position]
        position += 1
        if char == "\\":
            position += 1
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if not depth:
                return position
    return -1


def _angle_end(text: str, position: int) -> int:
    """Of the '>' that closes the '<' at `position`, past quoted strings; -1: none, or another '<' comes first."""
    position += 1
    while 0 <= position < len(text):
        char = text[position]
        if char == ">":
            return position
        if char == "<":
            return -1
        position = _quote_end(text, position) if char == '"' else position + 1
    return -1
