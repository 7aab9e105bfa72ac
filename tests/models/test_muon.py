"""Muon: all directions of a gradient count the same; it learns; what was killed goes on."""

from pathlib import Path

import pytest
import torch

from models import checkpoint
from models.muon import Muon, even


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (12, 12)])
def test_directions_come_out_about_equally_strong_and_the_same(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    strengths = torch.logspace(0, -1.5, min(shape))
    left, right = (torch.linalg.qr(torch.randn(side, len(strengths)))[0] for side in shape)
    made = left.mT @ even(1e-3 * left * strengths @ right.mT) @ right
    found = made.diagonal()
    assert ((found > 0.6) & (found < 1.3)).all()
    assert (made - torch.diag(found)).abs().max() < 1e-3


def test_a_gradient_of_nothing_moves_nothing() -> None:
    assert even(torch.zeros(3, 5)).abs().max() == 0


def problem() -> tuple[torch.nn.Conv2d, torch.Tensor, torch.Tensor]:
    """A kernel to be found, one of whose inputs is thirty times as faint as another."""
    torch.manual_seed(1)
    x = torch.randn(16, 6, 8, 8) * torch.logspace(0, -1.5, 6)[:, None, None]
    wanted = torch.nn.Conv2d(6, 10, 3, bias=False)
    with torch.no_grad():
        y = wanted(x)
    return torch.nn.Conv2d(6, 10, 3, bias=False), x, y


def test_it_finds_a_kernel_whose_inputs_are_faint_and_strong() -> None:
    layer, x, y = problem()
    optimizer = Muon(layer.parameters(), 0.02)
    costs = []
    for _ in range(120):
        cost = (layer(x) - y).square().mean()
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        costs.append(float(cost.detach()))
    assert costs[-1] < 0.02 * costs[0]


def test_what_was_killed_goes_on(tmp_path: Path) -> None:
    def stepped(times: int, kept: Path | None = None) -> tuple[torch.nn.Conv2d, Muon]:
        layer, x, y = problem()
        optimizer = Muon(layer.parameters(), 0.02)
        if kept is not None:
            checkpoint.load(kept).into({"layer": layer, "optimizer": optimizer})
        for _ in range(times):
            optimizer.zero_grad()
            (layer(x) - y).square().mean().backward()
            optimizer.step()
        return layer, optimizer

    layer, optimizer = stepped(3)
    checkpoint.save(tmp_path / "run", {"layer": layer, "optimizer": optimizer}, {}, {})
    torch.testing.assert_close(stepped(2, tmp_path / "run")[0].weight, stepped(5)[0].weight)
