"""Edges: one pixel wide, where the picture changes; faint ones only where a strong one leads."""

import torch

from models.renderers.canny import edges


def step(height: float, size: int = 32) -> torch.Tensor:
    picture = torch.zeros(1, 3, size, size)
    picture[..., size // 2 :] = height
    return picture


def test_a_step_is_one_line() -> None:
    found = edges(step(1.0))[0, 0]
    inside = found[2:-2]
    assert (inside.sum(1) == 1).all()
    assert inside.argmax(1).float().sub(15.5).abs().max() <= 0.5


def test_a_flat_picture_has_none() -> None:
    assert edges(torch.full((2, 3, 16, 16), 0.5)).sum() == 0


def test_a_faint_step_is_seen_only_where_it_goes_on_from_a_strong_one() -> None:
    assert edges(step(0.2)).sum() == 0
    fading = step(1.0)
    fading *= torch.linspace(1, 0.2, 32)[:, None]
    joined = edges(fading)[0, 0]
    assert joined[24:30].sum() >= 5


def test_neighbours_in_the_batch_say_nothing() -> None:
    a, b = torch.rand(1, 3, 24, 24), step(1.0, 24)
    torch.testing.assert_close(edges(torch.cat([a, b]))[1:], edges(b))
