"""The one clock. Everything that asks for the time is given a `Clock`; tests give one that jumps.

Times are monotonic seconds with no meaning outside the process, so a step of the machine's wall clock moves nothing.
`wall` exists for what leaves the process: log lines and the expiry of tokens.
"""

import asyncio
import time
from collections.abc import Callable
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

    def call_at(self, when: float, what: Callable[[], None]) -> "Timer":
        """Have the loop call `what` at `when`, or at its next turn when that has passed."""
        ...

    def wall(self) -> float:
        """Unix seconds, for log lines and token expiry only."""
        ...


class Timer(Protocol):
    """What `Clock.call_at` gives."""

    def cancel(self) -> object: ...


class RealClock:
    """The machine's monotonic clock: the same one that asyncio's own timers use."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep_until(self, when: float) -> None:
        await asyncio.sleep(max(0.0, when - time.monotonic()))

    def call_at(self, when: float, what: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_at(when, what)

    def wall(self) -> float:
        return time.time()


class Alarm:
    """A bell for one who waits: others ring it, and it rings by itself at a time that may be moved with every wait.

        async with Alarm(clock) as alarm:
            alarm.clear()
            await alarm.wait(clock.now() + 0.1)

    Moving the time onwards costs nothing: at the old one it is looked at again. It may ring once for nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = asyncio.Event()
        self._until: float | None = None
        self._timer: Timer | None = None
        self._looks_at = 0.0

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
        if until is not None and (self._timer is None or until < self._looks_at):
            self._set(until)
        await self._rung.wait()

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._looks_at = self._clock.call_at(when, self._look), when

    def _look(self) -> None:
        """A callback and no task: it comes by once for every chunk of every session."""
        self._timer = None
        if self._until is not None and self._until <= self._clock.now():
            self._until = None
            self._rung.set()
        elif self._until is not None:
            self._set(self._until)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._until = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
