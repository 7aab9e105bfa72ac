"""Judges of pix2pixHD: their size, what they ask of a renderer, and that they can be taught to tell."""

import torch

from models.renderers.adversary import Adversary, Judge, alike, convincing, unmasked


def test_the_judge_is_the_published_one() -> None:
    """70 × 70 patches: 4 × 4 kernels of 64, 128, 256, 512 channels, then 1; of an RGB picture and a map of 3."""
    shapes = [tuple(layer.weight.shape) for layer in Judge(6).modules() if isinstance(layer, torch.nn.Conv2d)]
    assert shapes == [(64, 6, 4, 4), (128, 64, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4), (1, 512, 4, 4)]


def test_who_shows_the_truth_is_alike_and_loses_nothing() -> None:
    torch.manual_seed(0)
    adversary, given, true = Adversary(4, width=4), torch.rand(1, 1, 32, 32), torch.rand(1, 3, 32, 32)
    verdicts = adversary(given, true)
    assert len(verdicts) == 2
    assert alike(verdicts, adversary(given, true)) == 0
    assert alike(verdicts, adversary(given, 1 - true)) > 0


def test_an_adversary_learns_to_tell_and_a_renderer_to_convince_it() -> None:
    torch.manual_seed(0)
    adversary, given = Adversary(4, width=4), torch.zeros(4, 1, 32, 32)
    true, false = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32) * 0.2
    optimiser = torch.optim.Adam(adversary.parameters(), 5e-3)
    with torch.no_grad():
        before = float(unmasked(adversary(given, true), adversary(given, false)))
    for _ in range(15):
        loss = unmasked(adversary(given, true), adversary(given, false))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.3 * before
    assert convincing(adversary(given, true)) < convincing(adversary(given, false))
