"""The one clock. Everything that asks for the time is given a `Clock`; tests give one that jumps.

Times are monotonic seconds with no meaning outside the process, so a step of the machine's wall clock moves nothing.
`wall` exists for what leaves the process: log lines and the expiry of tokens.
"""

import asyncio
import time
from typing import Protocol


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
