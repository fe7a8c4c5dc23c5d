"""The files of the project, as a clone has them: what .gitignore names is left out."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]


def ignored() -> list[str]:
    """The patterns of .gitignore, which are all plain names."""
    lines = (ROOT / ".gitignore").read_text("utf-8").split("\n")
    return [line.strip().rstrip("/") for line in lines if line.strip() and not line.startswith("#")]


def files(folder: Path = ROOT, patterns: tuple[str, ...] | None = None) -> list[Path]:
    """All files under `folder`, in order."""
    patterns = (".git", *ignored()) if patterns is None else patterns
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if any(fnmatch(path.name, pattern) for pattern in patterns):
            continue
        found += files(path, patterns) if path.is_dir() and not path.is_symlink() else [path]
    return found


def text_of(path: Path) -> str | None:
    """None if it is not text."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        return None
