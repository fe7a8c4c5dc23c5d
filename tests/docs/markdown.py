"""As much of Markdown as is needed to ask a document what it names and where it points."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?[^)]*\)")
_SOURCE = re.compile(r"""(?:src|href)=["']([^"']+)["']""")
_DEFINITION = re.compile(r"^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


def code(text: str) -> list[str]:
    """What stands in code spans and fenced blocks."""
    return [*_FENCE.findall(text), *(span for _, span in _SPAN.findall(_FENCE.sub("", text)))]


def blocks(text: str, language: str) -> list[str]:
    """Fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def targets(text: str) -> list[str]:
    """Where its links and pictures point."""
    prose = _SPAN.sub("", _FENCE.sub("", text))
    return [*_LINK.findall(prose), *_SOURCE.findall(prose), *_DEFINITION.findall(prose)]


def anchors(text: str) -> set[str]:
    """What can stand behind a # to reach a heading of this document."""
    headings = _HEADING.findall(_FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def names(text: str, name: str) -> bool:
    """Whether `name` stands there as a whole word."""
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text) is not None
