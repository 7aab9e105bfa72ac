"""The one clock. Everything that asks for the time is given a `Clock`; tests give one that jumps.

Times are monotonic seconds with no meaning outside the process, so a step of the machine's wall clock moves nothing.
`wall` exists for what leaves the process: log lines and the expiry of tokens.
"""

import asyncio
import time
from types import TracebackType
from typing import Protocol, Self


class Clock(Protocol):
    """What the engine asks of a clock."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    async def sleep_until(self, when: float) -> None:
        """Return at `when` on this clock, or at the next turn of the loop when that has passed."""
        ...

    def wall(self) -> float:
        """Unix seconds, for log lines and token expiry only."""
        ...


class RealClock:
    """The machine's monotonic clock: the same one that asyncio's own timers use."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep_until(self, when: float) -> None:
        await asyncio.sleep(max(0.0, when - time.monotonic()))

    def wall(self) -> float:
        return time.time()


class Alarm:
    """A bell for one who waits: others ring it, and it rings by itself at a time that may be moved with every wait.

        async with Alarm(clock) as alarm:
            alarm.clear()
            await alarm.wait(clock.now() + 0.1)

    Moving the time onwards costs nothing: what sleeps until the old one looks again then. It may ring once for nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = asyncio.Event()
        self._until: float | None = None
        self._asleep_until = 0.0
        self._sleeper: asyncio.Task[None] | None = None

    def ring(self) -> None:
        self._rung.set()

    def clear(self) -> None:
        """What has rung so far is forgotten."""
        self._rung.clear()

    async def wait(self, until: float | None) -> None:
        """Return when it has rung since it was cleared, or at `until` on the clock; not before the loop's next turn."""
        if self._rung.is_set() or (until is not None and until <= self._clock.now()):
            await asyncio.sleep(0)
            return
        self._until = until
        if until is not None and (self._sleeper is None or self._sleeper.done() or until < self._asleep_until):
            if self._sleeper is not None:
                self._sleeper.cancel()
            self._sleeper = asyncio.create_task(self._sleep(), name="alarm")
            self._asleep_until = until
        await self._rung.wait()

    async def _sleep(self) -> None:
        while self._until is not None:
            self._asleep_until = self._until
            await self._clock.sleep_until(self._asleep_until)
            if self._until is not None and self._until <= self._clock.now():
                self._until = None
                self._rung.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._sleeper is not None:
            self._sleeper.cancel()
            await asyncio.wait([self._sleeper])
