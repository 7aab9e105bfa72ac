"""What a person wears on skin and scalp, with the camera's part played by a flat face in even light."""

import pytest
import torch

from models.studio.presenter import groom
from models.studio.presenter.groom import Groom
from models.studio.presenter.head import Lips
from models.studio.presenter.identity import PRESENTERS, unpack
from models.studio.presenter.rig import pose, weights


def flat(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.full_like(x, 0.8)


def dressed(name: str, key: float = 1.0) -> Groom:
    who = PRESENTERS[name]

    def light(points: torch.Tensor, normals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full_like(points[:, 0], key), torch.ones_like(points[:, 0])

    return Groom(who, unpack(who.traits.packed()), torch.device("cpu"), flat, light)


@pytest.fixture(autouse=True)
def _thin_hair(monkeypatch):
    monkeypatch.setattr(groom, "HAIRS", 100)
    monkeypatch.setattr(groom, "BEARD_HAIRS", 2000)


def test_everything_worn_is_finite_and_visible():
    worn = dressed("theo").worn(pose(weights({"jawOpen": 0.3, "eyeBlink": 0.4}), 0.25))
    assert len(worn) == 5, "beard, brows, hair, upper and lower lashes"
    for fibres in worn:
        assert torch.isfinite(fibres.curves).all()
        assert torch.isfinite(fibres.colour).all()
        assert fibres.colour.shape == (3, *fibres.curves.shape[:2])
        assert 0 <= fibres.fade.min() <= fibres.fade.max() <= 1


def test_hair_out_of_the_key_light_is_darker():
    still = pose(weights({}), 0.25)
    lit, dark = (dressed("mira", key).worn(still)[2].colour.mean() for key in (1.0, 0.1))
    assert dark < 0.7 * lit


def test_a_beard_goes_down_with_the_jaw_and_never_hangs_into_the_mouth():
    theo = dressed("theo")
    traits = unpack(PRESENTERS["theo"].traits.packed())
    shut, wide = (pose(weights({"jawOpen": jaw}), traits.mouth_half) for jaw in (0.0, 0.7))
    at_rest, dropped = theo.worn(shut)[0], theo.worn(wide)[0]
    chin = at_rest.curves[:, 0, 1] < -1.0
    assert int(chin.sum()) > 5
    assert (at_rest.curves[chin, 0, 1] - dropped.curves[chin, 0, 1] > 0.1).all()
    x, y, _ = dropped.curves.reshape(-1, 3).unbind(1)
    lips = Lips(x, y, wide, traits)
    between = (lips.slit < 0) & (lips.s < 0.98)
    assert dropped.fade.flatten()[between].sum() == 0


def test_hair_is_lit_anew_when_the_head_turns_and_only_then():
    mira, traits = dressed("mira"), unpack(PRESENTERS["mira"].traits.packed())
    still, turned = (pose(weights({}), traits.mouth_half, torch.tensor([[a, 0.0, 0.0]])) for a in (0.0, 12.0))
    first = mira.worn(still)[2]
    assert mira.worn(still)[2].colour is first.colour
    assert not torch.equal(mira.worn(turned)[2].colour, first.colour)
    assert torch.equal(mira.worn(still)[2].colour, first.colour)
