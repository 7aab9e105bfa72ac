"""Zheng et al.'s renderer: pix2pixHD's size, attention that begins by adding nothing, and that it can learn a map."""

import pytest
import torch

from models.renderers import Loop
from models.renderers.facemap import Attention, Facemap, Global
from tests.models.renderers.test_lines import drawn_face

SIZE = 32


def facemap() -> Facemap:
    torch.manual_seed(0)
    return Facemap(SIZE, width=8, halvings=2, blocks=2, attentions=1)


def test_the_coarse_generator_is_as_large_as_published() -> None:
    """pix2pixHD's: 64 channels, 4 halvings, 9 residual blocks; 182.5 million parameters with its last layer (3 planes
    of 7 × 7 × 64) and for a map of 4 planes."""
    whole = Global(4, 64, 4, 9, attentions=0)
    ours = sum(p.numel() for p in whole.parameters()) + 3 * 49 * 64 + 3
    convolutions = 49 * 4 * 64 + 64
    for level in range(4):
        a, b = 64 << level, 128 << level
        convolutions += 2 * (9 * a * b) + a + b
    convolutions += 9 * 2 * (9 * 1024 * 1024 + 1024) + 3 * 49 * 64 + 3
    assert ours == convolutions
    assert ours == pytest.approx(182.5e6, rel=5e-3)


def test_attention_begins_by_adding_nothing_and_then_sees_the_whole_picture() -> None:
    torch.manual_seed(0)
    attention, x = Attention(8), torch.randn(1, 8, 6, 6)
    torch.testing.assert_close(attention(x), x)
    torch.nn.init.ones_(attention.share)
    far = x.clone()
    far[..., 5, 5] += 3
    assert (attention(far) - attention(x))[..., 0, 0].abs().max() > 1e-4


def test_a_new_mouth_is_drawn_and_the_old_ones_edges_are_left_out() -> None:
    renderer = facemap()
    renderer.spoken[16:] = 1
    patches = (torch.rand(2, 3, SIZE, SIZE) > 0.5).float()
    one = torch.ones(2, 1)
    loop = Loop(patches, one.expand(2, 4), one.expand(2, 2), *(torch.zeros(2, 8, 8) for _ in range(3)))
    edges = renderer.prepare(loop)["edges"]
    assert edges[:, :, :16].sum() > 0
    assert edges[:, :, 16:].sum() == 0


def test_lines_have_no_colour_so_the_painted_face_takes_the_frames() -> None:
    renderer = facemap()
    renderer.spoken[16:] = 1
    painted, frame = torch.full((1, 3, SIZE, SIZE), 0.5), torch.rand(1, 3, SIZE, SIZE) * 0.2 + 0.4
    frame[:, :, 16:] = 9  # where the mouth is, nothing is asked
    toned = renderer.toned(painted, renderer.tone(frame))
    torch.testing.assert_close(renderer.tone(toned), renderer.tone(frame))
    assert 0.4 < float(toned.mean()) < 0.6


def test_a_session_does_not_depend_on_its_neighbour() -> None:
    renderer = facemap().eval()
    points = torch.cat([drawn_face() * SIZE / 128] * 2)
    points[1, :41, 1] += 3
    rows = {"edges": torch.rand(2, 1, SIZE, SIZE).round(), "similarity": torch.tensor([[1.0, 0, 0, 0]] * 2)}
    rows["tone"] = torch.tensor([[0.6, 0.5, 0.4], [0.3, 0.3, 0.3]])
    with torch.no_grad():
        both, mask, state = renderer.draw(rows, points, torch.zeros(2, 0), ())
        alone, _, _ = renderer.draw({n: r[1:] for n, r in rows.items()}, points[1:], torch.zeros(1, 0), ())
    assert state == ()
    assert mask.shape == (2, 1, SIZE, SIZE)
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)


def test_a_size_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="32s of pixels wide, not 100"):
        Facemap(100)


def test_it_learns_what_a_map_means() -> None:
    renderer, maps = facemap(), torch.rand(2, 4, SIZE, SIZE).round()
    true = torch.nn.functional.avg_pool2d(maps[:, :3], 3, 1, 1)
    optimiser = torch.optim.Adam(renderer.parameters(), 5e-3)
    losses = []
    for _ in range(30):
        loss = (renderer.paint_by(maps) - true).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
