"""The worker: answered, batched, isolated, and replaced."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from engine import worker as worker_room
from engine.clock import RealClock
from engine.worker import Worker, WorkerLost
from models.avatar import seal
from models.runtime import Wants
from tests.engine.worker.asked import ALL, alive, back, chunk, heard, new_worker, say, traces, until
from tests.models.runtime import scripted
from tests.models.runtime.drawn import draw_package
from tests.models.runtime.improving import MORE
from tests.models.runtime.voices import vowel


async def test_rows_that_wait_for_a_step_go_together_into_the_next(worker: Worker) -> None:
    with worker.seat("anna") as a, worker.seat("anna") as b, worker.seat("bert") as c:
        slow = a.hear(chunk(scripted.SLOW), 0, ALL)
        await asyncio.sleep(0.02)
        together = [seat.hear(chunk(), 0, ALL) for seat in (a, b, c)]
        outs = [await slow, *[await answer for answer in together]]
    assert [float(out.face[0]) for out in outs if out.face is not None] == [1, 3, 3, 3]
    assert worker.batches == {1: 1, 3: 1}


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


@pytest.mark.parametrize(
    ("order", "complaint"), [(scripted.RAISE, "an illegal address"), (scripted.OOM, "CUDA out of memory")]
)
async def test_a_step_that_raises_costs_only_the_chunks_under_way(worker: Worker, order: float, complaint: str) -> None:
    """A sticky CUDA error, or no memory left."""
    with worker.seat("anna") as poisoned, worker.seat("bert") as neighbour:
        await say(neighbour, 5)
        answers = [poisoned.hear(chunk(order), 0, ALL), neighbour.hear(chunk(), 0, ALL)]
        results = await asyncio.gather(*answers, return_exceptions=True)
        assert isinstance(results[0], WorkerLost)
        assert complaint in str(results[0])
        await back(worker)
        assert worker.restarts == 1
        assert heard(await say(neighbour, 1)) == 1  # re-seeded: the reset came by itself
        assert heard(await say(neighbour, 1)) == 2


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


# Something better


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a runtime that can be had better when `better` is there."""
    monkeypatch.setattr(worker_room, "LISTEN_SECONDS", 0.3)
    monkeypatch.setattr(worker_room, "HUNG_SECONDS", 30.0)  # a busy machine is not what is looked at here
    package = tmp_path / "anna"
    package.mkdir()
    return package


def improving(package: Path) -> Worker:
    return Worker([package], 3, "tests.models.runtime.improving", clock=RealClock())


async def test_what_is_better_takes_over_between_two_steps_and_knows_what_was_said(package: Path) -> None:
    async with improving(package) as worker:
        assert "takes over as soon as it is built" in worker.backend
        with worker.seat("anna") as speaking, worker.seat("anna") as silent:
            await say(speaking, 100)
            await say(silent, 50)
            before, answers = worker.process_id, [100.0]
            (package / "better").touch()
            async with asyncio.timeout(30):
                while answers[-1] < MORE:
                    under_way = [speaking.hear(chunk(), 0, Wants.POINTS) for _ in range(3)]  # at any time, some wait
                    answers += [heard(await answer) for answer in under_way]
                    await asyncio.sleep(0.005)
            old = [value for value in answers if value < MORE]
            new = answers[len(old) :]
            assert old == [100.0 + n for n in range(len(old))]  # in order to the last, and none is missing
            assert new == [new[0] + n for n in range(len(new))]
            assert 1 < new[0] - MORE < len(answers)  # it has heard along for a while, but not the first word
            assert heard(await say(silent, 1)) == MORE + 1  # who said nothing meanwhile starts from silence
        assert (worker.improvements, worker.restarts) == (1, 0)
        assert worker.process_id != before
        assert before is not None
        await until(lambda: not alive(before))
        assert "takes over" not in worker.backend


async def test_to_leave_just_as_the_process_before_ends_waits_for_nobody_and_leaves_nothing(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the very turn of the loop in which that end is learnt, in which a cancellation was once lost."""
    ended, end = asyncio.Event(), worker_room.ProcessHost._end

    def learn(host: worker_room.ProcessHost) -> None:
        end(host)
        ended.set()

    monkeypatch.setattr(worker_room.ProcessHost, "_end", learn)
    before = traces()
    async with asyncio.timeout(20):
        async with improving(package) as worker:
            (package / "better").touch()
            await ended.wait()
            assert worker.improvements == 1
    del worker
    assert traces() == before


async def test_what_is_better_but_dies_before_it_serves_harms_nobody(
    package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (package / "stillborn").touch()
    async with improving(package) as worker:
        with worker.seat("anna") as seat:
            (package / "better").touch()
            said = 0
            while "is lost before it served (RuntimeError: born dead)" not in caplog.text:
                said += 1
                assert heard(await say(seat)) == said
                await asyncio.sleep(0.01)
            assert heard(await say(seat)) == said + 1
        assert (worker.improvements, worker.restarts) == (0, 0)


async def test_what_is_no_better_than_before_does_not_take_over(package: Path) -> None:
    (package / "again").touch()
    async with improving(package) as worker:
        serving = worker.process_id
        (package / "better").touch()
        opened: list[int | None] = []
        dismiss = worker_room.ProcessHost.close

        async def close(host: worker_room.ProcessHost) -> None:
            opened.append(host.process_id)
            await dismiss(host)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker_room.ProcessHost, "close", close)
            await until(lambda: bool(opened))
        assert (worker.process_id, worker.improvements) == (serving, 0)
        with worker.seat("anna") as seat:
            assert heard(await say(seat, 3)) == 3


def test_a_hung_process_is_noticed_within_a_second() -> None:
    assert worker_room.HUNG_SECONDS + 2 * worker_room.WATCH_SECONDS <= 1.0
