"""The CPU's runtime, whole: the same promises as the plain one, by tolerance where a batch's size moves a last bit."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.runtime import Out, Row, Wants, openvino
from models.runtime.plain import Plain
from tests.models.runtime.drawn import draw_package
from tests.models.runtime.voices import babble, vowel

ALL = Wants.POINTS | Wants.FACE | Wants.PICTURE
SLOTS = 4


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_package(tmp_path_factory.mktemp("package") / "ellipse")


@pytest.fixture(scope="module")
def runtime(package: Path, voice: Path) -> Plain:
    return openvino.open([package], SLOTS, lips=voice / "lips.onnx")


def row(slot: int, sound: np.ndarray, n: int) -> Row:
    return Row(slot, 1, n == 0, "ellipse", sound[n], n, ALL)


def near(one: Out, other: Out) -> bool:
    assert one.roi is not None
    assert other.roi is not None
    assert one.face is not None
    assert other.face is not None
    picture = np.abs(one.roi.luma.astype(int) - other.roi.luma).max()
    return bool(picture <= 1 and np.abs(one.face - other.face).max() < 1e-4)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(SLOTS)), late=st.integers(0, 3), seed=st.integers(0, 5))
def test_neighbours_slots_and_batch_sizes_change_nothing(
    runtime: Plain, order: list[int], late: int, seed: int
) -> None:
    sounds = [babble(8, seed + s) for s in range(SLOTS)]
    together: list[list[Out]] = [[] for _ in range(SLOTS)]
    for now in range(8 + late):
        due = [s for s in range(SLOTS) if 0 <= now - (late if s % 2 else 0) < 8]
        rows = [row(order[s], sounds[s], now - (late if s % 2 else 0)) for s in due]
        for s, out in zip(due, runtime.step(rows), strict=True):
            together[s].append(out)
    for s in range(SLOTS):
        alone = [runtime.step([row(0, sounds[s], n)])[0] for n in range(8)]
        assert all(near(one, other) for one, other in zip(together[s], alone, strict=True))


def test_a_reused_slot_answers_as_a_fresh_runtime_does_to_the_bit(runtime: Plain, package: Path, voice: Path) -> None:
    fresh = openvino.open([package], SLOTS, lips=voice / "lips.onnx")
    for n in range(10):
        runtime.step([row(3, babble(10, 9), n)])
    for n in range(8):
        used, new = (one.step([row(3, vowel("a", 8), n)])[0] for one in (runtime, fresh))
        assert used.roi is not None
        assert new.roi is not None
        assert (used.roi.luma == new.roi.luma).all()
        assert np.array_equal(used.face, new.face)


def test_every_look_ahead_is_served_and_no_other(package: Path, voice: Path) -> None:
    assert openvino.open([package], 1, 5, voice / "lips.onnx").cards["ellipse"].lookahead == 5
    with pytest.raises(ValueError, match="the look-ahead is 0 to 5 frames, not 6"):
        openvino.open([package], 1, 6, voice / "lips.onnx")
