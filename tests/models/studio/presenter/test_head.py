"""Shapes, without a camera: what moves, what stays, and what must never be seen."""

import pytest
import torch

from models.studio.presenter import head
from models.studio.presenter.head import Lips
from models.studio.presenter.identity import PRESENTERS, unpack
from models.studio.presenter.rig import pose, weights

from .test_rig import random_weights

WHO = {name: unpack(who.traits.packed()) for name, who in PRESENTERS.items()}


def points(count: int, low: list[float], high: list[float], seed: int = 5) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    box = torch.tensor(low), torch.tensor(high)
    return (box[0] + (box[1] - box[0]) * torch.rand(count, 3, generator=random)).unbind(1)


@pytest.mark.parametrize("name", WHO)
def test_no_mix_of_weights_shows_teeth_or_tongue_or_cavity_anywhere_but_between_the_lips(name):
    """Random faces, a cloud of points about the mouth: outside the face as sewn shut there is only air."""
    who, seen = WHO[name], 0
    x, y, z = points(4000, [-0.6, -1.3, 0.35], [0.6, -0.35, 1.1])
    for face in random_weights(30, seed=11).split(1):
        face[:, 51] = 0  # the tongue may be put out
        p = pose(face, who.mouth_half)
        skin, sewn = head.skin(x, y, z, p, who)
        inside = torch.minimum(head.teeth(x, y, z, p), head.tongue(x, y, z, p))
        clamped = torch.maximum(inside, sewn + 0.4 * head.WALL)
        seen += int((inside < 0).sum())
        assert not ((clamped < 0) & (sewn > -0.4 * head.WALL)).any()
        # away from the opening the flesh is whole: a point a wall's thickness deep is covered by skin
        lips = Lips(x, y, p, who)
        flesh = (sewn < 0) & (sewn > -0.4 * head.WALL) & ((lips.slit > 0.10) | (lips.s > 1.3))
        assert (skin[flesh] < 0.02).all()
    assert seen > 100, "the sweep must meet teeth at all"


def test_the_warp_of_the_jaw_and_its_inverse_meet():
    rest = torch.stack(points(500, [-0.5, -1.2, 0.2], [0.5, 0.3, 1.0]), 1)
    p = pose(weights({"jawOpen": 0.8, "jawLeft": 0.4}), 0.25)
    x, y, z = head.skin_moved(rest, p)
    w = head.jaw_share(y, z)
    back = [head.mix(a, b, w) for a, b in zip((x, y, z), head.jaw_rest(x, y, z, p), strict=True)]
    assert torch.allclose(torch.stack(back, 1), rest, atol=2e-3)


def test_the_head_turns_and_comes_back():
    who = WHO["theo"]
    p = pose(weights({}), 0.25, torch.tensor([[20.0, -10.0, 5.0]]))
    world = points(200, [-1, -1, -1], [1, 1, 1])
    assert torch.allclose(
        torch.stack(head.to_world(*head.to_head(*world, p, who), p, who)), torch.stack(world), atol=1e-5
    )


def test_a_wide_open_mouth_moves_the_chin_down_and_leaves_the_brow():
    who = WHO["mira"]
    rest = torch.tensor([[0.0, -1.05, 0.75], [0.2, 0.3, 0.8]])
    _, y, _ = head.skin_moved(rest, pose(weights({"jawOpen": 1.0}), who.mouth_half))
    assert y[0] < rest[0, 1] - 0.2
    assert y[1] == rest[1, 1]


def test_lids_shut_when_they_blink():
    who = WHO["ada"]
    x = torch.linspace(-0.15, 0.15, 21) + head.EYE[0]
    for blink, gap in ((0.0, 0.05), (1.0, 0.0)):
        lids = head.Lids(x, x, pose(weights({"eyeBlink": blink}), who.mouth_half), who)
        middle = (lids.upper - lids.lower)[10]
        assert middle > gap if gap else middle < 0.01


def test_people_breathe_and_their_shoulders_follow_the_head():
    who = WHO["mira"]
    x, y, z = points(200, [-1.2, -1.7, -0.3], [1.2, -1.3, 0.4])
    still = pose(weights({}), 0.25)
    for other in (
        pose(weights({}), 0.25, breath=torch.ones(1)),
        pose(weights({}), 0.25, torch.tensor([[20.0, 0, 0]])),
    ):
        a = head.cloth(*head.to_body(x, y, z, still), who)
        b = head.cloth(*head.to_body(x, y, z, other), who)
        assert 0.002 < (a - b).abs().max() < 0.1
