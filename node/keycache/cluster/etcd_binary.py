"""Which etcd is installed, and whether it will do."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass
from pathlib import Path

from keycache.domain.errors import ConfigError

Version = tuple[int, int, int]

OLDEST: Version = (3, 4, 0)
"""The first with learners."""
TOO_NEW: Version = (4, 0, 0)
_LOSING: tuple[Version, Version] = ((3, 5, 0), (3, 5, 2))
"""These may lose acknowledged writes when killed (etcd's postmortem "v3.5 data inconsistency", 2022): never take them."""

_ANSWER_SECONDS = 10
_PACKAGE = (
    "Install Debian's package etcd-server (3.4.23 in bookworm), or another etcd of 3.4 or later; or name an etcd of your own."
)
_VERSION = re.compile(r"^(?:etcd|etcdctl|etcdutl) Version: (\d+)\.(\d+)\.(\d+)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdBinary:
    """A program, and what it says it is."""

    path: Path
    version: Version


async def find_etcd(configured: Path | None = None) -> EtcdBinary:
    """The etcd at `configured`, else the one in the PATH. Raises ConfigError: none there, not executable, or not one that will do."""
    found = shutil.which(configured or "etcd")
    if found is None:
        what = (
            f"There is no program at {configured}." if configured else "etcd is not installed: there is no 'etcd' in the PATH."
        )
        raise ConfigError(what, hint=_PACKAGE)
    return EtcdBinary(path=Path(found), version=check_version(await _version(Path(found)), found))


async def _version(path: Path) -> Version:
    try:
        process = await asyncio.create_subprocess_exec(
            str(path), "--version", stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, env={"LANG": "C.UTF-8"}, start_new_session=True
        )
    except OSError as error:
        raise ConfigError(f"{path} cannot be started: {error.strerror}.", hint=_PACKAGE) from error
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        raise ConfigError(f"{path} did not tell its version within {_ANSWER_SECONDS} s.", hint=_PACKAGE) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    match = _VERSION.search(output.decode(errors="replace"))
    if match is None:
        raise ConfigError(f"{path} is not etcd: it does not tell a version of it.", hint=_PACKAGE)
    return int(match[1]), int(match[2]), int(match[3])


def check_version(version: Version, where: str) -> Version:
    """The version itself. `where`: the program or the endpoint that says so. Raises ConfigError."""
    text = ".".join(map(str, version))
    if not OLDEST <= version < TOO_NEW:
        raise ConfigError(f"{where} is etcd {text}; Keycache needs 3.4 or later, below 4.", hint=_PACKAGE)
    if _LOSING[0] <= version <= _LOSING[1]:
        raise ConfigError(f"{where} is etcd {text}, which may lose what it acknowledged.", hint="Install 3.5.3 or later.")
    return version
