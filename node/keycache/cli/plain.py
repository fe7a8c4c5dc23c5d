"""Text that others wrote, made harmless for a terminal.

Subjects, user IDs and addresses come from strangers. Escape sequences would move the cursor or set the window's title, and
direction marks would show one address as another (Unicode TR36 section 2.5). Both are shown as what they are.
"""

from __future__ import annotations

import json
import re

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]")


def plain(text: str) -> str:
    """One line; unsafe characters as `\\u001b`."""
    return _UNSAFE.sub(_escaped, text)


def document(value: object, *, ascii_only: bool = False) -> str:
    """`value` as indented JSON in which every unsafe character is escaped, which JSON readers undo."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=2)
    return re.sub(r"[^\n]+", lambda line: plain(line[0]), text)


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
