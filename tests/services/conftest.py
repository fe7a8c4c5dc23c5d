"""A running node for the tests of the edge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.service_node import ServiceNode, service_node

MIB = 1 << 20


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[ServiceNode]:
    """Takes messages of 1 MiB."""
    async with service_node(tmp_path, message_limit=MIB) as running:
        yield running
