"""The one clock."""

import asyncio
import time

import pytest

from engine.clock import Clock, RealClock


async def test_it_is_the_clock_of_asyncio_timers():
    clock: Clock = RealClock()
    assert abs(clock.now() - asyncio.get_running_loop().time()) < 0.05


async def test_it_sleeps_until_a_time_and_not_for_one_that_has_passed():
    clock = RealClock()
    begin = clock.now()
    await clock.sleep_until(begin - 10)
    assert clock.now() - begin < 0.02
    await clock.sleep_until(begin + 0.03)
    assert clock.now() - begin >= 0.029


async def test_a_step_of_the_wall_clock_moves_nothing(monkeypatch: pytest.MonkeyPatch):
    """M8: NTP sets the server's clock back by an hour."""
    clock = RealClock()
    begin, real = clock.now(), time.time
    monkeypatch.setattr(time, "time", lambda: real() - 3_600)
    assert clock.wall() < real() - 3_000
    await clock.sleep_until(begin + 0.02)
    assert 0.019 <= clock.now() - begin < 1
