"""Whose lips, whose head."""

import numpy as np

from models import face, metrics
from models.landmarks.augmentation import lend_lips, partners

from ..faces import rest_mesh, speaking, turned


def opening(mesh: np.ndarray) -> np.ndarray:
    normal = metrics.pose_normal(mesh, rest_mesh())
    return metrics.opening(normal(mesh)[:, face.HOUSE])


def test_the_lips_are_the_voices_and_the_rest_is_the_heads() -> None:
    loud = 8 + 8 * np.sin(np.arange(40) / 3)
    voice = turned(speaking(loud), 5.0).astype(np.float32)
    head = turned(speaking(np.zeros(50)), 20 * np.sin(np.arange(50) / 9), 1.4, (40, 0)).astype(np.float32)
    lent = lend_lips(voice, head)
    assert len(lent) == 40
    others = np.setdiff1d(np.arange(478), face.LIPS)
    np.testing.assert_array_equal(lent[:, others], head[:40, others])
    assert metrics.pearson(opening(lent), loud) > 0.98
    assert opening(head[:40]).max() < 0.1


def test_held_by_the_skull_an_open_mouth_lends_its_lips_where_they_are() -> None:
    """By all 68 points, an open mouth laid onto a shut one is shifted to meet its jaw."""
    voice = turned(speaking(np.full(8, 16.0)), 5.0).astype(np.float32)
    head = turned(speaking(np.zeros(8)), 12.0, 1.4, (40, 0)).astype(np.float32)
    true = metrics.pose_normal(voice, rest_mesh())(voice)[:, face.LIPS]

    def astray(lent: np.ndarray) -> float:
        lips = metrics.pose_normal(head, rest_mesh())(lent)[:, face.LIPS]
        return float(np.linalg.norm(lips - true, axis=-1).mean())

    assert astray(lend_lips(voice, head, by=face.RIGID)) < 0.05
    assert astray(lend_lips(voice, head)) > 0.3


def test_nothing_given_is_written_to() -> None:
    voice, head = speaking(np.full(5, 9.0)).astype(np.float32), speaking(np.zeros(5)).astype(np.float32)
    before = head.copy()
    lend_lips(voice, head)
    np.testing.assert_array_equal(head, before)


def test_partners_are_others() -> None:
    chosen = partners(30, 10, seed=3)
    assert all(clip not in heads and len(set(heads)) == 10 for clip, heads in enumerate(chosen))
    assert chosen == partners(30, 10, seed=3)
    assert partners(1) == [[0]]
