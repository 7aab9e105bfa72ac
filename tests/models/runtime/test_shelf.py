"""Mouths mixed by shape, and that they land where the head is."""

import numpy as np
import pytest

from models.runtime import Bytes, Floats, Roi
from models.runtime.shelf import Shelf, mixed, shares_of


def painted(shelf: Shelf, weights: Floats) -> Roi:
    (roi,) = shelf.paint([0], weights[None], [0])
    return roi


def gradient_shelf(similarity: list[float], mask: Floats | None = None) -> tuple[Shelf, Bytes]:
    """A patch [30, 40] whose red grows to the right and green downwards, over a grey loop."""
    y, x = np.mgrid[:30, :40]
    patch = np.stack([x * 5, y * 5, 0 * x], -1).astype(np.uint8)
    loop = np.full((1, 96 * 3 // 2, 128), 99, np.uint8)
    mouths = {
        "patches": patch[None],
        "mask": np.ones((30, 40), np.float32) if mask is None else mask,
        "points": np.zeros((1, 131, 3), np.float32),
    }
    return Shelf(mouths, np.array([similarity], np.float32), loop), loop


def test_a_patch_that_is_only_moved_arrives_unchanged() -> None:
    shelf, _ = gradient_shelf([1, 0, 20, 10])
    roi = painted(shelf, np.ones(1, np.float32))
    y, x = np.mgrid[:30, :40]
    assert (roi.x, roi.y) == (20, 10)
    expected = 16 + (65.481 * x * 5 + 128.553 * y * 5) / 255
    assert np.abs(roi.luma[:29, :39] - expected[:29, :39]).max() <= 0.6
    assert roi.u.shape == (15, 20)


def test_a_turned_and_scaled_patch_lands_where_the_similarity_says() -> None:
    a, b = 1.2 * np.cos(0.3), 1.2 * np.sin(0.3)
    shelf, _ = gradient_shelf([a, b, 40, 20])
    roi = painted(shelf, np.ones(1, np.float32))
    for x, y in ((5, 5), (20, 10), (35, 25), (8, 22)):
        column, row = a * x - b * y + 40 - roi.x, b * x + a * y + 20 - roi.y
        assert abs(int(roi.luma[round(row), round(column)]) - (16 + (65.481 * x + 128.553 * y) * 5 / 255)) < 4


def test_without_mask_there_is_only_the_loop() -> None:
    mask = np.zeros((30, 40), np.float32)
    mask[10:20, 10:30] = 1
    shelf, loop = gradient_shelf([1, 0, 20, 10], mask)
    roi = painted(shelf, np.ones(1, np.float32))
    assert (roi.x, roi.y) == (30, 20)
    assert (roi.u != 99).any()
    shelf, loop = gradient_shelf([1, 0, 20, 10], 0.001 * mask)
    roi = painted(shelf, np.ones(1, np.float32))
    assert (roi.luma == loop[0, 0, 0]).all()
    assert (roi.v == 99).all()


def test_a_mouth_that_hangs_over_the_edge_stays_in_the_frame() -> None:
    shelf, _ = gradient_shelf([1, 0, 100, 80])
    roi = painted(shelf, np.ones(1, np.float32))
    assert roi.x + roi.luma.shape[1] <= 128
    assert roi.y + roi.luma.shape[0] <= 96


def test_no_mouth_is_no_picture() -> None:
    shelf, _ = gradient_shelf([1, 0, 20, 10])
    with pytest.raises(ValueError, match="no mouth"):
        painted(shelf, np.zeros(1, np.float32))


def two_mouths() -> Shelf:
    """A light patch [60, 40] with a dark band as tall as the lips are parted: 8 pixels in one, 24 in the other."""
    patches = np.full((2, 60, 40, 3), 220, np.uint8)
    points = np.zeros((2, 131, 3), np.float32)
    points[:, :57, 0] = np.linspace(0, 39, 57)
    for mouth, gap in enumerate((8, 24)):
        patches[mouth, 30 - gap // 2 : 30 + gap // 2] = 20
        points[mouth, :57:2, 1] = 29.5 - gap / 2
        points[mouth, 1:57:2, 1] = 29.5 + gap / 2
    mouths = {"patches": patches, "mask": np.ones((60, 40), np.float32), "points": points}
    return Shelf(mouths, np.array([[1, 0, 20, 10]], np.float32), np.full((1, 144, 128), 99, np.uint8))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_mixture_has_lips_in_between_and_no_ghosts(share: float) -> None:
    shelf = two_mouths()
    column = painted(shelf, np.array([1 - share, share], np.float32)).luma[2:58, 20].astype(int)
    dark, light = 16 + 20 * 219 / 255, 16 + 220 * 219 / 255
    assert abs((column < (dark + light) / 2).sum() - (8 + 16 * share)) <= 2
    ghosts = (column > dark + 25) & (column < light - 25)
    assert ghosts.sum() <= 4  # a cross-fade of these two would show 16


def test_the_picture_far_from_the_lips_does_not_bend() -> None:
    shelf, _ = gradient_shelf([1, 0, 20, 10])
    one = painted(shelf, np.ones(1, np.float32))
    shelf.planes = np.repeat(shelf.planes, 2, axis=0)
    shelf.points = np.stack([np.full((57, 2), 300.0), np.full((57, 2), 320.0)]).astype(np.float32)
    both = painted(shelf, np.array([0.5, 0.5], np.float32))
    assert np.abs(one.luma.astype(int) - both.luma).max() <= 1


def test_a_mixture_of_many_costs_no_more_than_one_of_three() -> None:
    shelf, _ = gradient_shelf([1, 0, 20, 10])
    shelf.planes = np.concatenate([shelf.planes] * 3 + [0 * shelf.planes] * 2)
    shelf.points = np.zeros((5, 57, 2), np.float32)
    roi = painted(shelf, np.array([0.3, 0.25, 0.2, 0.15, 0.1], np.float32))
    assert roi.luma[20, 30] > 100  # the two least, which are black, were left out


def test_the_largest_shares_are_mixed_and_the_first_mouth_fills_what_is_left_over() -> None:
    weights = np.array([[0.1, 0, 0.3, 0.25, 0.35], [0, 0, 0, 2, 0]], np.float32)
    places, shares = shares_of(weights)
    assert places.tolist() == [[4, 2, 3], [3, 3, 3]]
    np.testing.assert_allclose(shares, [[35 / 90, 30 / 90, 25 / 90], [1, 0, 0]], atol=1e-6)
    places, shares = shares_of(np.ones((1, 1), np.float32))
    assert (places.tolist(), shares.tolist()) == ([[0, 0, 0]], [[1, 0, 0]])


def test_places_that_were_given_are_not_changed() -> None:
    across, down = [np.full((4, 4), 50.0, np.float32)], [np.full((4, 4), -5.0, np.float32)]
    mixed(np.ones((1, 1, 8, 8), np.float32), across, down, np.ones(1, np.float32))
    assert (across[0] == 50).all()
    assert (down[0] == -5).all()
