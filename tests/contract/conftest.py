from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from contract.harness import LOGS, OUTBOXES, REPLICAS, SHARED_LOGS, LogUnderTest, SharedUnderTest
from keycache.domain.ports import EntryLog, Outbox, Replica


@pytest_asyncio.fixture(params=LOGS)
async def under_test(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LogUnderTest]:
    async with LOGS[request.param](tmp_path) as one:
        yield one


@pytest.fixture
def log(under_test: LogUnderTest) -> EntryLog:
    return under_test.log


@pytest_asyncio.fixture(params=SHARED_LOGS)
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SharedUnderTest]:
    async with SHARED_LOGS[request.param](tmp_path) as one:
        yield one


@pytest.fixture(params=REPLICAS)
def replica(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Replica]:
    with REPLICAS[request.param](tmp_path) as one:
        yield one


@pytest.fixture(params=OUTBOXES)
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outbox]:
    with OUTBOXES[request.param](tmp_path, 1 << 20) as one:
        yield one
