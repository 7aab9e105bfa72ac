"""States on a device, steps recorded: the promises of the seam, kept where Python runs only once."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.avatar import PackageError
from models.runtime import resident
from models.runtime.devices import Unrecorded
from models.runtime.interpreted import Interpreted
from models.runtime.resident import Frames, ResidentEar, ResidentStage, ears_on
from models.runtime.stages import PLANES, Part
from tests.models.runtime import taught
from tests.models.runtime.recording import RecordingDevice

FRAMES = 7


def make(graph: bytes, precision: str, sizes: Sequence[int]) -> Interpreted:
    return Interpreted(graph)


def step_part() -> Part:
    points = np.random.default_rng(0).normal(size=(FRAMES, 131, 3)).astype(np.float32)
    silence = {"state_0": np.full((1, 1), 0.25, np.float32)}
    return Part("step", taught._step(), "f32", silence, {"points": points}, ("points", "face"))


def new_stage(slots: int = 5, device: Unrecorded | None = None, frames_bytes: int = 1 << 20) -> ResidentStage:
    return ResidentStage(step_part(), slots, device or RecordingDevice(), make, frames_bytes)


def sound(*loud: float) -> np.ndarray:
    return np.repeat(np.array(loud, np.float32)[:, None], 640, 1)


def faces(stage: ResidentStage, slots: list[int], reset: list[bool], index: list[int], *loud: float) -> list[float]:
    out = stage.run(slots, reset, index, {"x": sound(*loud)})
    home = stage.fetch({"points": out["points"], "face": out["face"]})
    expected = step_part().frames["points"][index] + home["face"][:, :1, None]
    np.testing.assert_allclose(home["points"], expected, atol=1e-5)
    return [float(value) for value in home["face"][:, 0]]


def test_a_recording_knows_nothing_of_the_steps_to_come() -> None:
    """Slots, resets, frames and sound all differ from what they were when it was recorded."""
    stage = new_stage()
    assert faces(stage, [3, 1], [True, True], [0, 6], 1, 2) == [1.125, 4.125]
    assert faces(stage, [1, 3], [False, False], [5, 1], 0, 0) == [2.0625, 0.5625]
    assert faces(stage, [3, 0], [True, True], [2, 2], 0, 0) == [0.125, 0.125]
    assert faces(stage, [1], [False], [3], 0) == [1.03125]


def test_every_size_of_a_batch_is_recorded_before_the_first_guest() -> None:
    device = RecordingDevice()
    stage = new_stage(5, device)
    assert (device.recordings, device.repeated) == (4, 0)
    pinned = device.pinned_bytes
    for count in range(1, 6):
        faces(stage, list(range(count)), [True] * count, [0] * count, *[0.5] * count)
    assert (device.recordings, device.repeated) == (4, 5)
    assert device.pinned_bytes == pinned  # nothing is allocated while sessions are served


def test_the_padding_is_inert_even_when_it_was_poisoned() -> None:
    stage = new_stage()
    stage.run([0, 1, 2, 3], [True] * 4, [0] * 4, {"x": sound(np.nan, np.nan, np.nan, np.nan)})
    assert faces(stage, [4, 1, 0], [True] * 3, [1, 2, 3], 1, 1, 1) == [1.125] * 3  # the fourth row is stale
    assert faces(stage, [4], [False], [0], 0) == [0.5625]


def test_answers_are_the_callers_for_good() -> None:
    stage = new_stage()
    out = stage.run([0], [True], [0], {"x": sound(1)})
    first = stage.fetch({"face": out["face"]})["face"]
    faces(stage, [0], [True], [0], 5)
    assert float(first[0, 0]) == 1.125


@pytest.mark.parametrize("frames_bytes", [0, 1 << 20])
def test_a_loop_too_long_for_the_device_is_sent_ahead_frame_by_frame(frames_bytes: int) -> None:
    stage = new_stage(frames_bytes=frames_bytes)
    assert stage.frames.ahead == (frames_bytes == 0)
    there_and_back = [*range(FRAMES), *range(FRAMES - 2, 0, -1)]
    for turn in range(3 * len(there_and_back)):
        index = [there_and_back[(turn + start) % len(there_and_back)] for start in (0, 3, 8)]
        faces(stage, [0, 2, 4], [turn == 0] * 3, index, 1, 2, 3)
    assert stage.frames.missed <= 6 * (frames_bytes == 0)  # the first ones, and each way's first surprise
    before = stage.frames.missed
    faces(stage, [2], [False], [0], 1)  # a jump is answered rightly too
    assert stage.frames.missed == before + (frames_bytes == 0)


def test_frames_on_the_host_take_one_frame_a_slot_of_the_device() -> None:
    arrays = {"luma": np.zeros((1000, 8, 8), np.float32)}
    frames = Frames(arrays, 3, Unrecorded(), 1000)
    assert sum(rows.nbytes for rows in frames.rows.values()) == 4 * 8 * 8 * 4


def test_frames_may_be_kept_in_half_and_everything_be_shown() -> None:
    part = step_part()
    halves = {"points": part.frames["points"].astype(np.float16)}
    for frames_bytes in (0, 1 << 20):
        stage = ResidentStage(replace(part, frames=halves, shown=()), 2, RecordingDevice(), make, frames_bytes)
        assert {rows.dtype for rows in stage.frames.rows.values()} == {torch.float16}
        home = stage.fetch(stage.run([1], [True], [3], {"x": sound(0)}))
        np.testing.assert_allclose(home["points"][0], halves["points"][3].astype(np.float32) + 0.125, atol=1e-6)
        assert set(home) == {"points", "face"}


def paint_stage(grey: float, slots: int, **silence: np.ndarray) -> ResidentStage:
    shapes = zip(PLANES, ((24, 32), (12, 16), (12, 16)), strict=True)
    frames = {name: np.full((FRAMES, *shape), grey, np.float32) for name, shape in shapes}
    part = Part("paint", taught._paint(stateful=bool(silence)), "f32", silence, frames, PLANES)
    return ResidentStage(part, slots, RecordingDevice(), make)


def test_pictures_are_made_into_bytes_where_they_are_painted() -> None:
    stage = paint_stage(128.4, 2)
    painted = stage.run([0, 1], [True] * 2, [0, 0], {"face": np.array([[0.5] * 61, [-2.0] * 61], np.float32)})
    home = stage.fetch({name: painted[name] for name in PLANES})
    assert {plane.dtype for plane in home.values()} == {np.dtype(np.uint8)}
    assert [home["luma"][0, 0, 0], home["luma"][1, 0, 0], home["u"][0, 0, 0]] == [78, 255, 128]


def test_one_stage_takes_what_another_has_left_on_the_device() -> None:
    step, paint = new_stage(), paint_stage(200, 5, state_0=np.zeros((1, 1), np.float32))
    given = step.run([4, 2, 0], [True] * 3, [0, 1, 2], {"x": sound(0, 0.5, 1)})
    some = {name: tensor[[0, 2]] for name, tensor in given.items()}
    painted = paint.run([4, 0], [True] * 2, [0, 2], some)
    luma = paint.fetch({"luma": painted["luma"]})["luma"][:, 0, 0]
    assert luma.tolist() == [round(200 - 12.5), round(200 - 112.5)]


def test_a_graph_whose_states_are_not_in_the_package_is_refused() -> None:
    part = Part("step", taught._step(), "f32", {}, step_part().frames, ("face",))
    with pytest.raises(PackageError, match=r"does not hold the states of step\.onnx"):
        ResidentStage(part, 1, Unrecorded(), make)


def test_the_fake_device_catches_what_a_gpu_would() -> None:
    device = RecordingDevice()
    total = torch.zeros(1)
    frozen = [1]

    def looks() -> None:
        total.add_(total.item())

    def adds() -> None:
        total.add_(frozen[0])

    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        device.record(looks)
    repeat = device.record(adds)
    frozen[0] = 100
    repeat()
    assert total.item() == 3  # warmed up, recorded, repeated: Python was not asked again


def test_the_ear_hears_in_batches_of_any_size(voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "batches", lambda count: [slice(0, 2), slice(2, count)])
    ear: ResidentEar = ears_on(Unrecorded(), make)(3, voice / "lips.onnx")
    pcm = np.random.default_rng(0).normal(0, 0.1, (3, 640)).astype(np.float32)
    heard = ear.hear([0, 1, 2], [True] * 3, pcm)
    alone = ear.hear([1], [True], pcm[2:])
    assert heard.shape == (3, 4, 52)
    np.testing.assert_allclose(heard[2], alone[0], atol=1e-5)
