"""The drawn face: each line in its plane, where its points are, and nowhere else."""

import torch

from models import face
from models.rates import POINTS
from models.renderers.lines import PLANES, SEGMENTS, lines
from tests.models.faces import rest_mesh

SIZE = 128


def drawn_face() -> torch.Tensor:
    points = torch.from_numpy(rest_mesh()[face.HOUSE]).float()[None, :, :2]
    low, high = points.amin(1, keepdim=True), points.amax(1, keepdim=True)
    return (points - low) / (high - low).max() * 0.8 * SIZE + 0.1 * SIZE


def test_every_point_of_the_house_but_the_loose_ones_is_drawn() -> None:
    ends = {place for segments in SEGMENTS for segment in segments for place in segment}
    assert ends == set(range(POINTS))


def test_a_point_is_bright_in_its_own_plane() -> None:
    points = drawn_face()
    picture = lines(points, SIZE)
    assert picture.shape == (1, PLANES, SIZE, SIZE)
    for plane, segments in enumerate(SEGMENTS):
        for start, _ in segments:
            x, y = points[0, start].round().long().tolist()
            assert picture[0, plane, y, x] > 0.5


def test_lips_that_part_move_the_lips_plane_alone() -> None:
    points = drawn_face()
    opened = points.clone()
    opened[:, face.HOUSE_LIPS, 1] += 6
    before, after = lines(points, SIZE), lines(opened, SIZE)
    assert not torch.equal(before[:, 0], after[:, 0])
    torch.testing.assert_close(before[:, 2], after[:, 2])


def test_points_far_outside_draw_nothing_and_break_nothing() -> None:
    picture = lines(torch.full((1, POINTS, 2), 1e9), SIZE)
    assert picture.isfinite().all()
    assert picture.max() == 0
