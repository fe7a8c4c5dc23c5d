"""Files of keys and certificates: written whole or not at all, private ones readable by their owner alone."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from keycache.domain.errors import ConfigError

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700
_PUBLIC_FILE = 0o644
_OTHERS = 0o077
_UNFINISHED = ".new"


def write_private(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, mode 0600 from its first moment, durable when this returns. Raises ConfigError."""
    _write(path, data, PRIVATE_FILE)


def write_public(path: Path, data: bytes) -> None:
    """As `write_private`, readable by all. Raises ConfigError."""
    _write(path, data, _PUBLIC_FILE)


def read(path: Path) -> bytes | None:
    """The whole file, or None if there is none. Raises ConfigError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot("read", path, error) from error


def remove(path: Path) -> None:
    """Durably; a file that is not there is no error. Raises ConfigError."""
    try:
        if path.exists():
            path.unlink()
            _sync_directory(path.parent)
    except OSError as error:
        raise _cannot("remove", path, error) from error


def rename(source: Path, target: Path) -> None:
    """Durably, of a directory. Raises ConfigError, also when `target` holds something."""
    try:
        source.rename(target)
        _sync_directory(target.parent)
    except OSError as error:
        raise _cannot("rename", source, error) from error


def private_directory(path: Path) -> str:
    """Make sure of a directory that only its owner may enter, and clear away what an interrupted write left in it.

    Returns a warning for people, or nothing. Raises ConfigError.
    """
    try:
        path.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        for leftover in path.glob(f"*{_UNFINISHED}"):
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot("make", path, error) from error
    return close_to_others(path, PRIVATE_DIRECTORY)


def close_to_others(path: Path, mode: int) -> str:
    """Give `path` the mode `mode` if others have any right to it.

    Repaired and not refused: what could be read was read before we look, and a node that does not start helps nobody; but the
    administrator must hear of it. Returns the warning, or nothing. A file of somebody else's raises ConfigError: its owner
    could read and replace the key at any time.
    """
    try:
        status = path.stat()
        if status.st_uid not in (os.geteuid(), 0):
            raise ConfigError(
                f"{path} belongs to another user (id {status.st_uid}), who could read or replace it.",
                hint=f"Check how it got there, then run: chown {os.geteuid()} {path}",
            )
        before = stat.S_IMODE(status.st_mode)
        if not before & _OTHERS:
            return ""
        path.chmod(mode)
    except OSError as error:
        raise _cannot("check the rights of", path, error) from error
    return (
        f"{path} was open to other users (mode {before:04o}) and is now closed (mode {mode:04o}). "
        "If anybody else works on this machine, consider its keys known to them."
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_UNFINISHED}")
    try:
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)  # whatever the umask took away
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        _sync_directory(path.parent)
    except OSError as error:
        raise _cannot("write", path, error) from error


def _sync_directory(path: Path) -> None:
    """The rename is durable only once the directory is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot(what: str, path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"Cannot {what} {path}: {error.strerror or error}.",
        hint="Check that the directory exists, that its file system is writable and that it belongs to the user who runs this.",
    )
