"""Text made to fit a terminal."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from keycache.cli.fitting import cut, folded, shortened


@pytest.mark.parametrize("room", [None, 18, 100])
def test_what_fits_and_what_no_terminal_shows_stays_whole(room: int | None) -> None:
    assert shortened("/var/mail/name.eml", room) == cut("/var/mail/name.eml", room) == "/var/mail/name.eml"


def test_a_long_name_loses_its_middle_and_keeps_most_of_its_end() -> None:
    assert shortened("/var/mail/in/2026-11/smime-forged.eml", 20) == "/var/m…me-forged.eml"


def test_a_long_text_loses_its_end() -> None:
    assert cut("There is no signature.", 12) == "There is no…"
    assert cut("There is no signature.", 10) == "There is…"


@pytest.mark.parametrize("text", ["a" * 50, "漢字" * 25, "a漢" * 20, "e\u0301" * 40])
def test_no_cut_text_is_wider_than_its_room(text: str) -> None:
    for room in range(8, 60):
        assert cell_len(shortened(text, room)) <= room
        assert cell_len(cut(text, room)) <= room


def test_however_narrow_something_remains() -> None:
    assert shortened("/var/mail/name.eml", 1) == "/v…e.eml"
    assert cut("/var/mail/name.eml", -5) == "/var/ma…"


def test_sentences_are_folded_between_words_under_their_indentation() -> None:
    assert folded("The content is not what was signed.", 20, indent=4) == [
        "    The content is",
        "    not what was",
        "    signed.",
    ]
    assert folded("NAME: what to do now", 12, indent=2, first=0) == ["NAME: what", "  to do now"]
    assert folded("The content is not what was signed.", None, indent=4) == ["    The content is not what was signed."]
