"""Light taken off and put on: a made face under a lamp it was never lit by."""

import torch

from models.renderers.lighting import evened, filled, light, luma_gain, matt

SIZE = 64


def skin() -> torch.Tensor:
    """A symmetric albedo with grain, a dark mouth and two eyes."""
    torch.manual_seed(0)
    half = 0.5 + 0.05 * torch.randn(1, 1, SIZE, SIZE // 2)
    picture = torch.cat([half, half.flip(-1)], -1) * torch.tensor([1.0, 0.8, 0.7])[:, None, None]
    picture[..., 44:50, 22:42] *= 0.3
    picture[..., 18:22, 14:22] *= 0.4
    picture[..., 18:22, 42:50] *= 0.4
    return picture


def lamp(strength: float = 0.5) -> torch.Tensor:
    """A smooth gain from left to right."""
    return (1 - strength / 2 + strength * torch.linspace(0, 1, SIZE)).expand(1, 1, SIZE, SIZE)


def test_the_gain_of_a_lamp_is_found() -> None:
    gain, _ = luma_gain(skin(), skin() * lamp())
    inside = slice(4, -4)
    assert (gain / lamp() - 1)[..., inside, inside].abs().max() < 0.03


def test_a_mouth_that_differs_is_weighed_down_and_the_light_goes_on_across_it() -> None:
    moved = skin() * lamp()
    moved[..., 40:54, 22:42] = torch.rand(1, 3, 14, 20)  # another mouth, where the reference's was
    gain, weights = luma_gain(skin(), moved)
    assert weights[0, 0, 42:52, 24:40].mean() < 0.3 < 0.8 < weights[0, 0, 26:36].mean()
    assert (gain / lamp() - 1).abs()[0, 0, 30:38, 8:56].max() < 0.06


def test_light_put_on_makes_the_frame_and_back_again_the_reference() -> None:
    reference, frame = skin(), skin() * lamp() * torch.tensor([1.1, 1.0, 0.85])[:, None, None] + 0.02
    there, back = light(reference, frame).on(reference), light(frame, reference).on(frame)
    before = (reference - frame).abs().mean()
    assert (there - frame).abs().mean() < 0.1 * before
    assert (back - reference).abs().mean() < 0.25 * before  # luma's gain undoes no colours' scale exactly


def test_a_face_lit_from_one_side_is_made_even_by_its_darker_side_alone() -> None:
    one_sided = skin() * lamp(0.6).clamp(max=1)
    even = evened(one_sided)
    sides = even[..., : SIZE // 2].mean() / even[..., SIZE // 2 :].mean()
    assert abs(sides - 1) < 0.03 < abs(one_sided[..., : SIZE // 2].mean() / one_sided[..., SIZE // 2 :].mean() - 1)
    torch.testing.assert_close(even[..., -8:], one_sided[..., -8:], atol=0.02, rtol=0)  # the bright side is as it was


def test_a_highlight_goes_and_the_skin_stays() -> None:
    plain = skin()
    shiny = plain.clone()
    spot = torch.exp(-((torch.arange(SIZE)[:, None] - 30) ** 2 + (torch.arange(SIZE) - 20) ** 2) / 18.0)
    shiny = 0.7 * spot + (1 - 0.7 * spot) * shiny
    clean = matt(shiny, torch.ones(1, 1, SIZE, SIZE))
    peak = (..., slice(27, 34), slice(17, 24))
    assert (clean[peak] - plain[peak]).abs().mean() < 0.3 * (shiny[peak] - plain[peak]).abs().mean()
    torch.testing.assert_close(clean[..., 54:, :], shiny[..., 54:, :])


def test_where_no_skin_is_seen_nothing_shines() -> None:
    torch.testing.assert_close(matt(skin(), torch.zeros(1, 1, SIZE, SIZE)), skin())


def test_holes_are_filled_from_beside_them_even_when_almost_nothing_is_known() -> None:
    picture = torch.zeros(1, 3, 16, 16)
    picture[..., 0, 0] = 0.6
    known = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    known[..., 0, 0] = True
    torch.testing.assert_close(filled(picture, known), torch.full_like(picture, 0.6))


def test_a_black_texture_is_no_reason_for_infinity() -> None:
    lit = light(torch.zeros(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    assert all(part.isfinite().all() for part in lit)
