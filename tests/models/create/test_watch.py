"""MediaPipe, for real, on the shipped presenter."""

import numpy as np
import pytest

from models import face
from models.create.film import open_film
from models.create.watch import mesh_of, watch
from tests.models.create.filmed import presenter, shoot


def test_the_presenter_is_seen_upright_and_alone(tmp_path):
    seen = watch(open_film(shoot(tmp_path / "a.mp4", presenter()[:24], None)))
    assert seen.points.shape == (24, 478, 3)
    assert np.isfinite(seen.points).all()
    assert (seen.faces == 1).all()
    assert not seen.covered.any()
    assert not seen.cut.any()
    nose, chin = seen.points[:, 1].mean(0), seen.points[:, face.CHIN].mean(0)
    assert 200 < nose[0] < 312
    assert chin[1] > nose[1] + 60


def test_a_sideways_phone_shows_the_same_face(tmp_path):
    lying = [np.rot90(picture, -1) for picture in presenter()[:6]]
    points = watch(open_film(shoot(tmp_path / "a.mp4", lying, None, rotation=90))).points
    upright = watch(open_film(shoot(tmp_path / "b.mp4", presenter()[:6], None))).points
    assert np.abs(points - upright)[..., :2].max() < 4


def test_a_second_face_and_a_cut_are_seen(tmp_path):
    one = [picture[::2, ::2] for picture in presenter()[:10]]
    two = [np.concatenate([picture, picture[:, ::-1]], 1) for picture in one]
    empty = [np.full_like(two[0], 90)] * 10
    seen = watch(open_film(shoot(tmp_path / "a.mp4", [*two, *empty], None)))
    assert seen.faces[0] == 2
    assert np.flatnonzero(seen.cut).tolist() == [10]
    assert np.isnan(seen.points[15:]).all()


def test_a_picture_without_a_face_has_no_points():
    found = list(mesh_of(iter([np.zeros((64, 64, 3), np.uint8), presenter()[0]])))
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def test_no_pictures_no_meshes():
    assert list(mesh_of(iter([]))) == []


@pytest.mark.parametrize("size", [1600])
def test_points_of_a_large_picture_are_in_its_own_pixels(tmp_path, size):
    large = [np.repeat(np.repeat(p, 4, 0), 4, 1)[: size + 400, : size + 400] for p in presenter()[:2]]
    points = watch(open_film(shoot(tmp_path / "a.mp4", large, None))).points
    assert points[0, 1, 0] > 700
