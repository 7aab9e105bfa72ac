"""Pose, normalisation and lift: what all systems share."""

import numpy as np
import torch

from models import face, metrics
from models.landmarks import SPOKEN, LandmarkNetwork, plane_of, pose_of

from ..faces import rest_mesh
from .conditioned import a_head_that_speaks, conditions_of, reference


def test_the_closed_form_pose_is_umeyamas() -> None:
    _, mesh = a_head_that_speaks()
    conditions = conditions_of(mesh)
    pose = pose_of(conditions, reference())
    truth = metrics.pose_normal(mesh, rest_mesh())
    np.testing.assert_allclose(pose.scale[0, :, 0, 0].numpy(), 1 / truth.scale, rtol=1e-3)
    upper = torch.tensor(mesh[:, face.HOUSE], dtype=torch.float32)[None]
    np.testing.assert_allclose(pose.to_normal(upper)[0].numpy(), truth(mesh)[:, face.HOUSE], atol=0.05)


def test_to_frame_undoes_to_normal() -> None:
    _, mesh = a_head_that_speaks()
    conditions = conditions_of(mesh)
    points = torch.tensor(mesh, dtype=torch.float32)[None]
    pose, plane = pose_of(conditions, reference()), plane_of(conditions)
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


def test_parts_of_conditions_keep_the_identity() -> None:
    conditions = conditions_of(a_head_that_speaks(10)[1])
    part = conditions.frames(slice(2, 5))
    assert [tensor.shape[1] for tensor in part[:4]] == [3, 3, 3, 3]
    assert part.identity is conditions.identity
