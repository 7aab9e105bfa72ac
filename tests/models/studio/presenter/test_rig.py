import pytest
import torch

from models.face import ARKIT_52
from models.studio.presenter import rig
from models.studio.presenter.head import lip_gap
from models.studio.presenter.rig import Pose, pose, weights

AT = {name: i for i, name in enumerate(ARKIT_52)}


def random_weights(count: int, seed: int = 3) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    loud = torch.rand(count, 52, generator=random)
    return loud * (torch.rand(count, 52, generator=random) < 0.5)


def test_pressed_lips_have_no_gap_whatever_else_the_face_does():
    w = random_weights(500)
    w[:, [AT["mouthPressLeft"], AT["mouthPressRight"]]] = 0.6
    assert lip_gap(pose(w, 0.25)).abs().max() < 1e-6


def test_mouth_close_undoes_the_jaw_whatever_else_the_face_does():
    w = random_weights(500)
    w[:, AT["mouthClose"]] = w[:, AT["jawOpen"]] + 0.01
    assert lip_gap(pose(w, 0.25)).abs().max() < 1e-6


def test_lips_never_cross():
    assert lip_gap(pose(random_weights(2000), 0.25)).min() > -1e-6


def test_an_opening_jaw_opens_the_lips_evenly():
    w = torch.zeros(50, 52)
    w[:, AT["jawOpen"]] = torch.linspace(0, 1, 50)
    gap = lip_gap(pose(w, 0.25))
    steps = gap[1:] - gap[:-1]
    assert (steps > 0).all()
    assert steps.max() < 1.1 * steps.min()


def test_closing_lips_close_without_a_jump():
    w = weights({"jawOpen": 0.4, "mouthLowerDown": 0.3}).repeat(200, 1)
    w[:, AT["mouthClose"]] = torch.linspace(0, 0.4, 200)
    gap = lip_gap(pose(w, 0.25))
    assert (gap[1:] - gap[:-1]).abs().max() < 0.02 * gap[0]


def test_a_face_is_posed_the_same_alone_and_in_company():
    w, angles = random_weights(5), torch.randn(5, 3) * 10
    together = pose(w, 0.25, angles)
    for i in range(5):
        alone = pose(w[i : i + 1], 0.25, angles[i : i + 1])
        assert torch.allclose(alone.table(), together.row(i).table(), atol=1e-6)


def test_the_table_holds_the_whole_pose():
    one = pose(random_weights(3), 0.25, torch.randn(3, 3))
    back = rig.unpack(one.table())
    for name, given, got in zip(Pose._fields[1:], one[1:], back[1:], strict=True):
        assert torch.equal(given, got), name
    assert all(torch.equal(a, b) for a, b in zip(one.rotation, back.rotation, strict=True))


def test_angles_are_rotations_about_the_axes_they_say():
    turn = rig.rotation(torch.tensor([[90.0, 0, 0], [0, 90.0, 0], [0, 0, 90.0]]))
    ahead, right = torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0])
    assert torch.allclose(turn[0] @ ahead, torch.tensor([1.0, 0, 0]), atol=1e-6), "yaw looks to the viewer's right"
    assert torch.allclose(turn[1] @ ahead, torch.tensor([0.0, -1, 0]), atol=1e-6), "pitch nods down"
    assert torch.allclose(turn[2] @ right, torch.tensor([0.0, 1, 0]), atol=1e-6), "roll lifts the viewer's right"
    assert torch.allclose(turn @ turn.mT, torch.eye(3).expand(3, 3, 3), atol=1e-6)


def test_a_name_without_its_side_means_both_and_a_wrong_one_is_refused():
    row = weights({"mouthSmile": 0.5})[0]
    assert row[AT["mouthSmileLeft"]] == row[AT["mouthSmileRight"]] == 0.5
    assert row.sum() == 1.0
    with pytest.raises(KeyError):
        weights({"mouthSmirk": 1.0})
