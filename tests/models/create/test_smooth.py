"""Jitter goes, closures stay."""

import numpy as np

from models import face
from models.create.smooth import smoothed
from tests.models.faces import speaking, turned


def gap(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, face.INNER_UPPER] - points[:, face.INNER_LOWER], axis=-1)


def test_lips_that_meet_for_one_frame_still_meet():
    openings = np.full(60, 14.0)
    openings[[20, 40]] = 0.0
    calm = smoothed(speaking(openings).astype(np.float32))
    assert gap(calm)[[20, 40]].max() < 0.4
    assert abs(gap(calm)[30] - 14) < 0.1


def test_jitter_becomes_less_everywhere():
    rng = np.random.default_rng(0)
    still = speaking(np.full(80, 12.0))
    shaking = (still + rng.normal(0, 0.5, still.shape)).astype(np.float32)
    assert np.abs(smoothed(shaking) - still).mean() < 0.8 * np.abs(shaking - still).mean()


def test_a_head_that_turns_is_not_held_back():
    moving = turned(speaking(np.full(60, 8.0)), np.linspace(-15, 15, 60)).astype(np.float32)
    assert np.abs(smoothed(moving) - moving).max() < 0.5


def test_a_take_of_three_frames_is_left_alone():
    short = speaking(np.full(3, 8.0)).astype(np.float32)
    assert np.array_equal(smoothed(short), short)
