"""How alike two pictures look to a network that knows the world: VGG-19's layers, when a file of its weights is given.

Its weights come from a public hub and are not ours to ship: `Vgg(file)` reads a local safetensors file with
torchvision's names (`features.0.weight` …). Without one, gradients at several finenesses and SSIM stand in, and a
report says so (`Perception.name`).
"""

from pathlib import Path
from typing import Final, Protocol, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from .. import losses

HEARD: Final = (1, 6, 11, 20, 29)
"""relu1_1, relu2_1, relu3_1, relu4_1, relu5_1 of `features`."""
PLAN: Final = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)
"""Channels of VGG-19's convolutions as far as relu5_1; 0 is a pool."""
MEAN: Final = (0.485, 0.456, 0.406)
SPREAD: Final = (0.229, 0.224, 0.225)


class MissingWeightsError(ValueError):
    """A file that is not VGG-19's."""


class Perception(Protocol):
    name: str

    def content(self, said: Tensor, true: Tensor) -> Tensor: ...
    def style(self, said: Tensor, true: Tensor) -> Tensor: ...


class Vgg(nn.Module):
    name = "VGG-19"

    def __init__(self, file: Path) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        into = 3
        for width in PLAN:
            layers += [nn.Conv2d(into, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
            into = width or into
        self.features = nn.Sequential(*layers)
        weights = load_file(file)
        wanted = self.state_dict()
        wrong = [name for name, tensor in wanted.items() if getattr(weights.get(name), "shape", None) != tensor.shape]
        if wrong:
            raise MissingWeightsError(f"{file} is not VGG-19 as torchvision names it: {wrong[0]} is missing or differs")
        self.load_state_dict({name: weights[name] for name in wanted})
        self.requires_grad_(False)
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("spread", torch.tensor(SPREAD)[:, None, None])

    def see(self, picture: Tensor) -> list[Tensor]:
        x = (picture - self.mean) / self.spread
        seen = []
        for number, layer in enumerate(self.features):
            x = cast(Tensor, layer(x))
            if number in HEARD:
                seen.append(x)
        return seen

    def content(self, said: Tensor, true: Tensor) -> Tensor:
        pairs = zip(self.see(said), self.see(true), strict=True)
        return torch.stack([(a - b).abs().mean() for a, b in pairs]).sum()

    def style(self, said: Tensor, true: Tensor) -> Tensor:
        pairs = zip(self.see(said), self.see(true), strict=True)
        return torch.stack([(_gram(a) - _gram(b)).abs().mean() for a, b in pairs]).sum()


class Plain:
    """Without weights: colours, gradients at several finenesses, and structure. Style is of the gradients alone."""

    name = "multi-scale gradient and SSIM (no VGG weights were given)"

    def content(self, said: Tensor, true: Tensor) -> Tensor:
        return losses.l1(said, true) + losses.gradients(said, true) + 0.15 * losses.dissimilarity(said, true)

    def style(self, said: Tensor, true: Tensor) -> Tensor:
        return losses.l1(_gram(_slopes(said)), _gram(_slopes(true)))


def _gram(x: Tensor) -> Tensor:
    flat = x.flatten(2)
    return flat @ flat.mT / (flat.shape[1] * flat.shape[2])


def _slopes(picture: Tensor) -> Tensor:
    x = F.pad(picture, (0, 1, 0, 1), mode="replicate")
    return torch.cat([x[..., :-1, 1:] - picture, x[..., 1:, :-1] - picture], 1)
