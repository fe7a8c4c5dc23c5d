"""Hostile text on the terminal and in JSON."""

import json

from hypothesis import given
from hypothesis import strategies as st

from keycache.cli.plain import document, plain


def test_escape_sequences_and_direction_marks_are_shown_as_what_they_are() -> None:
    assert plain("a\x1b]0;owned\x07b\u202egpj\x9b31m\n") == "a\\u001b]0;owned\\u0007b\\u202egpj\\u009b31m\\u000a"


def test_letters_of_all_scripts_stay() -> None:
    assert plain("Zoë Žižek 鈴木 🔑") == "Zoë Žižek 鈴木 🔑"


@given(st.dictionaries(st.text(), st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])))), st.booleans())
def test_a_document_is_json_whatever_is_in_it(value: dict[str, list[str]], ascii_only: bool) -> None:
    text = document(value, ascii_only=ascii_only)
    assert json.loads(text) == value
    assert all(line == plain(line) for line in text.split("\n"))
