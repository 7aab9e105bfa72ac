"""Workers for these tests."""

from collections.abc import AsyncIterator

import pytest

from engine.worker import Worker
from tests.engine.worker.asked import new_worker


@pytest.fixture(params=["process", "inline"])
async def worker(request: pytest.FixtureRequest) -> AsyncIterator[Worker]:
    async with new_worker(inline=request.param == "inline") as worker:
        yield worker


@pytest.fixture
async def process() -> AsyncIterator[Worker]:
    async with new_worker() as worker:
        yield worker
