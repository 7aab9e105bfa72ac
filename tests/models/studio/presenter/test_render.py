"""The camera, at thumbnail size and uncompiled: what it promises holds at any size."""

import numpy as np
import pytest
import torch

from models.studio.presenter import groom
from models.studio.presenter.head import SKIN
from models.studio.presenter.identity import PRESENTERS
from models.studio.presenter.render import NOTHING, Crop, Presenter
from models.studio.presenter.rig import weights

SIZE = 64


@pytest.fixture(scope="module")
def ada() -> Presenter:
    return Presenter(PRESENTERS["ada"], compiled=False)


@pytest.fixture(autouse=True)
def _thin_hair(monkeypatch):
    """Growing and lighting seven thousand strands takes seconds; three hundred say as much."""
    monkeypatch.setattr(groom, "HAIRS", 300)


def test_labels_say_where_the_presenter_is(ada):
    picture = ada.pictures(ada.pose(weights({})), SIZE)
    assert picture.rgb.shape == (1, SIZE, SIZE, 3)
    assert picture.rgb.dtype == torch.uint8
    assert set(picture.material.unique().tolist()) <= {NOTHING, 0, 1, 2, 3, 4, 5}
    middle, corner = (0, SIZE // 2, SIZE // 2), (0, 2, 2)
    assert picture.material[middle] == SKIN
    assert picture.material[corner] == NOTHING
    assert picture.alpha[middle] == 1
    assert picture.alpha[corner] == 0
    assert picture.depth[middle] < picture.depth[corner]
    assert 0 <= picture.alpha.min() <= picture.alpha.max() <= 1


@pytest.mark.slow
def test_frames_rendered_together_are_those_rendered_alone_and_the_same_every_time(ada):
    w = weights({"jawOpen": 0.5}, {"mouthPucker": 1.0})
    angles = torch.tensor([[5.0, 0, 0], [0, -4.0, 3.0]])
    together = ada.pictures(ada.pose(w, angles), SIZE)
    for i in range(2):
        pose = ada.pose(w[i : i + 1], angles[i : i + 1])
        alone, again = ada.pictures(pose, SIZE), ada.pictures(pose, SIZE)
        assert torch.equal(alone.rgb, again.rgb)
        differ = (alone.rgb[0].int() - together.rgb[i].int()).abs().amax(-1) > 2
        assert differ.float().mean() < 0.002


def test_a_rectangle_alone_is_the_rectangle_of_the_whole(ada):
    pose, crop = ada.pose(weights({"jawOpen": 0.4})), Crop(16, 28, 32, 24)
    whole, part = (ada.pictures(pose, SIZE, at, antialias=False).rgb[0] for at in (None, crop))
    cut = whole[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
    differ = (part.int() - cut.int()).abs().amax(-1) > 4
    assert differ.float().mean() < 0.01


def test_an_open_mouth_changes_the_mouth_and_nothing_above_the_nose(ada):
    pose = ada.pose(weights({}, {"jawOpen": 0.8}))
    shut, wide = ada.pictures(pose, SIZE, antialias=False).rgb.int()
    change = (shut - wide).abs().amax(-1)
    assert change[: SIZE // 3].max() <= 2
    assert change[SIZE // 2 :].max() > 60


def test_pixels_and_rays_are_inverse(ada):
    px, py = torch.tensor([32.0, 30.0, 36.0]), torch.tensor([30.0, 36.0, 40.0])
    x, y, z = ada.surface(px, py, ada.pose(weights({})), SIZE)
    back = ada.to_pixels(x, y, z, SIZE)
    assert torch.allclose(back[:, :2], torch.stack([px, py], 1), atol=1e-3)


def test_mediapipe_sees_a_face():
    mediapipe = pytest.importorskip("mediapipe")
    mira = Presenter(PRESENTERS["mira"], compiled=False)
    picture = mira.pictures(mira.pose(weights({})), 256, antialias=False).rgb[0].numpy()
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        found = mesh.process(np.ascontiguousarray(picture)).multi_face_landmarks
    assert found
    assert len(found[0].landmark) == 478
