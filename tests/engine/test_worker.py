"""The model's process: answered, batched, isolated, replaced, and gone without a trace."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from engine.clock import RealClock
from engine.worker import MOST_PENDING, NoFreeSlot, Seat, SeatBusy, UnknownAvatar, Worker, WorkerLost
from models.avatar import seal
from models.rates import CHUNK
from models.runtime import Floats, Out, Wants
from tests.models.runtime import scripted
from tests.models.runtime.drawn import draw_package
from tests.models.runtime.voices import vowel

BACKEND = "tests.models.runtime.scripted"
ALL = Wants.POINTS | Wants.FACE | Wants.PICTURE


def chunk(order: float = scripted.WELL, value: float = 1.0) -> Floats:
    sound = np.zeros(CHUNK, np.float32)
    sound[:2] = order, value
    return sound


def new_worker(inline: bool = False, slots: int = 3, names: tuple[str, ...] = ("anna", "bert")) -> Worker:
    return Worker([Path(name) for name in names], slots, BACKEND, inline=inline, clock=RealClock())


@pytest.fixture(params=["process", "inline"])
async def worker(request: pytest.FixtureRequest) -> AsyncIterator[Worker]:
    async with new_worker(inline=request.param == "inline") as worker:
        yield worker


@pytest.fixture
async def process() -> AsyncIterator[Worker]:
    async with new_worker() as worker:
        yield worker


async def say(seat: Seat, value: float = 1.0, order: float = scripted.WELL, reset: bool = False) -> Out:
    return await seat.hear(chunk(order, value), 0, ALL, reset)


def heard(out: Out) -> float:
    assert out.points is not None
    return float(out.points[0, 0])


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to pass within 5 s")


async def lost(worker: Worker) -> None:
    await until(lambda: not worker.alive)


async def back(worker: Worker) -> None:
    await until(lambda: worker.alive)


async def test_everything_an_answer_holds_comes_through_whole(worker: Worker) -> None:
    with worker.seat("bert") as seat:
        out = await seat.hear(chunk(value=3), 7, ALL)
    assert (out.slot, out.generation, out.held) == (0, 1, False)
    assert out.points is not None
    assert (out.points == 3).all()
    assert out.mesh is None
    assert out.face is not None
    assert out.face.shape == (61,)
    assert out.roi is not None
    assert (out.roi.x, out.roi.y, out.roi.luma.shape, out.roi.u.shape) == (16, 32, (16, 32), (8, 16))
    assert (out.roi.luma == np.arange(32) + 7 % 5).all()  # the loop has five frames
    assert (out.roi.v == 128).all()
    assert out.stage_seconds is not None
    assert out.stage_seconds["place"] == 0.5


async def test_cards_show_the_loop_and_nobody_can_write_to_it(process: Worker) -> None:
    assert list(process.cards) == ["anna", "bert"]
    card = process.cards["bert"]
    assert (card.width, card.lookahead, card.frames) == (64, 2, 5)
    assert (card.loop == scripted.LOOP).all()
    with pytest.raises(ValueError, match="read-only"):
        card.loop[0, 0, 0] = 1


async def test_answers_of_one_seat_come_in_order_however_many_wait(worker: Worker) -> None:
    with worker.seat("anna") as seat:
        answers = [seat.hear(chunk(value=1), 0, Wants.POINTS) for _ in range(MOST_PENDING)]
        with pytest.raises(SeatBusy):
            seat.hear(chunk(), 0, Wants.POINTS)
        assert [heard(await answer) for answer in answers] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert heard(await say(seat)) == 9


async def test_rows_that_wait_for_a_step_go_together_into_the_next(worker: Worker) -> None:
    with worker.seat("anna") as a, worker.seat("anna") as b, worker.seat("bert") as c:
        slow = a.hear(chunk(scripted.SLOW), 0, ALL)
        await asyncio.sleep(0.02)
        together = [seat.hear(chunk(), 0, ALL) for seat in (a, b, c)]
        outs = [await slow, *[await answer for answer in together]]
    assert [float(out.face[0]) for out in outs if out.face is not None] == [1, 3, 3, 3]
    assert worker.batches == {1: 1, 3: 1}


async def test_a_full_house_refuses_and_a_released_seat_is_free_again(worker: Worker) -> None:
    seats = [worker.seat("anna") for _ in range(3)]
    assert worker.free_slots == 0
    with pytest.raises(NoFreeSlot, match="3 slots") as refusal:
        worker.seat("anna")
    assert refusal.value.retry_after > 0
    with pytest.raises(UnknownAvatar, match="open are: anna, bert"):
        worker.seat("../../etc/passwd")
    seats[1].release()
    seats[1].release()
    assert worker.free_slots == 1
    with worker.seat("bert") as seat:
        assert (seat.slot, seat.generation) == (1, 2)
        with pytest.raises(RuntimeError, match="released"):
            seats[1].hear(chunk(), 0, ALL)


async def test_a_late_answer_never_reaches_the_next_session_of_its_slot(worker: Worker) -> None:
    first = worker.seat("anna")
    late = first.hear(chunk(scripted.SLOW, value=100), 0, ALL)
    first.release()
    assert late.cancelled()
    with worker.seat("anna") as second:
        assert second.slot == first.slot
        out = await say(second, 1)
    assert (out.generation, heard(out)) == (2, 1)


async def test_a_new_session_starts_from_silence_without_asking(worker: Worker) -> None:
    with worker.seat("anna") as seat:
        await say(seat, 50)
    with worker.seat("anna") as seat:
        assert heard(await say(seat, 1)) == 1
        assert heard(await say(seat, 1)) == 2
        assert heard(await say(seat, 1, reset=True)) == 1


async def test_an_answer_of_another_slot_is_never_delivered(worker: Worker) -> None:
    with worker.seat("anna") as a, worker.seat("anna"):
        with pytest.raises(WorkerLost):
            await say(a, order=scripted.LEAK)
        await back(worker)
        assert heard(await say(a, 4)) == 4


async def test_nan_and_flat_pictures_hold_the_last_good_one_and_reset_that_slot_alone(worker: Worker) -> None:
    with worker.seat("anna") as broken, worker.seat("anna") as healthy:
        assert (await say(broken, 5, scripted.NAN)).roi is None  # nothing good yet to hold
        good = await say(broken, 5)
        await say(healthy, 5)
        for order in (scripted.NAN, scripted.FLAT):
            bad = await say(broken, 100, order)
            assert bad.held
            assert heard(bad) == heard(good)
            assert bad.roi is not None
            assert good.roi is not None
            assert (bad.roi.luma == good.roi.luma).all()
            good = await say(broken, 7)
            assert heard(good) == 7  # from silence
        assert heard(await say(healthy, 5)) == 10
    assert worker.held == 3
    assert worker.restarts == 0


async def test_the_canary_steps_a_slot_of_its_own(worker: Worker) -> None:
    seats = [worker.seat("anna") for _ in range(3)]
    assert worker.last_step is None
    assert (await worker.canary()).slot == 3
    assert worker.last_step is not None
    assert heard(await say(seats[2], 2)) == 2


async def test_a_step_that_raises_costs_only_the_chunks_under_way(worker: Worker) -> None:
    with worker.seat("anna") as poisoned, worker.seat("bert") as neighbour:
        await say(neighbour, 5)
        answers = [poisoned.hear(chunk(scripted.RAISE), 0, ALL), neighbour.hear(chunk(), 0, ALL)]
        results = await asyncio.gather(*answers, return_exceptions=True)
        assert isinstance(results[0], WorkerLost)
        assert "an illegal address" in str(results[0])
        await back(worker)
        assert worker.restarts == 1
        assert heard(await say(neighbour, 1)) == 1  # re-seeded: the reset came by itself
        assert heard(await say(neighbour, 1)) == 2


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


async def test_the_watchdog_counts_only_time_in_which_work_was_due(process: Worker) -> None:
    with process.seat("anna") as seat:
        for _ in range(4):
            await say(seat, order=scripted.SLOW)
            await asyncio.sleep(0.15)
    assert process.restarts == 0


@pytest.mark.parametrize("inline", [True, False])
async def test_a_package_that_cannot_be_opened_is_named_in_one_line(inline: bool) -> None:
    with pytest.raises(RuntimeError, match=r"weights/face\.safetensors does not match the manifest") as refusal:
        async with new_worker(inline, names=("anna", "broken")):
            pass
    assert "\n" not in str(refusal.value)


async def test_an_unknown_backend_is_named_in_one_line() -> None:
    with pytest.raises(RuntimeError, match="no backend is called 'abacus'"):
        async with Worker([Path("anna")], 1, "abacus", clock=RealClock()):
            pass


async def test_a_painted_avatar_speaks_through_the_process(tmp_path: Path) -> None:
    package = draw_package(tmp_path / "ellipse")
    async with Worker([package], 1, "plain", clock=RealClock(), lookahead=0) as worker:
        card = worker.cards["ellipse"]
        assert card.loop.shape == (8, 192, 128)
        assert worker.backend == "plain: asked for"
        with worker.seat("ellipse") as seat:
            shut = await seat.hear(chunk(value=0), 0, ALL)
            for sound in vowel("a", 4):
                opened = await seat.hear(sound, 0, ALL)
        assert shut.roi is not None
        assert opened.roi is not None
        assert (shut.roi.luma.astype(int) - opened.roi.luma).max() > 60  # the inside of the mouth is dark


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


async def test_an_avatar_that_changed_on_disk_is_not_taken_for_the_one_that_was_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package = draw_package(tmp_path / "ellipse")
    card = package / "avatar.toml"
    before = card.read_text()
    async with Worker([package], 1, "plain", clock=RealClock()) as worker:
        card.write_text(before.replace("An ellipse", "Somebody else"))
        seal(package)
        assert worker.process_id is not None
        os.kill(worker.process_id, signal.SIGKILL)
        await until(lambda: "changed on disk" in caplog.text)
        assert not worker.alive
        card.write_text(before)
        seal(package)
        await back(worker)
        assert (await worker.canary()).roi is not None


def traces() -> dict[str, object]:
    """What a worker must not leave behind."""
    gc.collect()
    return {
        "descriptors": sorted(str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()),
        "threads": threading.active_count(),
        "children": Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text(),
        "shared memory": sorted(path.name for path in Path("/dev/shm").iterdir()),
    }


@pytest.mark.parametrize("inline", [True, False])
async def test_nothing_is_left_after_close(inline: bool) -> None:
    await asyncio.sleep(0)
    before = traces()
    for _ in range(2):
        async with new_worker(inline) as worker:
            seat = worker.seat("anna")
            await say(seat)
            pending = seat.hear(chunk(scripted.SLOW), 0, ALL)
        with pytest.raises(WorkerLost):
            await pending
        del worker, seat
    assert traces() == before


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
from tests.engine.test_worker import chunk, scripted
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


def alive(process: int) -> bool:
    """Neither gone nor a zombie that whoever inherited it has yet to reap."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
