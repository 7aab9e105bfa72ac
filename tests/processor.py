"""How long this process waited for a processor: what a test that measures time may not be blamed for.

    async with Waits() as waits:
        ...
    assert took - waits.seconds < 0.1

A task wakes every 5 ms. When it wakes late by more than this process has computed meanwhile, in all of its threads, the
rest of the time the machine was elsewhere. A loop that is blocked by our own work explains its lateness, and counts.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import ParamSpec, Self

EVERY = 0.005
ATTEMPTS = 3
SHARE_MOST = 0.15
LONGEST_MOST = 0.1


class StarvedError(AssertionError):
    """A measurement failed while the machine was elsewhere: it says nothing, and is to be taken again."""


class Waits:
    """Waited for a processor, while the block runs."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.longest = 0.0
        self._began = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    @property
    def starved(self) -> bool:
        """Whether so much of the time went elsewhere that no time measured meanwhile means anything."""
        return self.longest > LONGEST_MOST or self.seconds > SHARE_MOST * (time.monotonic() - self._began)

    async def _watch(self) -> None:
        while True:
            wall, computed = time.monotonic(), time.process_time()
            await asyncio.sleep(EVERY)
            late = time.monotonic() - wall - EVERY - (time.process_time() - computed)
            if late > 0.001:  # what the kernel's own clock adds
                self.seconds += late
                self.longest = max(self.longest, late)

    async def __aenter__(self) -> Self:
        self._began = time.monotonic()
        self._task = asyncio.create_task(self._watch(), name="waits")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])


Given = ParamSpec("Given")


def remeasured(test: Callable[Given, Awaitable[None]]) -> Callable[Given, Awaitable[None]]:
    """A test that measures time: taken again, `ATTEMPTS` times in all, when it failed while the machine was elsewhere.
    It never passes without a measurement."""

    @functools.wraps(test)
    async def measure(*arguments: Given.args, **named: Given.kwargs) -> None:
        for attempt in range(ATTEMPTS):
            try:
                return await test(*arguments, **named)
            except StarvedError:
                if attempt == ATTEMPTS - 1:
                    raise
                await asyncio.sleep(0.5)

    return measure
