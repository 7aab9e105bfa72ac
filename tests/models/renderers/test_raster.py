"""Lips and jaw as distances: exact to a part of a pixel, defined for every ring."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import face
from models.renderers.raster import CHANNELS, SHARP_PIXELS, ring_distance, sketch

SIZE = 128


def ellipse(x: float, y: float, wide: float, tall: float, count: int = 20) -> torch.Tensor:
    """[1, count, 2]: from the left over the top, as the lips' rings run."""
    turn = torch.pi + torch.arange(count) / count * 2 * torch.pi
    return torch.stack([x + wide * turn.cos(), y + tall * turn.sin()], -1)[None]


def mouth(opening: float = 6.0, x: float = 64.0, y: float = 68.0) -> torch.Tensor:
    """[1, 57, 2]: lips round an opening, a jaw below."""
    angle = torch.linspace(torch.pi, 0, len(face.JAW) + 1)
    jaw = torch.stack([x + 50 * angle.cos(), y - 20 + 60 * angle.sin()], -1)
    middle = len(jaw) // 2
    chin, line = jaw[middle : middle + 1], torch.cat([jaw[:middle], jaw[middle + 1 :]])
    lips = [ellipse(x, y, 22, opening / 2 + 6)[0], ellipse(x, y, 18, opening / 2)[0]]
    return torch.cat([*lips, chin, line])[None]


def area(points: torch.Tensor, channel: int) -> float:
    return float(sketch(points, SIZE)[0, channel].sum()) * 4


def test_what_is_inside_a_ring_is_as_large_as_the_ring() -> None:
    polygon = 0.5 * 20 * 18 * 10 * np.sin(2 * np.pi / 20)  # of the inner ring, an ellipse of twenty corners
    assert area(mouth(20.0), 1) == pytest.approx(polygon, rel=0.02)


def test_a_distance_is_measured_to_the_nearest_edge_and_negative_inside() -> None:
    square = torch.tensor([[[10.0, 10.0], [30.0, 10.0], [30.0, 30.0], [10.0, 30.0]]])
    distance = ring_distance(square, torch.arange(40.0))[0]
    assert distance[20, 20] == pytest.approx(-10)
    assert distance[12, 20] == pytest.approx(-2)
    assert distance[20, 34] == pytest.approx(4)
    assert distance[7, 6] == pytest.approx(5)


@settings(max_examples=25, deadline=None)
@given(step=st.floats(0.02, 1.0))
def test_a_part_of_a_pixel_shows(step: float) -> None:
    """Though the sketch is half as fine as the patch."""
    wider = area(mouth(6.0 + step), 1) - area(mouth(6.0), 1)
    assert wider == pytest.approx(18 * step / 2 * 20 * np.sin(2 * np.pi / 20) / 2, rel=0.15)


def test_a_ring_turned_inside_out_holds_nothing() -> None:
    turned = mouth(6.0)
    turned[:, 20:40] = turned[:, 20:40].flip(1)
    assert area(turned, 1) < 0.4 * area(mouth(6.0), 1)  # a line as wide as an edge is soft, no more
    assert float(sketch(turned, SIZE)[0, 1].max()) <= 0.5


def test_lips_that_meet_leave_a_line_at_most() -> None:
    shut = sketch(mouth(0.0), SIZE)[0, 1]
    assert float(shut.max()) <= 0.5 + 1e-4
    assert float(shut.sum()) * 4 < 36 * 2 * SHARP_PIXELS


@settings(max_examples=25, deadline=None)
@given(x=st.floats(-1e6, 1e6), y=st.floats(-1e6, 1e6), opening=st.floats(-1e4, 1e4))
def test_any_finite_points_make_a_defined_sketch(x: float, y: float, opening: float) -> None:
    drawn = sketch(mouth(opening, x, y), SIZE)
    assert drawn.shape == (1, CHANNELS, SIZE // 2, SIZE // 2)
    assert bool(((drawn >= 0) & (drawn <= 1)).all())


@pytest.mark.parametrize("size", [128, 192, 256])
def test_a_wider_patch_shows_the_same_face_larger(size: int) -> None:
    scaled = sketch(mouth(8.0) * (size / 128), size)[0]
    plain = sketch(mouth(8.0), 128)[0]
    wide = slice(3, None)
    smaller = torch.nn.functional.interpolate(scaled[None, wide], plain.shape[1:], mode="area")[0]
    assert float((smaller - plain[wide]).abs().mean()) < 0.01
