import pytest
import torch

from models.studio.presenter import shade
from models.studio.presenter.identity import PRESENTERS, unpack
from models.studio.presenter.rig import pose, weights
from models.studio.presenter.shade import Hit


def facing(count: int) -> Hit:
    random = torch.Generator().manual_seed(1)
    x = torch.rand(count, generator=random) * 1.2 - 0.6
    y = torch.rand(count, generator=random) * 2.0 - 1.2
    z = torch.full((count,), 0.85)
    ahead = torch.tensor([0.0, 0.0, 1.0])[:, None].expand(3, count)
    return Hit(x, y, z, y, ahead, ahead, torch.ones(count), torch.ones(count))


@pytest.mark.parametrize("who", PRESENTERS.values(), ids=PRESENTERS)
def test_every_material_sends_a_finite_colour(who):
    traits, still = unpack(who.traits.packed()), pose(weights({"jawOpen": 0.3}), 0.25)
    hit = facing(400)
    for colour in (
        shade.skin(hit, still, traits, who.haircut),
        shade.eye(hit, still, traits),
        shade.tooth(hit, still, traits),
        shade.tongue(hit, still, traits),
        shade.hair(hit, still, traits, who.haircut),
        shade.cloth(hit, traits),
    ):
        assert colour.shape == (3, 400)
        assert torch.isfinite(colour).all()
        assert float(colour.min()) >= -1e-4


def test_shadow_darkens_and_leaves_red_the_longest():
    hit = facing(50)
    white, rough = torch.ones(3, 50), torch.full((50,), 0.5)
    lit, half = (
        shade.light(hit, hit.normal, white, rough, torch.full((50,), key), hit.ambient, (0.42, 0.20, 0.13), 0.0)
        for key in (1.0, 0.4)
    )
    kept = (half / lit).mean(1)
    assert 1 > kept[0] > kept[1:].max() + 0.02


def test_directions_turn_with_the_head_and_back():
    turned = pose(weights({}), 0.25, torch.tensor([[30.0, 10.0, -5.0]]))
    v = torch.randn(3, 50, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(shade.unturned(shade.turned(v, turned), turned), v, atol=1e-5)


def test_the_grade_keeps_order_and_range():
    ramp = torch.linspace(-0.5, 8, 100)
    graded = shade.grade(ramp)
    assert 0 <= float(graded.min()) <= float(graded.max()) <= 1
    assert (graded[1:] >= graded[:-1]).all()


def test_only_the_bearded_have_beards():
    x, y, z = torch.tensor([0.0]), torch.tensor([-0.95]), torch.tensor([0.8])
    beards = {
        name: float(shade.beard_mask(x, y, y, z, unpack(who.traits.packed()))) for name, who in PRESENTERS.items()
    }
    assert beards["theo"] > 0.5
    assert beards["mira"] == beards["ada"] == 0
