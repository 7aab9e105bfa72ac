"""The meter of starvation: what is our own work is not excused by it."""

import asyncio
import os
import sys
import time

import pytest

from tests.processor import ATTEMPTS, StarvedError, Waits, remeasured


async def test_a_loop_that_is_blocked_by_our_own_work_has_not_waited() -> None:
    async with Waits() as waits:
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        await asyncio.sleep(0.01)
        began = time.monotonic()
    assert waits.longest < 0.3, "only what others took of the machine meanwhile"
    assert time.monotonic() - began < 1


async def test_a_process_that_was_stopped_has_waited() -> None:
    """SIGSTOP and SIGCONT from outside: what a busy machine does, in one piece."""
    async with Waits() as waits:
        await asyncio.sleep(0.02)
        stopper = f"import os, signal, time; os.kill({os.getpid()}, signal.SIGSTOP); time.sleep(0.4); "
        stopper += f"os.kill({os.getpid()}, signal.SIGCONT)"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", stopper)
        await process.wait()
    assert waits.longest > 0.3
    assert waits.starved


async def test_what_failed_for_want_of_a_processor_is_measured_again_and_never_passed_over() -> None:
    tried: list[int] = []

    @remeasured
    async def starves(until: int) -> None:
        tried.append(until)
        if len(tried) < until:
            raise StarvedError("0.3 s is more than 0.1 s")

    await starves(2)
    assert tried == [2, 2]
    tried.clear()
    with pytest.raises(StarvedError):
        await starves(9)
    assert len(tried) == ATTEMPTS
