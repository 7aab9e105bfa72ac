"""The stored triangles are MediaPipe's own, and make one clean surface."""

from collections import Counter

import numpy as np
import pytest

from models.rates import DENSE_POINTS
from models.triangles import TRIANGLES


def directed_edges() -> list[tuple[int, int]]:
    return [(int(t[i]), int(t[(i + 1) % 3])) for t in TRIANGLES for i in range(3)]


def test_triangles_close_the_tessellation_exactly() -> None:
    connections = pytest.importorskip("mediapipe.python.solutions.face_mesh_connections")
    assert Counter(directed_edges()) == Counter(connections.FACEMESH_TESSELATION)


def test_one_winding_every_point_and_four_borders() -> None:
    edges = directed_edges()
    assert TRIANGLES.shape == (852, 3)
    assert len(set(edges)) == len(edges)  # a directed edge used twice would mean two windings
    assert set(np.unique(TRIANGLES)) == set(range(DENSE_POINTS))
    border = {a: b for a, b in edges if (b, a) not in set(edges)}
    rings = 0
    while border:
        start, at = border.popitem()
        while at != start:
            at = border.pop(at)
        rings += 1
    assert rings == 4  # the outline, two eyes and the mouth
