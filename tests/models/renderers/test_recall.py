"""What is recalled: the picture of a mouth that was seen, a fair guess between two, and nothing absurd beyond."""

from functools import cache

import pytest
import torch
from torch import Tensor

from models.renderers import recall
from models.renderers.recall import FOLDS, Folds, Recall, learn, pieces
from tests.models.renderers.test_raster import mouth

SIZE, FRAMES = 128, 160


def opening(row: int) -> float:
    return 2 + 20 * ((row * 37) % FRAMES) / FRAMES


def picture(opened: float, light: float = 1.0) -> Tensor:
    """[3, S, S] in bytes: a dark ellipse as high as the mouth is open, in skin of some brightness."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    far = torch.hypot((x - 64) / 18, (y - 68) / (opened / 2 + 0.5))
    dark = ((1.3 - far) / 0.6).clamp(0, 1)
    return (light * (150 - 100 * dark)).expand(3, -1, -1).round().byte()


@cache
def footage() -> tuple[Tensor, Tensor]:
    lights = [0.9 + 0.2 * (row % 7) / 6 for row in range(FRAMES)]
    patches = torch.stack([picture(opening(row), light) for row, light in enumerate(lights)])
    return patches, torch.cat([mouth(opening(row)) for row in range(FRAMES)])


@cache
def taught() -> tuple[Recall, Folds, Tensor]:
    patches, spoken = footage()
    one = Recall(SIZE, 60)
    hole = torch.zeros(SIZE, SIZE)
    hole[28:108, 14:114] = 1
    mean = patches.float().mean(0) / 255
    folds = learn(one, patches, spoken, mean, hole, torch.zeros(SIZE, SIZE), pieces([FRAMES]))
    return one, folds, mean


def recalled(spoken: Tensor, light: float = 1.0) -> Tensor:
    one, _, mean = taught()
    tone = one.toned(picture(6.0, light)[None].float() / 255)
    return mean + one.picture(one.amount(spoken, tone))[0]


def middle(one: Tensor) -> Tensor:
    return one[:, 50:86, 40:88]


def test_a_mouth_that_was_not_seen_is_recalled_from_its_neighbours() -> None:
    for opened in (4.3, 11.1, 18.7):
        wrong = middle(recalled(mouth(opened)) - picture(opened).float() / 255)
        mean = middle(taught()[2] - picture(opened).float() / 255)
        assert float(wrong.square().mean()) < 0.05 * float(mean.square().mean())


def test_it_is_as_bright_as_what_is_seen_round_the_mouth() -> None:
    dark, bright = (middle(recalled(mouth(12.0), light)).mean() for light in (0.92, 1.08))
    assert float(bright / dark) == pytest.approx(1.08 / 0.92, rel=0.05)


def test_nothing_is_recalled_at_the_edge_nor_of_the_hidden_mouth() -> None:
    one, _, _ = taught()
    said = one.picture(one.amount(mouth(12.0), torch.zeros(1, recall.TONES)))[0]
    down, across = one.box
    outside = torch.ones(SIZE, SIZE, dtype=torch.bool)
    outside[down, across] = False
    assert float(said[:, outside].abs().max()) == 0
    other = torch.where(one.seen > 0, picture(6.0), 255 - picture(6.0))[None].float() / 255
    torch.testing.assert_close(one.toned(other), one.toned(picture(6.0)[None].float() / 255))


@pytest.mark.parametrize("opened", [-300.0, 60.0, 1e5])
def test_a_mouth_beyond_all_that_was_seen_is_one_that_was(opened: float) -> None:
    said = recalled(mouth(opened))
    assert -0.2 < float(said.min()) <= float(said.max()) < 1.2
    widest = middle(recalled(mouth(22.0 if opened > 0 else 2.0)))
    assert float((middle(said) - widest).abs().mean()) < 0.12


def test_what_is_left_out_is_recalled_without_having_been_seen() -> None:
    """One frame of a mouth that is like no other: all of the footage knows it, the footage without it does not."""
    patches, spoken = (part.clone() for part in footage())
    patches[5], spoken[5] = 255 - patches[5], mouth(50.0)[0]
    one, mean = Recall(SIZE, 60), patches.float().mean(0) / 255
    hole = torch.zeros(SIZE, SIZE)
    hole[28:108, 14:114] = 1
    folds = learn(one, patches, spoken, mean, hole, torch.zeros(SIZE, SIZE), pieces([FRAMES]))
    tone = one.toned(patches[5:6].float() / 255)
    whole = one.amount(spoken[5:6], tone)
    without = folds.amount(one, torch.tensor([5]), spoken[5:6], tone)
    errors = [
        float((middle(mean + one.picture(amount)[0]) - middle(patches[5]).float() / 255).abs().mean())
        for amount in (whole, without)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_pieces_go_round_and_are_never_longer_than_some_seconds() -> None:
    parts = pieces([300, 40, 1])
    assert len(parts) == 341
    assert set(parts.tolist()) == set(range(FOLDS))
    longest = max(
        len(run) for run in torch.split(parts, torch.unique_consecutive(parts, return_counts=True)[1].tolist())
    )
    assert longest <= 341 // (2 * FOLDS)
    assert set(pieces([3]).tolist()) == {0, 1, 2}


def test_very_little_footage_is_enough_to_begin_with() -> None:
    patches, spoken = (part[:6] for part in footage())
    one = Recall(SIZE, 2)
    hole = torch.ones(SIZE, SIZE)
    hole[:20] = 0
    folds = learn(one, patches, spoken, patches.float().mean(0) / 255, hole, torch.zeros(SIZE, SIZE), pieces([6]))
    tone = one.toned(patches.float() / 255)
    for amount in (one.amount(spoken, tone), folds.amount(one, torch.arange(6), spoken, tone)):
        assert bool(one.picture(amount).isfinite().all())
