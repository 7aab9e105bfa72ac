"""The model's process: noticed when it dies or hangs, replaced, and gone without a trace."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.clock import RealClock
from engine.worker import Worker, WorkerLost
from tests.engine.worker.asked import ALL, BACKEND, alive, back, chunk, heard, lost, new_worker, say, traces, until
from tests.models.runtime import scripted
from tests.models.runtime.drawn import draw_package


async def test_cards_show_the_loop_and_nobody_can_write_to_it(process: Worker) -> None:
    assert list(process.cards) == ["anna", "bert"]
    card = process.cards["bert"]
    assert (card.width, card.lookahead, card.frames) == (64, 2, 5)
    assert (card.loop == scripted.LOOP).all()
    with pytest.raises(ValueError, match="read-only"):
        card.loop[0, 0, 0] = 1


@pytest.mark.parametrize("misfortune", ["kill", "segfault", "hang", "stop"])
async def test_a_dead_or_hung_process_is_replaced_and_the_seats_live_on(process: Worker, misfortune: str) -> None:
    loop = asyncio.get_running_loop()
    with process.seat("anna") as seat:
        await say(seat, 9)
        before = process.process_id
        assert before is not None
        began = loop.time()
        if misfortune == "kill":
            answer = seat.hear(chunk(scripted.SLOW), 0, ALL)
            os.kill(before, signal.SIGKILL)
        elif misfortune == "stop":
            os.kill(before, signal.SIGSTOP)
            answer = seat.hear(chunk(), 0, ALL)
        else:
            answer = seat.hear(chunk(scripted.CRASH if misfortune == "segfault" else scripted.HANG), 0, ALL)
        with pytest.raises(WorkerLost):
            await answer
        assert loop.time() - began < (1.5 if misfortune in ("hang", "stop") else 0.5)
        assert not process.alive
        with pytest.raises(WorkerLost):
            await say(seat, 1)
        await back(process)
        assert loop.time() - began < 5
        assert heard(await say(seat, 1)) == 1
        assert process.process_id != before
        assert process.restarts == 1
        with pytest.raises(ProcessLookupError):  # reaped
            os.kill(before, 0)


async def test_a_process_that_dies_while_idle_is_replaced(process: Worker) -> None:
    assert process.process_id is not None
    os.kill(process.process_id, signal.SIGKILL)
    await lost(process)
    await back(process)
    assert (await process.canary()).slot == 3


async def test_a_process_that_takes_anothers_place_finds_the_loops_decoded(tmp_path: Path) -> None:
    package = draw_package(tmp_path / "ellipse")
    async with Worker([package], 1, "plain", clock=RealClock()) as worker:
        assert worker._loops is not None
        memory, loop = worker._loops.memory, worker.cards["ellipse"].loop
        before, pictures = os.fstat(memory).st_size, [loop[index].copy() for index in range(len(loop))]
        assert worker.process_id is not None
        os.kill(worker.process_id, signal.SIGKILL)
        await lost(worker)
        await back(worker)
        assert os.fstat(memory).st_size == before == loop.shape[0] * loop.shape[1] * loop.shape[2]
        assert all((loop[index] == picture).all() for index, picture in enumerate(pictures))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(memory)
    assert (loop[0] == pictures[0]).all()  # whoever still holds a loop may look at it


async def test_nothing_is_left_when_opening_is_cancelled_or_fails_or_closing_meets_a_hang() -> None:
    before = traces()
    for moment in (0.0, 0.05):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(moment), new_worker():
                await asyncio.sleep(1)
    with pytest.raises(RuntimeError):
        async with new_worker(names=("broken",)):
            pass
    async with new_worker() as worker:
        hung = worker.seat("anna").hear(chunk(scripted.HANG), 0, ALL)
    assert isinstance(hung.exception(), WorkerLost)
    async with new_worker() as worker:
        assert worker.process_id is not None
        os.kill(worker.process_id, signal.SIGKILL)
        await lost(worker)
    del worker
    await asyncio.sleep(0)  # a cancelled task lives on in the loop for one turn
    assert traces() == before


def test_the_process_ends_with_a_server_that_is_killed() -> None:
    script = f"""
import asyncio
from pathlib import Path
from engine.clock import RealClock
from engine.worker import Worker
from models.runtime import Wants
from tests.engine.worker.asked import chunk, scripted
async def main():
    async with Worker([Path("anna")], 1, {BACKEND!r}, clock=RealClock()) as worker:
        worker.seat("anna").hear(chunk(scripted.HANG), 0, Wants.POINTS)
        print(worker.process_id, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    before = traces()["shared memory"]
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        child = int(server.stdout.readline())
        assert alive(child)
        server.kill()
        server.wait()
    asyncio.run(until(lambda: not alive(child)))
    assert traces()["shared memory"] == before
