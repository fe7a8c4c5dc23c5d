"""The little Markdown reader, on which the tests of the documents rest."""

from __future__ import annotations

from docs import markdown

DOCUMENT = """# First: the *things*

See [a page](other.md#there "title"), ![a picture](<with.svg>) and `[no](link)`.

```sh
keycache list  # [no](link)
```

[label]: third.md

## One `two` three
"""


def test_code_is_what_stands_in_spans_and_fences() -> None:
    assert markdown.code(DOCUMENT) == ["keycache list  # [no](link)\n", "[no](link)", "two"]


def test_targets_are_links_pictures_and_definitions_outside_code() -> None:
    assert markdown.targets(DOCUMENT) == ["other.md#there", "with.svg", "third.md"]


def test_anchors_are_the_headings_in_lower_case_with_hyphens() -> None:
    assert markdown.anchors(DOCUMENT) == {"first-the-things", "one-two-three"}


def test_a_name_is_a_whole_word() -> None:
    assert markdown.names("`HELD`, and so on", "HELD")
    assert not markdown.names("HELD_CLOCK, UPHELD, not-HELD", "HELD")


def test_blocks_are_fences_of_one_language() -> None:
    assert markdown.blocks("```toml\na = 1\n```\n```sh\nls\n```\n", "toml") == ["a = 1\n"]
