"""The house that the tests of the HTTP surface knock at."""

from collections.abc import AsyncIterator

import pytest

from engine.voices import Voices
from tests.engine.house import KEY, Beeps, House, up


@pytest.fixture
def beeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Voices, "installed", classmethod(lambda cls: cls([Beeps()])))


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with up() as house:
        yield house


@pytest.fixture
async def guarded() -> AsyncIterator[House]:
    async with up(key=KEY) as house:
        yield house
