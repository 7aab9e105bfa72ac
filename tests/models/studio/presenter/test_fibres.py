import torch

from models.studio.presenter import fibres, head
from models.studio.presenter.fibres import Canvas, Fibres
from models.studio.presenter.identity import PRESENTERS, unpack
from models.studio.presenter.rig import pose, weights


def canvas(depth: float) -> Canvas:
    return Canvas(torch.zeros(3, 32, 32), torch.zeros(32, 32), torch.full((32, 32), depth))


def line(distance: float, colour: float = 1.0, width: float = 0.02) -> tuple[torch.Tensor, torch.Tensor, Fibres]:
    """Across the middle of a 32-pixel canvas."""
    pixels = torch.stack([torch.linspace(4, 27, 6), torch.full((6,), 16.0)], 1)[None]
    far = torch.full((1, 6), distance)
    return (
        pixels,
        far,
        Fibres(torch.zeros(1, 6, 3), torch.tensor([width]), torch.full((3, 1, 6), colour), torch.ones(1, 6)),
    )


def test_a_strand_covers_its_own_width_and_no_more():
    drawn = fibres.draw(canvas(10.0), *line(9.0, width=0.005), scale=100)
    row = drawn.alpha[16]
    assert row[8:24].min() > 0.3, "half a pixel wide is about half covered"
    assert row[8:24].max() < 0.7
    assert drawn.alpha[:14].max() == drawn.alpha[19:].max() == 0


def test_what_is_nearer_hides_a_strand():
    assert fibres.draw(canvas(8.5), *line(9.0), scale=100).alpha.max() == 0


def test_strands_outside_the_canvas_do_no_harm():
    pixels, far, strand = line(9.0)
    drawn = fibres.draw(canvas(10.0), pixels + 100, far, strand, scale=100)
    assert drawn.alpha.max() == 0
    assert torch.isfinite(drawn.image).all()


def test_of_two_strands_that_cross_the_nearer_has_more_say():
    a, b = line(8.9, colour=1.0), line(9.2, colour=0.0)
    both = Fibres(*(torch.cat([p, q], 1 if i == 2 else 0) for i, (p, q) in enumerate(zip(a[2], b[2], strict=True))))
    drawn = fibres.draw(canvas(10.0), torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]]), both, scale=100)
    assert 0.7 < float(drawn.image[0, 16, 16] / drawn.alpha[16, 16]) < 1


def test_hair_grows_on_the_hair_and_the_same_every_time():
    for name in ("mira", "theo", "ada"):
        who = PRESENTERS[name]
        hair, again = fibres.grow_hair(who, 300), fibres.grow_hair(who, 300)
        assert torch.equal(hair.curves, again.curves)
        root = hair.curves[:, 0]
        assert head.hair(root[:, 0], root[:, 1], root[:, 2], who.haircut).abs().quantile(0.99) < 0.08
        assert len(hair.curves) > 200
        assert 0 <= hair.fade.min() <= hair.fade.max() <= 1


def test_lashes_ride_on_the_lid_and_lie_down_with_it():
    who = PRESENTERS["mira"]
    traits, (upper, _) = unpack(who.traits.packed()), fibres.grow_lashes(who)
    opened = fibres.lash_curves(upper, pose(weights({}), 0.25), traits, upper=True)
    shut = fibres.lash_curves(upper, pose(weights({"eyeBlink": 1.0}), 0.25), traits, upper=True)
    assert (opened[:, 0, 1] > shut[:, 0, 1]).all()
    assert (opened[:, -1, 1] > opened[:, 0, 1]).float().mean() > 0.9, "open lashes sweep up"
    assert (shut[:, -1, 1] < shut[:, 0, 1]).float().mean() > 0.9, "shut ones hang"


def test_brows_rise_with_their_muscles():
    who = PRESENTERS["ada"]
    traits = unpack(who.traits.packed())
    stubs = fibres.grow_brows(who, lambda x, y: torch.full_like(x, 0.8), count=60)
    low = fibres.brow_curves(stubs, pose(weights({}), 0.25), traits)
    high = fibres.brow_curves(stubs, pose(weights({"browInnerUp": 1.0, "browOuterUp": 1.0}), 0.25), traits)
    assert ((high - low)[:, :, 1] > 0.01).all()


def test_curls_wind_about_where_the_strand_lay_and_stay_on_the_head():
    straight = torch.stack([torch.linspace(0, 1, 14), torch.zeros(14), torch.zeros(14)], 1)[None]
    normals = torch.tensor([0.0, 0.0, 1.0]).expand(1, 14, 3)
    wound = fibres.coiled(straight, normals, torch.tensor([0.3]), torch.tensor([1.0]))
    off = wound - straight
    assert off.norm(dim=-1).max() < 0.06
    assert off[..., 2].min() > -1e-6, "never into the scalp"
    turns = torch.sign(off[0, :, 1])
    assert int((turns[1:] != turns[:-1]).sum()) >= 4, "from side to side, two to three times"
