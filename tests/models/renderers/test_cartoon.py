"""A drawn face: flat colours, edges that stay, and ink where nose, lips and jaw are, nowhere else."""

import torch

from models import face
from models.renderers.cartoon import CONTOURS, INK, cartoon, flattened
from tests.models.renderers.test_lines import drawn_face

SIZE = 64


def test_grain_goes_and_an_edge_stays() -> None:
    torch.manual_seed(0)
    step = torch.zeros(1, 3, SIZE, SIZE)
    step[..., SIZE // 2 :] = 0.7
    noisy = step + 0.2 + 0.03 * torch.randn(1, 3, SIZE, SIZE)
    calm = flattened(flattened(noisy))
    inside = (..., slice(4, 28))
    assert calm[inside].std() < 0.4 * noisy[inside].std()
    assert (calm[..., SIZE // 2] - calm[..., SIZE // 2 - 1]).mean() > 0.6


def test_ink_lies_on_the_contours_and_nowhere_else() -> None:
    points = drawn_face() * SIZE / 128
    drawn = cartoon(torch.full((1, 3, SIZE, SIZE), 0.8), points)
    for start, _ in CONTOURS:
        x, y = points[0, start].round().long().tolist()
        assert drawn[0, 0, y, x] < 0.8 * (1 - 0.4 * INK)
    far = torch.cdist(points[0, [place for segment in CONTOURS for place in segment]], torch.tensor([[1.0, 1.0]])).min()
    assert far > 4
    torch.testing.assert_close(drawn[0, :, 1, 1], torch.full((3,), 0.8))


def test_eyes_and_brows_are_left_as_they_are() -> None:
    house = {int(index) for index in face.HOUSE[[place for segment in CONTOURS for place in segment]]}
    assert not house & {int(i) for i in (*face.EYE_LEFT, *face.EYE_RIGHT, *face.BROW_LEFT, *face.BROW_RIGHT)}
    assert house >= {int(i) for i in (*face.LIPS, *face.JAW_LINE, *face.NOSE_RIDGE)}


def test_lips_that_move_are_drawn_where_they_went() -> None:
    points = drawn_face() * SIZE / 128
    lower = points.clone()
    lower[:, face.LIPS_IN_HOUSE.tolist(), 1] += 5
    grey = torch.full((1, 3, SIZE, SIZE), 0.8)
    assert (cartoon(grey, points) - cartoon(grey, lower)).abs().max() > 0.4
