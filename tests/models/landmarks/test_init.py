"""Pose, normalisation and lift: what all systems share."""

import numpy as np
import torch

from models import face, metrics
from models.landmarks import SPOKEN, LandmarkNetwork, plane_of

from ..faces import rest_mesh
from .conditioned import a_head_that_speaks, conditions_of


def test_the_pose_is_the_metrics_even_of_a_face_that_is_not_rigid() -> None:
    """A tracker shakes each point: what a network lays into a frame, the metrics take out where it was."""
    _, mesh = a_head_that_speaks()
    mesh = mesh + np.random.default_rng(0).normal(0, 1.5, mesh.shape)
    truth = metrics.pose_normal(mesh, rest_mesh())
    mouth = torch.randn(1, len(mesh), SPOKEN, 3)
    laid = conditions_of(mesh).pose.to_frame(mouth)
    np.testing.assert_allclose(truth(laid[0].numpy()), mouth[0].numpy(), atol=1e-3)


def test_to_frame_undoes_to_normal() -> None:
    _, mesh = a_head_that_speaks()
    conditions = conditions_of(mesh)
    points = torch.tensor(mesh, dtype=torch.float32)[None]
    pose, plane = conditions.pose, plane_of(conditions)
    torch.testing.assert_close(pose.to_frame(pose.to_normal(points)), points, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(plane.back(plane.into(points)), points, rtol=1e-4, atol=1e-3)
    flat = points[..., :2]
    torch.testing.assert_close(plane.back(plane.into(flat)), flat, rtol=1e-4, atol=1e-3)


def test_the_plane_is_moved_and_scaled_but_not_turned() -> None:
    _, mesh = a_head_that_speaks()
    conditions = conditions_of(mesh)
    seen = plane_of(conditions).into(torch.tensor(mesh, dtype=torch.float32)[None])
    assert seen[0, :, face.NOSE_POSE[0]].abs().max() < 1e-5
    corners = seen[0, :, list(face.EYE_CORNERS)]
    torch.testing.assert_close((corners[:, 0] - corners[:, 1]).norm(dim=-1), torch.ones(len(mesh)))
    assert corners[:, 0].std(0).max() > 0.01  # the head's turning is still seen


def test_a_lift_finds_a_linear_jaw() -> None:
    rng = torch.Generator().manual_seed(0)
    own = torch.randn(400, 4, 3, generator=rng)
    rule = torch.randn(12, 3 * SPOKEN, generator=rng)
    spoken = (own.flatten(1) @ rule + 5.0).reshape(400, SPOKEN, 3)
    network = LandmarkNetwork(own=4, lookahead=0)
    network.fit_lift(own, spoken, ridge=1e-6)
    back = own.flatten(1) @ network.lift[:-1] + network.lift[-1]
    torch.testing.assert_close(back.reshape(spoken.shape), spoken, rtol=1e-3, atol=1e-3)


def test_a_lift_makes_little_of_what_no_tracker_could_tell() -> None:
    """Two of the network's points nearly agree; how they differ tells the mouth, but is far less than jitter."""
    rng = torch.Generator().manual_seed(0)
    opening, depth = torch.randn(2, 400, 1, 3, generator=rng)
    own = torch.cat([opening, opening + 0.01 * depth], dim=1)
    network = LandmarkNetwork(own=2, lookahead=0)
    network.fit_lift(own, depth.expand(-1, SPOKEN, -1))
    assert network.lift[:-1].abs().max() < 1.0
    network.fit_lift(own, depth.expand(-1, SPOKEN, -1), ridge=1e-9)
    assert network.lift[:-1].abs().max() > 50.0


def test_parts_of_conditions_keep_the_identity() -> None:
    conditions = conditions_of(a_head_that_speaks(10)[1])
    part = conditions.frames(slice(2, 5))
    assert {tensor.shape[1] for tensor in part[:-1]} == {3}
    assert part.identity is conditions.identity
