"""The whole face after the points that speech moves."""

import numpy as np

from models import face
from models.create.dense import follows
from models.train import Clip, mean_face
from tests.models.faces import speaking


def test_vertices_follow_the_lips_and_given_points_are_given():
    opening = 8 + 8 * np.sin(np.arange(120) / 2.0)
    points = speaking(opening).astype(np.float32)
    mesh = mean_face([Clip("a", points, np.zeros(0, np.float32))])
    told = follows([points], mesh)
    assert told.shape == (468, 131)
    assert np.array_equal(told[face.HOUSE], np.eye(131, dtype=np.float32))
    assert np.abs(told[np.setdiff1d([10, 151, 9, 8], face.HOUSE)]).max() < 1e-6  # the brow
    moved = points[:, :468] - points[0, :468]
    said = np.einsum("vp,tpc->tvc", told, moved[:, face.HOUSE])
    assert np.abs(said - moved).max() < 0.25 * np.abs(moved).max()
