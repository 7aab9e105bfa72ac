"""A run on disk: networks, optimisers, figures and facts in one safetensors file. What was killed goes on from it.

    save(path, {"network": network, "optimizer": optimizer}, {"curve": curve}, {"step": "500"})
    kept = load(path)
    kept.into({"network": network, "optimizer": optimizer})
    curve, step = kept.figures["curve"], int(kept.facts["step"])

No pickle: whoever is given a file runs none of its code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as packed
from torch import Tensor, nn

from .avatar import write_atomically

Part = nn.Module | torch.optim.Optimizer
"""What has a state: its name is what its tensors are called by."""


@dataclass(frozen=True, eq=False)
class Kept:
    """What a file holds."""

    facts: dict[str, str]
    tensors: dict[str, Tensor]

    @property
    def figures(self) -> dict[str, Tensor]:
        """What is of no part."""
        return {name: tensor for name, tensor in self.tensors.items() if "." not in name}

    def into(self, parts: Mapping[str, Part]) -> None:
        """Gives each part, built as the one that was saved, its state."""
        for name, part in parts.items():
            mine = _below(f"{name}.", self.tensors)
            if isinstance(part, nn.Module):
                part.load_state_dict(mine)
                continue
            state = part.state_dict()
            for key, tensor in mine.items():
                index, slot = key.split(".")
                state["state"].setdefault(int(index), {})[slot] = tensor
            part.load_state_dict(state)


def save(path: Path, parts: Mapping[str, Part], figures: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """`parts` by names without a full stop; `figures` likewise. Directories are made that are missing."""
    tensors = dict(figures)
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            tensors |= {f"{name}.{key}": tensor for key, tensor in part.state_dict().items()}
            continue
        for index, slots in part.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, tensors, facts)


def load(path: Path) -> Kept:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        return Kept(file.metadata() or {}, tensors)


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Beside, and moved: a kill leaves the old file whole, a full disk nothing but it."""
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomically(path, packed(whole, dict(facts)))


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
