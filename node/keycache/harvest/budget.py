"""What one message may cost. Every number has its origin; whatever is over it ends in a verdict, never in a failure.

Two kinds: the message's size (MESSAGE_TOO_LARGE) and its structure (TOO_COMPLEX). Memory and time are bounded from outside, by
the sandbox.
"""

from __future__ import annotations

from dataclasses import dataclass

from keycache.domain.examination import Envelope, Examination, Gate
from keycache.domain.verdict import Verdict

MIB = 1024 * 1024


class BudgetExceeded(Exception):
    """A message's structure is beyond a limit. The text says which one, for the administrator; it holds no mail content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits for one message.

    `message_bytes`: 25 MiB, the field's usual limit (the issue's default; Gmail takes 25 MB, Exchange Online 25 MB).
    `depth`: parts within parts; Postfix' `mime_nesting_limit` and Dovecot's parser have 100.
    `parts`: over all layers; Dovecot's parser has 10,000.
    `entity_header_bytes`: headers of one part; Exchange's `MaxHeaderSize` is 256 KB.
    `entity_headers`: fields of one part; RFC 5321 section 6.3 wants at least 100 Received fields borne; ten times that.
    `headers`: fields over all parts; five for each of `parts`, some 10 MB of memory.
    `dashed_lines`: lines that begin like a delimiter and are none; a patch or database dump of the largest size, sent as text
    within a multipart, has some hundred thousand. Each costs a microsecond, so this is a second.
    `layers`: signed layers that bring their own content (opaque S/MIME); triple wrapping (RFC 2634 section 1.1) needs 3.
    `signatures`: S/MIME blobs verified; each costs a path validation (milliseconds), and a list footer adds one.
    `key_blocks`: OpenPGP blocks read; a mail that carries a keyring of a small team still passes.
    """

    message_bytes: int = 25 * MIB
    depth: int = 100
    parts: int = 10_000
    entity_header_bytes: int = 256 * 1024
    entity_headers: int = 1_000
    headers: int = 50_000
    dashed_lines: int = 1_000_000
    layers: int = 8
    signatures: int = 16
    key_blocks: int = 64


DEFAULT = Budget()


def refuse_size(size: int, envelope: Envelope, budget: Budget) -> Examination | None:
    """The first gate, which needs nothing but the message's length in bytes. None: passed."""
    if size <= budget.message_bytes:
        return None
    detail = f"The mail has {size:,} bytes; the limit is {budget.message_bytes:,}."
    return Examination(
        direction=envelope.stated,
        sender=None,
        message_id="",
        verdict=Verdict.MESSAGE_TOO_LARGE,
        detail=detail,
        gates=(Gate(name="size", passed=False, detail=detail),),
    )
