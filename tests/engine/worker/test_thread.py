"""The model in a thread: the same answers, but nobody can kill it."""

import numpy as np
import pytest

from engine.worker import Worker, WorkerLost
from tests.engine.worker.asked import ALL, back, chunk, heard, new_worker, say
from tests.models.runtime import scripted


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


async def test_a_thread_that_hangs_in_a_step_is_left_behind_and_somebody_else_serves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with new_worker(inline=True) as worker:
        with worker.seat("anna") as seat:
            with pytest.raises(WorkerLost, match="no answer for"):
                await say(seat, order=scripted.HANG)
            await back(worker)
            assert heard(await say(seat, 2)) == 2
    assert "hangs in a step and is left behind" in caplog.text
