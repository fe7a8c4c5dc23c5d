"""Clusters keep their data in memory where the machine lets them: kill -9 loses nothing of it, and three members of etcd that wait for one
disk elect leaders all day. What they logged is on disk afterwards, in pytest's own folder of the test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
ENOUGH = 2 * 2**30
"""Bytes. A cluster needs some 100 MiB, most of it etcd's write-ahead logs of 64 MB a piece."""


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ENOUGH:
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="keycache-test-", dir=MEMORY))
    try:
        yield folder
    finally:
        for log in (*folder.rglob("*.log"), *folder.rglob("log")):
            if log.is_file():
                kept = tmp_path / log.relative_to(folder)
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(log, kept)
        shutil.rmtree(folder, ignore_errors=True)
