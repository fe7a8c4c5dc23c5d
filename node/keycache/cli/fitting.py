"""Text made to fit a terminal. `room` is in cells, of which wide characters take two; None: nobody's terminal, nothing is cut. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from rich.cells import cell_len, get_character_cell_size

ELLIPSIS = "…"
ROOM_MIN = 8
"""Cells that a cut text keeps at least: what is left of less tells nothing, so the terminal may rather wrap the line."""


def shortened(text: str, room: int | None) -> str:
    """Without its middle, since paths and addresses differ at their ends; the end, which names the file, keeps the most."""
    if room is None or cell_len(text) <= (room := max(room, ROOM_MIN)):
        return text
    head = _fitting(text, (room - 1) // 3)
    tail = _fitting(reversed(text), room - 1 - cell_len(head))[::-1]
    return f"{head}{ELLIPSIS}{tail}"


def cut(text: str, room: int | None) -> str:
    """Without its end."""
    if room is None or cell_len(text) <= (room := max(room, ROOM_MIN)):
        return text
    return _fitting(text, room - 1).rstrip() + ELLIPSIS


def folded(text: str, room: int | None, *, indent: int, first: int | None = None) -> list[str]:
    """Lines of whole words, indented; `first`: the first line's own indentation."""
    starts = " " * (indent if first is None else first), " " * indent
    if room is None:
        return [starts[0] + text]
    width = max(room, indent + ROOM_MIN)
    return textwrap.wrap(text, width, initial_indent=starts[0], subsequent_indent=starts[1], break_on_hyphens=False)


def _fitting(text: Iterable[str], room: int) -> str:
    """As many of the first characters as there is room for."""
    taken, used = [], 0
    for character in text:
        used += get_character_cell_size(character)
        if used > room:
            break
        taken.append(character)
    return "".join(taken)
