"""Sparse to dense, jaw after lips, weights after vertices: on a made face, each against its trivial baseline."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import face, losses, mesh, metrics
from models.rates import DENSE_POINTS
from models.triangles import TRIANGLES

from .faces import rest_mesh, speaking
from .theorems import check_chunks_equal_whole

REST = rest_mesh()[:DENSE_POINTS]


def smooth_motion(frames: int, seed: int = 0) -> np.ndarray:
    """[T, 468, 3]: the whole skin follows the jaw and a smile, less with distance."""
    rng = np.random.default_rng(seed)
    down = rng.uniform(0, 10, frames)[:, None] * np.exp(-np.linalg.norm(REST - REST[face.CHIN], axis=-1) / 60)
    aside = rng.uniform(0, 6, frames)[:, None] * np.exp(-np.linalg.norm(REST - REST[61], axis=-1) / 40)
    return np.stack([-aside, down - 0.5 * aside, 0 * down], axis=-1)


def test_neighbours_are_the_meshs_and_in_ring_order() -> None:
    rings = mesh.neighbours()
    linked = {frozenset((int(t[i]), int(t[i - 1]))) for t in TRIANGLES for i in range(3)}
    assert {frozenset((a, b)) for a, ring in enumerate(rings) for b in ring} == linked
    inner = rings[50]  # a cheek
    closed = [*inner, inner[0]]
    assert all(frozenset(pair) in linked for pair in itertools.pairwise(closed))


def test_spirals_start_at_home_and_go_outwards() -> None:
    table = mesh.spirals(9)
    assert table.shape == (DENSE_POINTS, 9)
    np.testing.assert_array_equal(table[:, 0], np.arange(DENSE_POINTS))
    rings = mesh.neighbours()
    assert set(table[50, 1 : 1 + len(rings[50])].tolist()) == set(rings[50])


def test_upsampling_keeps_what_is_everywhere_the_same() -> None:
    skin = mesh.along_the_skin(REST)
    order = mesh.farthest_points(skin, 100, face.DLIB)
    assert order[:68].tolist() == face.DLIB.tolist()
    assert len(set(order.tolist())) == 100
    matrix = mesh.upsampling(skin[:, order])
    np.testing.assert_allclose(matrix.sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(matrix[order] @ np.arange(100.0), np.arange(100.0), atol=1e-2)


def test_lips_that_touch_are_far_along_the_skin() -> None:
    skin = mesh.along_the_skin(REST)
    assert np.linalg.norm(REST[13] - REST[14]) < 1.0
    assert skin[13, 14] > 40.0
    np.testing.assert_allclose(skin, skin.T)


@pytest.mark.slow
def test_sparse_to_dense_learns_more_than_the_nearest_landmark() -> None:
    torch.manual_seed(0)
    network = mesh.SparseToDense(REST)
    train, held = smooth_motion(64), smooth_motion(40, seed=1)
    weights = losses.nearness(torch.tensor(REST), torch.tensor(REST[face.DLIB])).float()
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    dense = torch.tensor(train, dtype=torch.float32)
    for step in range(80):
        rows = torch.arange(step * 8, step * 8 + 8) % len(dense)
        said = network(dense[rows][:, face.DLIB.tolist()])
        optimizer.zero_grad()
        losses.sparse_to_dense(said[:, None], dense[rows][:, None], weights).backward()
        optimizer.step()
    with torch.no_grad():
        said = network(torch.tensor(held[:, face.DLIB], dtype=torch.float32)).numpy()
    error = np.linalg.norm(said - held, axis=-1).mean()
    baseline = np.linalg.norm(mesh.nearest_landmark(held[:, face.DLIB], REST) - held, axis=-1).mean()
    assert error < baseline


def test_the_jaw_follows_the_lips_by_either_rule() -> None:
    openings = 8 + 8 * np.sin(np.arange(200) / 5)
    points = speaking(openings)
    normal = metrics.pose_normal(points, rest_mesh())(points)[:, face.HOUSE]
    lips = torch.tensor(normal[:, face.DLIB_IN_HOUSE[face.DLIB_LIPS]], dtype=torch.float32)
    jaw = torch.tensor(normal[:, list(mesh.JAW_IN_HOUSE)], dtype=torch.float32)
    linear = mesh.LinearJaw()
    linear.fit(lips[:150], jaw[:150])
    still = (jaw[150:] - jaw[:150].mean(0)).norm(dim=-1).mean()
    assert (linear(lips[150:]) - jaw[150:]).norm(dim=-1).mean() < 0.1 * still
    follower = mesh.jaw_lstm().eval()
    with torch.no_grad():
        check_chunks_equal_whole(follower, lips[None, :20].flatten(2) / 100, [3, 1, 16])
    assert follower(lips[None].flatten(2) / 100, follower.silence(1))[0].shape == (1, 200, 51)


BASIS = np.random.default_rng(5).normal(size=(52, 131, 3)) * 3
BASIS[-1] = 0.0  # the tongue moves no point


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999))
def test_a_fit_finds_the_weights_that_moved_the_face(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = rng.uniform(0, 1, (4, 52)) * (rng.random((4, 52)) < 0.3)
    true[:, -1] = 0.0
    found = mesh.fit_weights(np.tensordot(true, BASIS, 1), BASIS, ridge=1e-6)
    np.testing.assert_allclose(found, true, atol=0.02)


def test_weights_stay_within_bounds_and_the_unmoved_at_zero() -> None:
    far = 5 * BASIS[:3] - 4 * BASIS[3:6]
    found = mesh.fit_weights(far, BASIS)
    assert found.min() >= 0.0
    assert found.max() <= 1.0
    assert not found[:, -1].any()
    assert mesh.residual(far, BASIS, found) < mesh.residual(far, BASIS, np.zeros_like(found))


def test_a_fit_that_remembers_is_calmer() -> None:
    rng = np.random.default_rng(0)
    shaken = np.tensordot(np.full((30, 52), 0.3), BASIS, 1) + rng.normal(size=(30, 131, 3)) * 20
    free, held = (mesh.fit_weights(shaken, BASIS, previous=p) for p in (0.0, 2.0))
    assert np.abs(np.diff(held[5:], axis=0)).mean() < 0.6 * np.abs(np.diff(free[5:], axis=0)).mean()


@pytest.mark.parametrize("batch", [1, 5])
def test_the_direct_decoder_says_weights(batch: int) -> None:
    said = mesh.BlendshapeDecoder()(torch.randn(batch, 131, 3))
    assert said.shape == (batch, 52)
    assert 0 <= said.min() <= said.max() <= 1
