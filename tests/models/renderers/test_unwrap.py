"""A face unrolled: on a made face, since MediaPipe's triangles need one that is shaped like a face."""

import numpy as np
import pytest
import torch

from models import face
from models.renderers.unwrap import (
    ATLAS,
    CROP,
    EYES_AT,
    LIPS_AT,
    UNROLLED,
    corner_of_crop,
    cylinder,
    mapped,
    moved,
    smooth_map,
)
from models.triangles import TRIANGLES

RADIUS = 80.0


def round_face() -> np.ndarray:
    """[478, 3]: points of a true cylinder of radius 80, the named ones where a face has them."""
    rng = np.random.default_rng(3)
    angle, y = rng.uniform(-1.2, 1.2, 478), rng.uniform(100, 300, 478)
    angle[list(face.EYE_CORNERS)], y[list(face.EYE_CORNERS)] = [-0.6, 0.6], 160
    middle = [face.INNER_UPPER, face.INNER_LOWER]
    angle[middle], y[middle] = 0, 240
    return np.stack([256 + RADIUS * np.sin(angle), y, -RADIUS * np.cos(angle)], 1)


def test_a_cylinder_is_found_and_unrolled_without_stretching() -> None:
    made = round_face()
    roll = cylinder(made)
    assert roll.radius == pytest.approx(RADIUS, rel=0.02)
    flat = roll.unrolled(made)
    assert flat[list(face.EYE_CORNERS), 1] == pytest.approx(EYES_AT * ATLAS)
    assert flat[face.INNER_UPPER, 1] == pytest.approx(LIPS_AT * ATLAS)
    assert flat[face.INNER_UPPER, 0] == pytest.approx(ATLAS / 2, abs=0.5)
    round_ = (np.arctan2(made[:, 0] - 256, -made[:, 2]) * RADIUS) * roll.scale
    np.testing.assert_allclose(flat[:, 0] - ATLAS / 2, round_, atol=0.05 * ATLAS)


def test_a_flat_face_still_has_a_cylinder() -> None:
    made = round_face()
    made[:, 2] = 0
    assert np.isfinite(cylinder(made).unrolled(made)).all()


def test_the_mouth_is_closed_with_triangles_and_only_the_mouth() -> None:
    """852 of MediaPipe's and 18 between the inner lips: each edge of that ring is then used twice."""
    assert len(UNROLLED) == len(TRIANGLES) + len(face.LIPS_INNER) - 2
    edges: dict[tuple[int, int], int] = {}
    for corners in UNROLLED.tolist():
        for a, b in ((0, 1), (1, 2), (2, 0)):
            edge = (min(corners[a], corners[b]), max(corners[a], corners[b]))
            edges[edge] = edges.get(edge, 0) + 1
    ring = [int(p) for p in face.LIPS_INNER]
    for a, b in zip(ring, ring[1:] + ring[:1], strict=True):
        assert edges[min(a, b), max(a, b)] == 2


def test_the_crop_holds_the_lips_and_lies_within_the_atlas() -> None:
    x, y = corner_of_crop()
    assert min(x, y) >= 0
    assert max(x, y) + CROP <= ATLAS
    assert y + 0.2 * CROP < LIPS_AT * ATLAS < y + 0.8 * CROP


def flat_mesh(size: float) -> np.ndarray:
    """[478, 2]: the mesh's own layout is not ours to ship; a plane map of random points serves triangles as well."""
    rng = np.random.default_rng(1)
    return rng.uniform(0.1 * size, 0.9 * size, (478, 2))


def test_triangles_that_stay_leave_the_picture_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mesh = flat_mesh(64)
    same, covered = moved(picture, mesh, mesh, 64)
    assert covered.mean() > 0.4
    np.testing.assert_allclose(same[covered], picture[covered] / 255, atol=1e-4)
    assert (same[~covered] == 0).all()


def test_triangles_that_all_move_carry_the_picture_with_them() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mesh = flat_mesh(64)
    shifted, covered = moved(picture, mesh, mesh + np.array([3, -2]), 64)
    inside = covered & np.roll(covered, (2, -3), (0, 1))
    rows, columns = np.nonzero(inside)
    kept = (columns >= 3) & (rows < 62)
    rows, columns = rows[kept], columns[kept]
    np.testing.assert_allclose(shifted[rows, columns], picture[rows + 2, columns - 3] / 255, atol=1e-4)


def test_a_smooth_map_leads_from_the_patch_to_the_atlas_within_a_pixel() -> None:
    made = round_face()
    roll = cylinder(made)
    patch = (made[:, :2] - [176, 150]) * 0.8
    coefficients = smooth_map(patch, roll.unrolled(made), 128)
    at = mapped(torch.from_numpy(coefficients)[None], torch.from_numpy(patch).float(), 128)[0].numpy()
    error = np.hypot(*(at - roll.unrolled(made)).T)
    x, y = corner_of_crop()
    inside = (np.abs(roll.unrolled(made) - [x + CROP / 2, y + CROP / 2]) < CROP / 2).all(1)
    assert inside.sum() > 80
    assert np.median(error[inside]) < 0.3
    assert error[inside].max() < 1.0
