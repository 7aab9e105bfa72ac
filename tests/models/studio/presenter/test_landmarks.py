"""True points. The tracker's part is played by a fixed layout of the few points that the claims are about."""

import pytest
import torch

from models import face
from models.studio.presenter.head import lip_gap
from models.studio.presenter.identity import PRESENTERS
from models.studio.presenter.landmarks import Landmarks, neutral
from models.studio.presenter.render import HALF, Presenter
from models.studio.presenter.rig import weights

SIZE = 512
UPPER, LOWER = face.INNER_UPPER, face.INNER_LOWER


@pytest.fixture(scope="module")
def mira() -> Presenter:
    return Presenter(PRESENTERS["mira"], compiled=False)


@pytest.fixture(scope="module")
def bound(mira) -> Landmarks:
    pixels = torch.full((478, 2), 256.0)
    pixels += torch.randn(478, 2, generator=torch.Generator().manual_seed(4)) * 25
    pixels[[UPPER, LOWER]] = torch.tensor([256.0, 325.0])
    pixels[face.CHIN] = torch.tensor([256.0, 380.0])
    pixels[10] = torch.tensor([256.0, 140.0])
    pixels[234] = torch.tensor([150.0, 250.0])  # off the face: to be drawn in
    return Landmarks.bind(mira, pixels, SIZE)


def test_every_point_finds_skin_even_from_outside_the_outline(bound):
    assert torch.isfinite(bound.rest).all()
    assert (bound.rest.norm(dim=1) > 0.2).all()


def test_the_inner_lips_are_as_far_apart_as_the_curves_say(mira, bound):
    for jaw in (0.1, 0.4, 0.8):
        pose = mira.pose(weights({"jawOpen": jaw}))
        points = bound.place(mira, pose, SIZE)[0]
        truth = float(lip_gap(pose)) * float(mira.traits.face_length) * SIZE / 2 / HALF
        assert float(points[LOWER, 1] - points[UPPER, 1]) == pytest.approx(truth, rel=0.12)


def test_shut_lips_meet_in_one_line(mira, bound):
    points = bound.place(mira, mira.pose(weights({"jawOpen": 0.3, "mouthClose": 0.3})), SIZE)[0]
    assert float(points[LOWER, 1] - points[UPPER, 1]) < 0.5


def test_the_chin_drops_and_the_forehead_stays(mira, bound):
    rest, wide = bound.place(mira, mira.pose(weights({}, {"jawOpen": 0.8})), SIZE)
    assert wide[face.CHIN, 1] - rest[face.CHIN, 1] > 20
    assert torch.allclose(wide[10], rest[10], atol=1e-3)


def test_a_turned_head_carries_its_points(mira, bound):
    pose = mira.pose(weights({}), torch.tensor([[15.0, 0, 0]]))
    moved = bound.place(mira, pose, SIZE)[0] - bound.place(mira, neutral(mira), SIZE)[0]
    assert moved[face.CHIN, 0] > 5, "the nearer parts go to the viewer's right"


def test_irises_follow_the_gaze_and_the_lids_do_not(mira, bound):
    ahead, aside = bound.place(mira, mira.pose(weights({}, {"eyeLookOutLeft": 0.5, "eyeLookInRight": 0.5})), SIZE)
    moved = (aside - ahead)[:, 0]
    for iris in (face.IRIS_LEFT, face.IRIS_RIGHT):
        shift = moved[iris.tolist()]
        assert 3 < shift.min() <= shift.max() < 15, "pixels to the viewer's right"
    assert moved[face.EYE_LEFT.tolist()].abs().max() < 1e-3
