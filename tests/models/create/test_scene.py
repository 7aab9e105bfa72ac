"""The loop's pictures: whole where the film is small, cut to head and shoulders where it is large."""

from dataclasses import replace

import numpy as np
import pytest

from models.create.film import FootageError
from models.create.loop import Stretch
from models.create.scene import Framing, scene_of
from tests.models.create.test_loop import footage


def test_a_small_film_is_shown_whole():
    track = replace(footage(10), width=641, height=360)
    framing = Framing.of(track, track.points, 512)
    assert (framing.width, framing.height, framing.scale) == (640, 360, 1.0)
    assert np.array_equal(framing.points(track.points), track.points)


@pytest.mark.parametrize(("width", "height"), [(3840, 2160), (1080, 1920), (1920, 1080)])
def test_a_large_film_is_cut_to_the_head(width, height):
    track = replace(footage(10), width=width, height=height)
    points = track.points * 2 + np.array([width / 2 - 500, height / 2 - 500, 0], np.float32)
    framing = Framing.of(track, points, 512)
    assert framing.width == framing.height == 512
    inside = framing.points(points)[..., :2]
    assert inside.min() > 0
    assert inside.max() < 512
    picture = framing.picture(np.zeros((height, width, 3), np.uint8))
    assert picture.shape == (512, 512, 3)


def test_points_stay_on_what_they_mark():
    track = replace(footage(10), width=2000, height=2000)
    picture = np.zeros((2000, 2000, 3), np.uint8)
    points = np.full((10, 478, 3), 1000, np.float32)
    points[:, 10, 1], points[:, 152, 1] = 800, 1200
    picture[996:1005, 996:1005] = 255
    framing = Framing.of(track, points, 512)
    small = framing.picture(picture)[..., 0].astype(float)
    y, x = (np.arange(512) @ small.sum(1 - axis) / small.sum() for axis in (0, 1))
    assert framing.points(points)[0, 1, :2] == pytest.approx([x, y], abs=0.2)


def test_a_scene_is_played_forth_and_back(small):
    scene = scene_of(small.film, small.track, Stretch(0, 5, 25, False, 0.0))
    assert len(scene.pictures) == len(scene.points) == len(scene.blink) == 38
    assert np.array_equal(scene.pictures[1], scene.pictures[-1])


def test_a_faded_scene_runs_forward_only(small):
    scene = scene_of(small.film, small.track, Stretch(0, 0, 40, True, 0.0))
    assert len(scene.pictures) == len(scene.points) == len(scene.blink) == 32


def test_a_tiny_face_is_refused(small):
    tiny = replace(small.track, points=small.track.points * 0.1)
    with pytest.raises(FootageError, match="film it twice as large"):
        scene_of(small.film, tiny, Stretch(0, 0, 40, False, 0.0))
