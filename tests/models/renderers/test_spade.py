"""A map that modulates: asked once for any number of pictures; nobody's business but the picture's own."""

import torch

from models.renderers.spade import Adain, Said, Spade, normalised


def test_what_a_map_says_once_is_what_it_would_say_to_each() -> None:
    torch.manual_seed(0)
    spade = Spade(6, 4, 8)
    many, told = torch.randn(2, 5, 6, 8, 8), torch.randn(2, 4, 16, 16)
    once = spade(many, spade.listen(told, 8, 8))
    for number in range(many.shape[1]):
        torch.testing.assert_close(once[:, number], spade(many[:, number], spade.listen(told, 8, 8)))


def test_a_map_that_says_nothing_leaves_a_plane_normalised() -> None:
    x = 3 + 2 * torch.randn(2, 3, 9, 9)
    nothing = Said(torch.zeros(2, 3, 9, 9), torch.zeros(2, 3, 9, 9))
    made = Spade(3, 1, 2)(x, nothing)
    assert made.mean((2, 3)).abs().max() < 1e-5
    torch.testing.assert_close(made.var((2, 3), correction=0), torch.ones(2, 3), atol=1e-3, rtol=0)


def test_a_flat_plane_stays_finite() -> None:
    assert normalised(torch.full((1, 1, 4, 4), 7.0)).isfinite().all()


def test_a_vector_begins_by_changing_nothing_and_then_moves_whole_planes() -> None:
    x, vector = torch.randn(2, 3, 5, 5), torch.randn(2, 4)
    adain = Adain(3, 4)
    torch.testing.assert_close(adain(x, vector), normalised(x))
    torch.nn.init.normal_(adain.say.weight)
    shift = (adain(x, vector) - (1 + adain.say(vector)[:, :3, None, None]) * normalised(x)).std((2, 3))
    assert shift.max() < 1e-5
