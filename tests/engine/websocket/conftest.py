"""A place to visit."""

from collections.abc import AsyncIterator

import pytest

from tests.engine.websocket.visit import Place, a_place


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with a_place() as place:
        yield place
