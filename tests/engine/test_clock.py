"""The one clock."""

import asyncio
import time

import pytest

from engine.clock import Alarm, Clock, RealClock
from tests.fakes import JumpingClock, settle


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


async def test_an_alarm_rings_when_it_is_rung_and_at_its_time():
    clock = JumpingClock()
    async with Alarm(clock) as alarm:
        waiting = asyncio.create_task(alarm.wait(clock.now() + 1))
        await clock.advance(0.9)
        assert not waiting.done()
        await clock.advance(0.1)
        assert waiting.done()
        alarm.clear()
        waiting = asyncio.create_task(alarm.wait(None))
        await clock.advance(100)
        assert not waiting.done()
        alarm.ring()
        await settle()
        assert waiting.done()


async def test_an_alarm_that_has_rung_or_whose_time_has_passed_is_not_waited_for():
    clock = JumpingClock()
    async with Alarm(clock) as alarm:
        await alarm.wait(clock.now())
        await alarm.wait(clock.now() - 1)
        alarm.ring()
        await alarm.wait(clock.now() + 1)


async def test_the_time_of_an_alarm_moves_both_ways():
    clock = JumpingClock()
    async with Alarm(clock) as alarm:
        for later in range(10):  # each wait is cut short by a ring, and asks for a later time
            alarm.clear()
            waiting = asyncio.create_task(alarm.wait(clock.now() + 0.1))
            await clock.advance(0.04)
            assert not waiting.done(), later
            alarm.ring()
            await settle()
            assert waiting.done()
        alarm.clear()
        waiting = asyncio.create_task(alarm.wait(clock.now() + 0.01))
        await clock.advance(0.01)
        assert waiting.done(), "what slept until a later time did not hold it up"


async def test_nothing_of_an_alarm_is_left_behind():
    clock = JumpingClock()
    tasks = len(asyncio.all_tasks())
    async with Alarm(clock) as alarm:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(alarm.wait(clock.now() + 1_000), 0.01)
        assert clock.next_wake is not None, "it looks again at its time"
        assert len(asyncio.all_tasks()) == tasks, "and nobody has to wake for that"
    assert clock.next_wake is None
    assert len(asyncio.all_tasks()) == tasks
