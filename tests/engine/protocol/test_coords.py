"""Coordinate systems, by the golden vectors."""

from typing import Any

import numpy as np
import pytest

from engine.protocol.coords import Coords, head_in
from tests.engine.protocol.said import GOLDEN


@pytest.mark.parametrize("vector", GOLDEN["coordinates"], ids=lambda v: v["name"])
@pytest.mark.parametrize("coords", ["gltf", "unity", "unreal"])
def test_coordinates(vector: dict[str, Any], coords: Coords) -> None:
    def head(system: str) -> np.ndarray:
        return np.concatenate([vector[system][part] for part in ("rotation", "position", "gaze")])

    np.testing.assert_allclose(head_in(coords, head("gltf")), head(coords), atol=1e-5)


@pytest.mark.parametrize("coords", ["unity", "unreal"])
def test_a_rotation_turns_points_alike_in_every_system(coords: Coords) -> None:
    """The quaternion and the position rules belong together: converting a turned point = turning the converted one."""
    random_ = np.random.default_rng(5)
    for _ in range(20):
        q = random_.normal(size=4)
        q /= np.linalg.norm(q)
        point = random_.normal(size=3)
        there = head_in(coords, np.concatenate([q, point, [0, 0]]))
        turned_here = head_in(coords, np.concatenate([q, _turn(q, point), [0, 0]]))[4:7]
        np.testing.assert_allclose(_turn(there[:4], there[4:7]), turned_here, atol=1e-4)


def _turn(q: np.ndarray, point: np.ndarray) -> np.ndarray:
    axis, w = q[:3], q[3]
    return point + 2 * np.cross(axis, np.cross(axis, point) + w * point)
