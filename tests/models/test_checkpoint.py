"""A run on disk: what is read is what was written, whatever happens meanwhile."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from models import checkpoint


def run(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    return network, torch.optim.AdamW(network.parameters(), 1e-2)


def taught(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> list[float]:
    costs = []
    for step in range(steps):
        given = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        cost = network(given).square().mean() + network[0].weight.sum()  # type: ignore[index,union-attr]
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        costs.append(cost.item())
    return costs


def test_what_goes_on_goes_on_as_it_would_have(tmp_path: Path) -> None:
    network, optimizer = run(0)
    taught(network, optimizer)
    path = tmp_path / "new" / "run.safetensors"
    curve = torch.tensor([1.0, 0.5])
    checkpoint.save(path, {"network": network, "optimizer": optimizer}, {"curve": curve}, {"step": "3"})
    again = run(1)
    kept = checkpoint.load(path)
    kept.into({"network": again[0], "optimizer": again[1]})
    assert kept.facts == {"step": "3"}
    assert kept.figures.keys() == {"curve"}
    torch.testing.assert_close(kept.figures["curve"], curve)
    assert taught(*again) == taught(network, optimizer)


def test_an_optimiser_that_has_not_stepped_is_one_without_a_state(tmp_path: Path) -> None:
    network, optimizer = run(0)
    checkpoint.save(tmp_path / "run.safetensors", {"network": network, "optimizer": optimizer}, {}, {})
    again = run(1)
    checkpoint.load(tmp_path / "run.safetensors").into({"network": again[0], "optimizer": again[1]})
    assert taught(*again) == taught(network, optimizer)


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.safetensors"
    checkpoint.write(path, {"x": torch.ones(2)}, {"step": "1"})

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)  # all is written, and not yet in its place
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(path, {"x": torch.zeros(2)}, {"step": "2"})
    kept = checkpoint.load(path)
    assert kept.facts == {"step": "1"}
    assert kept.tensors["x"].tolist() == [1, 1]
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_tensors_are_written_as_they_are_meant_not_as_they_lie(tmp_path: Path) -> None:
    """safetensors refuses what shares memory and writes a transposed array as another one."""
    base = torch.arange(6.0).reshape(2, 3)
    checkpoint.write(tmp_path / "x.safetensors", {"turned": base.mT, "same": base}, {})
    kept = checkpoint.load(tmp_path / "x.safetensors").tensors
    torch.testing.assert_close(kept["turned"], base.mT)
