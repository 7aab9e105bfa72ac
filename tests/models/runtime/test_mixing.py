"""OpenVINO mixes and lays mouths as numpy does."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.avatar import LOOP, MOUTHS, decode_loop, read_avatar
from models.runtime import Roi, mixing
from models.runtime.mixing import CompiledShelf, frame_to_patch
from models.runtime.shelf import MOST_MIXED, Shelf
from tests.models.runtime.drawn import draw_package

FRAMES = 8


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    avatar = read_avatar(draw_package(tmp_path_factory.mktemp("shelf") / "ellipse", frames=FRAMES))
    similarity = avatar.tensors("loop.safetensors", LOOP)["mouth_similarity"]
    return Shelf(avatar.tensors("mouths.safetensors", MOUTHS), similarity, decode_loop(avatar))


@pytest.fixture(scope="module")
def compiled(reference: Shelf) -> CompiledShelf:
    return CompiledShelf(reference)


def apart(one: Roi, other: Roi) -> int:
    assert (one.x, one.y, one.luma.shape, one.u.shape) == (other.x, other.y, other.luma.shape, other.u.shape)
    planes = zip((one.luma, one.u, one.v), (other.luma, other.u, other.v), strict=True)
    return max(int(np.abs(ours.astype(int) - theirs).max()) for ours, theirs in planes)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), mouths=st.integers(1, 5), index=st.integers(0, FRAMES - 1))
def test_any_mixture_in_any_frame_is_numpys(
    reference: Shelf, compiled: CompiledShelf, seed: int, mouths: int, index: int
) -> None:
    chance = np.random.default_rng(seed)
    weights = np.zeros((1, len(reference.planes)), np.float32)
    weights[0, chance.permutation(len(reference.planes))[:mouths]] = chance.dirichlet([1] * mouths)
    (ours,), (theirs,) = (shelf.paint([0], weights, [index]) for shelf in (compiled, reference))
    assert apart(ours, theirs) <= 1


def test_neighbours_change_nothing_and_what_was_painted_stays(reference: Shelf, compiled: CompiledShelf) -> None:
    weights = np.random.default_rng(1).dirichlet([1] * len(reference.planes), 3).astype(np.float32)
    together = compiled.paint([0, 1, 2], weights, [5, 5, 2])
    before = [roi.luma.copy() for roi in together]
    alone = [compiled.paint([0], weights[row : row + 1], [at])[0] for row, at in enumerate((5, 5, 2))]
    assert [apart(*pair) for pair in zip(together, alone, strict=True)] == [0, 0, 0]
    assert all((roi.luma == luma).all() for roi, luma in zip(together, before, strict=True))


def test_an_avatar_of_one_mouth_has_one_graph() -> None:
    mouths = {
        "patches": np.random.default_rng(0).integers(0, 255, (1, 30, 40, 3), np.uint8),
        "mask": np.ones((30, 40), np.float32),
        "points": np.zeros((1, 131, 3), np.float32),
    }
    reference = Shelf(mouths, np.array([[0.9, 0.2, 20, 10]], np.float32), np.full((1, 144, 128), 99, np.uint8))
    (ours,), (theirs,) = (
        shelf.paint([0], np.ones((1, 1), np.float32), [0]) for shelf in (CompiledShelf(reference), reference)
    )
    assert apart(ours, theirs) <= 1


def test_a_pixel_of_the_rectangle_lies_where_the_reference_has_it(reference: Shelf) -> None:
    for index in range(FRAMES):
        a, b, c, d = frame_to_patch(reference)[index]
        across, down = reference._grid(index, 1)
        y, x = np.mgrid[: reference.height, : reference.width]
        np.testing.assert_allclose(a * x + b * y + c, across, atol=1e-3)
        np.testing.assert_allclose(a * y - b * x + d, down, atol=1e-3)


@pytest.mark.parametrize("mouths", range(1, MOST_MIXED + 1))
def test_a_graph_that_mixes_otherwise_is_refused(
    reference: Shelf, monkeypatch: pytest.MonkeyPatch, mouths: int
) -> None:
    """As one whose pixels lie a third beside where they should, for one number of mouths alone."""

    class Beside(mixing._Graph):
        def run(self) -> Any:
            if len(self.given["shares"]) == mouths:
                self.given["place"][2:] += 0.3
            return super().run()

    monkeypatch.setattr(mixing, "_Graph", Beside)
    with pytest.raises(RuntimeError, match=r"its painted mouths differ from the reference by \d+, where 2 is allowed"):
        CompiledShelf(reference)
