"""Files that stand there whole or not at all, readable by their owner alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """To write to; there, and durable, once the block ends well. Unless `replace`, what stands at `path` stays: raises FileExistsError, at
    the beginning, or at the end if somebody put it there meanwhile."""
    if not replace and os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _named(error, path) from error
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            unfinished.replace(path)
        else:
            os.link(unfinished, path)  # as an exclusive creation, but of what is whole already
        _sync(path.parent)
    except OSError as error:
        raise _named(error, path) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _named(error: OSError, path: Path) -> OSError:
    """The same error with the name that the caller knows."""
    return OSError(error.errno, error.strerror, str(path))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
