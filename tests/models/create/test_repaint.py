"""A film with another mouth: only the mouth changes."""

import numpy as np
import pytest
import torch

from models.avatar import Shelf
from models.create.repaint import i420_of, person_of, posed, repainted, said
from tests.models.create.filmed import hum, presenter


def test_only_the_lower_face_is_repainted(small):
    person, track = person_of(small.avatar), small.track
    points = track.points[:4]
    house = posed(person, said(person, hum(0.16)), points)
    made = list(repainted(person, iter(presenter()[:4]), points, house))
    assert len(made) == 4
    changed = np.abs(made[1].astype(int) - presenter()[1]).max(-1)
    nose = int(points[1, 4, 1])
    assert changed[: nose - 40].max() <= 12  # I420 and back is all
    assert changed[nose:].max() > 12


def test_points_are_posed_into_the_film(small):
    person, points = person_of(small.avatar), small.track.points[:3]
    house = posed(person, said(person, np.zeros(3 * 640, np.float32)), points)
    assert house.shape == (3, 131, 3)
    mouth = torch.tensor(points[:, 13, :2])
    assert (house[:, 25, :2] - mouth).norm(dim=1).max() < 25


def test_what_is_said_is_as_long_as_the_sound(small):
    assert len(said(person_of(small.avatar), hum(1))) == 25


def test_an_avatar_without_networks_says_so(tmp_path):
    with pytest.raises(ValueError, match="no networks of its own"):
        person_of(Shelf(tmp_path).avatar("demo"))


def test_i420_of_grey_is_grey():
    assert np.abs(i420_of(np.full((16, 16, 3), 128, np.uint8)).astype(int)[16:] - 128).max() <= 1
