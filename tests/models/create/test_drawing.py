"""Lips that must meet do, and nothing else moves."""

import pytest
import torch

from models import face
from models.create.drawing import drawn_shut
from tests.models.faces import speaking


def lips(opening: float) -> torch.Tensor:
    return torch.tensor(speaking([opening])[:, face.HOUSE[face.HOUSE_SPOKEN]]).float()[None]


def test_lips_that_are_drawn_shut_meet_everywhere_and_the_corners_stay():
    open_mouth = lips(14.0)
    shut = drawn_shut(open_mouth, torch.ones(1, 1))
    inner = shut[0, 0, 20:40]
    gap = (inner[1:10] - inner[[19, 18, 17, 16, 15, 14, 13, 12, 11]]).norm(dim=-1)
    assert gap.max() < 1e-4
    assert torch.equal(shut[0, 0, [0, 10, 20, 30]], open_mouth[0, 0, [0, 10, 20, 30]])


def test_without_a_closure_nothing_moves_and_half_a_closure_is_half_the_gap():
    assert torch.equal(drawn_shut(lips(14.0), torch.zeros(1, 1)), lips(14.0))
    half = drawn_shut(lips(14.0), torch.full((1, 1), 0.5))[0, 0]
    assert (half[25] - half[35]).norm() == pytest.approx(7.0, abs=0.01)
